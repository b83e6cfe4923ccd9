"""What the bytes of a file say that OpenCV does not tell."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

EBML = b"\x1aE\xdf\xa3"  # how a Matroska file starts


def instead(path: Path, head: bytes) -> str:
    """What a file is that could not be opened as a video."""
    if head[4:8] in _MP4_STARTS and not any(kind == b"moov" for kind, _ in _mp4_top(path)):
        return "an MP4 file without an index (no 'moov' box): it was cut off, or not written to its end"
    media = (
        head[4:8] in _MP4_STARTS
        or head.startswith((EBML, b"RIFF", b"OggS", b"fLaC", b"ID3", b"FLV"))
        or (head[0] == 0x47 and head[188:189] == b"\x47")
        or (head[0] == 0xFF and head[1:2] >= b"\xe0")
    )
    if media:
        return "a media file without a video stream that can be decoded"
    return "a file that is no video (or of a kind that FFmpeg does not know)"


# OpenCV tells how many frames an MP4 file has and at which nominal rate, but neither its duration nor
# its average rate, and for a variable rate the one does not follow from the others. The header does.

_MP4_STARTS = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}
_Span = tuple[int, int]  # start and end of the content of a box


def _mp4_top(path: Path) -> list[tuple[bytes, _Span]]:
    with path.open("rb") as file:
        return list(_boxes(file, 0, path.stat().st_size))


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, _Span]]:
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            long = file.read(8)
            if len(long) < 8:
                return
            size, head = struct.unpack(">Q", long)[0], 16
        size = size or end - start
        if size < head:
            return
        yield kind, (start + head, min(start + size, end))
        start += size


def mp4_track(path: Path) -> tuple[float, bool]:
    """Of the first video track of an MP4 or QuickTime file: duration (s), and if its rate is constant.

    Where the header does not say, (0.0, False). ISO/IEC 14496-12: hdlr (8.4.3), mdhd (8.4.2), where an
    edit list (8.6.6) cuts the track the sum of its segments in units of mvhd (8.2.2), and stts (8.6.1).
    """
    with path.open("rb") as file:
        if file.read(8)[4:] not in _MP4_STARTS:
            return 0.0, False

        def inside(box: _Span, *kinds: bytes) -> Iterator[_Span]:
            for name, at in _boxes(file, *box):
                if name == kinds[0]:
                    yield from inside(at, *kinds[1:]) if len(kinds) > 1 else (at,)

        def content(box: _Span, *kinds: bytes) -> bytes:
            start, end = next(inside(box, *kinds))
            file.seek(start)
            return file.read(min(end - start, 1 << 16))

        with suppress(struct.error, IndexError, StopIteration, ZeroDivisionError):
            moov = next(inside((0, path.stat().st_size), b"moov"))
            for trak in inside(moov, b"trak"):
                if content(trak, b"mdia", b"hdlr")[8:12] != b"vide":
                    continue
                scale, ticks = _clock(content(trak, b"mdia", b"mdhd"))
                duration = ticks / scale
                for _ in inside(trak, b"edts", b"elst"):
                    edited = _edited(content(trak, b"edts", b"elst"))
                    movie_scale, _ = _clock(content(moov, b"mvhd"))
                    duration = min(duration, edited / movie_scale or duration)
                stts = content(trak, b"mdia", b"minf", b"stbl", b"stts")
                return duration, _constant(stts)
    return 0.0, False


def _clock(header: bytes) -> tuple[int, int]:
    """Units a second and duration in units, from the content of mvhd or mdhd."""
    layout, at = (">IQ", 20) if header[0] else (">II", 12)
    scale, duration = struct.unpack_from(layout, header, at)
    return scale, duration


def _constant(stts: bytes) -> bool:
    """Whether all frames but the last take equally long, within 2%."""
    runs = list(struct.iter_unpack(">II", stts[8 : 8 + (len(stts) - 8) // 8 * 8]))
    steps = [step for _, step in (runs[:-1] if len(runs) > 1 and runs[-1][0] == 1 else runs)]
    return bool(steps) and max(steps) <= 1.02 * min(steps) + 1


def _edited(elst: bytes) -> int:
    """Sum of the durations of an edit list's segments, without empty ones."""
    entry = ">QqI" if elst[0] else ">IiI"
    count = struct.unpack_from(">I", elst, 4)[0]
    entries = struct.iter_unpack(entry, elst[8 : 8 + count * struct.calcsize(entry)])
    return sum(duration for duration, media_time, _ in entries if media_time != -1)
