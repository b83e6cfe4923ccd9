"""Recordings: what is written is read back, and a file that is not right says where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vmr.backends.base import Captioner, Focus, Rewrite, Rewriter
from vmr.backends.recorded import Recorder, Recording
from vmr.errors import BackendError, CacheError, InputError
from vmr.video import Frames

FOCUS = Focus("a man opens  a door", ("man", "door"), ("opens",))


def frames(times: Sequence[float], video: str = "clip.mp4") -> Frames:
    def load() -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("a recording never looks at pixels")

    return Frames(np.array(times, dtype=np.float64), load, video=video)


def test_a_run_repeats_from_its_recording(tmp_path: Path) -> None:
    times = [0.5, 1.5, 2.0 / 3.0]
    rewrites = [Rewrite("one", "détail"), Rewrite("two", "")]
    captions = ["a door", "", "naïve"]
    recorder = Recorder()
    recorder.add_rewrites("a man opens a door", rewrites)
    recorder.add_captions("clip.mp4", times, captions)
    recorder.add_captions("clip.mp4", times[:1], ["an old door"], FOCUS.query)
    recorder.add_captions("clip.mp4", times[:1], ["an open door"], FOCUS.query)
    recorder.save(tmp_path / "run.jsonl")
    recording = Recording(tmp_path / "run.jsonl")
    assert isinstance(recording, Rewriter)
    assert isinstance(recording, Captioner)
    assert recording.rewrite(" a man  opens a door", 2) == rewrites
    assert recording.rewrite("a man opens a door", 1) == rewrites[:1]
    assert recording.caption(frames(times[::-1])) == captions[::-1]
    assert recording.caption_for(frames(times[:1]), FOCUS) == ["an open door"]


def test_every_line_is_a_record_with_a_version(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    recorder = Recorder()
    recorder.add_captions("clip.mp4", [1.0], ["a door"], FOCUS.query)
    recorder.save(path)
    [line] = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "version": 1,
        "kind": "query_aware_caption",
        "video": "clip.mp4",
        "time": 1.0,
        "query": "a man opens  a door",
        "text": "a door",
    }


def test_the_name_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    record = '{"version": 1, "kind": "caption", "video": "v", "time": 1, "text": "%s"}\n'
    names = []
    for text in ("one", "two", "one"):
        path.write_text(record % text)
        names.append(Recording(path).name)
    assert names[0] == names[2] != names[1]


def test_the_last_record_of_a_key_counts_and_blank_lines_do_not(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    record = '{"version": 1, "kind": "caption", "video": "v", "time": 1, "text": "%s"}\r\n'
    path.write_text(record % "one" + "\n  \n" + record % "two", encoding="utf-8")
    assert Recording(path).caption(frames([1.0004], video="v")) == ["two"]


GOOD = {"version": 1, "kind": "caption", "video": "v.mp4", "time": 1.5, "text": "a door"}
REWRITE = {
    "version": 1,
    "kind": "rewrite",
    "query": "q",
    "pair": 0,
    "simple": "s",
    "detailed": "d",
}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "expected a JSON object, got broken JSON"),
        ("[1]", "expected a JSON object, got list"),
        (json.dumps({**GOOD, "version": 2}), 'expected "version": 1, got 2'),
        (json.dumps({**GOOD, "kind": "captions"}), "expected \"kind\" to be one of .*'captions'"),
        (
            json.dumps({**GOOD, "text": None}),
            "expected 'text' to be a string in a caption, got None",
        ),
        (json.dumps({**GOOD, "time": "1"}), "expected 'time' to be a number from 0 .*got '1'"),
        (json.dumps({**GOOD, "time": True}), "expected 'time' .*got True"),
        (json.dumps({**GOOD, "time": -1}), "expected 'time' .*got -1"),
        (json.dumps({**GOOD, "time": float("nan")}), "expected 'time' .*got nan"),
        (json.dumps({**REWRITE, "pair": 0.5}), "expected 'pair' to be a whole number from 0"),
        (
            '{"version": 1, "kind": "caption", "video": "v", "time": 1}',
            "expected 'text' .*got None",
        ),
        (b"\xff\xfe", "broken JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str | bytes, message: str) -> None:
    path = tmp_path / "run.jsonl"
    data = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + data + b"\n")
    with pytest.raises(InputError, match=message) as caught:
        Recording(path)
    assert str(caught.value).startswith(f"recording {path}, line 2: ")


def test_what_is_not_recorded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(REWRITE)}\n")
    recording = Recording(path)
    with pytest.raises(BackendError, match=r"no caption of video 'v\.mp4' at 2\.500 s"):
        recording.caption(frames([1.5, 2.5], video="v.mp4"))
    with pytest.raises(BackendError, match=r"no caption of video 'other\.mp4' at 1\.500 s"):
        recording.caption(frames([1.5], video="other.mp4"))
    with pytest.raises(BackendError, match=r"no query-aware caption for the query 'a man opens"):
        recording.caption_for(frames([1.5], video="v.mp4"), FOCUS)
    with pytest.raises(BackendError, match="no rewrite of the query 'q' for pairs 1, 2"):
        recording.rewrite("q", 3)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read: No such file"):
        Recording(tmp_path / "none.jsonl")
    with pytest.raises(CacheError, match="could not be written"):
        Recorder().save(tmp_path / "none" / "run.jsonl")
