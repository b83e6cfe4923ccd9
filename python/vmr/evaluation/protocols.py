"""The published protocols, by name: what each one reports, under which keys, of which ground truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

from vmr.errors import InputError

LengthRange: TypeAlias = "tuple[float, float] | None"

PRECISION_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALL_THRESHOLDS = tuple(round(0.3 + 0.05 * step, 2) for step in range(14))
# Recall at 1, at 5, and among all predictions of a query; 0 stands for all.
TOPS = {"1": 1, "5": 5, "any": 0}
# Lengths of ground truth in seconds, scored apart beside what a protocol reports.
LENGTHS: dict[str, LengthRange] = {"short": (0, 10), "middle": (10, 30), "long": (30, inf)}
LEVELS = {"Fair": 2.0, "Good": 3.0, "VeryGood": 4.0}


@dataclass(frozen=True)
class Protocol:
    """How one published evaluator scores.

    Attributes:
        name: As the command line takes it.
        source: Whose evaluator it is.
        ranges: Lengths of ground truth that are reported apart: the windows with a < length <= b, or all
            of them for None.
        recall: IoU thresholds of the reported recall; none where only headline numbers are reported.
        tops: The reported recalls, of :data:`TOPS`.
        mean_iou: Whether the mean IoU of the first prediction is.
        highlights: Whether clip scores are scored where both files hold them.
        ranked: For highlights alone: how many of the clips ranked highest count (0 for all), and whether
            a clip is positive above the annotator's median.
        left_out_without_positives: A video without a positive clip is no part of the mean, where it
            else counts as zero.
        brief: Official key and measure of each headline number.
        brief_without_highlights: The same where there are no highlights, if that differs.
        cut_to_video: Ground truth is cut to the video.
        takes_limit: Ground truth may be cut to what the model reads of a video (``limit``).
        empty_range_is_full: As published, a range without ground truth repeats the full one's numbers.
    """

    name: str
    source: str
    ranges: tuple[tuple[str, LengthRange], ...] = ()
    recall: tuple[float, ...] = ()
    tops: tuple[str, ...] = ("1",)
    mean_iou: bool = False
    highlights: bool = False
    ranked: tuple[int, bool] | None = None
    left_out_without_positives: bool = False
    brief: tuple[tuple[str, str], ...] = ()
    brief_without_highlights: tuple[tuple[str, str], ...] = ()
    cut_to_video: bool = False
    takes_limit: bool = False
    empty_range_is_full: bool = False


def _same(*keys: str) -> tuple[tuple[str, str], ...]:
    return tuple((key, key) for key in keys)


def _key(*keys: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{key}-key", key) for key in keys)


_MOMENTS = _same(
    "MR-full-R1@0.5", "MR-full-R1@0.7", "MR-full-mAP", "MR-full-mAP@0.5", "MR-full-mAP@0.75"
)
_HIGHLIGHTS = _same(
    *(f"HL-min-{level}-{measure}" for level in LEVELS for measure in ("mAP", "Hit1"))
)
_FROM_HALF = PRECISION_THRESHOLDS

_ALL = (
    Protocol(
        "qvhighlights",
        "moment_detr's standalone_eval, the evaluator of QVHighlights",
        ranges=(("short", (0, 10)), ("middle", (10, 30)), ("long", (30, 150)), ("full", None)),
        recall=_FROM_HALF,
        highlights=True,
        brief=_MOMENTS + _same("MR-long-mAP", "MR-middle-mAP", "MR-short-mAP") + _HIGHLIGHTS,
    ),
    Protocol(
        "lighthouse",
        "lighthouse's training/standalone_eval",
        ranges=(("full", (0, 1500)),),
        recall=_FROM_HALF,
        highlights=True,
        brief=_MOMENTS + _HIGHLIGHTS,
    ),
    Protocol(
        "univtg",
        "UniVTG's eval",
        ranges=(("short", (0, 10)), ("middle", (10, 30)), ("long", (30, inf)), ("full", None)),
        recall=RECALL_THRESHOLDS,
        tops=("1", "5"),
        mean_iou=True,
        highlights=True,
        brief=(
            _key(*(f"MR-full-R1@{threshold}" for threshold in (0.3, 0.5, 0.7)))
            + _key(*(f"MR-full-R5@{threshold}" for threshold in (0.3, 0.5, 0.7)))
            + _key("MR-full-mAP", "MR-full-mAP@0.5", "MR-full-mAP@0.75", "MR-full-mIoU")
            + _same("MR-long-mAP", "MR-long-mIoU", "MR-middle-mAP", "MR-middle-mIoU")
            + _same("MR-short-mAP", "MR-short-mIoU")
            + _HIGHLIGHTS[:4]
            + _key("HL-min-VeryGood-mAP", "HL-min-VeryGood-Hit1")
        ),
        empty_range_is_full=True,
    ),
    Protocol(
        "bm-detr",
        "BM-DETR's standalone_eval",
        ranges=(("full", None),),
        recall=(0.3, 0.4, 0.5, 0.6, 0.7),
        highlights=True,
        brief=_MOMENTS + _HIGHLIGHTS,
        brief_without_highlights=_same("MR-full-R1@0.3", "MR-full-R1@0.5", "MR-full-R1@0.7"),
        takes_limit=True,
    ),
    Protocol(
        "emb",
        "EMB's eval_test: recall at 1 and mean IoU, as the 2D papers and TEA report",
        ranges=(("full", None),),
        brief=(
            ("r1i3", "MR-full-R1@0.3"),
            ("r1i5", "MR-full-R1@0.5"),
            ("r1i7", "MR-full-R1@0.7"),
            ("mIoU", "MR-full-mIoU"),
        ),
        cut_to_video=True,
    ),
    Protocol(
        "tvsum",
        "top-5 mAP of TVSum, as UMT, QD-DETR, lighthouse and UniVTG compute it",
        ranked=(5, True),
        brief=(("mAP", "HL-mAP"),),
    ),
    Protocol(
        "youtube-highlights",
        "mAP of YouTube Highlights, as UMT and UniVTG compute it",
        ranked=(0, False),
        brief=(("mAP", "HL-mAP"),),
    ),
)

PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


def protocol_named(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: For another name, with those that there are.
    """
    if name not in PROTOCOLS:
        raise InputError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]


def for_highlights_alone(asked: Protocol | None, kind: str) -> Protocol:
    """The protocol for ground truth of TVSum or YouTube Highlights.

    Args:
        asked: What was asked for, if anything. UniVTG and lighthouse have evaluators of their own for
            this: lighthouse's leaves videos of YouTube Highlights without a positive clip out.
        kind: ``tvsum`` or ``youtube-highlights``.

    Raises:
        InputError: For a protocol that has nothing for such ground truth.
    """
    fitting = PROTOCOLS[kind]
    if asked is None or asked.name in ("univtg", kind):
        return fitting
    if asked.name != "lighthouse":
        raise InputError(f"expected the protocol {kind}, univtg or lighthouse, got {asked.name}")
    if kind == "tvsum":
        return fitting
    return replace(
        fitting,
        source="mAP of YouTube Highlights, as lighthouse computes it",
        left_out_without_positives=True,
    )
