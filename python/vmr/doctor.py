"""What this installation has, and what to install for what it lacks."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
from dataclasses import dataclass
from typing import Any

import vmr

# Package, the extra of vmr that brings it, what it is for.
_EXTRAS = (
    ("transformers", "transformers", "models of the hub"),
    ("sentence-transformers", "transformers", "sentence encoders of the hub"),
    ("openai", "http", "models behind an endpoint"),
    ("opentimelineio", "otio", "exports to OpenTimelineIO"),
    ("pandas", "pandas", "results as data frames"),
    ("h5py", "hdf5", "features in HDF5"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``vmr doctor``.

    Attributes:
        part: What was looked at.
        state: What was found.
        advice: What to do about it; empty where nothing is missing.
        required: Whether vmr cannot work without it.
    """

    part: str
    state: str
    advice: str = ""
    required: bool = False

    @property
    def ok(self) -> bool:
        return not self.advice


def build_config() -> dict[str, Any]:
    """What this build of vmr was made of and what is installed beside it.

    Returns:
        ``version``, ``compiler``, ``build_type``, ``built_with_torch``, ``opencv`` (of the C++ video
        reader; "" where it reads through opencv-python-headless), ``cuda`` and ``cuda_architectures``
        ("" without CUDA kernels), ``cpu_isa`` (the instruction set that the kernels chose),
        ``python``, ``torch`` (installed; "" if not) and ``packages``: the small models, by name, with
        their installed version or "".
    """
    from vmr import _core
    from vmr.backends import packages

    return {
        **_core.build_config(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "packages": {status.package.name: status.installed or "" for status in packages.status()},
    }


def findings() -> list[Finding]:
    """Every part of the installation, what was found and what to do where something is missing."""
    from vmr import _core
    from vmr.backends import packages

    build = _core.build_config()
    found = [
        Finding("vmr", f"{vmr.__version__}, {build['build_type']} build by {build['compiler']}"),
        Finding("python", platform.python_version()),
        _torch(build["built_with_torch"]),
        Finding("cpu kernels", f"use {build['cpu_isa']}"),
        _cuda(build),
        _video(build["opencv"]),
    ]
    for status in packages.status():
        package = status.package
        state = f"{status.installed or 'missing'} ({package.purpose})"
        found.append(Finding(package.name, state, status.advice))
    return [*found, *map(_extra, _EXTRAS), _ffmpeg()]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _torch(built_with: str) -> Finding:
    installed = _version("torch")
    advice = ""
    if not installed or tuple(int(part) for part in installed.split(".")[:2]) < (2, 10):
        advice = "pip install 'torch>=2.10' (a CPU build will do), then install vmr again"
    state = f"{installed or 'missing'} (built with {built_with})"
    return Finding("torch", state, advice, required=True)


def _extra(extra: tuple[str, str, str]) -> Finding:
    package, name, purpose = extra
    installed = _version(package)
    advice = "" if installed else f"pip install 'vmr[{name}]'"
    return Finding(package, f"{installed or 'missing'} ({purpose})", advice)


def _ffmpeg() -> Finding:
    there = shutil.which("ffmpeg") and shutil.which("ffprobe")
    advice = "" if there else "apt-get install ffmpeg, or https://ffmpeg.org/download.html"
    return Finding("ffmpeg", f"{'found' if there else 'missing'} (clips cut from videos)", advice)


def _cuda(build: dict[str, str]) -> Finding:
    if build["cuda"]:
        return Finding("cuda kernels", f"CUDA {build['cuda']} for {build['cuda_architectures']}")
    try:
        import torch
    except ImportError as error:
        return Finding("cuda kernels", f"not built, and torch cannot be imported ({error})")
    if not torch.cuda.is_available():
        return Finding("cuda kernels", "not built, and torch sees no GPU")
    return Finding(
        "cuda kernels",
        "not built, though torch sees a GPU: tensors on it run the slower PyTorch reference",
        f"put nvcc of the CUDA toolkit {torch.version.cuda} on the path and build vmr again, "
        "`pip install --no-build-isolation .`",
    )


def _video(built_with: str) -> Finding:
    # Looked for by importing them: a library that they need may have gone.
    problem = ""
    if built_with:
        try:
            importlib.import_module("vmr._video")
        except ImportError as error:
            problem = f"; the C++ reader cannot be loaded ({error})"
        else:
            return Finding("video", f"C++ reader on OpenCV {built_with}")
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        state = f"no reader ({error}){problem}"
        return Finding("video", state, "pip install opencv-python-headless", required=True)
    return Finding("video", f"OpenCV's Python package {cv2.__version__}{problem}")
