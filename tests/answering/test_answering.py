"""A training-free system over a benchmark of colour videos."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

import vmr
from tests.colours import ColourCaptioner, ColourEncoder, WordCounts
from vmr.answering import Shard, answer_file, answers, clip_scores, find_videos
from vmr.backends.base import Focus
from vmr.data.records import Query
from vmr.models.granalign import GranAlign
from vmr.video import Frames

ROOT = Path(vmr.__file__).parent
COLOURS = {"red": (0.0, 4.0), "green": (4.0, 8.0), "blue": (8.0, 12.0)}


def system(captioner: Any = None, **options: Any) -> GranAlign:
    parts: dict[str, Any] = {
        "encoder": ColourEncoder(),
        "sentence_encoder": WordCounts(),
        "rewriter": "none",
        "captioner": captioner or ColourCaptioner(),
        "cache": None,
    }
    return vmr.load("granalign", **{**parts, **options})


def questions(videos: int = 4) -> list[Query]:
    return [
        Query(
            qid=10 * number + place,
            video=f"video-{number}",
            text=f"the {colour} picture",
            duration=12.0,
            windows=(window,),
        )
        for number in range(videos)
        for place, (colour, window) in enumerate(COLOURS.items())
    ]


@pytest.fixture
def folder(tmp_path: Path, colour_video: Path) -> Path:
    """Four videos, one of them deeper and with another suffix."""
    root = tmp_path / "videos"
    (root / "more").mkdir(parents=True)
    for number in range(4):
        name = f"more/video-{number}.MKV" if number == 2 else f"video-{number}.mp4"
        # Another content for each, behind the end of what is read.
        (root / name).write_bytes(colour_video.read_bytes() + bytes([number]))
    return root


class StopsAt(ColourCaptioner):
    """Does what it does when it is shown a video."""

    name = "colour-captioner"

    def __init__(self, video: str, stop: Callable[[], None]) -> None:
        super().__init__()
        self.video, self.stop = video, stop

    def caption(self, frames: Frames) -> list[str]:
        if frames.video.startswith(self.video):
            self.stop()
        return super().caption(frames)


def out_of_memory() -> None:
    raise vmr.BackendError("out of memory")


def run_file(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(f"{path}.run.json").read_bytes())
    schema = json.loads((ROOT / "schemas" / "answers-1.json").read_bytes())
    jsonschema.validate(document, schema)
    return document


def test_answers_are_official_and_right(folder: Path, tmp_path: Path) -> None:
    queries = questions()
    out = tmp_path / "made" / "val.jsonl"
    done = answer_file(system(), queries, find_videos(folder, queries), out, data="val.jsonl")
    assert done == (out, 12, 12, [])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["qid"] for line in lines] == [query.qid for query in queries]
    assert all(len(line["pred_saliency_scores"]) == 6 for line in lines)
    assert all(len(line["pred_relevant_windows"]) <= 10 for line in lines)
    official = tmp_path / "truth.jsonl"
    vmr.write_queries(official, queries)
    scored = vmr.evaluate(out, official)
    assert scored.metrics["brief"]["MR-full-R1@0.7"] == 100.0
    green = lines[1]
    assert green["vid"] == "video-0"
    assert green["pred_relevant_windows"][0][:2] == [4.0, 8.0]
    assert set(np.argsort(green["pred_saliency_scores"])[-2:]) == {2, 3}
    document = run_file(out)
    assert document["complete"] is True
    assert document["settings"]["backends"]["captioner"] == "colour-captioner"
    assert not Path(f"{out}.partial").exists()


def test_a_stopped_run_goes_on(folder: Path, tmp_path: Path) -> None:
    queries = questions()
    videos = find_videos(folder, queries)
    whole = answer_file(system(), queries, videos, tmp_path / "whole.jsonl", data="val").path
    out = tmp_path / "out.jsonl"
    with pytest.raises(vmr.BackendError, match="out of memory"):
        answer_file(system(StopsAt("video-2", out_of_memory)), queries, videos, out, data="val")
    assert not out.exists()
    partial = tmp_path / "out.jsonl.partial"
    kept = partial.read_text().splitlines()
    assert 3 <= len(kept) <= 6
    assert run_file(out)["complete"] is False
    # A kill in the middle of a line.
    partial.write_text("\n".join(kept) + '\n{"qid": 99, "pred_rel')
    captioner = ColourCaptioner()
    done = answer_file(system(captioner), queries, videos, out, data="val")
    assert done == (out, 12, 12 - len(kept), [])
    assert len(captioner.captioned) == 12 * (4 - len(kept) // 3)
    assert out.read_bytes() == whole.read_bytes()
    # Once more: nothing is left to do.
    captioner = ColourCaptioner()
    assert answer_file(system(captioner), queries, videos, out, data="val") == (out, 12, 0, [])
    assert captioner.captioned == []
    assert out.read_bytes() == whole.read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.answering.test_answering import StopsAt, questions, system
from vmr.answering import answer_file, find_videos
stop = lambda: os.kill(os.getpid(), signal.SIGKILL)
queries = questions()
answer_file(system(StopsAt("video-3", stop)), queries, find_videos(sys.argv[1], queries), sys.argv[2])
"""


