"""The pieces of the loop, each by itself."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

import vmr
from tests.training.corpus import write_corpus
from vmr.errors import InputError
from vmr.training import (
    Engine,
    EpochBatches,
    build_optimiser,
    parameter_groups,
    rate_factor,
    seed_step,
    set_rate,
)
from vmr.training.config import Group, OptimiserConfig, ScheduleConfig, TrainingConfig

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


@pytest.mark.parametrize(("epochs", "share"), [(100, 0.4), (100, 0.07), (7, 3 / 7)])
@pytest.mark.parametrize("per_epoch", [1, 7, 388])
def test_steps_drop_where_an_epoch_begins(epochs: int, share: float, per_epoch: int) -> None:
    period = round(share * epochs)
    drops = tuple(epoch / epochs for epoch in range(period, epochs, period))
    config = ScheduleConfig(kind="step", drops=drops)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, period)
    for epoch in range(epochs):
        rate = optimiser.param_groups[0]["lr"]
        for step in {0, per_epoch - 1}:
            found = rate_factor(config, epoch * per_epoch + step, epochs * per_epoch)
            assert found == pytest.approx(rate, rel=1e-12)
        optimiser.step()
        scheduler.step()


def test_steps_after_a_warm_up() -> None:
    config = ScheduleConfig(kind="step", warmup=2, drops=(0.75, 0.5), drop_factor=0.5)
    factors = [rate_factor(config, step, 8) for step in range(8)]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.5, 0.5, 0.25, 0.25])


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


@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_the_engine_does_what_a_person_would_write(
    tmp_path: Path, kind: Literal["adamw", "adam"], ema: float | None
) -> None:
    dataset = vmr.MomentDataset(
        vmr.read_queries(write_corpus(tmp_path) / "train.jsonl"), vmr.load_pack(tmp_path)
    )
    batches = [vmr.collate([dataset[8 * step + place] for place in range(8)]) for step in range(4)]
    shape = {"hidden": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 16}
    config = vmr.MomentDETRConfig(
        video_dim=18, text_dim=16, dropout=0.0, input_dropout=0.0, **shape
    )
    model = vmr.MomentDETR(config)
    mine, mean = copy.deepcopy(model), copy.deepcopy(model)
    training = TrainingConfig(
        epochs=1, clip=0.3, ema=ema, optimiser=OptimiserConfig(kind=kind, lr=1e-2, weight_decay=0.1),
        schedule=ScheduleConfig(kind="linear", warmup=2),
    )  # fmt: skip
    engine = Engine(model, training, 4, torch.device("cpu"))
    rates = [1 / 3, 2 / 3, 1.0, 0.5]
    made = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    optimiser = made(mine.parameters(), lr=1e-2, weight_decay=0.1)
    for step, batch in enumerate(batches):
        engine.step(step, [batch])
        optimiser.param_groups[0]["lr"] = 1e-2 * rates[step]
        optimiser.zero_grad()
        mine.loss(mine(**mine.inputs(batch)), batch).total.backward()
        nn.utils.clip_grad_norm_(mine.parameters(), 0.3)
        optimiser.step()
        share = 0.0 if step == 0 or ema is None else ema
        for kept, new in zip(mean.parameters(), mine.parameters(), strict=True):
            kept.data = share * kept.data + (1 - share) * new.data
    pairs = zip(engine.evaluated.parameters(), mean.parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)


def test_steps_are_seeded_apart() -> None:
    def draw(*place: int) -> float:
        seed_step(*place)
        return float(torch.rand(()))

    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    drawn = [draw(*place) for place in places]
    assert len(set(drawn)) == 4
    assert [draw(*place) for place in places] == drawn
