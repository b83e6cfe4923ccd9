"""Make the virtual environment; a torch that is there and new enough is seen from it."""

import importlib.metadata
import pathlib
import subprocess
import sys
import venv


def torch_folder() -> str:
    """Where the Python that runs this has torch 2.10 or newer; "" where it has none."""
    try:
        torch = importlib.metadata.distribution("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""
    fits = tuple(int(part) for part in torch.version.split(".")[:2]) >= (2, 10)
    return str(pathlib.Path(str(torch.locate_file(""))).resolve()) if fits else ""


def works(python: pathlib.Path) -> bool:
    """Whether an environment's Python runs and has pip."""
    if not python.exists():
        return False
    command = [python, "-m", "pip", "--version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> None:
    """Makes the environment in the folder that the first argument names."""
    folder = pathlib.Path(sys.argv[1])
    python = folder / "bin" / "python"
    if works(python):
        print("   is there")
        return
    outer = torch_folder()
    venv.create(folder, with_pip=True, symlinks=True)
    if outer:
        print(f"   sees the torch in {outer}")
        (site,) = (folder / "lib").glob("*/site-packages")
        (site / "outer-torch.pth").write_text(outer + "\n", encoding="utf-8")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)


if __name__ == "__main__":
    main()
