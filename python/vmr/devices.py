"""Where tensors are computed."""

from __future__ import annotations

import os

import torch

from vmr.errors import InputError


def pick_device(device: torch.device | str | None = None) -> torch.device:
    """The device by name; for None a GPU or else the CPU.

    Under torchrun "cuda" is this process's own GPU.

    Raises:
        InputError: There is no such device.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if str(device) == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        said = str(error).partition("\n")[0]
        raise InputError(f"device: expected cpu or cuda, got {str(device)!r}: {said}") from None
    return place
