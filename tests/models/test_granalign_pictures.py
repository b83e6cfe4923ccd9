"""Captioners that see pictures get the same ones again, and videos are not decoded for it."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import vmr
from tests import videos
from tests.colours import COLOURS, ColourEncoder, WordCounts
from vmr import features
from vmr.backends.base import Focus
from vmr.backends.captioning import SHORT_SIDE, VlmCaptioner
from vmr.cache import PICTURES, Cache, Key
from vmr.models.granalign import GranAlign
from vmr.video import Frames


class Eye:
    """A vision model that names the mean colour of a picture; keeps what it was shown."""

    name = "eye"
    takes_instructions = True

    def __init__(self) -> None:
        self.shown: list[tuple[bytes, str]] = []

    def describe(self, jpegs: list[bytes], instruction: str) -> list[str]:
        self.shown += [(jpeg, instruction) for jpeg in jpegs]
        means = [
            cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean(axis=(0, 1))[::-1]
            for jpeg in jpegs
        ]
        return [f"a {COLOURS[int(mean.argmax())]} picture" for mean in means]


def make(eye: Eye, **options: Any) -> GranAlign:
    parts: dict[str, Any] = {
        "encoder": ColourEncoder(),
        "sentence_encoder": WordCounts(),
        "rewriter": "none",
        "captioner": VlmCaptioner(eye),
        "every": 0.1,
    }
    return vmr.load("granalign", **{**parts, **options})


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames were asked of the video reader, a call each."""
    counts: list[int] = []
    stream = features.stream

    def counting(path: Path, times: Any, **options: Any) -> Any:
        counts.append(len(times))
        return stream(path, times, **options)

    monkeypatch.setattr(features, "stream", counting)
    return counts


@pytest.mark.parametrize("cached", [True, False])
def test_queries_decode_nothing_again(
    colour_video: Path, own_cache: Path, decoded: list[int], cached: bool
) -> None:
    eye = Eye()
    options = {} if cached else {"cache": None}
    (result,) = make(eye, **options).retrieve(colour_video, "the green picture")
    assert result.moments[0].start == pytest.approx(4.0, abs=0.11)
    assert decoded == [120]
    first = [jpeg for jpeg, instruction in eye.shown if "green" not in instruction]
    aware = [jpeg for jpeg, instruction in eye.shown if "green, picture" in instruction]
    assert (len(first), len(aware)) == (120, 24)
    assert set(aware) <= set(first)
    if cached:
        # Another process, another query.
        again = Eye()
        make(again).retrieve(colour_video, "the blue picture")
        assert decoded == [120]
        assert {instruction for _, instruction in again.shown} == {
            eye.shown[-1][1].replace("green", "blue")
        }


def test_pictures_that_are_gone_are_made_again(
    colour_video: Path, own_cache: Path, decoded: list[int]
) -> None:
    kept, lost = Eye(), Eye()
    make(Eye()).retrieve(colour_video, "the red picture")
    make(kept).retrieve(colour_video, "the green picture")
    cache = Cache()
    with cache._open() as connection:
        gone = connection.execute(
            "DELETE FROM entries WHERE kind IN (?, ?)", (PICTURES, "query-aware captions")
        )
    assert gone.rowcount > 2
    decoded.clear()
    make(lost).retrieve(colour_video, "the green picture")
    assert sum(decoded) == 24
    assert lost.shown == kept.shown


def test_where_there_is_no_room_pictures_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=10_000)
    old = Key("video", "captions", "model", "old")
    cache.put(old, {"captions": np.zeros(4000, np.uint8)})
    for number in range(5):
        key = Key("video", PICTURES, "short side 448", str(number))
        cache.put(key, {"jpegs": np.zeros(3000, np.uint8)})
    assert cache.get(old) is not None
    kinds = [(summary.kind, summary.entries) for summary in cache.summaries()]
    assert ("captions", 1) in kinds
    assert ("pictures", 1) in kinds


