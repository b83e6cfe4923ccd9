"""Optimisers and learning rates."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from vmr.errors import InputError
from vmr.training.config import OptimiserConfig, ScheduleConfig


def parameter_groups(model: nn.Module, config: OptimiserConfig) -> list[dict[str, Any]]:
    """The parameters that are learned, in groups of one learning rate and weight decay.

    Args:
        model: Whose parameters.
        config: Its ``groups`` say which are apart.

    Returns:
        For an optimiser of torch: the first group has what no pattern matches.

    Raises:
        InputError: A pattern matches nothing, which is most often a wrong name.
    """
    rest: list[nn.Parameter] = []
    matched: list[list[nn.Parameter]] = [[] for _ in config.groups]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            places = [i for i, group in enumerate(config.groups) if fnmatchcase(name, group.match)]
            (matched[places[0]] if places else rest).append(parameter)
    found: list[dict[str, Any]] = [{"params": rest}] if rest else []
    for group, parameters in zip(config.groups, matched, strict=True):
        if not parameters:
            raise InputError(
                f"training.optimiser.groups: {group.match!r} matches no parameter that is left; names "
                f"are such as {next(iter(dict(model.named_parameters())), '(none)')!r}; leave the group "
                "out, as in training.optimiser.groups=[]"
            )
        values: dict[str, Any] = {"params": parameters}
        if group.lr is not None:
            values["lr"] = group.lr
        if group.weight_decay is not None:
            values["weight_decay"] = group.weight_decay
        found.append(values)
    return found


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over :func:`parameter_groups`.

    Raises:
        InputError: As there.
    """
    kind: type[torch.optim.AdamW | torch.optim.Adam]
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(
        parameter_groups(model, config),
        lr=config.lr,
        weight_decay=config.weight_decay,
        betas=config.betas,
        eps=config.eps,
    )


def rate_factor(config: ScheduleConfig, step: int, steps: int) -> float:
    """What the learning rate is multiplied with at a step: a function of nothing else.

    Args:
        config: The schedule.
        step: From 0.
        steps: Of the whole run; ``final`` would be reached at the step after the last.
    """
    warmup = config.warmup if config.warmup >= 1 else round(config.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.kind == "constant":
        return 1.0
    if config.kind == "step":
        # Rounded, so that 0.07 of 100 steps are 7 and not 7.000000000000001.
        dropped = sum(step >= round(share * steps) for share in config.drops)
        return float(config.drop_factor**dropped)
    done = min(1.0, (step - warmup) / max(1.0, steps - warmup))
    left = 1.0 - done if config.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return config.final + (1.0 - config.final) * left


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> float:
    """Sets the learning rate of every group to ``factor`` times what it was at the first call.

    Returns:
        That of the first group.
    """
    for group in optimiser.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = factor * group["initial_lr"]
    return float(optimiser.param_groups[0]["lr"])
