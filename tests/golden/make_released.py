"""Writes released.npz: what the official Moment-DETR and QD-DETR say on a small batch.

    python tests/golden/make_released.py FOLDER

FOLDER holds checkouts of jayleicn/moment_detr and wjun0830/QD-DETR, named OWNER+NAME. The weights are
drawn under the official names; kept are these names with their shapes, and the numbers that come out.
"""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.models import detr_case, released_case

FOLDERS = {
    "moment-detr": ("jayleicn+moment_detr", "moment_detr"),
    "qd-detr": ("wjun0830+QD-DETR", "qd_detr"),
}
OUTPUTS = {"spans": "pred_spans", "logits": "pred_logits", "saliency": "saliency_scores"}


def official(folder: Path, case: str) -> nn.Module:
    """Their model of a case."""
    repository, package = FOLDERS[released_case.KINDS[case]]
    # Both have packages of the same names.
    for name in [name for name in sys.modules if name.split(".")[0] == "utils"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder / repository))
    options = vars(released_case.own_options(case))
    model, _ = importlib.import_module(f"{package}.model").build_model(
        Namespace(**{**options, "device": "cpu"})
    )
    sys.path.pop(0)
    found: nn.Module = model.eval()
    return found


@torch.no_grad()
def said(model: nn.Module, case: str, places: slice) -> dict[str, Tensor]:
    """What it says of some samples of the batch."""
    batch = released_case.batch(case)
    assert batch.text is not None
    rows, tokens = batch.video.shape[1], batch.text.shape[1]
    outputs = model(
        batch.text[places],
        (torch.arange(tokens) < batch.text_lengths[places, None]).float(),
        batch.video[places],
        (torch.arange(rows) < batch.video_lengths[places, None]).float(),
    )
    return {name: outputs[theirs] for name, theirs in OUTPUTS.items()}


def main() -> None:
    # QD-DETR puts its slots onto a GPU.
    torch.Tensor.cuda = lambda tensor: tensor
    arrays: dict[str, np.ndarray] = {}
    for case in released_case.KINDS:
        model = official(Path(sys.argv[1]), case)
        detr_case.draw_weights(model)
        shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
        arrays[f"{case}.shapes"] = np.array(json.dumps(shapes))
        together = said(model, case, slice(None))
        alone = [said(model, case, slice(place, place + 1)) for place in range(3)]
        for name, value in together.items():
            arrays[f"{case}.batch.{name}"] = value.numpy()
            arrays[f"{case}.alone.{name}"] = torch.cat([one[name] for one in alone]).numpy()
    np.savez_compressed(released_case.GOLDEN, **arrays)


if __name__ == "__main__":
    main()
