"""Model folders as transformers writes them: found here or on the hub, checked, and named.

Weights are read as safetensors only, and code that comes with a model is never run. A folder is named
by its content and a model of the hub by its commit, so that the name changes when the model does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmr.backends.transformers.quiet import hub_quiet
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
_HEADER = 100_000_000  # bytes at most, by the library that writes it
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder; of a model on the hub, its snapshot in the hub's cache.

    Attributes:
        given: What the user named.
        folder: Where the files are.
        commit: The commit on the hub; None for a folder of the user's.
        part: What the model is to be, for messages.
    """

    given: str
    folder: Path
    commit: str | None
    part: str

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


def locate(given: str, revision: str | None, part: str) -> Checkpoint:
    """A folder, or an id on the hub, of which everything but the weights is then downloaded.

    Args:
        given: A path or ``owner/name``.
        revision: Branch, tag or commit on the hub; None for "main".
        part: What the model is to be, for messages.

    Raises:
        InputError: A revision of a folder.
        BackendError: There is no such model, or it cannot be had now.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        if revision is not None:
            raise InputError(f"{given}: is a folder and has no revision, got {revision!r}")
        return Checkpoint(given, path, None, part)
    if (hint := slip(path)) is not None:
        raise BackendError(
            f"model: expected a folder that is there, or owner/name on the hub, got {given!r}{hint}"
        )
    small = [f"*{suffix}" for suffix in _SMALL]
    folder = _download(given, revision, part, small, _ELSEWHERE)
    return Checkpoint(given, folder, folder.name, part)


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
        _download(found.given, found.commit, found.part, asked, [])
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
            raise BackendError(_without_weights(found, folder))
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
            if length > min(size - 8, _HEADER):
                raise ValueError
            tensors: dict[str, Any] = json.loads(file.read(length))
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


def _without_weights(found: Checkpoint, folder: str) -> str:
    """What to say of a model that has no safetensors in one of its folders."""
    from huggingface_hub import constants

    pickled = _pickled(found, folder)
    revision = f" at revision {found.commit}" if found.commit else ""
    place = f" in {folder}" if folder else ""
    told = f"{found.given}{revision}: expected weights as {_WEIGHTS}{place}, found "
    if not pickled:
        return (
            f"{told}none; in parts they come with {_INDEX}. Was the model written by save_pretrained, "
            "and are all of its files here?"
        )
    told += (
        f"{', '.join(pickled)}. vmr reads no pickled weights. Where the file can be trusted, load it "
        "there and write it again with save_pretrained"
    )
    if not found.commit:
        return told
    return (
        f"{told}. Or take the hub's own conversion, where there is one: a pull request \"Adding "
        f'`safetensors` variant of this model" at {constants.ENDPOINT}/{found.given}/discussions, whose '
        f"number goes into transformers:{found.given},revision=refs/pr/NUMBER"
    )


def _pickled(found: Checkpoint, folder: str) -> list[str]:
    """Names of pickled weights in a folder of a model, three at most."""
    if found.commit is not None:
        names = [path for path in _on_the_hub(found) if path.rpartition("/")[0] == folder]
    else:
        here = found.folder / folder
        names = [path.name for path in here.iterdir()] if here.is_dir() else []
    inner = sorted(Path(name).name for name in names if name.endswith(_PICKLED))
    return [name for name in inner if name != "training_args.bin"][:3]


def _on_the_hub(found: Checkpoint) -> list[str]:
    """The paths of a model's files there; none where it cannot be reached."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(found.given, revision=found.commit, timeout=_HUB_SECONDS)
    except Exception:  # see _download
        return []
    return [file.rfilename for file in info.siblings or []]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BackendError(f"{path}: is damaged: {error}") from None


def _download(
    name: str, revision: str | None, part: str, allow: list[str], ignore: list[str]
) -> Path:
    """The snapshot of a model on the hub, with the files that match."""
    from huggingface_hub import errors

    at = f"{name} (revision {revision})" if revision else name
    try:
        with hub_quiet:
            return _snapshot(name, revision, allow, ignore)
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
    except errors.OfflineModeIsEnabled:
        raise BackendError(
            f"{at}: is not a folder here and not (wholly) in the hub's cache, and HF_HUB_OFFLINE=1 "
            f"forbids to ask the hub. {_elsewhere(name, revision, part)}"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        raise BackendError(_unreachable(name, revision, part, error)) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise BackendError(
                f"{name}: the hub refuses access ({status}): accept the licence on the model's "
                "page, then `hf auth login` (or set HF_TOKEN)"
            ) from None
        raise BackendError(_unreachable(name, revision, part, error)) from None
    except OSError as error:
        raise BackendError(f"{at}: could not be downloaded: {error}") from None
    except Exception as error:
        # What the hub's HTTP library raises has no common base with anything above.
        raise BackendError(_unreachable(name, revision, part, error)) from None


def _snapshot(name: str, revision: str | None, allow: list[str], ignore: list[str]) -> Path:
    """As snapshot_download, but it soon knows where there is no hub.

    That asks six times for the files of a commit, within half a minute and with a line for each.
    """
    from huggingface_hub import HfApi, errors, snapshot_download

    def get(*, local: bool) -> Path:
        found: Any = snapshot_download(
            name,
            revision=revision,
            allow_patterns=allow,
            ignore_patterns=ignore,
            local_files_only=local,
        )
        return Path(found)

    try:
        if revision and _COMMIT.fullmatch(revision) and (kept := _whole(get)) is not None:
            return kept
        HfApi().model_info(name, revision=revision, timeout=_HUB_SECONDS)
    except Exception as error:
        # What has been downloaded before will do; it may be only a part, which shows later.
        try:
            return get(local=True)
        except (errors.LocalEntryNotFoundError, errors.HFValidationError):
            raise error from None
    return get(local=False)


def _whole(get: Callable[..., Path]) -> Path | None:
    """A commit's snapshot, if all of its files are known to be in the hub's cache."""
    from huggingface_hub import errors

    try:
        found = get(local=True)
    except errors.LocalEntryNotFoundError:
        return None
    # Only where the list of its files is kept, the library has looked for them.
    return found if (found.parents[1] / "trees" / f"{found.name}.json").is_file() else None


def _unreachable(name: str, revision: str | None, part: str, error: Exception) -> str:
    cause = error.__cause__ or error
    said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    at = f"{name} (revision {revision})" if revision else name
    return (
        f"{at}: is not a folder here, is not (wholly) in the hub's cache, and the hub cannot be "
        f"reached ({said}). {_elsewhere(name, revision, part)}; or name a mirror by HF_ENDPOINT"
    )


def _elsewhere(name: str, revision: str | None, part: str) -> str:
    """How to have a model without the hub."""
    pinned = f" --revision {revision}" if revision else ""
    folder = "transformers:FOLDER"
    return (
        f"Where there is a network, run `hf download {name}{pinned} --local-dir FOLDER`, and name that "
        f"folder: --{part.replace(' ', '-')} {folder} (in Python "
        f'{part.replace(" ", "_")}="{folder}")'
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