def test_a_killed_run_goes_on(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    root = str(Path(__file__).parents[2])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(out), root], check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    queries = questions()
    done = answer_file(system(), queries, find_videos(folder, queries), out)
    assert done.answered == 12
    assert done.new <= 9
    whole = answer_file(system(), queries, find_videos(folder, queries), tmp_path / "whole.jsonl")
    assert out.read_bytes() == whole.path.read_bytes()


def test_other_settings_do_not_go_on_there(folder: Path, tmp_path: Path) -> None:
    queries = questions(1)
    videos = find_videos(folder, queries)
    out = tmp_path / "out.jsonl"
    answer_file(system(), queries, videos, out)
    before = out.read_bytes()

    class Other(ColourCaptioner):
        name = "other"

    for other, message in (
        (system(Other()), "backends captioner 'colour-captioner', and this is 'other'"),
        (system(pairs=2), "parameters pairs 3, and this is 2"),
    ):
        with pytest.raises(vmr.InputError, match=message):
            answer_file(other, queries, videos, out)
    with pytest.raises(vmr.InputError, match="was begun with queries "):
        answer_file(system(), queries[:2], videos, out)
    assert out.read_bytes() == before
    (tmp_path / "out.jsonl.run.json").unlink()
    with pytest.raises(vmr.InputError, match=r"no out\.jsonl\.run\.json says what made it"):
        answer_file(system(), queries, videos, out)
    assert out.read_bytes() == before


def test_a_video_that_cannot_be_read_is_told_and_tried_again(folder: Path, tmp_path: Path) -> None:
    queries = questions()
    videos = find_videos(folder, queries)
    good = videos["video-1"].read_bytes()
    videos["video-1"].write_bytes(b"no video at all" * 100)
    out = tmp_path / "out.jsonl"
    done = answer_file(system(), queries, videos, out)
    assert (done.answered, done.new) == (9, 9)
    ((video, count, reason),) = done.unanswered
    assert (video, count) == ("video-1", 3)
    assert "video-1.mp4" in reason
    document = run_file(out)
    assert document["complete"] is False
    assert document["unanswered"][0]["video"] == "video-1"
    videos["video-1"].write_bytes(good)
    done = answer_file(system(), queries, videos, out)
    assert done == (out, 12, 3, [])
    assert run_file(out)["complete"] is True
    assert len({json.loads(line)["qid"] for line in out.read_text().splitlines()}) == 12


