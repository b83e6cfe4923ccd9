"""Each format, read back by something that is not ours where there is such a thing."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import opentimelineio
import pytest
from numpy.typing import NDArray

from tests.videos import needs_ffmpeg, numbered
from vmr.errors import BackendError, InputError, VideoError
from vmr.exports import FORMATS, export
from vmr.results import Results

from .conftest import MakeResult

EVIL = "a --> b\n\n2\r\n00:00:01,000 --> 00:00:02,000\n<i>x</i> {\\an8}\x00 & \u2028 'q'"


def cues(path: Path) -> list[tuple[float, float]]:
    """Start and length of the cues, as ffprobe reads them."""
    said = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "packet=pts_time,duration_time",
         "-of", "csv=p=0", str(path)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rows = [line.split(",") for line in said.split()]
    return [(float(row[0]), float(row[1])) for row in rows]


def test_a_file_a_video_and_format(results: Results, tmp_path: Path) -> None:
    written = export(results, tmp_path / "new" / "out", ["json", "csv", "srt", "vtt"])
    names = [
        f"{stem}.{kind}" for kind in ("json", "csv", "srt", "vtt") for stem in ("bikes", "cars")
    ]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == sorted(names)


def test_one_result_and_some_of_a_run(results: Results, tmp_path: Path) -> None:
    (one,) = export(results[2], tmp_path, "json")
    assert json.loads(one.read_text())["results"] == [results[2].to_dict()]
    assert [path.name for path in export(results[1:], tmp_path / "some", "srt")] == [
        "bikes.srt", "cars.srt",
    ]  # fmt: skip
    for wrong in ("results.json", 3, [results]):
        with pytest.raises(InputError, match="export: expected a Result, or several"):
            export(wrong, tmp_path, "srt")  # type: ignore[arg-type]


def test_tables_hold_what_results_do(results: Results, tmp_path: Path) -> None:
    document, table = export(results, tmp_path, ["json", "csv"], name="all")
    assert document.name == "all.json"
    assert json.loads(document.read_text()) == results.to_dict()
    assert table.read_text() == results.to_csv()
    (of_dog, of_cat) = export(results, tmp_path, "csv", name="{query}")
    assert [row["video"] for row in csv.DictReader(of_dog.open())] == [
        "in/bikes.mp4", "in/bikes.mp4", "in/cars.mkv",
    ]  # fmt: skip
    assert of_cat.name == "a-cat.csv"


def test_subtitles_belong_to_one_video_whatever_the_name(results: Results, tmp_path: Path) -> None:
    assert [path.name for path in export(results, tmp_path, "srt", name="all")] == [
        "all.srt", "all-2.srt",
    ]  # fmt: skip
    assert len(export(results, tmp_path, "srt", name="{video} {query}")) == 3


def test_srt_in_the_order_of_time(results: Results, tmp_path: Path) -> None:
    path, _ = export(results, tmp_path, "srt")
    assert path.read_text() == (
        "1\n00:00:01,000 --> 00:00:02,000\na dog\n(rank 2, score 0.800)\n\n"
        "2\n00:00:05,200 --> 00:00:06,000\na cat\n(rank 1, score 0.900)\n\n"
        "3\n00:00:05,200 --> 00:00:07,000\na dog\n(rank 1, score 0.900)\n"
    )


def test_vtt(results: Results, tmp_path: Path) -> None:
    path, _ = export(results, tmp_path, "vtt")
    assert path.read_text().startswith(
        "WEBVTT\n\nNOTE\nMoments of in/bikes.mp4, found by vmr\n\n"
        "query-1-rank-2\n00:00:01.000 --> 00:00:02.000\na dog\n(rank 2, score 0.800)\n\nquery-2-rank-1\n"
    )


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_ffmpeg_reads_the_subtitles(kind: str, make_result: MakeResult, tmp_path: Path) -> None:
    spans = [(5.2, 7.0), (0.9996, 0.9996), (3661.0074, 3662.5), (363_600.0, 363_601.0)]
    results = Results([make_result("a --> b\n\nx.mp4", EVIL, *spans), make_result("x", "", (8, 9))])
    path = export(Results(results[:1]), tmp_path, kind, name="evil")[0]
    found = cues(path)
    assert found == pytest.approx(
        np.array([(1.0, 0.001), (5.2, 1.8), (3661.007, 1.493), (363_600.0, 1.0)]), abs=1e-6
    )
    assert len(cues(export(Results(results[1:]), tmp_path, kind, name="empty")[0])) == 1


def test_evil_queries_stay_on_one_line(make_result: MakeResult, tmp_path: Path) -> None:
    results = Results([make_result("v.mp4", EVIL, (1, 2))])
    srt, vtt = export(results, tmp_path, ["srt", "vtt"])
    times = "00:00:01,000 --\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} 00:00:02,000"
    assert srt.read_text().count("-->") == 1
    assert srt.read_text().splitlines()[2].endswith(f"2 {times} ‹i›x‹/i› (\\an8) & 'q'")
    assert vtt.read_text().count("-->") == 1
    assert vtt.read_text().splitlines()[7].endswith("&lt;i&gt;x&lt;/i&gt; {\\an8} &amp; 'q'")


def test_a_video_name_that_is_no_unicode(make_result: MakeResult, tmp_path: Path) -> None:
    results = Results([make_result("bad\udcff.mp4", "q", (1, 2))])
    for path in export(results, tmp_path, ["json", "csv", "vtt"]):
        assert "bad" in path.read_text()


# ---- EDL and OTIO ask the video for its frame rate ---------------------------------------------------


@pytest.fixture(scope="module")
def ntsc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 frames at 30000/1001 a second, under a name that needs care."""
    folder = tmp_path_factory.mktemp("ntsc")
    made = numbered(folder / "x.mp4", 240, "-c:v", "libx264", "-r", "30000/1001", rate=30)
    return made.rename(folder / "Kürze: 100% #1.mp4")


