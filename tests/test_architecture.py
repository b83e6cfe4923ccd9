"""Data flows one way: nothing imports against it, and importing vmr is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmr

ROOT = Path(vmr.__file__).parent
# A module may import from its own layer and from those before it.
LAYERS = [
    ["devices", "errors", "files", "hub", "moments", "progress", "settings", "tables", "_core"],
    ["_video"],
    ["cache", "video"],
    ["backends"],
    ["encoding", "features", "ops", "reference"],
    ["data"],
    ["evaluation", "simulation"],
    ["results", "viz", "exports"],
    ["models"],
    ["answering", "doctor"],
    ["training"],
    ["cli"],
]
# The package itself only names what it exports, lazily.
FREE = {"__init__", "__main__"}


def layer(module: str) -> int:
    name = module.split(".")[1] if "." in module else "__init__"
    for place, names in enumerate(LAYERS):
        if name in names:
            return place
    raise AssertionError(f"{module} is in no layer: add it to LAYERS")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("vmr."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vmr":
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if node.module == "vmr" else str(node.module)


MODULES = sorted(
    path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0].split(".")[0] not in FREE
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    own = "vmr." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for imported in imports(path):
        if imported == "vmr.__version__":
            continue
        assert layer(imported) <= layer(own), f"{own} imports {imported}"


def test_every_python_file_is_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in ROOT.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert long == {}


def test_importing_vmr_is_cheap() -> None:
    script = "import vmr, sys; print({'torch', 'numpy', 'cv2', 'matplotlib'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_every_public_name_is_there() -> None:
    for name in vmr.__all__:
        assert getattr(vmr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vmr.nothing
