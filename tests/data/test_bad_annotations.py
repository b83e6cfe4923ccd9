"""Files that are broken, of another kind or no annotations at all: one clear error, nothing else."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import vmr
from vmr.data.annotations import read_queries

LENGTHS = {"AAAAA": 30.5}
ROW = {
    "qid": 7,
    "query": "a dog runs",
    "duration": 9,
    "vid": "v",
    "relevant_windows": [[0, 4]],
    "relevant_clip_ids": [0, 1],
    "saliency_scores": [[4, 1, 0], [2, 2, 2]],
}
TVSUM = {"qid": "t", "query": "q", "duration": 2, "vid": "t", "label": [[1.0, 5.0], [2.0, 3.0]]}
YOUTUBE = {
    "qid": "y", "query": "dog", "duration": 10.0, "vid": "y", "label": [[0], [1]], "match": [-1, 1],
    "clip": [[0.0, 100.0], [50.0, 150.0]], "frames": 250.0, "fps": 25.0,
}  # fmt: skip
VIDEO = {"duration": 9.5, "timestamps": [[0, 4], [5.5, 3]], "sentences": ["one", "two"]}
CD = {"video_duration": 9.5, "timestamps": [[0, 4]], "sentences": ["one"]}
TACOS = {"num_frames": 100, "fps": 25.0, "timestamps": [[0, 4]], "sentences": ["one"]}


def lines(*rows: object) -> bytes:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


def row(**changes: object) -> dict[str, object]:
    return {**ROW, **changes}


def without(record: dict[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in record.items() if key not in keys}


def video(name: str = "b", **changes: object) -> bytes:
    """A file of two videos, the second with the changes."""
    return json.dumps({"a": VIDEO, name: {**VIDEO, **changes}}).encode()


SECOND = row(qid=8)
BAD = {
    # JSON lines
    "no JSON": (lines(ROW, '{"qid": 8,'), "line 2: is not JSON: .*column 11"),
    "cut off": (lines(ROW, SECOND)[:-40], "line 2: is not JSON"),
    "no object": (lines(ROW, "[1, 2]"), r"line 2: expected `object`, got `array`"),
    "two records a line": (lines(json.dumps(ROW) + json.dumps(SECOND)), "line 1: is not JSON"),
    "wrong type": (lines(ROW, row(duration="9")), r"line 2: expected `float`, got `str`.*duration"),
    "null": (lines(row(query=None)), r"line 1: expected `str`, got `null`.*\$\.query"),
    "qid": (lines(row(qid=1.5)), r"line 1: expected `int \| str`, got `float`.*qid"),
    "negative qid": (
        lines(ROW, row(qid=8, neg_query_ids=[7, 1.5])),
        r"line 2: expected `int \| str`, got `float`.*neg_query_ids",
    ),
    "negative qids": (lines(row(neg_query_ids=7)), "line 1: expected `array.*neg_query_ids"),
    "missing key": (lines(ROW, without(SECOND, "vid")), "line 2: expected the keys.*vid missing"),
    "other keys": (lines({"name": "x"}), "line 1: expected the keys qid, query.*there are name"),
    "window of three": (lines(row(relevant_windows=[[0, 1, 0.9]])), "line 1: .*length 2.*windows"),
    "window as text": (lines(row(relevant_windows=[["0", "1"]])), "line 1: expected `float`"),
    "window": (lines(row(relevant_windows=[0, 1])), "line 1: expected `array`, got `int`"),
    "NaN window": (
        lines(ROW, row(qid=8, relevant_windows=[[float("nan"), 4]])),
        "line 2: relevant_windows: expected finite numbers, got NaN",
    ),
    "infinite duration": (lines(row(duration=float("inf"))), "line 1: duration: expected finite"),
    "too large": (lines(json.dumps(ROW).replace("9", "1e999")), "line 1: .*(finite|range)"),
    "huge integer": (lines(json.dumps(ROW).replace("9", "9" * 5000)), "line 1: "),
    "negative duration": (lines(row(duration=-1)), "line 1: duration: expected .* above 0 .*, got -1"),
    "absurd duration": (
        lines(ROW, row(qid=8, duration=1e11)),
        "line 2: duration: .* up to 10,000,000, got 1e.11",
    ),
    "annotators": (
        lines(ROW, {**row(qid=8), "saliency_scores": [[1, 2], [1, 2]]}),
        "line 2: saliency_scores: expected 3 numbers in each row, as in line 1, got 2",
    ),
    "TVSum annotators": (
        lines(TVSUM, {**TVSUM, "qid": 2, "label": [[1], [1]]}),
        "line 2: label: expected 2 numbers in each row, as in line 1, got 1",
    ),
    "repeated key": (
        lines(ROW, json.dumps(SECOND)[:-1] + ', "vid": "w"}'),
        "line 2: the key 'vid' stands there twice",
    ),
    "repeated key beside colons": (
        lines(json.dumps(row(query="at 10:30"))[:-1] + ', "qid" : 8}'),
        "line 1: the key 'qid' stands there twice",
    ),
    "repeated key of TVSum": (
        lines(json.dumps(TVSUM)[:-1] + ', "vid": "w"}'),
        "line 1: the key 'vid' stands there twice",
    ),
    "no vid": (lines(row(vid="")), "line 1: expected the video's name"),
    "repeated qid": (
        lines(ROW, SECOND, row(vid="w")),
        "line 3: the qid 7 stands on line 1 already",
    ),
    "saliency rows": (
        lines(row(saliency_scores=[[1, 1, 1]])),
        "line 1: saliency_scores: expected a row for each of the 2 relevant_clip_ids, got 1",
    ),
    "saliency alone": (lines(row(relevant_clip_ids=None)), "line 1: saliency_scores: expected rel"),
    "ragged saliency": (lines(row(saliency_scores=[[1, 1], [1]])), "line 1: .*got 1 and 2"),
    "empty saliency": (lines(row(saliency_scores=[[], []])), "line 1: .*at least one, got 0"),
    "clip outside": (
        lines(row(relevant_clip_ids=[0, 5])),
        r"line 1: relevant_clip_ids: expected 0 to 4 \(clips of 2 s in 9 s\), got 5",
    ),
    "negative clip": (lines(row(relevant_clip_ids=[0, -1])), "line 1: .*got -1"),
    "misspelt windows": (
        lines(ROW, without(SECOND, "relevant_windows")),
        "line 2: has no relevant_windows, line 1 has",
    ),
    "predictions": (
        lines({**without(ROW, "duration"), "pred_relevant_windows": []}),
        "line 1: is a prediction; expected annotations",
    ),
    "half a surrogate": (lines(json.dumps(ROW).replace("a dog", "\\ud800")), "line 1: .*surrogate"),
    "deep": (lines('{"qid": ' + "[" * 100_000), "line 1: "),
    "pretty-printed": (
        json.dumps(ROW, indent=1).encode(),
        "is one JSON object over several lines with the keys qid, .*a record a line",
    ),
    "an object first, and broken": (
        lines({"meta": {"a": 1}, **ROW}, '{"meta": {}, "qid": 8'),
        "line 2: is not JSON",
    ),
    # another layout than the first line
    "TVSum after QVHighlights": (lines(ROW, TVSUM), "line 2: .*label"),
    "QVHighlights after TVSum": (
        lines(TVSUM, ROW),
        "line 2: is in the layout of qvhighlights, the first line in that of tvsum",
    ),
    "YouTube after TVSum": (lines(TVSUM, {**YOUTUBE, "duration": 2}), "line 2: has clip"),
    "TVSum after YouTube": (lines(YOUTUBE, TVSUM), "line 2: is in the layout of tvsum"),
    # TVSum and YouTube Highlights
    "TVSum seconds": (lines({**TVSUM, "duration": 4}), "line 1: label: expected .* 4 clips.*got 2"),
    "TVSum empty": (lines({**TVSUM, "duration": 0, "label": []}), "line 1: duration: .*got 0"),
    "YouTube rows": (lines({**YOUTUBE, "match": [1]}), "line 1: .*got 2, 1 and 2"),
    "YouTube label": (lines({**YOUTUBE, "label": [[1], [1]]}), "line 1: label: expected .* match"),
    "YouTube fps": (lines({**YOUTUBE, "fps": 0}), "line 1: frames and fps: .* got 250 and 0"),
    "YouTube tiny fps": (lines({**YOUTUBE, "fps": 1e-320}), "line 1: duration: .*got inf"),
    "YouTube clips": (lines({**YOUTUBE, "clip": [[9, 9], [9, 9]]}), "line 1: clip: expected"),
    # one object
    "counts": (video(sentences=["x"]), "video 'b': has 2 timestamps and 1 sentences"),
    "timestamps": (video(timestamps=[[0], [1, 2]]), "video 'b': expected `array` of length 2"),
    "sentences": (video(sentences="xy"), "video 'b': expected `array`, got `str`.*sentences"),
    "duration": (video(duration=None), "video 'b': expected `float`, got `null`.*duration"),
    "negative": (video(duration=-2.5), "video 'b': duration: expected seconds above 0 .*, got -2.5"),
    "absurd": (video(duration=1e300), "video 'b': duration: .* up to 10,000,000, got 1e.300"),
    "NaN": (video(duration=float("nan")), "video 'b': duration: expected finite"),
    "NaN time": (
        video(timestamps=[[0, float("nan")], [1, 2]]),
        "video 'b': timestamps: expected finite numbers, got NaN",
    ),
    "no name": (video(name=""), "video '': expected the video's name"),
    "no object of a video": (json.dumps({"a": VIDEO, "b": 3}).encode(), "video 'b': expected `obj"),
    "other layout": (
        json.dumps({"a": VIDEO, "b": CD}).encode(),
        "video 'b': is in the layout of charades-cd, the first video in that of activitynet",
    ),
    "same video twice": (
        b'{"a": %(v)s, "a": %(v)s}' % {b"v": json.dumps(VIDEO).encode()},
        "the key 'a' stands there twice",
    ),
    "cut object": (video()[:-3], "is not JSON"),
    "broken line": (
        json.dumps({"a": VIDEO}, indent=1).replace("9.5", "x").encode(),
        "is not JSON: .* .line 3, column",
    ),
    "no timestamps": (json.dumps({"a": {"fps": 1}}).encode(), "video 'a': expected timestamps"),
    "no duration": (
        json.dumps({"a": {**VIDEO, "duration": 1, "fps": 2}, "b": without(VIDEO, "duration")}).encode(),
        "video 'b': expected timestamps and sentences, and duration",
    ),
    "durations": (b'{"a": {"duration": 3}}', "video 'a': has a duration but no sentences.*durations="),
    "no videos": (b"{}", "holds no queries"),
    "no sentences": (json.dumps({"a": {**VIDEO, "timestamps": [], "sentences": []}}).encode(), "holds"),
    "fps": (json.dumps({"a": {**TACOS, "fps": 0}}).encode(), "video 'a': fps: expected above 0"),
    "tiny fps": (json.dumps({"a": {**TACOS, "fps": 1e-320}}).encode(), "video 'a': fps: .*without end"),
    "equal names": (
        json.dumps({"a.avi": TACOS, "a": TACOS}).encode(),
        "query 2: the qid 'a_0' stands on query 1 already",
    ),
    # Charades-STA
    "txt fields": (b"AAAAA 0.0##x", "line 1: expected VIDEO START END##SENTENCE"),
    "txt mark": (b"AAAAA 0 1##x\nAAAAA 0 1#x", "line 2: expected VIDEO START END##SENTENCE"),
    "txt number": (b"AAAAA 0 one##x", "line 1: expected .* times in seconds"),
    "txt NaN": (b"AAAAA 0 nan##x", "line 1: expected .* times in seconds"),
    "txt video": (b"AAAAA 0 1##x\nB 0 1##x", "line 2: no duration of the video 'B' in durations"),
    "txt Latin-1": ("AAAAA 0 1##caf\xe9".encode("latin-1"), "line 1: is not UTF-8 .byte 0xe9"),
    # anything else
    "empty": (b"", "is empty"),
    "blank": (b"\n \r\n" * 40_000, "is empty"),
    "a mark alone": (b"\xef\xbb\xbf", "is empty"),
    "a list": (b"[{}]", "expected JSON lines .* begins with a JSON list"),
    "prose": (b"# Annotations\n", "expected JSON lines .* begins with '# Annotations'"),
    "gzip": (gzip.compress(lines(ROW)), "gzip"),
    "zip": (b"PK\x03\x04....", "zip archive"),
    "UTF-16": (lines(ROW).decode().encode("utf-16"), "UTF-16"),
    "Latin-1": (
        lines(json.dumps(ROW).replace("dog", "\xe9t\xe9")).decode().encode("latin-1"),
        "line 1: is not UTF-8",
    ),
    "NUL": (b"\0" * 100, "expected JSON lines"),
    "pickle": (b"\x80\x04\x95", "pickle"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(vmr.InputError, match=message) as caught:
        read_queries(path, durations=LENGTHS)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(vmr.InputError, match="nothing: there is no such file"):
        read_queries(tmp_path / "nothing")
    with pytest.raises(vmr.InputError, match="is a folder"):
        read_queries(tmp_path)
    with pytest.raises(vmr.InputError, match="is a pipe or a device"):
        read_queries("/dev/zero")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(lines(ROW))
    (tmp_path / "file").chmod(0)
    with pytest.raises(vmr.InputError, match="cannot be read: Permission denied"):
        read_queries(tmp_path / "file")


@pytest.mark.parametrize("begin", [b"", lines(ROW) + b"\n", b'{"a": {', b"AAAAA 0 1##x\n"])
def test_two_gigabytes_are_not_read(tmp_path: Path, begin: bytes) -> None:
    """Sparse; had it been read whole, the limit on memory below would end it."""
    path = tmp_path / "file"
    path.write_bytes(begin)
    os.truncate(path, 2 * 2**30)
    with pytest.raises(vmr.InputError, match=r"longer than 64 MiB|may have 1 GiB|begins with"):
        read_queries(path, durations=LENGTHS)


# ---- fuzz ---------------------------------------------------------------------------------------------

VALID = [
    lines(ROW, SECOND),
    lines(TVSUM),
    lines(YOUTUBE),
    video(),
    json.dumps({"a": CD}).encode(),
    json.dumps({"a.avi": TACOS}).encode(),
    b"AAAAA 0.0 6.9##a person sits.\nAAAAA 1 2##x",
]
PIECES = [
    b"NaN", b"-Infinity", b"1e999", b"null", b"true", b"[]", b"{}", b'""', b'"\\ud800"', b"-1", b"0",
    b"99999999999999999999999", b"1.5", b'"x"', b"[[1]]", b"\n", b"\0", b"\xff", b"##", b",", b'"', b"}",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with some bytes, or some values, replaced by others."""
    content = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 3))):
        # Between two of these a value begins or ends.
        marks = [place for place, byte in enumerate(content) if byte in b'[]{},: "\n'] or [0]
        begin = draw(st.sampled_from(marks) | st.integers(0, len(content)))
        end = draw(st.sampled_from([mark for mark in marks if mark >= begin][:6] or [begin]))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=3))
        content = content[: begin + draw(st.integers(0, 1))] + piece + content[end:]
    return content


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=60) | mutated())
@example(b'{"a": {"duration": 1, "timestamps": [], "sentences": []}}')
def test_fuzz(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    try:
        queries = read_queries(path, durations=LENGTHS)
    except vmr.InputError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 -- either way is right
        return
    assert len(queries) > 0
    for query in queries:
        assert 0 < query.duration < float("inf")
        assert query.video
        query.text.encode()
        if query.saliency is not None and query.saliency.clips < 10_000:
            assert query.saliency.dense().shape[0] == query.saliency.clips
