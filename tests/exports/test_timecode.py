"""Timecodes, drop frame among them, and spans of frames."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest

from vmr.errors import InputError
from vmr.exports.timecode import Timebase
from vmr.moments import Moment
from vmr.video import VideoInfo

NTSC = Fraction(30000, 1001)
INFO = VideoInfo(Path("x"), 10.0, 25.0, 250, 64, 48, 0, "", "")


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (25.0, Fraction(25)),
        (29.97, NTSC),
        (29.97002997, NTSC),
        (30.0, Fraction(30)),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (10.0, Fraction(10)),
        (29.6, NTSC),  # variable
        (12.5, Fraction(24000, 1001)),
        (120.0, Fraction(60)),
    ],
)
def test_rates(rate: float, expected: Fraction) -> None:
    base = Timebase.of(dataclasses.replace(INFO, frame_rate=rate))
    assert base.rate == expected
    assert base.frames == round(10 * expected)


def count(timecode: str, nominal: int) -> int:
    """Of a drop-frame timecode the frame, by the rule as it is told: 2 or 4 numbers a minute less."""
    hours, minutes, seconds, frames = (int(t) for t in timecode.replace(";", ":").split(":"))
    minutes += 60 * hours
    total = (60 * minutes + seconds) * nominal + frames
    return total - nominal // 15 * (minutes - minutes // 10)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (0, "00:00:00;00"),
        (1799, "00:00:59;29"),
        (1800, "00:01:00;02"),
        (17981, "00:09:59;29"),
        (17982, "00:10:00;00"),
        (107892, "01:00:00;00"),
    ],
)
def test_drop_frame(frame: int, text: str) -> None:
    assert Timebase(NTSC, 1).timecode(frame) == text


@pytest.mark.parametrize("nominal", [30, 60])
def test_drop_frame_numbers_each_frame_once(nominal: int) -> None:
    base = Timebase(Fraction(nominal * 1000, 1001), 1)
    minutes = (minute * 60000 * nominal // 1001 for minute in range(130))
    for frame in (max(0, first + step) for first in minutes for step in range(-6, 7)):
        text = base.timecode(frame)
        assert count(text, nominal) == frame
        minute, second, number = (int(t) for t in text[3:].replace(";", ":").split(":"))
        assert not (second == 0 and minute % 10 and number < nominal // 15), text


def test_other_rates_drop_nothing() -> None:
    assert Timebase(Fraction(24000, 1001), 1).timecode(1440) == "00:01:00:00"
    assert Timebase(Fraction(25), 1).timecode(25 * 3600 + 24) == "01:00:00:24"
    with pytest.raises(InputError, match="below 24 hours"):
        Timebase(Fraction(25), 1).timecode(24 * 3600 * 25)


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        (5.2, 7.0, (130, 175)),  # 5.2 * 25 is a little more than 130
        (5.21, 7.01, (131, 176)),
        (3.0, 3.0, (75, 76)),
        (3.01, 3.02, (76, 77)),
        (10.0, 10.0, (249, 250)),
        (9.9, 99.0, (248, 250)),
    ],
)
def test_spans(start: float, end: float, span: tuple[int, int]) -> None:
    assert Timebase(Fraction(25), 250).span(Moment(start, end, 0.0)) == span


def test_times_rounded_to_milliseconds_mean_their_frame() -> None:
    base = Timebase(NTSC, 10**6)
    for frame in range(2000):
        time = round(frame * 1.001 / 30, 3)
        assert base.span(Moment(time, time + 1, 0.0))[0] == frame