def test_a_captioner_says_what_it_asked(colour_video: Path) -> None:
    eye = Eye()
    captioner = VlmCaptioner(eye)
    assert captioner.name.startswith("eye, instructions ")
    assert captioner.short_side == SHORT_SIDE
    pixels = np.full((2, 8, 8, 3), (200, 20, 20), np.uint8)
    frames = Frames([0.0, 1.0], lambda: (pixels, np.array([0.0, 1.0])))
    assert captioner.caption(frames) == ["a red picture"] * 2
    captioner.caption_for(frames, Focus("a dog barks", ("dog",), ("barks",)))
    captioner.caption_for(frames, Focus("und so", (), ()))
    asked = [instruction for _, instruction in eye.shown[::2]]
    assert "for: dog, barks." in asked[1]
    assert "for: und so." in asked[2]


def test_instructions_of_ones_own(colour_video: Path) -> None:
    eye = Eye()
    own = VlmCaptioner(eye, agnostic="Which colour?", aware="Is {focus} there?")
    assert own.name != VlmCaptioner(eye).name
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    frames = Frames([0.0], lambda: (pixels, np.zeros(1)))
    own.caption(frames)
    own.caption_for(frames, Focus("a {dog}", ("{dog}",), ()))
    assert [instruction for _, instruction in eye.shown] == ["Which colour?", "Is {dog} there?"]
    with pytest.raises(vmr.InputError, match=r"aware: expected \{focus\} in it, got 'Is it"):
        VlmCaptioner(eye, aware="Is it there?")


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("  A man\n walks. ", "A man walks."),
        ('"A man walks."', "A man walks."),
        ("I'm sorry, I can't tell.", ""),
        ("Unfortunately the image is dark.", ""),
        ("", ""),
    ],
)
def test_answers_become_captions(answer: str, caption: str) -> None:
    class Says(Eye):
        takes_instructions = False

        def describe(self, jpegs: list[bytes], instruction: str) -> list[str]:
            assert instruction == ""
            return [answer for _ in jpegs]

    captioner = VlmCaptioner(Says())
    assert captioner.name == "eye, no instructions"
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    frames = Frames([0.0], lambda: (pixels, np.zeros(1)))
    assert captioner.caption(frames) == [caption]
    assert captioner.caption_for(frames, Focus("a dog", ("dog",), ())) == [""]


def test_a_model_that_misses_a_picture() -> None:
    class Misses(Eye):
        def describe(self, jpegs: list[bytes], instruction: str) -> list[str]:
            return super().describe(jpegs, instruction)[1:]

    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(vmr.BackendError, match="eye: expected 2 answers, one a picture, got 1"):
        VlmCaptioner(Misses()).caption(Frames([0.0, 1.0], lambda: (pixels, np.zeros(2))))


@videos.needs_ffmpeg
def test_an_error_leaves_no_decoder_behind(tmp_path: Path) -> None:
    video = videos.numbered(tmp_path / "long.mp4", 900, rate=10)

    class Fails(Eye):
        def describe(self, jpegs: list[bytes], instruction: str) -> list[str]:
            raise vmr.BackendError("out of memory")

    retriever = make(Fails(), cache=None)
    gc.collect()
    gc.disable()
    try:
        # The error is held, with all frames of the stack that it came through.
        with pytest.raises(vmr.BackendError, match="out of memory") as error:
            retriever.retrieve(video, "the green picture")
        assert "vmr-video" not in {thread.name for thread in threading.enumerate()}
        assert error.value is not None
    finally:
        gc.enable()


@videos.needs_ffmpeg
def test_models_see_their_own_size(tmp_path: Path) -> None:
    """What a captioner is shown does not depend on who encodes."""
    video = videos.numbered(tmp_path / "small.mp4", 20, rate=10)
    sizes: dict[int, set[tuple[int, ...]]] = {}

    class Wide(ColourEncoder):
        def __init__(self, short_side: int) -> None:
            self.short_side = short_side
            self.name = f"wide {short_side}"

        def encode_frames(self, frames: Frames) -> NDArray[np.float32]:
            sizes.setdefault(self.short_side, set()).add(frames.pixels.shape[1:3])
            return super().encode_frames(frames)

    class Small(VlmCaptioner):
        short_side = 24

    for side in (16, 90):
        eye = Eye()
        options = {"encoder": Wide(side), "captioner": Small(eye), "cache": None}
        make(eye, **options).retrieve(video, "the green picture")
        seen = [cv2.imdecode(np.frombuffer(j, np.uint8), cv2.IMREAD_COLOR) for j, _ in eye.shown]
        assert {picture.shape[:2] for picture in seen} == {(24, 48)}
    assert sizes == {16: {(16, 32)}, 90: {(90, 180)}}
