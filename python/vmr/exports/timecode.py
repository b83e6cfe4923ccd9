"""Frame rates, spans of frames and SMPTE timecodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from vmr.errors import InputError
from vmr.moments import Moment
from vmr.video import VideoInfo

SLACK = 0.0005
"""Seconds by which a frame may lie before a start and still be the first: times are often rounded to
milliseconds."""

_STANDARD = (
    *(Fraction(n * 1000, 1001) for n in (24, 30, 60)),
    *(Fraction(n) for n in (24, 25, 30, 48, 50, 60)),
)


@dataclass(frozen=True, slots=True)
class Timebase:
    """What a video is counted in.

    Attributes:
        rate: Frames a second, exactly.
        frames: Frames of the video, at least 1.
    """

    rate: Fraction
    frames: int

    @classmethod
    def of(cls, info: VideoInfo) -> Timebase:
        """That of a video.

        A rate that is whole, or whole times 1000/1001, is taken as such up to 60. Any other (a variable
        one, or one that timecodes cannot count) becomes the nearest that editors have; spans then are
        right to half a frame of it.
        """
        rate = _exact(info.frame_rate)
        return cls(rate, max(1, round(info.duration * rate)))

    def span(self, moment: Moment) -> tuple[int, int]:
        """First frame and the one after the last: the frames shown from ``start`` to before ``end``.

        At least one frame, and none after the end of the video.
        """
        first = min(self._at_or_after(moment.start), self.frames - 1)
        return first, min(max(self._at_or_after(moment.end), first + 1), self.frames)

    def _at_or_after(self, seconds: float) -> int:
        return max(0, math.ceil((seconds - SLACK) * self.rate))

    @property
    def nominal(self) -> int:
        """Frames that a second of timecode counts."""
        return round(self.rate)

    @property
    def drops(self) -> bool:
        """If timecodes leave out numbers to keep up with the clock: at 29.97 and 59.94."""
        return self.rate.denominator == 1001 and self.nominal % 30 == 0

    def timecode(self, frame: int) -> str:
        """``HH:MM:SS:FF``, or ``HH:MM:SS;FF`` in drop frame (SMPTE ST 12-1).

        Raises:
            InputError: From 24 hours on, which a timecode cannot say.
        """
        number = frame
        if self.drops:
            # Of each minute but every tenth the first numbers (2 of 30, 4 of 60) are left out.
            dropped = self.nominal // 15
            minute = self.nominal * 60 - dropped
            tens, rest = divmod(frame, 10 * minute + dropped)
            number += 9 * dropped * tens
            number += dropped * max(0, (rest - dropped) // minute)
        seconds, frames = divmod(number, self.nominal)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        if hours >= 24:
            raise InputError(f"edl: expected times below 24 hours, got {hours}:{minutes:02d} hours")
        mark = ";" if self.drops else ":"
        return f"{hours:02d}:{minutes:02d}:{seconds:02d}{mark}{frames:02d}"


def _exact(rate: float) -> Fraction:
    for candidate in (Fraction(round(rate)), Fraction(round(rate * 1.001) * 1000, 1001)):
        if 1 <= candidate <= 60 and abs(rate / candidate - 1) < 2e-4:
            return candidate
    return min(_STANDARD, key=lambda standard: abs(standard - Fraction(rate)))
