"""Print torch's version, its CUDA version or "none", library folder and include folders, one a line."""

import sys

ADVICE = (
    "Install it first, e.g. `pip install torch==2.13.0`, then `pip install --no-build-isolation .`"
)
try:
    import torch
    from torch.utils.cpp_extension import include_paths, library_paths
except ImportError as error:
    sys.exit(
        f"vmr needs torch 2.10 or newer to build, and importing torch failed: {error}. {ADVICE}"
    )

version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
if version < (2, 10):
    sys.exit(f"vmr needs torch 2.10 or newer, and torch {torch.__version__} is installed. {ADVICE}")
print(
    torch.__version__, torch.version.cuda or "none", library_paths()[0], *include_paths(), sep="\n"
)
