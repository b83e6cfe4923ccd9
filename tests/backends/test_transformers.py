"""Models of transformers: what comes out is what the library gives by hand, whatever the batches."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests import videos
from tests.backends import tiny_models
from vmr import backends
from vmr.backends.base import Encoder, SentenceEncoder, TokenEncoder
from vmr.backends.captioning import VisionModel, whole_sentences
from vmr.backends.rewriting import Message, TextGenerator
from vmr.backends.spec import parse
from vmr.backends.transformers.encoders import ImageTextEncoder, SentenceTransformerEncoder
from vmr.backends.transformers.generation import ChatModel
from vmr.backends.transformers.vision import VisionLanguageModel
from vmr.errors import BackendError
from vmr.video import Frames

pytestmark = pytest.mark.xdist_group("transformers")

TEXTS = [
    "a man",
    "the woman runs in the park with a red ball and a blue dog on the house",
    "dog",
    "a cat sleeps on the house",
    "",
]


def pixels(count: int = 5, height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    draw = np.random.default_rng(3)
    return draw.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def frames(shown: NDArray[np.uint8]) -> Frames:
    times = np.arange(len(shown), dtype=np.float64)
    return Frames(times, lambda: (shown, times))


def jpeg(height: int, width: int, seed: int) -> bytes:
    # Coarse fields, so that the picture survives the compression.
    fields = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(fields).resize((width, height), Image.Resampling.NEAREST).save(file, "JPEG")
    return file.getvalue()


PICTURES = [jpeg(40, 60, 1), jpeg(64, 48, 2), jpeg(33, 90, 3), jpeg(40, 40, 4)]


def images() -> list[Image.Image]:
    return [Image.open(io.BytesIO(picture)).convert("RGB") for picture in PICTURES]


def unit(vectors: Any) -> NDArray[np.float32]:
    return torch.nn.functional.normalize(vectors, dim=-1).detach().numpy()


# ---- image-text encoders ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.clip(tmp_path_factory.mktemp("clip") / "tiny-clip")


def test_clip_gives_the_vectors_of_clip(clip: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    found = ImageTextEncoder(parse(f"transformers:{clip},batch_size=2"))
    assert isinstance(found, Encoder)
    assert found.short_side == 32
    model, processor = CLIPModel.from_pretrained(clip), CLIPProcessor.from_pretrained(clip)
    shown = pixels()
    seen = processor(images=[Image.fromarray(picture) for picture in shown], return_tensors="pt")
    expected = unit(model.get_image_features(**seen).pooler_output)
    np.testing.assert_allclose(found.encode_frames(frames(shown)), expected, atol=1e-5)
    # One at a time: without padding.
    vectors = found.encode_texts(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        read = processor(text=text, truncation=True, max_length=12, return_tensors="pt")
        expected = unit(model.get_text_features(**read).pooler_output)
        np.testing.assert_allclose(vector, expected[0], atol=1e-5)
    assert np.abs(vectors @ vectors.T - np.eye(5)).max() > 0.01
    assert np.linalg.matrix_rank(vectors) > 1
    assert found.encode_texts([]).shape == (0, 10)
    assert vectors.dtype == np.float32


def test_the_settings_of_the_first_clip(clip: Path, tmp_path: Path) -> None:
    """OpenAI's checkpoint has them in a form of years ago."""
    folder = Path(shutil.copytree(clip, tmp_path / "first"))
    path = folder / "preprocessor_config.json"
    now = json.loads(path.read_text())
    del now["image_processor_type"]
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32}
    path.write_text(json.dumps({**now, **old}))
    found = ImageTextEncoder(parse(f"transformers:{folder}"))
    assert found.short_side == 32
    shown = pixels()
    expected = ImageTextEncoder(parse(f"transformers:{clip}")).encode_frames(frames(shown))
    np.testing.assert_array_equal(found.encode_frames(frames(shown)), expected)


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_siglip_gives_the_vectors_of_siglip(kind: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = getattr(tiny_models, kind)(tmp_path / kind)
    found = ImageTextEncoder(parse(f"transformers:{folder},batch_size=2"))
    assert found.short_side == 32
    model = AutoModel.from_pretrained(folder)
    shown = pixels()
    seen = AutoImageProcessor.from_pretrained(folder)(
        images=[Image.fromarray(picture) for picture in shown], return_tensors="pt"
    )
    expected = unit(model.get_image_features(**seen).pooler_output)
    np.testing.assert_allclose(found.encode_frames(frames(shown)), expected, atol=1e-5)
    read = AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding="max_length", truncation=True, max_length=9, return_tensors="pt"
    )
    assert read["input_ids"].shape == (5, 9)
    expected = unit(model.get_text_features(**read).pooler_output)
    np.testing.assert_allclose(found.encode_texts(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_the_tokens_are_those_of_the_text_tower(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = getattr(tiny_models, kind)(tmp_path / kind)
    found = ImageTextEncoder(parse(f"transformers:{folder},batch_size=2"))
    assert isinstance(found, TokenEncoder)
    states = found.encode_tokens(TEXTS[:4])
    text_model = AutoModel.from_pretrained(folder).text_model
    with found._using() as parts:
        for text, made in zip(TEXTS, states, strict=False):
            alone = parts.words([text], return_tensors="pt")
            # SigLIP reads its padding, so that only CLIP's are those without any.
            padded = parts.words([text], padding=parts.padding, return_tensors="pt")
            expected = text_model(**padded).last_hidden_state[0].numpy()
            count = alone["input_ids"].shape[1]
            left = parts.tokenizer.padding_side == "left"
            kept = expected[-count:] if left else expected[:count]
            np.testing.assert_allclose(made, kept, atol=1e-5)
    assert found.encode_tokens([]) == []
    # What opens it again gives the same.
    again = backends.load_encoder(found.spec)
    assert again.name == found.name
    np.testing.assert_allclose(again.encode_texts(TEXTS), found.encode_texts(TEXTS), atol=1e-5)


def test_what_is_derived_from_the_type_of_arithmetic_is_named(clip: Path) -> None:
    whole = ImageTextEncoder(parse(f"transformers:{clip}"))
    half = ImageTextEncoder(parse(f"transformers:{clip},dtype=bfloat16"))
    assert whole.name.endswith("(float32)")
    assert half.name == whole.name.replace("float32", "bfloat16")
    shown = frames(pixels())
    one, other = whole.encode_frames(shown), half.encode_frames(shown)
    assert 0 < np.abs(one - other).max() < 0.1
    # Neither of these changes an answer.
    for options in ("batch_size=1,device=cpu", "dtype=auto"):
        assert ImageTextEncoder(parse(f"transformers:{clip},{options}")).name == whole.name


def test_a_folder_is_named_by_its_content(tmp_path: Path) -> None:
    folder = tiny_models.clip(tmp_path / "mine")
    names = [ImageTextEncoder(parse(f"transformers:{folder}")).name]
    assert names[0].startswith("mine@")
    assert str(tmp_path) not in names[0]
    (tmp_path / "other").mkdir()
    moved = folder.rename(tmp_path / "other" / "mine")
    assert ImageTextEncoder(parse(f"transformers:{moved}")).name == names[0]
    weights = moved / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-3] ^= 1
    weights.write_bytes(changed)
    names.append(ImageTextEncoder(parse(f"transformers:{moved}")).name)
    settings = moved / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("0.48145466", "0.5"))
    names.append(ImageTextEncoder(parse(f"transformers:{moved}")).name)
    assert len(set(names)) == 3


def test_a_named_model_is_only_loaded_when_it_is_used(clip: Path) -> None:
    script = (
        "import sys, vmr.backends as b\n"
        "assert 'transformers' not in sys.modules\n"
        f"e = b.load_encoder('transformers:{clip}')\n"
        "print(e.name, e.short_side, 'transformers' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("(float32) 32 False\n")


def test_running_out_of_memory_says_what_to_change(clip: Path) -> None:
    found = ImageTextEncoder(parse(f"transformers:{clip},batch_size=3"))
    found.encode_texts(["a man"])
    assert found._loaded is not None

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    handle = found._loaded.model.text_model.register_forward_pre_hook(fail)
    with pytest.raises(
        BackendError,
        match=r"^encoder .*tiny-clip: cpu is out of memory: lower "
        r"batch_size \(now 3\) or set dtype=bfloat16 \(now float32\)",
    ):
        found.encode_texts(["a man"])
    handle.remove()
    assert len(found.encode_texts(["a man"])) == 1  # the lock is free again


# ---- language models --------------------------------------------------------------------------------


def chat(*turns: str) -> list[Message]:
    roles = ["system", *["user", "assistant"] * len(turns)]
    return [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]


CHATS = [
    chat("say short", "a man"),
    chat("say the same", "the woman runs in the park", "woman runs", "a red dog"),
    chat("say short sentence", "dog eats a ball on the house with a cat , and the man sleeps"),
    chat("a", "b"),
]


def by_hand(folder: Path, prompt: Sequence[Message], count: int) -> list[int]:
    """Greedy tokens of one chat, without a batch."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)
    text = words.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
    tokens = words(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    for _ in range(count):
        best = model(tokens).logits[0, -1].argmax()
        tokens = torch.cat([tokens, best[None, None]], dim=1)
    return [int(token) for token in tokens[0, -count:]]


def word(token: int) -> str:
    return (tiny_models.SPECIAL + tiny_models.WORDS)[token]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends its answers with what it says fourth to the first chat."""
    place = tmp_path_factory.mktemp("llama")
    said = by_hand(tiny_models.llama(place / "draft"), CHATS[0], 12)
    end = next(token for token in said[3:] if token not in said[:3] and token >= 11)
    return tiny_models.llama(place / "tiny-llama", end=end)


def test_answers_are_the_greedy_ones(llama: Path) -> None:
    from transformers import AutoConfig

    ends = {AutoConfig.from_pretrained(llama).eos_token_id, tiny_models.identity("</s>")}
    found = ChatModel(parse(f"transformers:{llama},batch_size=4,max_tokens=7"))
    assert isinstance(found, TextGenerator)
    said = [by_hand(llama, prompt, 7) for prompt in CHATS]
    stops = [next((at for at, token in enumerate(row) if token in ends), None) for row in said]
    assert None in stops  # one is cut off,
    assert 6 in stops  # and one ends at the last moment
    answers = found.generate(CHATS)
    assert answers == [
        "" if stop is None else " ".join(word(token) for token in row[:stop] if token >= 11)
        for row, stop in zip(said, stops, strict=True)
    ]
    assert len(set(answers)) > 2
    alone = ChatModel(parse(f"transformers:{llama},batch_size=1,max_tokens=7"))
    assert alone.generate(CHATS) == answers
    assert alone.name == found.name
    assert found.generate([]) == []


def test_an_answer_that_is_cut_off_is_none(llama: Path) -> None:
    found = ChatModel(parse(f"transformers:{llama},max_tokens=1"))
    assert found.generate(CHATS[:1]) == [""]
    assert "1 tokens" in found.name


def test_a_chat_that_is_too_long_has_no_answer(llama: Path) -> None:
    found = ChatModel(parse(f"transformers:{llama},max_tokens=20"))
    long = chat("say short", "man " * 190)
    assert found.generate([CHATS[0], long]) == [found.generate(CHATS[:1])[0], ""]


def test_a_template_without_a_system_role(llama: Path, tmp_path: Path) -> None:
    folder = tiny_models.llama(tmp_path / "strict", tiny_models.NO_SYSTEM)
    (folder / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    for file in ("config.json", "generation_config.json"):
        (folder / file).write_bytes((llama / file).read_bytes())
    strict = ChatModel(parse(f"transformers:{folder},max_tokens=40"))
    free = ChatModel(parse(f"transformers:{llama},max_tokens=40"))
    folded: list[list[Message]] = [
        [{"role": "user", "content": f"say short\n\n{text}"}] for text in ("a man", "a dog")
    ]
    asked = [chat("say short", "a man"), chat("say short", "a dog")]
    assert strict.generate(asked) == free.generate(folded)
    assert free.generate(folded) != free.generate(asked)


# ---- vision-language models -------------------------------------------------------------------------


def caption(row: list[int], words: Any, ends: Sequence[int] = (2,)) -> str:
    """What is left of an answer's tokens: where it does not end, the whole sentences."""
    text = str(words.decode(row, skip_special_tokens=True)).strip()
    return text if row[-1] in ends else whole_sentences(text)


@pytest.mark.parametrize(("kind", "last"), [("llava", "red"), ("llava_next", "while")])
def test_llava_says_what_llava_says(kind: str, last: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = getattr(tiny_models, kind)(tmp_path / "tiny-llava")
    ends = [2, tiny_models.identity(last)]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    found = VisionLanguageModel(parse(f"transformers:{folder},batch_size=4,max_tokens=9"))
    assert isinstance(found, VisionModel)
    assert found.takes_instructions
    assert found.name.startswith("tiny-llava@")
    assert found.name.endswith("(float32, whole sentences in 9 tokens)")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    expected = []
    for image in images():
        text = "<|turn|> user : <image> say what you see <|end|><|turn|> assistant : "
        inputs = processor(images=image, text=text, return_tensors="pt")
        rows = model.generate(**inputs, max_new_tokens=9, do_sample=False)
        new = rows[0, inputs["input_ids"].shape[1] :]
        expected.append(caption(new.tolist(), processor.tokenizer, ends))
    answers = found.describe(PICTURES, "say what you see")
    assert answers == expected
    assert "" in answers  # cut off before the end of the first sentence
    assert len(set(answers)) > 2
    alone = VisionLanguageModel(parse(f"transformers:{folder},batch_size=1,max_tokens=9"))
    assert alone.describe(PICTURES, "say what you see") == answers
    assert found.describe(PICTURES, "who is in the park ?") != answers
    assert found.describe([], "say") == []


def test_qwen_says_what_qwen_says_without_torchvision(tmp_path: Path) -> None:
    from transformers import (
        AutoImageProcessor,
        AutoProcessor,
        AutoTokenizer,
        Qwen2_5_VLForConditionalGeneration,
    )
    from transformers.utils import is_torchvision_available

    folder = tiny_models.qwen2_5_vl(tmp_path / "tiny-qwen")
    if not is_torchvision_available():
        with pytest.raises(ImportError, match=r"[Tt]orchvision"):
            AutoProcessor.from_pretrained(folder)
    found = VisionLanguageModel(parse(f"transformers:{folder},batch_size=4,max_tokens=9"))
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    words = AutoTokenizer.from_pretrained(folder)
    pad = tiny_models.identity("<|image_pad|>")
    expected, lengths = [], set()
    for image in images():
        seen = processor(images=image, return_tensors="pt")
        count = int(seen["image_grid_thw"].prod()) // processor.merge_size**2
        shown = "<|vision_start|>" + "<|image_pad|>" * count + "<|vision_end|>"
        text = f"<|turn|> user : {shown} say what you see <|end|><|turn|> assistant : "
        tokens = words(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        rows = model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            mm_token_type_ids=(tokens == pad).int(),
            **seen,
            max_new_tokens=9,
            do_sample=False,
        )
        lengths.add(count)
        expected.append(words.decode(rows[0, tokens.shape[1] :], skip_special_tokens=True).strip())
    assert len(lengths) > 2  # pictures of several sizes: the batch is padded
    answers = found.describe(PICTURES, "say what you see")
    assert answers == expected
    assert len(set(answers)) > 2
    alone = VisionLanguageModel(parse(f"transformers:{folder},batch_size=1,max_tokens=9"))
    assert alone.describe(PICTURES, "say what you see") == answers


def test_blip2_captions_without_being_asked(tmp_path: Path) -> None:
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    folder = tiny_models.blip2(tmp_path / "tiny-blip2")
    found = VisionLanguageModel(parse(f"transformers:{folder},batch_size=3,max_tokens=20"))
    assert not found.takes_instructions
    model = Blip2ForConditionalGeneration.from_pretrained(folder)
    processor = Blip2Processor.from_pretrained(folder)
    expected = []
    for image in images():
        seen = processor(images=image, return_tensors="pt")
        rows = model.generate(**seen, max_new_tokens=20, do_sample=False)
        expected.append(caption(rows[0].tolist(), processor.tokenizer))
    answers = found.describe(PICTURES, "")
    assert answers == expected
    assert len(set(answers)) > 2
    assert "" in answers  # its first sentence has no end


# ---- sentence encoders, and all together ------------------------------------------------------------


def test_a_sentence_transformer_gives_its_vectors(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = tiny_models.sentence_transformer(tmp_path)
    found = SentenceTransformerEncoder(parse(f"transformers:{folder},batch_size=2"))
    assert isinstance(found, SentenceEncoder)
    assert isinstance(found, TokenEncoder)
    model, words = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    vectors, states = found.encode(TEXTS), found.encode_tokens(TEXTS)
    for text, vector, rows in zip(TEXTS, vectors, states, strict=True):
        read = words(text, truncation=True, max_length=24, return_tensors="pt")
        hidden = model(**read).last_hidden_state[0]
        np.testing.assert_allclose(rows, hidden.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(vector, unit(hidden.mean(0)), atol=1e-5)
    assert found.encode([]).shape == (0, 16)
    assert found.encode_tokens([]) == []

    # What the other modules are set to counts as well.
    path = folder / "1_Pooling" / "config.json"
    path.write_text(path.read_text().replace('"mean"', '"max"'))
    pooled = SentenceTransformerEncoder(parse(f"transformers:{folder}"))
    assert pooled.name != found.name
    assert np.abs(pooled.encode(TEXTS) - vectors).max() > 0.01

    # A module with weights of its own counts, and only as safetensors.
    dense = tiny_models.sentence_transformer(tmp_path / "dense", dense=True)
    found = SentenceTransformerEncoder(parse(f"transformers:{dense}"))
    assert found.encode(TEXTS).shape == (5, 6)
    (weights,) = dense.glob("2_Dense/model.safetensors")
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert SentenceTransformerEncoder(parse(f"transformers:{dense}")).name != found.name
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(BackendError, match=r"in 2_Dense, found pytorch_model\.bin"):
        SentenceTransformerEncoder(parse(f"transformers:{dense}"))


@videos.needs_ffmpeg
def test_granalign_with_a_model_in_every_part(
    clip: Path, llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import vmr

    sentences = tiny_models.sentence_transformer(tmp_path / "sentences")
    captions = tiny_models.llava(tmp_path / "tiny-llava")
    video = videos.numbered(tmp_path / "video.mp4", 60, rate=10)
    capfd.readouterr()
    system = vmr.load(
        "granalign",
        encoder=f"transformers:{clip}",
        sentence_encoder=f"transformers:{sentences}",
        rewriter=f"transformers:{llama}",
        captioner=f"transformers:{captions},max_tokens=30",
        every=1.0,
        cache=None,
    )
    results = system.retrieve(video, "a man runs in the park")
    assert results[0].moments
    assert len(results[0].frame_scores.times) == 6
    names = {part: name.partition("@")[0] for part, name in results.backends.items()}
    assert names == {
        "encoder": "tiny-clip",
        "sentence encoder": "model",
        "rewriter": "tiny-llama",
        "captioner": "tiny-llava",
    }
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""


def test_strings_name_the_parts(clip: Path) -> None:
    assert backends.load_encoder(f"transformers:{clip}").name.startswith("tiny-clip@")