def test_a_video_without_words_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    class Speechless(ColourCaptioner):
        def caption(self, frames: Frames) -> list[str]:
            return [
                "" if frames.video.startswith("video-1") else text
                for text in super().caption(frames)
            ]

    queries = questions()
    out = tmp_path / "out.jsonl"
    done = answer_file(system(Speechless()), queries, find_videos(folder, queries), out)
    assert (done.answered, [found.video for found in done.unanswered]) == (9, ["video-1"])
    assert "got an empty one for each of the 12 frames" in done.unanswered[0].reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "long " * 300}, "qid 31: GranAlign.retrieve: queries: expected at most 1000"),
        ({"text": " "}, "qid 31: GranAlign.retrieve: queries: expected a sentence"),
        ({"duration": float("nan")}, "qid 31: duration: expected seconds above 0, got nan"),
    ],
)
def test_a_query_that_cannot_be_answered_is_told_first(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    queries = questions()
    queries[10] = msgspec.structs.replace(queries[10], **change)
    captioner = ColourCaptioner()
    with pytest.raises(vmr.InputError, match=message):
        answer_file(system(captioner), queries, find_videos(folder, queries), tmp_path / "o.jsonl")
    assert captioner.captioned == []


def test_videos_of_another_length_are_told(folder: Path, tmp_path: Path) -> None:
    queries = [msgspec.structs.replace(query, duration=30.0) for query in questions()]
    with pytest.warns(vmr.VmrWarning) as told:
        answer_file(system(), queries, find_videos(folder, queries), tmp_path / "out.jsonl")
    said = [str(warning.message) for warning in told]
    assert [words.partition(";")[0] for words in said] == [
        "video-0 lasts 12.0 s, and 30.0 s as annotated",
        "4 videos do not last as long as annotated",
    ]


def test_a_whole_file_stays_while_it_grows(folder: Path, tmp_path: Path) -> None:
    queries = questions()
    videos = find_videos(folder, queries)
    good = videos["video-1"].read_bytes()
    videos["video-1"].write_bytes(b"no video at all" * 100)
    out = tmp_path / "out.jsonl"
    answer_file(system(), queries, videos, out)
    before = out.read_bytes()
    videos["video-1"].write_bytes(good)
    with pytest.raises(vmr.BackendError, match="out of memory"):
        answer_file(system(StopsAt("video-1", out_of_memory)), queries, videos, out)
    assert out.read_bytes() == before
    assert run_file(out)["answered"] == 9
    # A copy that was killed half way is made whole.
    partial = Path(f"{out}.partial")
    partial.write_bytes(before[: len(before) // 2])
    assert answer_file(system(), queries, videos, out) == (out, 12, 3, [])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(line["qid"] for line in lines) == sorted(query.qid for query in queries)
    # Nothing is left to do: nothing is touched, and no lock stays.
    changed = out.stat().st_mtime_ns
    assert answer_file(system(), queries, videos, out) == (out, 12, 0, [])
    assert out.stat().st_mtime_ns == changed
    assert not partial.exists()


def test_progress_is_told_of_videos_and_frames(folder: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    queries = questions()
    videos = find_videos(folder, queries)
    out = tmp_path / "out.jsonl"
    with pytest.raises(vmr.BackendError):
        answer_file(system(StopsAt("video-2", out_of_memory)), queries, videos, out)
    assert run_file(out)["answered"] >= 3
    answer_file(system(), queries, videos, out, progress=lambda *stage: told.append(stage))
    assert told[0][0] == "videos"
    assert told[0][1] >= 1
    assert told[-1] == ("videos", 4, 4)
    frames = [(done, total) for stage, done, total in told if stage == "frames"]
    assert frames[-1][0] == frames[-1][1]


def test_two_runs_do_not_write_one_file(folder: Path, tmp_path: Path) -> None:
    queries = questions(1)
    out = tmp_path / "out.jsonl"
    with (tmp_path / "out.jsonl.partial").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(vmr.InputError, match="another process is writing it"):
            answer_file(system(), queries, find_videos(folder, queries), out)
    assert answer_file(system(), queries, find_videos(folder, queries), out).answered == 3


def test_shards_are_the_whole(folder: Path, tmp_path: Path) -> None:
    queries = questions()
    videos = find_videos(folder, queries)
    whole = answer_file(system(), queries, videos, tmp_path / "val.jsonl").path
    parts = [
        answer_file(system(), queries, videos, tmp_path / "val.jsonl", shard=Shard(number, 3)).path
        for number in (1, 2, 3)
    ]
    assert parts[0].name == "val.1-of-3.jsonl"
    assert run_file(parts[1])["settings"]["shard"] == "2/3"
    lines = [line for part in parts for line in part.read_text().splitlines()]
    assert sorted(lines) == sorted(whole.read_text().splitlines())
    # A video is looked at in one shard only.
    seen = [{json.loads(line)["vid"] for line in part.read_text().splitlines()} for part in parts]
    assert [len(videos) for videos in seen] == [2, 1, 1]


@pytest.mark.parametrize("text", ["", "1", "0/8", "9/8", "a/b", "1/0", "-1/8", "1/8/2", "½/2"])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(vmr.InputError, match=r"expected I/N with I from 1 to N, such as 1/8, got "):
        Shard.parse(text)
    assert Shard.parse("3/8") == (3, 8)


def test_videos_that_are_missing_or_double(folder: Path) -> None:
    queries = questions(6)
    with pytest.raises(
        vmr.InputError, match=r"2 of 6 videos are not there: video-4, video-5; skip_missing"
    ):
        find_videos(folder, queries)
    with pytest.warns(vmr.VmrWarning, match="queries are left out"):
        assert len(find_videos(folder, queries, skip_missing=True)) == 4
    shutil.copy(folder / "video-1.mp4", folder / "more" / "video-1.webm")
    with pytest.raises(vmr.InputError, match="two files are named as 'video-1'"):
        find_videos(folder, questions())
    with pytest.raises(vmr.InputError, match="expected a folder"):
        find_videos(folder / "video-1.mp4", queries)


def test_videos_behind_links(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "part").symlink_to(folder)
    (folder / "more" / "round").symlink_to(folder)
    assert len(find_videos(tmp_path / "links", questions())) == 4


def test_the_next_video_is_begun_before_one_ends(folder: Path) -> None:
    together = threading.Barrier(2)

    class Meets(ColourCaptioner):
        calls_at_once = 2

        def caption_for(self, frames: Frames, focus: Focus) -> list[str]:
            if focus.query == "the red picture":
                # Broken by its time-out if the videos came one after the other.
                together.wait(timeout=30)
            return super().caption_for(frames, focus)

    queries = questions()
    videos = find_videos(folder, queries)
    found = list(answers(system(Meets()), queries, videos))
    assert [[prediction.qid for prediction in row] for row in found] == [  # type: ignore[union-attr]
        [10 * number + place for place in range(3)] for number in range(4)
    ]


def test_scores_of_clips() -> None:
    def scores(duration: float, seconds: float, clips: int, every: float = 1.0) -> list[float]:
        starts = np.arange(0, duration - 1e-9, every)
        times = (starts + np.minimum(starts + every, duration)) / 2
        values = np.arange(1.0, len(times) + 1)
        return clip_scores(times, values, duration, seconds, clips).tolist()

    assert scores(6.0, 2.0, 3) == pytest.approx([1.5, 3.5, 5.5])
    # The last frame stands for half a second, and clips behind it get the lowest score.
    assert scores(4.5, 2.0, 5) == pytest.approx([1.5, 3.5, 5.0, 1.0, 1.0])
    assert scores(3.5, 2.0, 2) == pytest.approx([1.5, (3 * 1 + 4 * 0.5) / 1.5])
    # Frames that stand for more than a clip.
    assert scores(6.0, 1.0, 6, every=3.0) == pytest.approx([1, 1, 1, 2, 2, 2])
    assert scores(0.4, 2.0, 1) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("annotations", "clips"),
    [
        ("qvhighlights/highlight_val_release.jsonl", 75),
        ("charades_sta/txt/charades_sta_test.txt", None),
        ("activitynet_captions/json/val_2.json", None),
        ("tvsum/tvsum_val_release.jsonl", None),
    ],
)
def test_real_benchmarks(
    real_data: Path, colour_video: Path, tmp_path: Path, annotations: str, clips: int | None
) -> None:
    queries = vmr.read_queries(real_data / annotations)
    name = queries[0].video
    (tmp_path / "videos").mkdir()
    shutil.copy(colour_video, tmp_path / "videos" / f"{name}.mp4")
    with pytest.warns(vmr.VmrWarning, match="queries are left out"):
        videos = find_videos(tmp_path / "videos", queries, skip_missing=True)
    out = tmp_path / "out.jsonl"
    with pytest.warns(vmr.VmrWarning, match="as annotated"):
        done = answer_file(system(), queries, videos, out)
    asked = [query for query in queries if query.video == name]
    assert done.answered == len(asked)
    assert run_file(out)["complete"] is False
    predictions = vmr.read_predictions(out)
    assert [found.qid for found in predictions] == [query.qid for query in asked]
    for query, found in zip(asked, predictions, strict=True):
        expected = clips or int(np.ceil(query.duration / 2))
        assert len(found.pred_saliency_scores or ()) == expected
