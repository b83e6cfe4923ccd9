"""The folder of a run: nothing in it is deleted, and nobody else writes there meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from vmr.errors import CacheError, InputError
from vmr.files import make_folder, write_text
from vmr.models.stored import write_tensors
from vmr.settings import dump_yaml, load_yaml
from vmr.training.config import Config

CONFIG, RUN, LAST, METRICS, RESULTS = (
    "config.yaml",
    "run.json",
    "last.safetensors",
    "metrics.jsonl",
    "results.json",
)
FORMAT = 1
# What a kill leaves of a file that was being written (vmr.files.atomic_path), for the files of a run.
_LEFT = re.compile(
    r"\.(config|run|last|metrics|curves|results|val_predictions|test_predictions|model|README)"
    r"\.\w{8}\.(yaml|json|jsonl|safetensors|png|md)"
)
_held: set[str] = set()  # folders that this process writes
# What may change between two starts of a run: where things lie and how fast they come.
_FREE = (
    ("data", "root"),
    ("data", "annotations"),
    ("data", "train"),
    ("data", "val"),
    ("data", "test"),
    ("data", "durations"),
    ("data", "pack"),
    ("data", "workers"),
    ("training", "checkpoint_minutes"),
    ("about",),
    ("paper",),
)


class Best(msgspec.Struct, frozen=True, kw_only=True):
    """The best evaluation.

    Attributes:
        value: Of the metric that chooses.
        epoch: After which, from 1.
        step: Steps done by then.
        metrics: Official keys and numbers on the validation queries.
    """

    value: float
    epoch: int
    step: int
    metrics: dict[str, float | None]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint keeps beside tensors.

    Attributes:
        format: Of checkpoints: 1.
        step: Steps done.
        best: The best evaluation.
        since_best: Evaluations since then.
        ended: Whether training is over.
        lines: Of metrics.jsonl that belong to these steps.
        scale: The state of the loss scaling.
        seconds: Spent on these steps and their evaluations.
    """

    format: int = FORMAT
    step: int = 0
    best: Best | None = None
    since_best: int = 0
    ended: bool = False
    lines: int = 0
    scale: dict[str, Any] = {}
    seconds: float = 0.0


