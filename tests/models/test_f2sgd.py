"""F2SGD as a module and as a head: the map, eq. 14 against an explicit G, moments in seconds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.models.detr_case import batch, draw_weights, item, numbers
from vmr.data.dataset import collate
from vmr.errors import InputError
from vmr.models.layers.f2sgd import F2SGD
from vmr.models.layers.points import nearest_frames, window_points

ROWS, DIM = 9, 5
LENGTHS = torch.tensor([9, 4, 1])


def head(**settings: Any) -> F2SGD:
    made = F2SGD(5, channels=3, hidden=4, **settings)
    draw_weights(made)
    return made


def frames() -> Tensor:
    made = numbers("frames", 3, ROWS, DIM)
    for row, length in enumerate(LENGTHS.tolist()):
        made[row, length:] = torch.nan
    return made


def test_a_frozen_head_passes_gradients_on() -> None:
    detector = F2SGD(9, channels=3).requires_grad_(False)
    given = frames().nan_to_num().repeat(1, 4, 1).requires_grad_()
    detector(given, LENGTHS).square().sum().backward()
    assert given.grad is not None
    assert bool(given.grad[0].abs().sum() > 0)


def test_what_was_kept_in_inference_mode_serves_gradients() -> None:
    detector = F2SGD(9, channels=3).requires_grad_(False)
    given = frames().nan_to_num().repeat(1, 4, 1)
    with torch.inference_mode():
        kept = detector(given, LENGTHS)
    given.requires_grad_()
    found = detector(given, LENGTHS)
    found.sum().backward()
    torch.testing.assert_close(found, kept, rtol=1e-4, atol=1e-5)


def test_a_broken_sample_leaves_the_others_alone() -> None:
    detector = F2SGD(9, channels=3).eval()
    given, lengths = numbers("many", 4, 36, DIM), torch.tensor([36, 30, 36, 5])
    broken = given.clone()
    broken[1, 3] = torch.nan
    with torch.no_grad():
        found, wanted = detector(broken, lengths), detector(given, lengths)
    for row in (0, 2, 3):
        torch.testing.assert_close(found[row], wanted[row], rtol=1e-4, atol=1e-5)
    assert not bool(found[1].isfinite().all())


def test_groups_of_samples_are_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = F2SGD(9, channels=3).eval()
    given, lengths = numbers("many", 5, 12, DIM), torch.tensor([12, 3, 12, 9, 1])
    with torch.no_grad():
        wanted = detector(given, lengths)
        monkeypatch.setattr("vmr.models.layers.f2sgd._PAIRS_AT_ONCE", 2 * 12 * 12)
        torch.testing.assert_close(detector(given, lengths), wanted, rtol=1e-4, atol=1e-5)
        assert detector(given[:0], lengths[:0]).shape == (0, 12, 12)


def test_lengths_of_frames_do_not_count() -> None:
    detector = F2SGD(5, channels=3)
    given = frames()
    for scale in (1e-8, 1e8):
        torch.testing.assert_close(
            detector(given * scale, LENGTHS)[0], detector(given, LENGTHS)[0], rtol=1e-3, atol=1e-4
        )


# ---- the map ----------------------------------------------------------------------------------------


def test_scores_are_those_of_the_layers_on_the_cosines() -> None:
    detector = head()
    found = detector(frames(), LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        own = F.normalize(frames()[row, :length], dim=-1)
        maps = (own @ own.T)[None, None]
        for layer in (detector.first, detector.second):
            maps = F.relu(F.conv2d(maps, layer.weight, layer.bias, padding=2))
        points = F.relu(detector.hidden(maps[0].permute(1, 2, 0)))
        expected = detector.score(points).squeeze(-1)
        torch.testing.assert_close(found[row, :length, :length], expected, rtol=1e-4, atol=1e-5)


def test_every_weight_learns() -> None:
    detector = head()
    own = numbers("frames", 3, ROWS, DIM).requires_grad_()
    points, splits = torch.tensor([[2, 4], [0, 0]]), torch.tensor([0, 1, 2, 2])
    detector.loss(detector(own, LENGTHS), points, splits, LENGTHS).sum().backward()
    for name, parameter in (*detector.named_parameters(), ("frames", own)):
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_what_is_kept_follows_the_weights() -> None:
    detector = head()
    valid = torch.arange(ROWS) < LENGTHS[:, None]
    valid = valid[:, :, None] & valid[:, None]

    def both(own: F2SGD) -> Tensor:
        with torch.no_grad():
            kept: Tensor = own(frames(), LENGTHS)[valid]
        plain = own(frames(), LENGTHS)[valid]
        assert plain.requires_grad
        torch.testing.assert_close(kept, plain.detach(), rtol=1e-4, atol=1e-5)
        return kept

    before = both(detector)
    optimiser = torch.optim.Adam(detector.parameters(), lr=0.1)
    detector(frames(), LENGTHS)[valid].square().sum().backward()
    optimiser.step()
    after = both(detector)
    assert (after - before).abs().max() > 1e-2
    other = head()
    both(other)
    other.load_state_dict(detector.state_dict())
    torch.testing.assert_close(both(other), after)
    torch.testing.assert_close(both(copy.deepcopy(detector)), after)
    wide = copy.deepcopy(detector).double()
    with torch.no_grad():
        found = wide(frames().double(), LENGTHS)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[valid].float(), after, rtol=1e-4, atol=1e-5)


# ---- eq. 14 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("region", ["whole", "upper"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_is_that_of_an_explicit_map(sigmoid: bool, region: str, reduction: str) -> None:
    detector = head(sigmoid=sigmoid, loss_region=region, loss_reduction=reduction)
    scores = numbers("scores", 3, ROWS, ROWS)
    # The same moment twice is one point of the map; the last sample has none.
    points = torch.tensor([[2, 4], [5, 5], [2, 4], [0, 3]])
    splits = torch.tensor([0, 3, 4, 4])
    found = detector.loss(scores, points, splits, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        truth = torch.zeros(length, length)
        for start, end in points[splits[row] : splits[row + 1]].tolist():
            truth[start, end] = 1
        own = scores[row, :length, :length]
        away = ((own.sigmoid() if sigmoid else own) - truth).square()
        counted = torch.ones(length, length).triu() if region == "upper" else torch.ones_like(away)
        expected = (away * counted).sum()
        if reduction == "mean":
            expected = expected / counted.sum()
        torch.testing.assert_close(found[row], expected)


def test_the_loss_of_a_batch() -> None:
    of = collate(
        [
            item("a", 9, 1, [(2, 8), (0, 2)]),
            item("n", 6, 1, None),
            item("b", 5, 1, [(20, 30)]),
            item("c", 4, 1, [(4, 8)]),
        ]
    )
    detector = head()
    scores = numbers("scores", 4, 9, 9)
    points, splits = window_points(of)
    assert points.tolist() == [[1, 3], [0, 0], [2, 3]]
    assert splits.tolist() == [0, 2, 2, 2, 3]
    losses = detector.loss(scores, points, splits, of.video_lengths)
    assert detector.loss_counts(of)["vertex"] == 2
    torch.testing.assert_close(detector.loss_sums(scores, of)["vertex"], losses[0] + losses[3])
    assert detector.loss_weights() == {"vertex": 1.0}


def test_learns_where_blocks_are() -> None:
    """A map has one corner in many points: that must not drown it."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    rows, count = 24, 16
    starts = torch.randint(0, 12, (count,), generator=generator)
    points = torch.stack((starts, starts + torch.randint(3, 10, (count,), generator=generator)), 1)
    places = torch.arange(rows)
    inside = (places >= points[:, :1]) & (places <= points[:, 1:])
    features = torch.randn(count, rows, 12, generator=generator)
    features[inside] += 3.0
    lengths, splits = torch.full((count,), rows), torch.arange(count + 1)
    detector = F2SGD(7, channels=8, hidden=8, sigmoid=True)
    optimiser = torch.optim.Adam(detector.parameters(), lr=5e-3)
    for _ in range(60):
        optimiser.zero_grad()
        detector.loss(detector(features, lengths), points, splits, lengths).mean().backward()
        optimiser.step()
    with torch.no_grad():
        found, _, _ = detector.moments(detector(features, lengths), lengths, torch.ones(count), 1)
    assert (found[:, 0].long() == points + torch.tensor([0, 1])).all(dim=1).float().mean() > 0.7


