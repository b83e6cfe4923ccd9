"""The pieces of the loop, each by itself."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import nn

from vmr.errors import InputError
from vmr.training import (
    EpochBatches,
    build_optimiser,
    parameter_groups,
    rate_factor,
    seed_step,
    set_rate,
)
from vmr.training.config import Group, OptimiserConfig, ScheduleConfig

# ---- batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(37, 8), (8, 8), (9, 8), (5, 8), (100, 7)])
def test_an_epoch_has_every_query_once_in_even_batches(count: int, size: int) -> None:
    batches = EpochBatches(count, size, epochs=2, seed=3)
    drawn = list(batches)
    assert batches.per_epoch == math.ceil(count / size)
    assert len(drawn) == len(batches) == batches.steps
    first, second = drawn[: batches.per_epoch], drawn[batches.per_epoch :]
    for epoch in (first, second):
        assert sorted(itertools.chain(*epoch)) == list(range(count))
        sizes = {len(batch) for batch in epoch}
        assert max(sizes) <= size
        assert max(sizes) - min(sizes) <= 1
    assert first != second or count == 1


def test_a_later_start_goes_on_with_the_same_batches() -> None:
    whole = list(EpochBatches(37, 8, 3, seed=1))
    for start in (1, 4, 5, 6, 14):
        assert list(EpochBatches(37, 8, 3, seed=1, start=start)) == whole[start:]
    assert list(EpochBatches(37, 8, 3, seed=2)) != whole


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_and_parts_share_each_batch(world: int, accumulate: int) -> None:
    whole = list(EpochBatches(37, 8, 2, seed=1))
    shares = [
        list(EpochBatches(37, 8, 2, seed=1, rank=rank, world=world, accumulate=accumulate))
        for rank in range(world)
    ]
    for step, batch in enumerate(whole):
        parts = [share[step * accumulate + part] for share in shares for part in range(accumulate)]
        assert Counter(itertools.chain(*parts)) == Counter(batch)
        assert all(parts)


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(InputError, match="make batches of 4, too few for 3 processes with 2 parts"):
        EpochBatches(9, 6, 1, world=3, accumulate=2)


# ---- learning rates -----------------------------------------------------------------------------------


def test_schedules() -> None:
    linear = ScheduleConfig(kind="linear", warmup=4, final=0.1)
    factors = [rate_factor(linear, step, 104) for step in range(104)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1.0
    assert factors[54] == pytest.approx(0.55)
    assert rate_factor(linear, 104, 104) == pytest.approx(0.1)
    cosine = ScheduleConfig(kind="cosine", warmup=0.1)
    assert rate_factor(cosine, 10, 100) == 1.0
    assert rate_factor(cosine, 55, 100) == pytest.approx(0.5)
    assert rate_factor(cosine, 100, 100) == pytest.approx(0.0)
    assert rate_factor(ScheduleConfig(), 7, 10) == 1.0
    assert all(0 < rate_factor(cosine, step, 100) <= 1 for step in range(100))


def test_a_rate_is_set_from_what_the_group_was_built_with() -> None:
    model = nn.Linear(2, 2)
    config = OptimiserConfig(lr=0.1, groups=(Group(match="bias", lr=0.01),))
    optimiser = build_optimiser(model, config)
    assert set_rate(optimiser, 0.5) == pytest.approx(0.05)
    assert set_rate(optimiser, 0.5) == pytest.approx(0.05)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.05, 0.005])


# ---- optimisers ---------------------------------------------------------------------------------------


def test_groups_of_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].bias.requires_grad_(False)
    config = OptimiserConfig(
        groups=(Group(match="*.bias", weight_decay=0.0), Group(match="0.*", lr=0.5))
    )
    rest, bias, first = parameter_groups(model, config)
    assert [len(group["params"]) for group in (rest, bias, first)] == [2, 2, 1]
    assert bias["weight_decay"] == 0.0
    assert "lr" not in bias
    assert first["lr"] == 0.5
    with pytest.raises(InputError, match=r"'encoder\.\*' matches no parameter"):
        parameter_groups(model, OptimiserConfig(groups=(Group(match="encoder.*"),)))


def test_kinds_of_optimisers() -> None:
    model = nn.Linear(2, 2)
    assert isinstance(build_optimiser(model, OptimiserConfig()), torch.optim.AdamW)
    adam = build_optimiser(model, OptimiserConfig(kind="adam", betas=(0.8, 0.9), eps=1e-6))
    assert type(adam) is torch.optim.Adam
    assert adam.defaults["betas"] == (0.8, 0.9)


def test_steps_are_seeded_apart() -> None:
    def draw(*place: int) -> float:
        seed_step(*place)
        return float(torch.rand(()))

    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    drawn = [draw(*place) for place in places]
    assert len(set(drawn)) == 4
    assert [draw(*place) for place in places] == drawn
