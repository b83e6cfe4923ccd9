"""Rows of moments, pairs of rows, and moments that are moved to another place."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch

from tests.models.bm_detr_case import PAPER, batch, items
from tests.models.detr_case import item
from tests.models.test_moment_detr import ODD
from vmr.data.dataset import Batch, collate
from vmr.models.bm_detr import BMDETR
from vmr.models.layers.moment_rows import in_ranges, moment_rows, sampled_hinge, sampled_pairs
from vmr.models.layers.shifting import Shift, draw_shift, moved_order, shiftable
from vmr.models.layers.targets import Clips, Windows, relative_windows


def windows_of(*spans: tuple[float, float]) -> Windows:
    """One query's windows, in rows of ten."""
    return Windows(torch.tensor(spans)[None] / 10, torch.tensor([len(spans)]))


# ---- rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "middle", "floor"),
    [
        ((2.0, 6.0), [2, 5], [2, 5]),
        ((2.4, 6.4), [2, 5], [2, 5]),
        ((2.6, 6.6), [3, 6], [2, 5]),
        ((0.0, 10.0), [0, 9], [0, 9]),
        ((9.7, 10.0), [9, 9], [9, 9]),
        ((4.1, 4.3), [4, 4], [3, 3]),
        ((0.1, 0.2), [0, 0], [0, 0]),
    ],
)
def test_rows_of_a_moment(span: tuple[float, float], middle: list[int], floor: list[int]) -> None:
    lengths = torch.tensor([10])
    assert moment_rows(windows_of(span), lengths, "middle")[0, 0].tolist() == middle
    assert moment_rows(windows_of(span), lengths, "floor")[0, 0].tolist() == floor


def test_rows_are_whole_where_seconds_are() -> None:
    """26 to 36 s of 75 rows of 2 s are rows 13 to 17 in single precision too; so is every other."""
    for rows, seconds in ((75, 2.0), (64, 1.0), (31, 1.0), (200, 0.5)):
        first = torch.arange(rows - 1)
        spans = torch.stack((first, first + 1), dim=1) * seconds / (rows * seconds)
        windows = Windows(spans[None], torch.tensor([rows - 1]))
        for rule in ("middle", "floor"):
            found = moment_rows(windows, torch.tensor([rows]), rule)  # type: ignore[arg-type]
            assert torch.equal(found[0], torch.stack((first, first), dim=1))


def test_sampled_pairs_are_of_both_sides() -> None:
    rows = torch.tensor([[[1, 3]], [[2, 2]], [[0, 4]]])
    clips = in_ranges(rows, torch.tensor([1, 1, 1]), torch.tensor([6, 4, 5]), 6)
    torch.manual_seed(0)
    seen = set()
    for _ in range(60):
        pairs = sampled_pairs(clips, 2)
        assert pairs.shape == (3, 2, 2)
        better, worse = pairs[0].tolist()
        assert better[0] != better[1]
        assert worse[0] != worse[1]
        seen.add((*better, *worse))
        assert {*better} <= {1, 2, 3}
        assert {*worse} <= {0, 4, 5}
        assert pairs[1, 0].tolist() == [2, 2]
        assert pairs[2].eq(-1).all()  # the whole video: nothing is outside
    assert len(seen) > 20
    scores = torch.tensor([[0.0, 1, 2, 3, 4, 5]] * 3)
    hand = torch.tensor([[[1, 3], [0, 4]], [[2, 2], [3, 0]], [[-1, -1], [-1, -1]]])
    expected = torch.tensor([(0 + 1.2) / 2, (1.2 + 0) / 2, 0.0])
    torch.testing.assert_close(sampled_hinge(scores, hand, 0.2), expected)


def test_pairs_of_videos_of_one_row() -> None:
    none = torch.zeros(1, 2, 1, dtype=torch.bool)
    assert sampled_pairs(Clips(none, none), 2).tolist() == [[[-1] * 2] * 2] * 2


# ---- copies -----------------------------------------------------------------------------------------


def draws(of: Batch, rule: Any, count: int = 80, below: float | None = None) -> list[Shift]:
    torch.manual_seed(0)
    found = [draw_shift(of, relative_windows(of), rule, below) for _ in range(count)]
    return [shift for shift in found if shift is not None]


