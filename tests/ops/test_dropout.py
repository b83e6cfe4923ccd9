"""Dropout: values by hand, what the masks look like, and bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vmr import ops
from vmr.reference import dropout as reference

COUNT = 1 << 20


def kept(seed: int, probability: float, count: int = COUNT) -> Tensor:
    """Which elements stay: the op itself, on ones."""
    ones = torch.ones(count)
    return ops.activated_dropout(ones, seed=torch.tensor(seed), probability=probability) != 0


def correlation(left: Tensor, right: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((left.double(), right.double())))[0, 1])


def test_the_hash_by_hand() -> None:
    # The same arithmetic on Python's integers.
    seed, bits, low = 42, 2**64 - 1, 2**32 - 1
    key = (seed + 0x9E3779B97F4A7C15) & bits
    key = ((key ^ key >> 30) * 0xBF58476D1CE4E5B9) & bits
    key = ((key ^ key >> 27) * 0x94D049BB133111EB) & bits
    key ^= key >> 31
    wanted = []
    for place in range(1000):
        hashed = (place + (key & low)) & low
        hashed = ((hashed ^ hashed >> 16) * 0x7FEB352D) & low
        hashed = (((hashed ^ hashed >> 15) + (key >> 32) & low) * 0x846CA68B) & low
        wanted.append((hashed ^ hashed >> 16) >= int(0.3 * 2**32))
    assert kept(seed, 0.3, 1000).tolist() == wanted


def test_values_by_hand() -> None:
    rows = torch.tensor([[4.0, -2.0, 0.0], [-1.0, 3.0, -8.0]])
    seed = torch.tensor(3)
    stays = ~reference.dropped(rows, seed, 0.5)
    assert 0 < int(stays.sum()) < 6
    relu = torch.tensor([[4.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    prelu = torch.tensor([[4.0, -0.5, 0.0], [-0.25, 3.0, -2.0]])
    slope = torch.tensor([0.25])
    assert torch.equal(ops.activated_dropout(rows, None, seed, probability=0.5), relu * 2 * stays)
    assert torch.equal(ops.activated_dropout(rows, slope, seed, probability=0.5), prelu * 2 * stays)
    assert torch.equal(ops.activated_dropout(rows, probability=0.0), relu)
    assert torch.equal(ops.activated_dropout(rows, slope, probability=0.0), prelu)
    added = ops.residual_dropout(rows, prelu, seed, probability=0.5)
    assert torch.equal(added, rows + prelu * 2 * stays)
    assert torch.equal(ops.residual_dropout(rows, prelu[:1], probability=0.0), rows + prelu[:1])


def test_gradients_are_those_of_torch_where_nothing_is_dropped() -> None:
    # Among them 0, where a derivative is a convention, and NaN.
    rows = torch.tensor([0.0, -0.0, 2.0, -3.0, torch.inf, -torch.inf])
    for values in (rows, torch.tensor([torch.nan, 1.0])):
        ours = [values.clone().requires_grad_(), torch.tensor([0.25], requires_grad=True)]
        theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
        ops.activated_dropout(*ours, probability=0.0).sum().backward()
        F.prelu(*theirs).sum().backward()
        for own, their in zip(ours, theirs, strict=True):
            torch.testing.assert_close(own.grad, their.grad, equal_nan=True)
        own, their = values.clone().requires_grad_(), values.clone().requires_grad_()
        ops.activated_dropout(own, probability=0.0).sum().backward()
        F.relu(their).sum().backward()
        assert torch.equal(own.grad, their.grad)


def test_the_backward_makes_the_same_mask_again() -> None:
    rows, found = torch.randn(2, 300, 70).requires_grad_(), torch.randn(2, 300, 70).requires_grad_()
    total = ops.residual_dropout(rows, found, probability=0.3)
    stays = (total - rows).detach() != 0
    total.sum().backward()
    assert torch.equal(rows.grad, torch.ones_like(rows))
    torch.testing.assert_close(found.grad, stays / 0.7)
    leaf = rows.detach().abs().requires_grad_()
    active = ops.activated_dropout(leaf, probability=0.3)
    active.sum().backward()
    torch.testing.assert_close(leaf.grad, (active != 0) / 0.7)


@pytest.mark.parametrize("probability", [0.01, 0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_asked_for(probability: float) -> None:
    count = 1 << 24
    dropped = 1 - float(kept(1, probability, count).double().mean())
    deviation = (probability * (1 - probability) / count) ** 0.5
    assert abs(dropped - probability) < min(5 * deviation, 5e-4)


def test_neighbours_rows_and_seeds_are_independent() -> None:
    # A correlation of N independent pairs deviates by 1 / sqrt(N), about 0.001.
    first = kept(0, 0.5)
    for distance in (1, 2, 3, 4, 8, 16, 64, 256, 1024, 65536):
        assert abs(correlation(first[distance:], first[:-distance])) < 0.005, distance
    for other in (1, 2, -1, 2**31, 2**32, 2**62):
        second = kept(other, 0.5)
        for distance in (0, 1, 2, 64, 1024):
            pair = correlation(first[distance:], second[: COUNT - distance])
            assert abs(pair) < 0.005, (other, distance)


def test_runs_are_as_long_as_those_of_coins() -> None:
    for probability in (0.1, 0.5):
        stays = kept(9, probability)
        ends = torch.nonzero(stays[1:] != stays[:-1])[:, 0]
        lengths = ends.diff()
        # Of a run of dropped ones, k more follow with p^k: each length's share is geometric.
        dropped = lengths[~stays[ends[:-1] + 1]]
        for length in (1, 2, 3, 4):
            share = float((dropped == length).double().mean())
            assert abs(share - (1 - probability) * probability ** (length - 1)) < 0.006


def test_each_bit_of_the_place_and_of_the_seed_matters() -> None:
    first = kept(0, 0.5, 1 << 16)
    for bit in range(64):
        seed = 1 << bit if bit < 63 else -(1 << 63)
        assert abs(float((first != kept(seed, 0.5, 1 << 16)).double().mean()) - 0.5) < 0.012, bit
    places = torch.arange(COUNT)
    whole = kept(0, 0.5)
    for bit in range(20):
        differs = whole != whole[places ^ (1 << bit)]
        assert abs(float(differs.double().mean()) - 0.5) < 0.005, bit


def test_the_seed_is_drawn_by_torch() -> None:
    rows = torch.randn(50, 40)
    for call in (
        lambda: ops.activated_dropout(rows, probability=0.5),
        lambda: ops.residual_dropout(rows, rows, probability=0.5),
    ):
        torch.manual_seed(7)
        first, second = call(), call()
        torch.manual_seed(7)
        assert torch.equal(call(), first)
        assert not torch.equal(first, second)
        assert torch.equal(call(), second)
    state = torch.get_rng_state()
    ops.activated_dropout(rows, probability=0.0)
    ops.residual_dropout(rows, rows, probability=0.0)
    assert torch.equal(torch.get_rng_state(), state)


def test_nan_stays_where_it_is_not_dropped() -> None:
    rows = torch.full((1000,), torch.nan)
    seed = torch.tensor(5)
    dropped = reference.dropped(rows, seed, 0.5)
    for found in (
        ops.activated_dropout(rows, None, seed, probability=0.5),
        ops.activated_dropout(rows, torch.tensor([0.1]), seed, probability=0.5),
        ops.residual_dropout(torch.zeros(1000), rows, seed, probability=0.5),
    ):
        assert torch.equal(found.isnan(), ~dropped)
        assert torch.equal(found[dropped], torch.zeros(int(dropped.sum())))


def test_autocast_keeps_half_precision() -> None:
    rows = torch.randn(4, 6, dtype=torch.bfloat16)
    slope = torch.tensor([0.25], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = ops.activated_dropout(rows, slope, probability=0.5)
        assert found.dtype == torch.bfloat16
        assert ops.residual_dropout(rows, rows, probability=0.5).dtype == torch.bfloat16
        assert ops.residual_dropout(rows.float(), rows, probability=0.5).dtype == torch.float32
    found.sum().backward()
    assert slope.grad is not None
    assert slope.grad.dtype == torch.float32


def test_compiled_calls_draw_their_seeds() -> None:
    def both(rows: Tensor, slope: Tensor) -> Tensor:
        active = ops.activated_dropout(rows, slope, probability=0.5)
        return ops.residual_dropout(rows, active, probability=0.5)

    rows, slope = torch.randn(20, 30), torch.tensor([0.25])
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    found = compiled(rows, slope), compiled(rows, slope)
    assert not torch.equal(*found)


def test_bad_input() -> None:
    rows, seed = torch.zeros(2, 3), torch.tensor(0)
    for probability in (1.0, -0.1, 2.0, float("nan")):
        for call in (
            lambda p: ops.activated_dropout(rows, None, seed, probability=p),
            lambda p: ops.residual_dropout(rows, rows, seed, probability=p),
        ):
            with pytest.raises(RuntimeError, match="probability must be at least 0 and below 1"):
                call(probability)
    with pytest.raises(RuntimeError, match=r"slope must be \[1\], or \[0\] for none, got \[3\]"):
        ops.activated_dropout(rows, torch.zeros(3), probability=0.5)
    with pytest.raises(RuntimeError, match=r"seed must be one number, got \[2\]"):
        ops.activated_dropout(rows, None, torch.tensor([1, 2]), probability=0.5)
    with pytest.raises(RuntimeError, match=r"seed must be one number, got \[0\]"):
        ops.activated_dropout(rows, None, torch.tensor([1])[:0], probability=0.5)
    with pytest.raises(RuntimeError, match="seed must be int64, got Float"):
        ops.residual_dropout(rows, rows, torch.tensor(1.0), probability=0.5)
    with pytest.raises(RuntimeError, match="rows must be float32, float64, float16 or bfloat16"):
        ops.activated_dropout(rows.long(), probability=0.5)
    with pytest.raises(
        RuntimeError, match=r"found must have the shape of rows, \[2, 3\], got \[3, 2\]"
    ):
        ops.residual_dropout(rows, rows.T, probability=0.5)
