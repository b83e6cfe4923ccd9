"""Install what pyproject.toml names for building, running and developing; never another torch."""

import importlib.metadata
import pathlib
import subprocess
import sys


def main() -> None:
    """Installs the requirements with torch held at the version that is there."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    wanted = [*project["project"]["dependencies"], *groups["build"], *groups["dev"]]
    wanted = [requirement for requirement in wanted if not requirement.startswith("torch")]
    held = "torch==" + importlib.metadata.version("torch")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", held, *wanted], check=True)


if __name__ == "__main__":
    main()