def test_a_moment_goes_to_every_place() -> None:
    of = batch()
    rows = moment_rows(relative_windows(of), of.video_lengths, "middle")[:, 0]
    block = rows[:, 1] - rows[:, 0] + 1
    places: list[set[int]] = [set(), set(), set()]
    for shift in draws(of, "exact"):
        assert shift.of.tolist() == [0, 1, 2]
        for sample, (first, last) in enumerate(shift.rows.tolist()):
            places[sample].add(first)
            length, size = int(of.video_lengths[sample]), int(block[sample])
            assert last - first + 1 == size
            order = shift.order[sample].tolist()
            # The moment's rows are there, the others around them in their order, padding as it was.
            assert order[first : last + 1] == list(range(rows[sample, 0], rows[sample, 1] + 1))
            rest = order[:first] + order[last + 1 : length]
            assert rest == [row for row in range(length) if row not in order[first : last + 1]]
            assert order[length:] == list(range(length, 12))
            # The span moved by as many rows, and is as long as it was.
            span, old = shift.spans[sample] * length, of.windows[sample, 0]
            assert float(span[1] - span[0]) == pytest.approx(float(old[1] - old[0]), abs=1e-4)
            moved = first - int(rows[sample, 0])
            assert float(span[0] - old[0]) == pytest.approx(moved, abs=0.5)
            assert float(span[0]) >= -1e-4
            assert float(span[1]) <= length + 1e-4
    for sample in range(3):
        assert places[sample] == set(range(int(of.video_lengths[sample] - block[sample]) + 1))


def test_the_published_way() -> None:
    """Never to the last place; the span is that of the row numbers, a row short."""
    of = batch()
    seen: list[set[int]] = [set(), set(), set()]
    for shift in draws(of, "published"):
        for sample, (first, last) in enumerate(shift.rows.tolist()):
            seen[sample].add(first)
            span = shift.spans[sample] * of.video_lengths[sample]
            assert span.tolist() == pytest.approx([first, last], abs=1e-4)
    # Blocks of rows 2-5 of 9, 0-2 of 6 and 7-10 of 12.
    assert seen == [set(range(5)), set(range(3)), set(range(8))]


def test_what_is_shifted() -> None:
    of = collate([*items(), *ODD.values()])
    windows = relative_windows(of)
    names = [query.qid for query in of.queries]

    def chosen(rule: Any, below: float | None = None) -> set[Any]:
        mask = shiftable(of, windows, rule, below).tolist()
        return {name for name, there in zip(names, mask, strict=True) if there}

    assert chosen("exact") == {"a", "b", "c", "h"}
    assert chosen("exact", below=12.0) == {"a", "b"}
    assert chosen("published") == {"a", "b", "c", "w", "s", "o", "p", "h", "m"}
    assert draws(collate([ODD["the whole video"]]), "exact") == []
    (same,) = draws(collate([ODD["the whole video"]]), "published", 1)
    assert same.order.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert same.spans.tolist() == [[0.0, 1.0]]


def test_order_by_hand() -> None:
    tensors = (torch.tensor([number]) for number in (1, 2, 3, 6))
    assert moved_order(*tensors, rows=8).tolist() == [[0, 3, 4, 1, 2, 5, 6, 7]]


def test_columns_of_places_stay() -> None:
    """TEF says where a row is now."""
    of = batch()
    shift = draws(of, "exact", 1)[0]
    for still in (0, 2):
        model = BMDETR(msgspec.structs.replace(PAPER, still_columns=still))
        copies = model._shifted(of.video, shift)
        moved = of.video.gather(1, shift.order[..., None].expand_as(of.video))
        moved[..., 6 - still :] = of.video[..., 6 - still :]
        torch.testing.assert_close(copies, moved)


def test_a_moment_shorter_than_a_row_moves_too() -> None:
    of = collate([item("h", 6, 3, [(4.1, 4.3)])])
    firsts = {int(shift.rows[0, 0]) for shift in draws(of, "exact")}
    assert firsts == set(range(6))
