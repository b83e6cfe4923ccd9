"""Tiny random checkpoints of transformers models, written as the hub has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

_SAID = (
    "a the man woman dog ball cat red blue runs throws eats sleeps in on with park house sentence short "
    "same user assistant system say what you see it is and of who while tall green small . : , ?"
)
WORDS = _SAID.split()
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<|image_pad|>", "<|vision_start|>"]
SPECIAL += ["<|vision_end|>", "<|video_pad|>", "<|turn|>", "<|end|>"]

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn|> {{ message['role'] }} : "
    "{{ message['content'] }} <|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|> assistant : {% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
VISION_TEMPLATE = (
    "{% for message in messages %}<|turn|> {{ message['role'] }} : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %} {{ part['text'] }}{% endif %}{% endfor %} <|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|turn|> assistant : {% endif %}"
)
QWEN_TEMPLATE = VISION_TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
LLAVA_TEMPLATE = VISION_TEMPLATE.replace("IMAGE", "<image>")


def identity(token: str) -> int:
    """The number of a token."""
    return (SPECIAL + WORDS).index(token)


def tokenizer(*, ends: bool = False, template: str | None = None, **options: Any) -> Any:
    """Words as tokens; with ``ends`` a text stands between <s> and </s>."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: place for place, token in enumerate(SPECIAL + WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if ends:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[4:],
        **options,
    )
    fast.chat_template = template
    return fast


def draw(model: torch.nn.Module, *, scale: float = 0.4, seed: int = 5) -> Any:
    """Large random weights: with small ones all inputs would look the same to the model.

    They are the same each time; biases and scales are left as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 or parameter.unique().numel() > 1:
                parameter.normal_(0.0, scale, generator=generator)
    return model.eval()


def text_sizes(**options: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(SPECIAL + WORDS),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **options,
    }


def vision_sizes(**options: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        **options,
    }


def clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    config = CLIPConfig(
        text_config=text_sizes(max_position_embeddings=12),
        vision_config=vision_sizes(),
        projection_dim=10,
    )
    draw(CLIPModel(config)).save_pretrained(folder)
    size = {"shortest_edge": 32}
    crop = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size=size, crop_size=crop).save_pretrained(folder)
    tokenizer(ends=True, model_max_length=12).save_pretrained(folder)
    return folder


def siglip(folder: Path) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    config = SiglipConfig(
        text_config=text_sizes(max_position_embeddings=9, projection_size=16),
        vision_config=vision_sizes(),
    )
    draw(SiglipModel(config)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    words = tokenizer(ends=False, model_input_names=["input_ids"])
    words.save_pretrained(folder)
    return folder


def siglip2(folder: Path) -> Path:
    from transformers import Siglip2Config, Siglip2ImageProcessorPil, Siglip2Model

    vision = vision_sizes(num_patches=16)
    del vision["image_size"]
    config = Siglip2Config(
        text_config=text_sizes(max_position_embeddings=9, projection_size=16), vision_config=vision
    )
    draw(Siglip2Model(config)).save_pretrained(folder)
    Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder)
    tokenizer(ends=False, model_input_names=["input_ids"]).save_pretrained(folder)
    return folder


def llama(folder: Path, template: str | None = TEMPLATE, *, end: int = 2, **options: Any) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = text_sizes(num_key_value_heads=1, max_position_embeddings=200, eos_token_id=end)
    sizes["tie_word_embeddings"] = True  # so the weights lack a tensor that the model has
    model = draw(LlamaForCausalLM(LlamaConfig(**sizes)))
    # What instruct models come with; it is not to be sampled all the same.
    model.generation_config.do_sample = True
    model.generation_config.temperature = 0.6
    model.generation_config.top_p = 0.9
    model.save_pretrained(folder, **options)
    tokenizer(template=template).save_pretrained(folder)
    return folder


def qwen2_5_vl(folder: Path) -> Path:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessorPil,
    )

    config = Qwen2_5_VLConfig(
        text_config=text_sizes(
            num_key_value_heads=1,
            max_position_embeddings=400,
            rope_parameters={
                "rope_type": "default",
                "mrope_section": [1, 1, 2],
                "rope_theta": 10000.0,
            },
        ),
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 16,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        image_token_id=identity("<|image_pad|>"),
        video_token_id=identity("<|video_pad|>"),
        vision_start_token_id=identity("<|vision_start|>"),
        vision_end_token_id=identity("<|vision_end|>"),
    )
    draw(Qwen2_5_VLForConditionalGeneration(config)).save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        patch_size=4, size={"shortest_edge": 8 * 8, "longest_edge": 40 * 40}
    ).save_pretrained(folder)
    tokenizer(template=QWEN_TEMPLATE).save_pretrained(folder)
    return folder


def llava(folder: Path) -> Path:
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    config = LlavaConfig(
        text_config=LlamaConfig(**text_sizes(max_position_embeddings=200)),
        vision_config=CLIPVisionConfig(**vision_sizes()),
        image_token_id=identity("<image>"),
    )
    draw(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def llava_next(folder: Path) -> Path:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessorPil,
        LlavaNextProcessor,
    )

    grids = [[32, 64], [64, 32], [64, 64]]
    config = LlavaNextConfig(
        text_config=LlamaConfig(**text_sizes(max_position_embeddings=400)),
        vision_config=CLIPVisionConfig(**vision_sizes()),
        image_token_id=identity("<image>"),
        image_grid_pinpoints=grids,
    )
    draw(LlavaNextForConditionalGeneration(config)).save_pretrained(folder)
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=grids,
    )
    LlavaNextProcessor(
        images,
        tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def blip2(folder: Path) -> Path:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessorPil,
    )

    config = Blip2Config(
        vision_config=vision_sizes(),
        qformer_config={
            **text_sizes(),
            "encoder_hidden_size": 16,
            "cross_attention_frequency": 1,
        },
        text_config={
            "model_type": "opt",
            **text_sizes(max_position_embeddings=100),
            "ffn_dim": 24,
            "word_embed_proj_dim": 16,
        },
        num_query_tokens=3,
        image_token_index=identity("<image>"),
    )
    draw(Blip2ForConditionalGeneration(config), seed=1).save_pretrained(folder)
    Blip2Processor(
        BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer(), num_query_tokens=3
    ).save_pretrained(folder)
    return folder


def sentence_transformer(folder: Path, *, dense: bool = False) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from transformers import BertConfig, BertModel

    sizes = text_sizes(max_position_embeddings=24)
    draw(BertModel(BertConfig(**sizes))).save_pretrained(folder / "bert")
    tokenizer(ends=True, model_max_length=24).save_pretrained(folder / "bert")
    bert = modules.Transformer(str(folder / "bert"))
    steps = [bert, modules.Pooling(16, pooling_mode="mean")]
    if dense:
        steps.append(draw(modules.Dense(16, 6)))
    SentenceTransformer(modules=[*steps, modules.Normalize()], device="cpu").save_pretrained(
        str(folder / "model")
    )
    return folder / "model"