# ---- moments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigmoid", [True, False])
def test_moments_are_in_seconds(sigmoid: bool) -> None:
    detector = head(sigmoid=sigmoid)
    scores = torch.full((2, 4, 4), -3.0)
    scores[0, 1, 2], scores[0, 0, 3] = 2.0, 1.0
    scores[0, 3, 0] = scores[1, 0, 1] = 9.0  # below the diagonal; in the padding
    scores[1, 1:] = torch.nan
    seconds = torch.tensor([1.5, 2.0])
    found, values, counts = detector.moments(scores, torch.tensor([4, 1]), seconds, 2)
    assert found[0].tolist() == [[1.5, 4.5], [0.0, 6.0]]
    assert found[1, 0].tolist() == [0.0, 2.0]
    assert counts.tolist() == [2, 1]
    expected = torch.tensor([2.0, 1.0])
    torch.testing.assert_close(values[0], expected.sigmoid() if sigmoid else expected)


def test_more_moments_than_there_are() -> None:
    found, values, counts = head().moments(
        numbers("scores", 3, ROWS, ROWS), LENGTHS, torch.ones(3), 50
    )
    assert list(found.shape) == [3, 50, 2]
    assert list(values.shape) == [3, 50]
    assert counts.tolist() == [45, 10, 1]
    for row, count in enumerate(counts.tolist()):
        some = [tuple(span) for span in found[row, :count].tolist()]
        assert len(set(some)) == count
        assert all(0 <= start < end <= LENGTHS[row] for start, end in some)


