"""The options of the commands that run a training-free system."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmr.models.granalign import GranAlign
    from vmr.models.retriever import Retriever

_PARTS = ("encoder", "sentence_encoder", "rewriter", "captioner")
OPTIONS = ("every", "parameters", "preset", *_PARTS, "no_cache")
"""The names of the options that :func:`add_options` adds; None, empty or false where not given."""


def add_options(parser: argparse.ArgumentParser, *, every: str = "1") -> None:
    """Adds the options that say which models play which part, and the system's parameters.

    Args:
        parser: The command's.
        every: The default of ``--every``, for its help.
    """
    parser.add_argument(
        "--every", type=float, metavar="S",
        help=f"seconds between two sampled frames (default: {every})",
    )  # fmt: skip
    parser.add_argument(
        "-p", "--param", action="append", default=[], metavar="NAME=VALUE", dest="parameters",
        help="another parameter of the system, e.g. aware_percent=30 or aware_query=none; "
        "docs/papers/granalign.md has them all",
    )  # fmt: skip
    models = parser.add_argument_group(
        "models",
        "each is 'embedded' (small models from packages), 'transformers:MODEL' (a folder or an id on "
        "the hub), the URL of an OpenAI-compatible endpoint, or 'recorded:FILE'; options follow after "
        "commas: transformers:MODEL,dtype=bfloat16 (docs/models.md)",
    )
    models.add_argument(
        "--preset", metavar="NAME",
        help="granalign-paper: CLIP ViT-B/32, LLaMA-3-8B-Instruct and Qwen2.5-VL-7B-Instruct; what "
        "stands below replaces a part of it (default: embedded models)",
    )  # fmt: skip
    models.add_argument(
        "--encoder", metavar="MODEL", help="image-text encoder: embedded, or a CLIP or SigLIP"
    )
    models.add_argument(
        "--sentence-encoder", metavar="MODEL", help="embedded, or a SentenceTransformer"
    )
    models.add_argument(
        "--rewriter", metavar="MODEL", help="of queries; 'none' leaves them as they are"
    )
    models.add_argument("--captioner", metavar="MODEL", help="of frames; one that sees images")
    models.add_argument("--no-cache", action="store_true", help="keep and take nothing")


def option_of(name: str) -> str:
    """An option as the user types it, by its name in the namespace."""
    return "--" + {"parameters": "param"}.get(name, name).replace("_", "-")


def load(options: argparse.Namespace) -> GranAlign:
    """The system that the options ask for; its models are told on stderr.

    Raises:
        InputError: For an unknown model, preset or parameter.
        BackendError: Where a model is not there.
    """
    import vmr

    given = _parameters(options.parameters)
    if options.every is not None:
        given["every"] = options.every
    if options.no_cache:
        given["cache"] = None
    given.update({part: spec for part in _PARTS if (spec := getattr(options, part)) is not None})
    system = vmr.load("granalign", preset=options.preset, **given)
    print(f"vmr: granalign on {_listed(system.backends)}", file=sys.stderr)
    return system


def check_name(name: str, *, trained: bool) -> None:
    """Refuses a system that is not known, and one that goes with the other side.

    Raises:
        InputError: With what was expected.
    """
    from vmr.errors import InputError
    from vmr.models.registry import TRAINED
    from vmr.settings import nearest

    asked = _kind(name)
    if asked not in ("granalign", *TRAINED):
        raise InputError(
            f"--system: expected granalign or one of {', '.join(TRAINED)}; got {name!r}"
            f"{nearest(asked, TRAINED)}"
        )
    if trained == (asked == "granalign"):
        which = "takes no --checkpoint" if trained else "is trained: it needs a --checkpoint"
        raise InputError(f"--system: {name} {which}")


def _kind(name: str) -> str:
    return name.replace("_", "-").lower()


def load_trained(options: argparse.Namespace) -> Retriever:
    """The trained model that the options ask for; its encoders are told on stderr.

    Raises:
        InputError: There is no such checkpoint, or no known encoder gives what it was trained on.
        BackendError: An encoder is not there.
    """
    from vmr.errors import InputError
    from vmr.models import stored
    from vmr.models.retriever import Retriever

    if options.system is not None:
        kind = stored.read_config(stored.locate(options.checkpoint)).kind
        if kind != _kind(options.system):
            raise InputError(
                f"--system: {options.checkpoint} is a checkpoint of {kind}, not of {options.system}"
            )
    system = Retriever.from_pretrained(
        options.checkpoint,
        encoder=options.encoder,
        sentence_encoder=options.sentence_encoder,
        every=options.every,
        features=options.features,
        anchor_encoder=options.anchor_encoder,
        anchor_features=options.anchor_features,
        device=options.device,
        cache=None if options.no_cache else "default",
    )
    parts = {part: name for part, name in system.backends.items() if part != "model"}
    print(f"vmr: {system.backends['model']} on {_listed(parts)}", file=sys.stderr)
    return system


def _listed(backends: dict[str, str]) -> str:
    return " | ".join(f"{part}: {name.partition(' (')[0]}" for part, name in backends.items())


def _parameters(texts: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs as the config's types."""
    from vmr.errors import InputError
    from vmr.models.granalign_config import GranAlignConfig

    defaults = dataclasses.asdict(GranAlignConfig())
    parameters: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in defaults:
            raise InputError(
                f"--param: expected NAME=VALUE with a name of {', '.join(defaults)}; got {text!r}"
            )
        kind = type(defaults[name])
        try:
            parameters[name] = kind(value)
        except ValueError:
            raise InputError(f"--param {name}: expected {kind.__name__}, got {value!r}") from None
    return parameters