def events(text: str) -> list[tuple[int, str, NDArray[np.int64]]]:
    """Number, reel and the four times in frames (drop frame, 30) of the events of an EDL."""
    found = []
    for line in text.splitlines():
        if event := re.fullmatch(
            r"(\d{3,})  (\S{1,8}) +V     C        (.{11}) (.{11}) (.{11}) (.{11})", line
        ):
            frames = []
            for time in event.groups()[2:]:
                h, m, s, f = map(int, re.fullmatch(r"(\d\d):(\d\d):(\d\d);(\d\d)", time).groups())  # type: ignore[union-attr]
                minutes = 60 * h + m
                frames.append((60 * minutes + s) * 30 + f - 2 * (minutes - minutes // 10))
            found.append((int(event[1]), event[2], np.array(frames)))
    return found


@needs_ffmpeg
def test_edl(ntsc: Path, make_result: MakeResult, tmp_path: Path) -> None:
    results = Results(
        [make_result(ntsc, EVIL, (2.0, 3.5), (0.0, 0.0)), make_result(ntsc, "q", (7.99, 8))]
    )
    (path,) = export(results, tmp_path, "edl")
    text = path.read_text()
    assert text.startswith("TITLE: Kürze: 100% #1\nFCM: DROP FRAME\n\n001  KRZE1001 V ")
    assert text.count("\n* FROM CLIP NAME: Kürze: 100% #1.mp4\n") == 3
    assert [line for line in text.splitlines() if line.startswith("* COMMENT:")][2] == (
        "* COMMENT: q (rank 1, score 0.900)"
    )
    assert len(text.splitlines()) == 3 + 3 * 4 - 1
    hour = 107892
    found = events(text)
    assert [number for number, _, _ in found] == [1, 2, 3]
    # 2.0 s is frame 59.94, 3.5 s is 104.895, 7.99 s is 239.46
    assert [list(times) for _, _, times in found] == [
        [0, 1, hour, hour + 1],
        [60, 105, hour + 1, hour + 46],
        [239, 240, hour + 46, hour + 47],
    ]


@needs_ffmpeg
def test_edl_of_many_events(ntsc: Path, make_result: MakeResult, tmp_path: Path) -> None:
    spans = [(n * 0.007, n * 0.007) for n in range(1100)]
    (path,) = export(Results([make_result(ntsc, "q", *spans)]), tmp_path, "edl", name="many")
    found = events(path.read_text())
    assert [number for number, _, _ in found] == list(range(1, 1101))
    times = np.array([times for _, _, times in found])
    assert (times[:, 1] > times[:, 0]).all()
    assert (times[1:, 2] == times[:-1, 3]).all()
    assert list(times[-1, :2]) == [231, 232]  # 7.693 s is 230.56


@needs_ffmpeg
def test_otio(ntsc: Path, make_result: MakeResult, tmp_path: Path) -> None:
    results = Results(
        [make_result(ntsc, EVIL, (2.0, 3.5), (9.0, 9.0)), make_result(ntsc, "q", (0, 1))]
    )
    (path,) = export(results, tmp_path, "otio")
    timeline = opentimelineio.adapters.read_from_file(str(path))
    (track,) = timeline.tracks
    assert track.kind == "Video"
    first, second, third = track
    rate = 30000 / 1001
    spans = [(clip.source_range.start_time, clip.source_range.duration) for clip in track]
    assert [(start.value, length.value) for start, length in spans] == [(0, 30), (60, 45), (239, 1)]
    assert {time.rate for span in spans for time in span} == {rate}
    assert first.media_reference.target_url == ntsc.as_uri()
    assert first.media_reference.available_range.duration.value == 240
    assert second.markers[0].marked_range == second.source_range
    assert second.markers[0].metadata["vmr"]["rank"] == 1
    assert first.markers[0].name == "q (rank 1, score 0.900)"
    assert dict(third.metadata["vmr"]) == {
        "query": " ".join(EVIL.replace("\x00", " ").split()),
        "rank": 2, "score": pytest.approx(0.8), "start": 9.0, "end": 9.0,
    }  # fmt: skip
    assert timeline.duration().value == 76


def test_otio_without_its_library(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'vmr\[otio\]'"):
        export(results, tmp_path, ["srt", "otio"])
    assert list(tmp_path.iterdir()) == []


# ---- what is refused ----------------------------------------------------------------------------------


def test_no_file_is_lost(results: Results, tmp_path: Path) -> None:
    (tmp_path / "cars.vtt").write_text("mine")
    with pytest.raises(InputError, match=r"cars\.vtt exists already"):
        export(results, tmp_path, ["srt", "vtt"])
    assert [path.name for path in tmp_path.iterdir()] == ["cars.vtt"]
    export(results, tmp_path, "vtt", overwrite=True)
    assert (tmp_path / "cars.vtt").read_text().startswith("WEBVTT")


def test_no_video_is_written_over(make_result: MakeResult, tmp_path: Path) -> None:
    video = tmp_path / "talk.srt"
    video.write_bytes(b"a video of an odd name")
    with pytest.raises(InputError, match="over the video itself"):
        export(Results([make_result(video, "q", (0, 1))]), tmp_path, "srt", overwrite=True)
    assert video.read_bytes() == b"a video of an odd name"


def test_a_missing_video_stops_before_anything_is_written(results: Results, tmp_path: Path) -> None:
    with pytest.raises(VideoError):
        export(results, tmp_path, ["srt", "edl"])
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats(results: Results, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"json, csv, srt, vtt, edl, otio; got 'str'; did you mean 'srt'"
    ):
        export(results, tmp_path, "str")
    with pytest.raises(InputError, match="got none"):
        export(results, tmp_path, [])
    with pytest.raises(InputError, match=r"expected fields of \{video\}, \{query\}; got \{rank\}"):
        export(results, tmp_path, "srt", name="{rank}")


def test_no_moments_make_files_without_any(make_result: MakeResult, tmp_path: Path) -> None:
    texts = [
        p.read_text()
        for p in export(Results([make_result("v.mp4", "q")]), tmp_path, ["srt", "csv"])
    ]
    assert texts == ["", "video,query,rank,start,end,score,duration\n"]
    assert export(Results(), tmp_path, list(FORMATS)[:2]) == []
