"""From a config to a model and its data."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.utils.data import DataLoader

from vmr.backends import SentenceEncoder, load_sentence_encoder
from vmr.cache import Cache
from vmr.data.annotations import Queries, read_queries
from vmr.data.dataset import Batch, Item, MomentDataset, collate
from vmr.data.negatives import NegativeQueries, sentence_embeddings, token_embeddings
from vmr.data.packs import FeaturePack, load_pack
from vmr.data.records import Query
from vmr.errors import InputError, VmrWarning
from vmr.evaluation.predictions import Prediction
from vmr.evaluation.scoring import evaluate
from vmr.models.base import ModelConfig, MomentModel
from vmr.models.registry import model_type
from vmr.progress import Progress, silent
from vmr.settings import convert, nearest
from vmr.training.batches import EpochBatches
from vmr.training.config import Config, DataConfig, TrainingConfig
from vmr.training.distributed import on_main


@dataclass(frozen=True)
class Setup:
    """What a config names, opened.

    Attributes:
        model: New weights, drawn by the config's seed.
        pack: The features.
        train: What is learned from.
        val: What chooses the best weights.
        test: What these are tested on; None where the config names none.
        negatives: What stands against each training query; None where the config asks for none.
        inputs: What the features are, a hash of the queries that have some, by split, and one of the
            negative queries.
        sources: Files and numbers of queries, by split.
    """

    model: MomentModel
    pack: FeaturePack
    train: MomentDataset
    val: MomentDataset
    test: MomentDataset | None
    negatives: NegativeQueries | None
    inputs: Mapping[str, Any]
    sources: Mapping[str, str]

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


def set_up(config: Config, progress: Progress = silent) -> Setup:
    """Opens the features and annotations of a config, and builds its model.

    Args:
        config: The run.
        progress: Told how many sentences are read for the negative queries.

    Raises:
        InputError: A file is missing or not right, features are missing, or a hyper-parameter is
            unknown.
        BackendError: The sentence encoder of the negative queries is not there.
    """
    data = config.data
    kind = model_type(str(config.model.get("kind")), "model.kind")
    pack = _pack(data)
    anchor_pack = _anchor_pack(data)
    sets: dict[str, MomentDataset] = {}
    inputs: dict[str, Any] = {"features": json.loads(msgspec.json.encode(pack.spec))}
    if anchor_pack is not None:
        inputs["anchor features"] = json.loads(msgspec.json.encode(anchor_pack.spec))
    sources: dict[str, str] = {}
    for split in ("train", "val", "test"):
        name = getattr(data, split)
        if name is None:
            continue
        path = _path(name, data, split)
        queries = _queries(path, data, split)
        sets[split] = MomentDataset(
            queries,
            pack,
            pooled=kind.wants_pooled,
            anchor_pack=anchor_pack,
            skip_missing=data.skip_missing,
        )
        inputs[split] = _content(sets[split].queries)
        sources[split] = f"{path.name}, {len(sets[split])} queries"
    negatives = _negatives(data, sets["train"], progress)
    if negatives is not None:
        if not kind.reads_negatives:
            warnings.warn(
                f"data.negatives: {kind.kind} reads no negative queries: they are drawn for nothing",
                VmrWarning,
                stacklevel=2,
            )
        inputs["negatives"] = negatives.digest()
    if config.training.epochs and not any(query.windows for query in sets["train"].queries):
        raise InputError(f"data.train: {data.train}: has no windows to learn from")
    item = sets["train"][0]
    model = kind(_model_config(config, kind, item))
    return Setup(
        model=model,
        pack=pack,
        train=sets["train"],
        val=sets["val"],
        test=sets.get("test"),
        negatives=negatives,
        inputs=inputs,
        sources=sources,
    )


def _negatives(
    data: DataConfig, train: MomentDataset, progress: Progress
) -> NegativeQueries | None:
    config = data.negatives
    if config is None:
        return None
    if not train.pack.has_tokens:
        raise InputError(
            f"data.negatives: {train.pack.name}: has no tokens of sentences, which negative queries are "
            "given by; take a pack that has some"
        )
    if config.encoder == "features":
        embeddings = token_embeddings(train.queries, train.pack, progress=progress)
    else:
        embeddings = sentence_embeddings(
            train.queries,
            lambda: _encoder(config.encoder),
            cache=Cache(),
            progress=progress,
        )
    # One process reads the sentences, so that no rounding of another machine's makes other pools.
    return on_main(
        lambda: NegativeQueries(
            train.queries,
            config.rule,
            iou=config.iou,
            similarity=config.similarity,
            embeddings=embeddings,
            skipped=train.skipped,
            where=f"data.train: {_path(data.train, data, 'train')}",
        )
    )


def _encoder(spec: str) -> SentenceEncoder:
    try:
        return load_sentence_encoder(spec)
    except InputError as error:
        raise InputError(
            f"data.negatives.encoder: expected features (the pack's own tokens) or a sentence encoder, "
            f"got {spec!r}{nearest(spec, ['features'])}; {error}"
        ) from None


def batches_of(
    training: TrainingConfig,
    queries: Sequence[Query],
    *,
    epochs: int | None = None,
    negatives: NegativeQueries | None = None,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
) -> EpochBatches:
    """The batches that a config learns from.

    Args:
        training: The config's.
        queries: To learn from.
        epochs: None are the config's.
        negatives: What stands against them.
        start, rank, world: As for :class:`EpochBatches`.
    """
    return EpochBatches(
        len(queries),
        training.batch_size,
        training.epochs if epochs is None else epochs,
        seed=training.seed,
        start=start,
        rank=rank,
        world=world,
        accumulate=training.accumulate,
        videos=[query.video for query in queries] if training.one_query_a_video else None,
        negatives=negatives,
    )


def _content(queries: Sequence[Query]) -> str:
    """SHA-256 of what queries say, wherever they stand."""
    found = hashlib.sha256()
    for query in queries:
        found.update(msgspec.json.encode(msgspec.structs.replace(query, line=0)))
    return found.hexdigest()


def _most(dataset: MomentDataset) -> tuple[int, int]:
    """The most rows and tokens of the data set; all are read where the pack sets no bound."""
    spec = dataset.pack.spec
    source = spec.text if spec.text is not None else spec.glove
    tokens = source.max_rows if source is not None else 0
    if spec.max_rows is not None and tokens is not None:
        return spec.max_rows, tokens
    found = (dataset[place] for place in range(len(dataset)))
    counts = [(len(item.video), 0 if item.text is None else len(item.text)) for item in found]
    return max(count[0] for count in counts), max(count[1] for count in counts)


def checked_protocol(config: Config, val: MomentDataset) -> str:
    """The protocol of the validation queries.

    Raises:
        InputError: They have no ground truth, or the protocol lacks the metric that is to choose.
    """
    # What any model could answer shows which numbers there will be.
    answers = [
        Prediction(
            qid=query.qid,
            pred_relevant_windows=[(0.0, query.duration, 1.0)],
            pred_saliency_scores=[0.0] * len(query.saliency.dense()) if query.saliency else None,
        )
        for query in val.queries
    ]
    found = evaluate(answers, val.queries, protocol=config.evaluation.protocol)
    metric = config.evaluation.metric
    if found.brief.get(metric) is None:
        raise InputError(
            f"evaluation.metric: expected a headline number of the protocol {found.protocol}, one of "
            f"{', '.join(found.brief)}; got {metric!r}{nearest(metric, found.brief)}"
        )
    return found.protocol


def loader(
    dataset: MomentDataset, batches: EpochBatches, config: Config, device: torch.device
) -> DataLoader[Item]:
    """Batches of a data set in the order that a sampler gives, for a config and a device.

    A model that is compiled gets batches of one shape.
    """
    rows, tokens = _most(dataset) if config.training.compile else (0, 0)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(collate, rows=rows, tokens=tokens),
        num_workers=config.data.workers,
        pin_memory=device.type == "cuda",
        # Workers draw nothing; a generator of its own leaves the global one alone.
        generator=torch.Generator(),
    )


def _model_config(config: Config, kind: type[MomentModel], item: Item) -> ModelConfig:
    """The hyper-parameters, with the widths of the features."""
    widths = {"video_dim": item.video.shape[1]}
    if item.pooled is not None:
        widths["text_dim"] = len(item.pooled)
    elif item.text is not None:
        widths["text_dim"] = item.text.shape[1]
    elif not kind.wants_pooled and config.model.get("text_dim") is None:
        raise InputError(
            f"data.root: {kind.kind} reads the tokens of sentences, and the feature pack has none"
        )
    values = dict(config.model)
    for name, width in widths.items():
        if values.get(name) is None:
            values[name] = width
        elif values[name] != width:
            raise InputError(f"model.{name}: is {values[name]}, and the features have {width}")
    torch.manual_seed(config.training.seed)
    return convert(values, kind.config_type, f"config {config.name}", "model")


def _pack(data: DataConfig) -> FeaturePack:
    if data.root is None:
        raise InputError(
            "data.root: expected the folder of the features, got none; add data.root=DIR"
        )
    return load_pack(data.pack if data.pack is not None else data.root, data.root)


def _anchor_pack(data: DataConfig) -> FeaturePack | None:
    if data.anchor_root is None:
        if data.anchor_pack is not None:
            raise InputError(
                "data.anchor_root: expected the folder of data.anchor_pack's features, got none"
            )
        return None
    return load_pack(data.anchor_pack or data.anchor_root, data.anchor_root)


def _path(template: str, data: DataConfig, split: str) -> Path:
    for name in ("root", "annotations"):
        folder = getattr(data, name)
        if f"{{{name}}}" in template:
            if folder is None:
                raise InputError(
                    f"data.{split}: is {template!r}, and data.{name} is not set; add data.{name}=DIR"
                )
            template = template.replace(f"{{{name}}}", folder)
    return Path(template)


def _queries(path: Path, data: DataConfig, split: str) -> Queries:
    try:
        return read_queries(path, durations=data.durations)
    except InputError as error:
        without = "; data.test=null trains without a test" if split == "test" else ""
        raise InputError(f"data.{split}: {error}{without}") from None


def beyond_features(batch: Batch) -> int:
    """How many windows of a batch begin after the last row of features: they cannot be found."""
    seconds = (batch.video_lengths * batch.row_seconds)[:, None]
    places = torch.arange(batch.windows.shape[1])
    real = places < batch.window_counts[:, None]
    return int((real & (batch.windows[..., 0] >= seconds)).sum())
