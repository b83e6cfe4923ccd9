"""The package as pip builds and installs it."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

needs_checkout = pytest.mark.skipif(
    not (ROOT / "CMakeLists.txt").exists(), reason="needs a checkout of the project"
)


@needs_checkout
@pytest.mark.parametrize("version", ["2.9.1", "1.13.0+cu117"])
def test_an_older_torch_is_told_what_to_do(version: str, tmp_path: Path) -> None:
    package = tmp_path / "torch" / "utils"
    package.mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (package / "__init__.py").write_text("")
    (package / "cpp_extension.py").write_text("include_paths = library_paths = list\n")
    run = subprocess.run(
        [sys.executable, ROOT / "cmake" / "torch_paths.py"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert f"torch {version} is installed" in run.stderr
    assert "needs torch 2.10 or newer" in run.stderr
    assert "pip install torch==" in run.stderr


@needs_checkout
def test_no_torch_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    run = subprocess.run(
        [sys.executable, ROOT / "cmake" / "torch_paths.py"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "no torch here" in run.stderr
    assert "pip install torch==" in run.stderr


@pytest.mark.slow
@needs_checkout
def test_the_wheel_works_where_it_is_installed(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = f"build-dir={tmp_path / 'build'}"
    subprocess.run(
        [*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", tmp_path, "-C", build, ROOT],
        check=True,
    )
    (wheel,) = tmp_path.glob("vmr-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "vmr/_ops.so",
        "vmr/py.typed",
        "vmr/_core.pyi",
        *(f"vmr/schemas/{path.name}" for path in ROOT.glob("python/vmr/schemas/*.json")),
        *(f"vmr/viz/page.{suffix}" for suffix in ("html", "css", "js")),
        *(f"vmr/data/presets/{path.name}" for path in ROOT.glob("python/vmr/data/presets/*.yaml")),
    } <= names
    assert not any(name.startswith(("cpp/", "tests/")) for name in names)
    # An environment that sees this one's packages, but not its editable vmr.
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    script = (
        "import json, vmr, torch\n"
        "from vmr import ops\n"
        "from vmr.data.pack_spec import list_packs\n"
        "iou = ops.span_iou(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 3.0]]))\n"
        "found = [vmr.__file__, iou.item(), vmr.build_config()['version'], list_packs()]\n"
        "print(json.dumps(found))"
    )
    run = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    file, iou, version, packs = json.loads(run.stdout)
    assert Path(file).is_relative_to(site)
    assert iou == pytest.approx(1 / 3)
    assert "lighthouse-tacos-clip-slowfast" in packs
    assert wheel.name.startswith(f"vmr-{version}-")