def test_points_are_the_nearest_frames() -> None:
    seconds, rows = 2.0, 6
    generator = torch.Generator().manual_seed(0)
    windows = torch.rand(200, 2, generator=generator).mul(rows * seconds).sort(dim=1).values
    found = nearest_frames(windows, torch.tensor(seconds), torch.tensor(rows))
    for window, (first, last) in zip(windows.tolist(), found.tolist(), strict=True):

        def overlap(i: int, j: int, window: list[float] = window) -> float:
            start, end = i * seconds, (j + 1) * seconds
            shared = max(0.0, min(end, window[1]) - max(start, window[0]))
            return shared / (max(end, window[1]) - min(start, window[0]))

        best = max(overlap(i, j) for i in range(rows) for j in range(i, rows))
        assert overlap(first, last) == pytest.approx(best, abs=1e-6)


def test_points_are_those_of_decoded_windows() -> None:
    of = batch()
    points, splits = window_points(of)
    expected = [(1, 3), (0, 0), (2, 4), (5, 5), (0, 1), (8, 10)]
    assert [tuple(point) for point in points.tolist()] == expected
    assert splits.tolist() == [0, 1, 3, 6]


# ---- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": 4}, "kernel_size: expected an odd number, got 4"),
        ({"kernel_size": 0}, "kernel_size: expected an odd number, got 0"),
        ({"channels": 0}, "channels: expected at least 1"),
        ({"prior": 0.0}, "prior: expected a probability between 0 and 1, got 0.0"),
        ({"hidden": 0}, "hidden: expected at least 1"),
        ({"loss_region": "lower"}, "loss_region: expected whole or upper, got 'lower'"),
        ({"loss_reduction": "max"}, "loss_reduction: expected sum or mean, got 'max'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        F2SGD(**settings)
