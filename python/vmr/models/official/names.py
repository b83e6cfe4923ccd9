"""From the names of an official model's tensors to vmr's, and which model they are of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from vmr.errors import InputError
from vmr.models.stored import tensor_differences

Change = Callable[[Tensor], Tensor]


class Rule(NamedTuple):
    """What one of their tensors is here.

    In both names ``#`` stands for a number and ``*`` for the rest; each is the same on both sides.

    Attributes:
        theirs: Their name.
        ours: vmr's; None for what their code does not read when it answers.
        change: From their values to vmr's; None where these are the same.
    """

    theirs: str
    ours: str | None
    change: Change | None = None


def renamed(theirs: str, ours: str, names: Mapping[str, str]) -> list[Rule]:
    """Rules for the parts of a module.

    Args:
        theirs: Their name of it.
        ours: vmr's.
        names: Of its parts, theirs to vmr's; all tensors of a part keep their names.
    """
    return [Rule(f"{theirs}.{a}.*", f"{ours}.{b}.*") for a, b in names.items()]


def translated(
    tensors: Mapping[str, Tensor], rules: Sequence[Rule], model: nn.Module, where: str
) -> dict[str, Tensor]:
    """Their tensors under vmr's names; the first rule that fits a name counts.

    Args:
        tensors: Theirs.
        rules: What they are here.
        model: That which is to be filled; vmr's names are its state dict's.
        where: File and what it looks like, for messages.

    Raises:
        InputError: A tensor that no rule names, one of the model's that is not filled, or another shape;
            in their names.
    """
    own = model.state_dict()
    found: dict[str, Tensor] = {}
    unknown, wrong = [], []
    for name, value in tensors.items():
        rule = next((rule for rule in rules if _fits(rule.theirs, name)), None)
        ours = None if rule is None or rule.ours is None else _moved(name, rule.theirs, rule.ours)
        if rule is None or (ours is not None and ours not in own):
            unknown.append(name)
        elif ours is not None:
            found[ours] = value if rule.change is None else rule.change(value)
            if found[ours].shape != own[ours].shape:
                wrong.append(
                    f"{name} is {list(value.shape)}, for {list(own[ours].shape)} of {ours}"
                )
    missing = [their_name(name, rules) for name in own if name not in found]
    if said := tensor_differences(missing, unknown, wrong):
        raise InputError(f"{where}: its tensors are not those of that model; {said}")
    return found


def _moved(name: str, source: str, target: str) -> str:
    """A name that fits ``source``, as ``target`` has it."""
    match = _fits(source, name)
    assert match is not None
    parts = iter(match.groups())
    return re.sub(r"[#*]", lambda _: next(parts), target)


def their_name(ours: str, rules: Sequence[Rule]) -> str:
    """What they call a tensor of vmr's; its own name where no rule has it."""
    for rule in rules:
        if rule.ours is not None and _fits(rule.ours, ours):
            return _moved(ours, rule.ours, rule.theirs)
    return ours


def _fits(pattern: str, name: str) -> re.Match[str] | None:
    return re.fullmatch(re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", r"(.+)"), name)
