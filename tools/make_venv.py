"""Make the virtual environment; a torch of the outer Python that is new enough is seen through it."""

import importlib.metadata
import os
import subprocess
import sys
import venv


def outer_torch_fits() -> bool:
    """Whether the Python that runs this has torch 2.10 or newer."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in version.split(".")[:2]) >= (2, 10)


def main() -> None:
    """Makes the environment in the folder that the first argument names."""
    folder = sys.argv[1]
    if os.access(f"{folder}/bin/python", os.X_OK):
        print("   is there")
        return
    shared = outer_torch_fits()
    if shared:
        print("   sees the packages outside, because torch there will do")
    venv.create(folder, with_pip=True, system_site_packages=shared)
    python = f"{folder}/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)


if __name__ == "__main__":
    main()
