"""Models of the transformers library, loaded when they are first used."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar

import msgspec
import torch

from vmr.backends.spec import Spec
from vmr.backends.transformers import checkpoints
from vmr.backends.transformers.quiet import transformers_quiet
from vmr.devices import pick_device
from vmr.errors import BackendError, VmrError

_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may stand behind a model's name.

    Attributes:
        device: "cpu", "cuda" or "cuda:1"; None for a GPU or else the CPU.
        dtype: Of weights and arithmetic; "auto" is that of the checkpoint. None is "auto" on a GPU and
            "float32" on a CPU, where half precision is mostly slower.
        batch_size: What is computed at once.
        revision: Branch, tag or commit on the hub; None for "main".
    """

    device: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    batch_size: AtLeastOne = 32
    revision: str | None = None


O = TypeVar("O", bound=Options)  # noqa: E741
L = TypeVar("L")


class Part(Generic[O, L]):
    """A model that plays a part. What is wrong with its name shows when it is made.

    Subclasses say which models they take and how those are loaded.

    Args:
        spec: Names the model and gives options.

    Raises:
        InputError: An option is not right.
        BackendError: A package is missing, or the model is not there, not whole, or of another kind.
    """

    part: str
    """What the model is to be, for messages."""
    expected: str
    """Which models can be that, for messages."""
    options_type: type[O]
    packages: Sequence[str] = ("transformers", "PIL")

    def __init__(self, spec: Spec) -> None:
        self.options = spec.options(self.options_type)
        require(self.packages)
        self.device = pick_device(self.options.device)
        self.checkpoint = checkpoints.locate(spec.target, self.options.revision, self.part)
        self._check()
        self._weights = checkpoints.weights(self.checkpoint, self._weight_folders())
        self.dtype = self._dtype()
        self._name = f"{checkpoints.label(self.checkpoint, self._weights)} ({self._said()})"
        self._lock = threading.Lock()
        self._loaded: L | None = None

    @property
    def name(self) -> str:
        """The model with its commit or digest, and the options that its answers depend on."""
        return self._name

    @property
    def spec(self) -> str:
        """What opens it again, pinned to its commit and precision."""
        commit = self.checkpoint.commit
        place = str(self.checkpoint.folder.resolve()) if commit is None else self.checkpoint.given
        pinned = "" if commit is None else f",revision={commit}"
        return f"transformers:{place}{pinned},dtype={self.dtype}"

    def _said(self) -> str:
        """The options that answers depend on."""
        return self.dtype

    def _check(self) -> None:
        """Raises BackendError where the model is of another kind."""
        raise NotImplementedError

    def _weight_folders(self) -> Sequence[str]:
        """Where in the checkpoint weights are."""
        return ("",)

    def _load(self) -> L:
        """The model, ready to be called. It runs once, inside :meth:`_using`."""
        raise NotImplementedError

    @contextmanager
    def _using(self) -> Iterator[L]:
        """The loaded model, alone and without gradients; its failures become BackendError."""
        doing = "loaded"
        with self._lock, torch.inference_mode(), transformers_quiet:
            try:
                if self._loaded is None:
                    self._loaded = self._load()
                doing = "run"
                yield self._loaded
            except VmrError:
                raise
            except torch.OutOfMemoryError as error:
                raise BackendError(
                    f"{self.part} {self.checkpoint.given}: {self.device} is out of memory: lower "
                    f"batch_size (now {self.options.batch_size}) or set dtype=bfloat16 (now "
                    f"{self.dtype})"
                ) from error
            except Exception as error:
                said = (str(error).strip() or "it said nothing").splitlines()[0]
                raise BackendError(
                    f"{self.part} {self.checkpoint.given}: cannot be {doing}: "
                    f"{type(error).__name__}: {said}"
                ) from error

    def _refuse(self, what: str) -> NoReturn:
        """Says what the model is, and what was expected."""
        raise BackendError(f"{self.part} {self.checkpoint.given}: {what}; expected {self.expected}")

    def _config(self) -> dict[str, Any]:
        """config.json of a model whose classes are those of transformers."""
        config = self.checkpoint.settings("config.json")
        if not config:
            adapter = (self.checkpoint.folder / "adapter_config.json").is_file()
            what = (
                "is an adapter; merge it into its model first" if adapter else "has no config.json"
            )
            self._refuse(what)
        return config

    def _check_kind(self, kinds: Sequence[str]) -> None:
        """Raises BackendError unless the model's type is among some."""
        config = self._config()
        kind = config.get("model_type")
        if kind in kinds:
            return
        architectures = config.get("architectures")
        shown = architectures[0] if isinstance(architectures, list) and architectures else kind
        code = ""
        if "auto_map" in config:
            code = " with code of its own, which vmr never runs"
        self._refuse(f"is a {shown}{code}" if shown else "is of no known type")

    def _check_files(self, *, images: bool) -> None:
        """Raises BackendError where the tokenizer's files or the image processor's are missing."""
        if images and not self.checkpoint.image_settings:
            self._refuse("has no preprocessor_config.json")
        if not self.checkpoint.has_tokenizer:
            self._refuse("has no tokenizer")

    def _dtype(self) -> str:
        """The type of arithmetic, as torch names it."""
        asked = self.options.dtype or ("auto" if self.device.type == "cuda" else "float32")
        if asked != "auto":
            return asked
        config = self.checkpoint.settings("config.json")
        inner = config.get("text_config")
        for settings in (config, inner if isinstance(inner, dict) else {}):
            for key in ("dtype", "torch_dtype"):
                if settings.get(key) in _STORED.values():
                    return str(settings[key])
        tensors = checkpoints.header(self._weights[0]).values()
        return next((_STORED[x["dtype"]] for x in tensors if x["dtype"] in _STORED), "float32")

    def _pretrained(self, auto: Any) -> Any:
        """The model by one of the Auto classes, on its device."""
        model, found = auto.from_pretrained(
            self.checkpoint.folder,
            dtype=getattr(torch, self.dtype),
            output_loading_info=True,
            use_safetensors=True,
            **here(),
        )
        if missing := sorted(found["missing_keys"]):
            raise BackendError(
                f"{self.part} {self.checkpoint.given}: its weights lack {len(missing)} tensors of a "
                f"{type(model).__name__}: {', '.join(missing[:3])}"
            )
        return model.eval().requires_grad_(False).to(self.device)


def here() -> dict[str, Any]:
    """For from_pretrained: no network, and no code that comes with the model."""
    return {"local_files_only": True, "trust_remote_code": False}


def require(packages: Sequence[str]) -> None:
    """Raises BackendError unless Python packages are installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            shown = "pillow" if package == "PIL" else package.replace("_", "-")
            raise BackendError(f"{shown} is not installed; pip install 'vmr[transformers]'")


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``count``."""
    for begin in range(0, count, size):
        yield slice(begin, min(begin + size, count))