class RunFolder:
    """The result folder of a run, held for as long as the object lives.

    Args:
        path: The folder; it is made where it is not there.
        config: Of the run.
        inputs: What else makes the run what it is, such as hashes of the annotations.
        command: That starts it.

    Attributes:
        path: The folder.

    Raises:
        InputError: The folder holds something else or another run, or another process writes there.
        CacheError: It cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Config,
        inputs: Mapping[str, Any],
        command: str = "",
    ) -> None:
        self.path = Path(path)
        make_folder(self.path)
        self._lock()
        try:
            self._claim(config, inputs, command)
        except BaseException:
            self.close()
            raise

    def _claim(self, config: Config, inputs: Mapping[str, Any], command: str) -> None:
        self._sweep()
        if (self.path / CONFIG).is_file():
            self._check_same(config, inputs)
            return
        names = sorted(entry.name for entry in self.path.iterdir() if entry.name[0] != ".")
        # A run that was killed between its first two files has just the first.
        others = [name for name in names if name != RUN]
        if others:
            more = ", ..." if len(others) > 3 else ""
            raise InputError(
                f"{self.path}: is not empty and holds no run ({', '.join(others[:3])}{more}); name "
                "another folder by --out"
            )
        about = {"version": 1, "vmr": _version(), "command": command, "inputs": dict(inputs)}
        write_text(self.path / RUN, json.dumps(about, indent=2) + "\n")
        write_text(self.path / CONFIG, dump_yaml(msgspec.to_builtins(config)))

    def close(self) -> None:
        """Lets others write."""
        _held.discard(self._place)
        self._handle.close()

    def _lock(self) -> None:
        # The lock goes with the process, however that ends, and processes that read features do not
        # inherit it. Within one process it does not hold, and the set does.
        self._place = str(self.path.resolve())
        me = f"process {os.getpid()} on {socket.gethostname()}"
        try:
            if self._place in _held:
                raise InputError(_taken(self.path, me))
            self._handle = (self.path / ".lock").open("a+")
            try:
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                self._handle.seek(0)
                holder = self._handle.read().strip() or "another process"
                self._handle.close()
                raise InputError(_taken(self.path, holder)) from None
            self._handle.truncate(0)
            self._handle.write(me)
            self._handle.flush()
        except OSError as error:
            raise CacheError(
                f"{self.path / '.lock'} could not be written: {error.strerror}"
            ) from None
        _held.add(self._place)

    def _check_same(self, config: Config, inputs: Mapping[str, Any]) -> None:
        old = _comparable(load_yaml((self.path / CONFIG).read_bytes(), str(self.path / CONFIG)))
        new = _comparable(msgspec.to_builtins(config))
        differences = [
            f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        run = self.path / RUN
        if not run.is_file():
            raise InputError(
                f"{self.path}: holds {CONFIG} but no {RUN}; name another folder by --out"
            )
        before = json.loads(run.read_bytes())["inputs"]
        # A test split may be added later, or left out.
        differences += [
            f"{name} has changed"
            for name in sorted(inputs)
            if before.get(name, inputs[name] if name == "test" else None) != inputs[name]
        ]
        if differences:
            more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
            raise InputError(
                f"{self.path}: holds another run ({'; '.join(differences[:3])}{more}); name another "
                "folder by --out, or start that run again as it was"
            )

    def _sweep(self) -> None:
        """Removes what a killed run left half-written; nobody else writes here."""
        for folder in (self.path, self.path / "best"):
            for left in folder.glob(".*"):
                if _LEFT.fullmatch(left.name):
                    left.unlink()

    # ---- checkpoints ----------------------------------------------------------------------------------

    def save(self, tensors: Mapping[str, Tensor], state: State) -> None:
        """Replaces the checkpoint: one file, so that it is the old one or the new one.

        Raises:
            CacheError: It cannot be written; the old one stays.
        """
        path = self.path / LAST
        try:
            write_tensors(path, tensors, {"state": msgspec.json.encode(state).decode()})
        except CacheError as error:
            before = "; the checkpoint before it is whole, and the same command goes on from there"
            raise CacheError(
                f"step {state.step} is not saved: {error}{before if path.is_file() else ''}"
            ) from None

    def load(self) -> tuple[dict[str, Tensor], State] | None:
        """The checkpoint; None where there is none yet.

        Raises:
            InputError: It is damaged, or of a newer vmr.
        """
        import safetensors.torch
        from safetensors import SafetensorError, safe_open

        path = self.path / LAST
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                said = (file.metadata() or {}).get("state", "{}")
            raw = json.loads(said)
            if raw.get("format", 0) > FORMAT:
                raise InputError(
                    f"{path}: was written by a newer vmr (format {raw['format']}, this one reads up to "
                    f"{FORMAT}); update vmr"
                )
            return safetensors.torch.load_file(path), msgspec.convert(raw, State)
        except (OSError, SafetensorError, ValueError) as error:
            raise InputError(
                f"{path}: is damaged or cut off ({error}); move it away to begin anew, or start from "
                f"{self.path / 'best'}"
            ) from None

    # ---- metrics --------------------------------------------------------------------------------------

    def keep_lines(self, count: int) -> None:
        """Cuts metrics.jsonl to its first lines: what came after the checkpoint is computed again."""
        path = self.path / METRICS
        kept = "".join(f"{json.dumps(line)}\n" for line in self.lines()[:count])
        if path.is_file() and path.read_text("utf-8") != kept:
            write_text(path, kept)

    def add_line(self, line: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl.

        Raises:
            CacheError: It cannot be written.
        """
        path = self.path / METRICS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(line)}\n")
        except OSError as error:
            raise CacheError(f"{path} could not be written: {error.strerror}") from None

    def lines(self) -> list[dict[str, Any]]:
        """metrics.jsonl; a last line that a kill cut off is left out."""
        path = self.path / METRICS
        found = []
        for raw in path.read_text("utf-8").splitlines() if path.is_file() else []:
            try:
                found.append(json.loads(raw))
            except ValueError:
                break
        return found


def _taken(path: Path, holder: str) -> str:
    advice = "wait for it, or name another folder by --out"
    return f"{path}: a run is being written there by {holder}; {advice}"


def _version() -> str:
    from vmr import __version__

    return __version__


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    """Every value by its dotted name, without what may change."""
    found: dict[str, Any] = {}

    def walk(value: Any, names: tuple[str, ...]) -> None:
        if names in _FREE:
            return
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, (*names, name))
        else:
            found[".".join(names)] = list(value) if isinstance(value, tuple) else value

    walk(config, ())
    return found
