"""What a training run is: the YAML that says so, as types, and the ready ones of vmr."""

from __future__ import annotations

import functools
import importlib.resources
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from vmr.data.lines import read_document
from vmr.data.negatives import IOU, SIMILARITY, Rule
from vmr.errors import InputError
from vmr.settings import convert, load_yaml, merged, nearest, override

VERSION = 1


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a config: unknown keys are errors."""


class NegativesConfig(_Part, frozen=True, kw_only=True):
    """Which other query stands against each training query.

    See :class:`vmr.data.negatives.NegativeQueries`.

    Attributes:
        rule: "paper" (of the same video, at other times, saying something else), "same_video" or
            "other_video".
        iou: Of the rule "paper": windows overlap less than this.
        similarity: Likewise: the cosine of the sentences is below this; None leaves them unread.
        encoder: What reads the sentences for it: a sentence encoder
            (:func:`vmr.backends.load_sentence_encoder`), or "features" for the mean of the pack's own
            tokens.
    """

    rule: Rule = "paper"
    iou: float = IOU
    similarity: float | None = SIMILARITY
    encoder: str = "embedded"


class DataConfig(_Part, frozen=True, kw_only=True):
    """What is read.

    In ``train``, ``val`` and ``test``, "{root}" and "{annotations}" stand for these two folders. Paths
    are relative to the folder that the run is started in, wherever the YAML lies.

    Attributes:
        root: Folder of the features.
        annotations: Folder of the annotations.
        pack: Name of a ready pack, or a YAML; None for the pack.yaml in ``root``.
        anchor_root: Folder of another model's features, row by row beside those of ``root``, from which
            A2FA takes anchor and segment; None for the same.
        anchor_pack: As ``pack``, of ``anchor_root``.
        train: Annotations to learn from.
        val: Annotations that choose the best weights.
        test: Annotations that the best weights are tested on, once; None for no test.
        durations: Lengths of the videos, where the annotations lack them (Charades-STA txt).
        skip_missing: Leaves queries without features out, instead of refusing to start.
        workers: Processes that read features.
        negatives: Negative queries, for training alone; None for none.
    """

    root: str | None = None
    annotations: str | None = None
    pack: str | None = None
    anchor_root: str | None = None
    anchor_pack: str | None = None
    train: str
    val: str
    test: str | None = None
    durations: str | None = None
    skip_missing: bool = False
    workers: int = 0
    negatives: NegativesConfig | None = None


class Group(_Part, frozen=True, kw_only=True):
    """Parameters with settings of their own.

    Attributes:
        match: Pattern of their names, such as "*.bias" or "text_encoder.*".
        lr: Their learning rate; None takes the optimiser's.
        weight_decay: Their weight decay; None takes the optimiser's.
    """

    match: str
    lr: float | None = None
    weight_decay: float | None = None


class OptimiserConfig(_Part, frozen=True, kw_only=True):
    """How the weights are moved.

    Attributes:
        kind: "adamw" decays weights apart from the gradient, "adam" within it.
        lr: Learning rate at the top of the schedule.
        weight_decay: Of all parameters but those of a group with its own.
        betas: Decay of Adam's two running means.
        eps: Adam's term in the denominator.
        groups: The first that matches a parameter counts.
    """

    kind: Literal["adamw", "adam"] = "adamw"
    lr: float = 1e-4
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    groups: tuple[Group, ...] = ()


class ScheduleConfig(_Part, frozen=True, kw_only=True):
    """How the learning rate goes over the run.

    Attributes:
        kind: After the warm-up: "constant", "linear" to ``final``, "cosine" to it, or "step".
        warmup: Steps over which it rises linearly, from 1 / (warmup + 1) of the top; below 1, a share of
            all steps.
        final: What linear and cosine end at, as a share of the top.
        drops: Where step drops it: shares of all steps, at least one.
        drop_factor: What each drop multiplies it with.
    """

    kind: Literal["constant", "linear", "cosine", "step"] = "constant"
    warmup: float = 0
    final: float = 0.0
    drops: tuple[float, ...] = ()
    drop_factor: float = 0.1


class EarlyStopping(_Part, frozen=True, kw_only=True):
    """When a run ends before its last epoch.

    Attributes:
        patience: Evaluations in a row without a better one.
    """

    patience: int


class TrainingConfig(_Part, frozen=True, kw_only=True):
    """How a model is trained.

    Attributes:
        epochs: Passes over the training queries.
        batch_size: Queries a step, over all processes and accumulated parts.
        one_query_a_video: Whether no batch holds two queries of one video; none is left out for it.
        accumulate: Parts that a process cuts its share of a batch into, to save memory.
        optimiser: How the weights are moved.
        schedule: How the learning rate goes.
        clip: Largest norm of the gradient; None leaves it.
        ema: Decay of the running mean of the weights that is evaluated and kept; None for none.
        precision: "fp32", or autocast to "bf16" or "fp16" (with loss scaling).
        compile: Whether torch.compile compiles the model for training, which pads all batches alike.
        early_stopping: When to end early; None for never.
        seed: Of new weights, of the order of the queries, and of what each step draws.
        deterministic: Refuses operations that are not reproducible on a GPU; the CPU's are.
        checkpoint_minutes: Once this long has passed, the next line of metrics.jsonl comes with a
            checkpoint; there is one after each epoch too.
        log_every: Steps between two lines of metrics.jsonl.
    """

    epochs: int
    batch_size: int = 32
    one_query_a_video: bool = False
    accumulate: int = 1
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip: float | None = None
    ema: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    early_stopping: EarlyStopping | None = None
    seed: int = 0
    deterministic: bool = False
    checkpoint_minutes: float = 10.0
    log_every: int = 50


class EvaluationConfig(_Part, frozen=True, kw_only=True):
    """How a model is judged.

    Attributes:
        protocol: One of :data:`vmr.evaluation.PROTOCOLS`; None for the one of the ground truth.
        metric: Official key that chooses the best weights; the larger, the better.
        batch_size: Queries at once.
        every: Epochs between two evaluations.
    """

    protocol: str | None = None
    metric: str = "MR-full-mAP"
    batch_size: int = 100
    every: int = 1


class Paper(_Part, frozen=True, kw_only=True):
    """What a publication reports for the run that the config repeats.

    Attributes:
        source: Publication and table.
        split: What it was measured on: "val" or "test".
        metrics: Official keys and numbers.
    """

    source: str
    split: Literal["val", "test"] = "test"
    metrics: dict[str, float]


class Config(_Part, frozen=True, kw_only=True):
    """A training run.

    Attributes:
        version: Of this format: 1.
        name: Of the run, and of its result folder.
        about: One line that says what it is.
        model: ``kind``, and that model's hyper-parameters.
        data: What is read.
        training: How the model is trained.
        evaluation: How it is judged.
        paper: What a publication reports for it.
    """

    version: int = VERSION
    name: str
    about: str = ""
    model: dict[str, Any]
    data: DataConfig
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    paper: Paper | None = None


def list_configs() -> dict[str, str]:
    """The configs that ship with vmr: what each is, by name."""
    return {
        name: str(load_yaml(raw, f"{name}.yaml").get("about", "")) for name, raw in _ready().items()
    }


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> Config:
    """A config from a YAML file, or a ready one by its name (:func:`list_configs`).

    A YAML may begin with ``base: NAME`` (a ready config, or another file beside it) and say only what
    differs. A ``model`` that names its kind takes nothing of the base's. Nor does a ``data`` that names
    its ``train``; the base's ``paper`` goes with it.

    Args:
        name_or_path: The file or the name.
        overrides: Arguments such as "training.epochs=10".

    Raises:
        InputError: There is no such config; it is not YAML; a key is unknown, or a value of the wrong
            type or out of its range; or it was written for a newer vmr.
    """
    raw, where = _raw(name_or_path, [])
    if overrides:
        # What is wrong in the file is told as the file's.
        _convert(raw, where)
        override(raw, overrides)
        where = f"{where} with {' '.join(overrides)}"
    config = _convert(raw, where)
    _check(config, where)
    return config


def _convert(raw: dict[str, Any], where: str) -> Config:
    version = raw.get("version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{where}: is in version {version} of the format, and this vmr reads up to {VERSION}; "
            "update vmr"
        )
    return convert(raw, Config, where)


def _raw(name_or_path: str, seen: list[str]) -> tuple[dict[str, Any], str]:
    """The values of a config on top of those of its base."""
    path = Path(name_or_path)
    if name_or_path in _ready():
        where, raw = f"config {name_or_path}", load_yaml(_ready()[name_or_path], name_or_path)
    elif path.suffix in (".yaml", ".yml"):
        where, raw = str(path), load_yaml(read_document(path), str(path))
    else:
        raise InputError(
            f"config: expected a .yaml file or a ready config (`vmr train --list`), got "
            f"{name_or_path!r}{nearest(name_or_path, _ready())}"
        )
    if not isinstance(raw, dict):
        raise InputError(f"{where}: expected keys and values, got {type(raw).__name__}")
    base = raw.pop("base", None)
    if base is None:
        return raw, where
    if base in seen or not isinstance(base, str):
        raise InputError(f"{where}: base: expected the name of another config, got {base!r}")
    beside = path.parent / base
    if not beside.is_file() and base not in _ready():
        raise InputError(
            f"{where}: base: expected a ready config (`vmr train --list`) or a file beside this one, "
            f"got {base!r}{nearest(base, _ready())}"
        )
    below, _ = _raw(str(beside) if beside.is_file() else base, [*seen, base])
    if "kind" in _section(raw, "model"):
        below.pop("model", None)  # another model has other hyper-parameters
    if "train" in _section(raw, "data"):
        # Other data has other features and splits, and no paper's numbers.
        below.pop("data", None)
        below.pop("paper", None)
    return merged(below, raw), where


def _section(raw: dict[str, Any], name: str) -> dict[str, Any]:
    found = raw.get(name)
    return found if isinstance(found, dict) else {}


@functools.cache
def _ready() -> dict[str, bytes]:
    folder = importlib.resources.files("vmr").joinpath("configs")
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {file.name[:-5]: file.read_bytes() for file in files if file.name.endswith(".yaml")}


def _check(config: Config, where: str) -> None:
    """What the types cannot say."""
    training, optimiser, schedule = (
        config.training,
        config.training.optimiser,
        config.training.schedule,
    )
    early, negatives = training.early_stopping, config.data.negatives
    rules: tuple[tuple[str, float | None, float, float], ...] = (
        ("data.workers", config.data.workers, 0, 1000),
        ("data.negatives.iou", negatives.iou if negatives else None, 0, 1),
        ("data.negatives.similarity", negatives.similarity if negatives else None, -1, 1),
        ("training.epochs", training.epochs, 0, 10**6),
        ("training.batch_size", training.batch_size, 1, 10**6),
        ("training.accumulate", training.accumulate, 1, training.batch_size),
        ("training.optimiser.lr", optimiser.lr, 0, 1e3),
        ("training.optimiser.weight_decay", optimiser.weight_decay, 0, 1e3),
        ("training.optimiser.eps", optimiser.eps, 0, 1),
        ("training.early_stopping.patience", early.patience if early else None, 1, 10**6),
        ("training.schedule.warmup", schedule.warmup, 0, 10**9),
        ("training.schedule.final", schedule.final, 0, 1),
        ("training.schedule.drop_factor", schedule.drop_factor, 0, 1),
        ("training.clip", training.clip, 1e-12, math.inf),
        ("training.ema", training.ema, 0, 1),
        ("training.seed", training.seed, 0, 2**31 - 1),
        ("training.checkpoint_minutes", training.checkpoint_minutes, 0, math.inf),
        ("training.log_every", training.log_every, 1, 10**9),
        ("evaluation.batch_size", config.evaluation.batch_size, 1, 10**6),
        ("evaluation.every", config.evaluation.every, 1, 10**6),
    )
    rules += tuple(
        (f"training.optimiser.betas.{place}", beta, 0, 1 - 1e-9)
        for place, beta in enumerate(optimiser.betas)
    )
    rules += tuple(
        (f"training.schedule.drops.{place}", share, 0, 1)
        for place, share in enumerate(schedule.drops)
    )
    for place, group in enumerate(optimiser.groups):
        rules += (
            (f"training.optimiser.groups.{place}.lr", group.lr, 0, 1e3),
            (f"training.optimiser.groups.{place}.weight_decay", group.weight_decay, 0, 1e3),
        )
    for name, value, low, high in rules:
        if value is not None and not low <= value <= high:
            raise InputError(f"{where}: {name}: expected {low:g} to {high:g}, got {value:g}")
    if schedule.kind == "step" and not schedule.drops:
        raise InputError(
            f"{where}: training.schedule.drops: expected shares of all steps, such as [0.4, 0.8], as "
            "kind is step, got none"
        )
    if not config.name or "/" in config.name or config.name.startswith("."):
        raise InputError(f"{where}: name: expected the name of a folder, got {config.name!r}")
