"""Model folders as transformers writes them: found here or on the hub, checked, and named.

Weights are read as safetensors only, and code that comes with a model is never run. A folder is named
by its content and a model of the hub by its commit, so that the name changes when the model does.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmr.errors import BackendError, InputError
from vmr.hub import slip

_SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_ELSEWHERE = ["onnx/*", "openvino/*", "original/*", "coreml/*", "runs/*"]
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
_BLOCK, _BLOCKS = 4096, 1024
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_NO_PICKLES = (
    "vmr reads no pickled weights. Where the file can be trusted, load it there and write it again "
    "with save_pretrained; on the hub, a conversion is often among the pull requests of the model's "
    "page (revision=refs/pr/NUMBER)"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder; of a model on the hub, its snapshot in the hub's cache.

    Attributes:
        given: What the user named.
        folder: Where the files are.
        commit: The commit on the hub; None for a folder of the user's.
    """

    given: str
    folder: Path
    commit: str | None

    def settings(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; empty where it is not there.

        Raises:
            BackendError: It is damaged.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        found = _json(path)
        if not isinstance(found, dict):
            raise BackendError(f"{path}: expected a JSON object, got {type(found).__name__}")
        return found

    @property
    def image_settings(self) -> dict[str, Any]:
        """What the image processor is set to; empty where the model has none."""
        inner = self.settings("processor_config.json").get("image_processor")
        return inner if isinstance(inner, dict) else self.settings("preprocessor_config.json")

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a vocabulary."""
        return any((self.folder / name).is_file() for name in _TOKENIZERS)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model says how a chat is written down."""
        return (self.folder / "chat_template.jinja").is_file() or any(
            self.settings(name).get("chat_template")
            for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json")
        )


def locate(given: str, revision: str | None) -> Checkpoint:
    """A folder, or an id on the hub, of which everything but the weights is then downloaded.

    Args:
        given: A path or ``owner/name``.
        revision: Branch, tag or commit on the hub; None for "main".

    Raises:
        InputError: A revision of a folder.
        BackendError: There is no such model, or it cannot be had now.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        if revision is not None:
            raise InputError(f"{given}: is a folder and has no revision, got {revision!r}")
        return Checkpoint(given, path, None)
    if (hint := slip(path)) is not None:
        raise BackendError(
            f"model: expected a folder that is there, or owner/name on the hub, got {given!r}{hint}"
        )
    small = [f"*{suffix}" for suffix in _SMALL]
    folder = _download(given, revision, small, _ELSEWHERE)
    return Checkpoint(given, folder, folder.name)


def weights(found: Checkpoint, folders: Sequence[str] = ("",)) -> list[Path]:
    """The safetensors of a model; of one on the hub, they are downloaded now.

    Args:
        found: The model.
        folders: Where in it weights are.

    Raises:
        BackendError: Some are missing, pickled or damaged.
    """
    named = {folder: _expected(found.folder / folder) for folder in folders}
    if found.commit is not None:
        asked = [f"{folder}/{name}".lstrip("/") for folder in folders for name in named[folder]]
        _download(found.given, found.commit, asked, [])
    files = []
    for folder, names in named.items():
        here = found.folder / folder
        missing = [name for name in names if not (here / name).is_file()]
        if missing and names != [_WEIGHTS]:
            raise BackendError(
                f"{found.given}: {_INDEX} names {len(names)} files, and {len(missing)} of them are "
                f"not there: {', '.join(missing[:3])}; download the model again"
            )
        if missing:
            what = ", ".join(_pickled(here)) or "none"
            place = f" in {folder}" if folder else ""
            revision = f" at revision {found.commit}" if found.commit else ""
            raise BackendError(
                f"{found.given}{revision}: expected weights as {_WEIGHTS}{place}, found {what}. "
                f"{_NO_PICKLES}"
            )
        files += [here / name for name in names]
    for file in files:
        header(file)
    return files


def header(path: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors, by name.

    Raises:
        BackendError: It is damaged or cut off.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            tensors: dict[str, Any] = json.loads(file.read(min(length, size)))
        tensors.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise BackendError(f"{path}: is no safetensors file, or is damaged or cut off") from None
    if 8 + length + end != size:
        raise BackendError(
            f"{path}: is damaged or cut off: expected {8 + length + end:,} bytes, got {size:,}"
        )
    return tensors


def label(found: Checkpoint, files: Sequence[Path]) -> str:
    """The model's name with its commit, or with a digest of its content.

    Of small files and the heads of weights every byte counts, of weights 1,024 blocks of 4 KiB evenly
    spread over each file: other weights differ nearly everywhere, and 16 GB are too much to read.

    Args:
        found: The model.
        files: Its weights.
    """
    if found.commit is not None:
        return f"{found.given}@{found.commit}"
    digest = hashlib.sha256()
    places = dict.fromkeys([found.folder, *(file.parent for file in files)])
    inner = [path for place in places for path in place.iterdir() if path.suffix in _SMALL]
    inner += (found.folder / "additional_chat_templates").glob("*.jinja")
    inner += found.folder.glob("*_*/config.json")  # the modules of a SentenceTransformer
    for path in sorted(set(inner)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(found.folder)} {len(content)} ".encode() + content)
    for path in files:
        digest.update(f"{path.relative_to(found.folder)} {path.stat().st_size} ".encode())
        for block in _sampled(path):
            digest.update(block)
    return f"{found.folder.resolve().name}@{digest.hexdigest()[:16]}"


def _sampled(path: Path) -> Iterator[bytes]:
    """The head of a safetensors file and blocks of it; all of a small one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = 8 + int.from_bytes(file.read(8), "little")
        file.seek(0)
        yield file.read(head)
        blocks = -(-(size - head) // _BLOCK)
        count = min(blocks, _BLOCKS)
        for place in range(count):
            # The first and the last block are among them.
            block = place * (blocks - 1) // max(count - 1, 1)
            file.seek(head + block * _BLOCK)
            yield file.read(_BLOCK)


def _expected(folder: Path) -> list[str]:
    """The files that a folder's weights are in."""
    index = folder / _INDEX
    if not index.is_file():
        return [_WEIGHTS]
    found = _json(index)
    shards = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise BackendError(f"{index}: is damaged: it names no files")
    names = sorted({str(name) for name in shards.values()})
    if any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise BackendError(f"{index}: expected names of safetensors beside it, got {names[:3]}")
    return names


def _pickled(folder: Path) -> list[str]:
    """Names of pickled weights in a folder, three at most."""
    paths = folder.iterdir() if folder.is_dir() else []
    names = (path.name for path in paths if path.suffix in _PICKLED)
    return sorted(name for name in names if name != "training_args.bin")[:3]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BackendError(f"{path}: is damaged: {error}") from None


def _download(name: str, revision: str | None, allow: list[str], ignore: list[str]) -> Path:
    """The snapshot of a model on the hub, with the files that match."""
    from huggingface_hub import errors, snapshot_download

    at = f"{name} (revision {revision})" if revision else name
    try:
        with _bars_on_a_terminal():
            return Path(
                snapshot_download(
                    name, revision=revision, allow_patterns=allow, ignore_patterns=ignore
                )
            )
    except errors.GatedRepoError:
        raise BackendError(
            f"{name}: its makers ask for consent first: accept the licence on the model's page, "
            "then `hf auth login` (or set HF_TOKEN)"
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise BackendError(
            f"{name}: is neither a folder here nor a model on the hub; a private one needs "
            "`hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise BackendError(f"{at}: the hub has the model, but no such revision") from None
    except errors.LocalEntryNotFoundError as error:
        raise BackendError(_unreachable(at, name, error)) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise BackendError(
                f"{name}: the hub refuses access ({status}): accept the licence on the model's "
                "page, then `hf auth login` (or set HF_TOKEN)"
            ) from None
        raise BackendError(_unreachable(at, name, error)) from None
    except OSError as error:
        raise BackendError(f"{at}: could not be downloaded: {error}") from None
    except Exception as error:
        # What the hub's HTTP library raises has no common base with anything above.
        raise BackendError(_unreachable(at, name, error)) from None


@contextmanager
def _bars_on_a_terminal() -> Iterator[None]:
    """Without the hub's progress bars, where no terminal shows them."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hide = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


def _unreachable(at: str, name: str, error: Exception) -> str:
    cause = error.__cause__ or error
    said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return (
        f"{at}: is not a folder here, is not (wholly) in the hub's cache, and the hub cannot be "
        f"reached ({said}). Where there is a network, run `hf download {name} --local-dir FOLDER` and "
        f"name FOLDER instead; or name a mirror by HF_ENDPOINT"
    )


@dataclass(frozen=True, slots=True)
class Module:
    """A step of a SentenceTransformer.

    Attributes:
        kind: The class that it names.
        folder: Where in the model it is; "" for the model's own.
    """

    kind: str
    folder: str

    @property
    def has_weights(self) -> bool:
        """Whether it is trained."""
        return self.kind.rpartition(".")[2] not in ("Pooling", "Normalize", "Dropout")


def modules(found: Checkpoint) -> list[Module]:
    """The steps of a SentenceTransformer; none where the model is something else.

    Raises:
        BackendError: modules.json is damaged.
    """
    path = found.folder / "modules.json"
    if not path.is_file():
        return []
    try:
        return [Module(str(step["type"]), str(step["path"])) for step in _json(path)]
    except (KeyError, TypeError):
        raise BackendError(f"{path}: expected a list of modules with type and path") from None
