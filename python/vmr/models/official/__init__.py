"""Released checkpoints of the official codes, as models of vmr.

``reading`` opens a file, ``options`` holds its run's options against its weights, and ``names`` turns
their names into vmr's; a module for each code has its rules. A further code is an entry of :data:`KINDS`
and such a module.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from vmr.errors import InputError
from vmr.models.base import MomentModel
from vmr.models.official.names import translated
from vmr.models.official.plan import Plan
from vmr.models.official.reading import Released, read_released
from vmr.models.registry import model_type
from vmr.models.stored import About, Origin


class Kind(NamedTuple):
    """An official code.

    Attributes:
        name: What its authors call the model.
        code: Its repository, "owner/name" on GitHub.
        marks: Names of tensors, of which its checkpoints have all.
        plan: Module with ``plan(released) -> Plan``.
    """

    name: str
    code: str
    marks: tuple[str, ...]
    plan: str


# By the kind of vmr's model; the first whose marks are all there counts.
KINDS = {
    "bm-detr": Kind(
        "BM-DETR",
        "minjoong507/BM-DETR",
        ("FPM.0.weight", "transformer.decoder.ref_anchor_head.layers.0.weight"),
        "vmr.models.official.bm_detr",
    ),
    "qd-detr": Kind(
        "QD-DETR",
        "wjun0830/QD-DETR",
        ("global_rep_token", "transformer.t2v_encoder.layers.0.linear1.weight"),
        "vmr.models.official.qd_detr",
    ),
    "moment-detr": Kind(
        "Moment-DETR",
        "jayleicn/moment_detr",
        ("saliency_proj.weight", "transformer.decoder.layers.0.multihead_attn.in_proj_weight"),
        "vmr.models.official.moment_detr",
    ),
}


def kind_of(tensors: Mapping[str, Tensor], where: str) -> str:
    """Which model a state dict is of, told by its names.

    Raises:
        InputError: None that vmr knows.
    """
    for name, kind in KINDS.items():
        if all(mark in tensors for mark in kind.marks):
            return name
    known = "; ".join(f"{kind.name} has {' and '.join(kind.marks)}" for kind in KINDS.values())
    raise InputError(
        f"{where}: is no checkpoint of {', '.join(kind.name for kind in KINDS.values())}: its tensors "
        f"are {', '.join(list(tensors)[:3])}, ...; {known}"
    )


def from_official(
    path: str | os.PathLike[str],
    opt: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    wanted: type[MomentModel] = MomentModel,
) -> MomentModel:
    """A model of vmr from a checkpoint that an official code wrote.

    Which model it is shows in the names of its tensors. What the code computes in evaluation mode, this
    computes too; docs/models.md says what answers differ in.

    Args:
        path: The file, e.g. model_best.ckpt.
        opt: Options of its run, as a JSON file or a mapping; None takes those in the file, or else
            opt.json beside it.
        wanted: The class that it shall be of.

    Returns:
        The model, in evaluation mode; ``about`` says where it comes from, and what its features are.

    Raises:
        InputError: The file is not there, damaged, asks for code to be run, or is of no known model or
            of another; or its options and its weights do not go together.
    """
    released = read_released(path, opt)
    name = kind_of(released.tensors, str(released.path))
    kind, found = KINDS[name], model_type(name)
    if not issubclass(found, wanted):
        raise InputError(
            f"{released.path}: expected a checkpoint of {wanted.kind}, and its tensors are those of "
            f"{kind.name}; MomentModel.from_official takes either"
        )
    plan: Plan = importlib.import_module(kind.plan).plan(released)
    model = found(plan.config)
    where = f"{released.path}: looks like {kind.name}"
    model.load_state_dict(translated(released.tensors, plan.rules, model, where))
    model.about = _about(released, kind, plan)
    return model.eval()


def _about(released: Released, kind: Kind, plan: Plan) -> About:
    from vmr.models.official.options import plain_options

    return About(
        name=f"{kind.name}, {released.path.name}",
        pack=plan.pack,
        data=plan.data,
        seed=plan.seed,
        origin=Origin(
            code=kind.code,
            file=released.path.name,
            sha256=released.sha256,
            options=plain_options(released.options),
            epoch=released.epoch,
        ),
    )
