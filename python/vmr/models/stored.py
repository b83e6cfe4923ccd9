"""Checkpoints as folders: model.safetensors, config.json and a model card."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from torch import Tensor, nn

from vmr.data.pack_spec import Pack
from vmr.errors import CacheError, InputError
from vmr.files import atomic_path, make_folder, write_text
from vmr.hub import slip

if TYPE_CHECKING:
    from vmr.models.base import ModelConfig, MomentModel

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where weights come from that vmr did not train.

    Attributes:
        code: The repository that trained them, "owner/name" on GitHub.
        file: Name of the file that was read.
        sha256: Of its bytes.
        options: Those of its run.
        epoch: Of its run, from 0; None where the file does not say.
    """

    code: str
    file: str
    sha256: str
    options: dict[str, Any] = {}
    epoch: int | None = None


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What weights were trained on, and what they reached.

    Attributes:
        name: The training config's name.
        pack: What the features are that the model was trained on; None where it is not known.
        anchor_pack: What the other model's features are that it looked for the anchor in; None without.
        data: What was trained, selected and tested on, by split.
        protocol: Of the metrics.
        metrics: Official keys and numbers, by split.
        command: The command that trained them.
        steps: Optimiser steps that the weights have seen.
        seed: Of the run.
        origin: Where they come from; None for what vmr trained.
    """

    name: str
    pack: Pack | None
    data: dict[str, str] = {}
    protocol: str | None = None
    metrics: dict[str, dict[str, float | None]] = {}
    command: str = ""
    steps: int = 0
    seed: int = 0
    anchor_pack: Pack | None = None
    origin: Origin | None = None


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """config.json.

    Attributes:
        format: Of this file: 1.
        vmr: The version of vmr that wrote it.
        config: The hyper-parameters; ``kind`` is the model's name.
        about: What the weights are.
    """

    format: int
    vmr: str
    config: dict[str, Any]
    about: About | None = None

    @property
    def kind(self) -> str:
        """The model's name."""
        return str(self.config.get("kind"))

    def model(self, kind: type[ModelConfig]) -> ModelConfig:
        """The hyper-parameters as their type.

        Raises:
            InputError: They are not of that type.
        """
        try:
            return msgspec.convert(self.config, kind)
        except msgspec.ValidationError as error:
            raise InputError(f"{CONFIG}: the hyper-parameters of {self.kind}: {error}") from None


def write(model: MomentModel, folder: str | os.PathLike[str]) -> Path:
    """Writes a model; see :meth:`vmr.models.base.MomentModel.save_pretrained`."""
    from vmr import __version__
    from vmr.models.card import model_card

    place = Path(folder)
    make_folder(place)
    kept = Stored(
        format=FORMAT,
        vmr=__version__,
        config=msgspec.to_builtins(model.config),
        about=model.about,
    )
    write_text(place / CONFIG, msgspec.json.format(msgspec.json.encode(kept)).decode() + "\n")
    write_text(place / CARD, model_card(model))
    write_tensors(place / WEIGHTS, model.state_dict(), {"format": "pt"})
    return place


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors as safetensors, atomically.

    Raises:
        CacheError: The file cannot be written.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        with atomic_path(path) as temporary:
            safetensors.torch.save_file(kept, temporary, metadata)
    except SafetensorError as error:
        raise CacheError(f"{path} could not be written: {error}") from None


def locate(name_or_path: str | os.PathLike[str], **hub: Any) -> Path:
    """The folder of a checkpoint; from the hub, its files are downloaded first.

    Raises:
        InputError: There is none.
    """
    path = Path(name_or_path)
    if path.is_dir():
        for folder in (path, path / "best"):
            if (folder / CONFIG).is_file():
                return folder
        raise InputError(f"{path}: expected a checkpoint or a result folder: there is no {CONFIG}")
    if path.is_file():
        raise InputError(
            f"{path}: expected a checkpoint's folder, got a file; vmr convert makes a folder of what an "
            "official code wrote"
        )
    name = os.fspath(name_or_path)
    if (hint := slip(name)) is not None:
        raise InputError(
            f"checkpoint: expected a folder with {CONFIG} and {WEIGHTS}, or owner/name on the hub, got "
            f"{name!r}{hint}"
        )
    return _download(name, hub)


def _download(name: str, hub: dict[str, Any]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        for file in (CONFIG, WEIGHTS):
            found = Path(hf_hub_download(name, file, **hub))
    except LocalEntryNotFoundError:
        raise InputError(
            f"{name}: is not a folder here, was not downloaded before, and the hub cannot be reached; "
            "download it elsewhere and give its folder"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        said = str(error).strip().splitlines()[0]
        raise InputError(f"{name}: is neither a folder here nor on the hub: {said}") from None
    except EntryNotFoundError:
        raise InputError(f"{name}: on the hub, but without {CONFIG} and {WEIGHTS} of vmr") from None
    return found.parent


def read_config(folder: Path) -> Stored:
    """config.json of a checkpoint.

    Raises:
        InputError: It is damaged, of something else, or of a newer vmr.
    """
    path = folder / CONFIG
    try:
        raw = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"{path}: is damaged: {error}") from None
    if not isinstance(raw, dict) or "format" not in raw or "config" not in raw:
        raise InputError(f"{path}: is not a checkpoint of vmr: expected `format` and `config`")
    if isinstance(raw["format"], int) and raw["format"] > FORMAT:
        raise InputError(
            f"{path}: was written by vmr {raw.get('vmr', 'of a later version')} in format "
            f"{raw['format']}, and this vmr reads up to {FORMAT}; update vmr"
        )
    try:
        return msgspec.convert(raw, Stored)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}") from None


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, by name.

    Raises:
        InputError: The file is missing or damaged.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    path = folder / WEIGHTS
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read, or is damaged or cut off: {error}") from None


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Puts tensors into a module, all of them and no others.

    Raises:
        InputError: Names or shapes differ.
    """
    own = model.state_dict()
    wrong = [
        f"{name} is {list(tensors[name].shape)} instead of {list(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if own[name].shape != tensors[name].shape
    ]
    missing, unknown = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    if said := tensor_differences(missing, unknown, wrong):
        raise InputError(f"{where}: the tensors are not those of the model; {said}")
    model.load_state_dict(dict(tensors))


def tensor_differences(missing: Iterable[str], unknown: Iterable[str], wrong: Iterable[str]) -> str:
    """What is not right about a set of tensors, as messages have it; nothing where all is.

    Args:
        missing: Names that are not there.
        unknown: Names that nothing takes.
        wrong: Names with their shapes, had and expected.
    """
    told = (("lacks", sorted(missing)), ("not of it", sorted(unknown)), ("shapes", sorted(wrong)))
    return "; ".join(
        f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in told
        if names
    )
