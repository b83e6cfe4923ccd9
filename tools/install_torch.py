"""Install torch where none is that vmr can use.

TORCH_INDEX names another package index for it, TORCH another version than the one below.
"""

import importlib.metadata
import os
import subprocess
import sys

TORCH = os.environ.get("TORCH") or "torch==2.13.0"


def main() -> None:
    """Installs :data:`TORCH`, unless torch 2.10 or newer is there."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    if version and tuple(int(part) for part in version.split(".")[:2]) >= (2, 10):
        print(f"== torch {version} is there")
        return
    print(f"== {TORCH}" + (f" instead of {version}, which is too old" if version else ""))
    index = os.environ.get("TORCH_INDEX")
    command = [sys.executable, "-m", "pip", "install", "--quiet", TORCH]
    subprocess.run([*command, "--index-url", index] if index else command, check=True)


if __name__ == "__main__":
    main()
