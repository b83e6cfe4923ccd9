"""OpenTimelineIO: the moments of a video as a track of clips, through the library opentimelineio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmr.errors import BackendError
from vmr.exports.items import in_time, one_line
from vmr.exports.timecode import Timebase
from vmr.results import Result
from vmr.video import probe


def otio(results: Sequence[Result]) -> str:
    """A timeline of one video track: a clip a moment, in the order of time, one after another.

    Each clip refers to the video by its file URL and has a marker over its whole range, named after the
    query; the metadata ``vmr`` of both hold query, rank, score and the moment's seconds. Times count
    from 0 at the first frame of the video.

    Raises:
        BackendError: opentimelineio is not installed.
        VideoError: The video, which is asked for its frame rate, cannot be read.
    """
    try:
        import opentimelineio as library
    except ImportError:
        raise BackendError("opentimelineio is not installed: pip install 'vmr[otio]'") from None

    video = Path(results[0].video)
    base = Timebase.of(probe(video))
    rate = float(base.rate)

    def span(first: int, end: int) -> object:
        return library.opentime.TimeRange(
            library.opentime.RationalTime(first, rate),
            library.opentime.RationalTime(end - first, rate),
        )

    track = library.schema.Track(name="Moments", kind=library.schema.TrackKind.Video)
    for item in in_time(results):
        inside = span(*base.span(item.moment))
        about = {
            "query": item.query,
            "rank": item.rank,
            "score": float(item.moment.score),
            "start": float(item.moment.start),
            "end": float(item.moment.end),
        }
        clip = library.schema.Clip(
            name=one_line(video.name),
            media_reference=library.schema.ExternalReference(
                target_url=video.absolute().as_uri(), available_range=span(0, base.frames)
            ),
            source_range=inside,
            metadata={"vmr": about},
        )
        clip.markers.append(
            library.schema.Marker(
                name=f"{item.query} ({item.label()})",
                marked_range=inside,
                color=library.schema.MarkerColor.GREEN,
                metadata={"vmr": about},
            )
        )
        track.append(clip)
    timeline = library.schema.Timeline(name=one_line(video.stem), tracks=[track])
    return str(library.adapters.write_to_string(timeline, "otio_json")) + "\n"
