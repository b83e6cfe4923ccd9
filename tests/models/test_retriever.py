"""A trained model on a raw video: the answers are those on features from disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jsonschema
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import vmr
import vmr.encoding
from tests.backends import tiny_models
from tests.colours import ColourEncoder, WordCounts
from tests.conftest import COLOURS
from vmr.backends.packages import PACKAGES, status
from vmr.cache import Cache
from vmr.cli import main
from vmr.data.pack_spec import Glove, Pack, Source, read_pack, ready_packs
from vmr.errors import BackendError, InputError, VideoError, VmrWarning
from vmr.models.stored import About
from vmr.training import load_config, train
from vmr.video import Frames

MODELS = {
    "afa-fsgd": "{kind: afa-fsgd, kernel_size: 3, channels: 2, head_hidden: 2}",
    "moment-detr": "{kind: moment-detr, hidden: 16, heads: 2, encoder_layers: 1, decoder_layers: 1, "
    "feed_forward: 16, round_to: null}",
    "bm-detr": "{kind: bm-detr, hidden: 16, heads: 2, encoder_layers: 1, decoder_layers: 1, "
    "feed_forward: 16}",
    "host": "{kind: host, alignment: a2fa, detector: regression, hidden: 16, heads: 2}",
}
CONFIG = """\
name: colours
model: MODEL
data: {root: ROOT, train: "{root}/train.jsonl", val: "{root}/train.jsonl"}
training: {epochs: 1, batch_size: 3}
"""
SENTENCES = ("a red ball", "the tall green man sleeps", "blue house")
# One process of pytest-xdist: the tiny models are made, and asked, once.
pytestmark = pytest.mark.xdist_group("models")
needs_models = pytest.mark.skipif(
    any(found.installed is None for found in status(PACKAGES)),
    reason="the small models are not installed (vmr models install)",
)


def write_video(path: Path, colours: Sequence[str]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    assert writer.isOpened()
    for colour in colours:
        frame = np.full((48, 64, 3), COLOURS[colour][::-1], dtype=np.uint8)
        for _ in range(40):
            writer.write(frame)
    writer.release()
    return path


class Trained(NamedTuple):
    """A pack, videos and a model that learned on them."""

    folder: Path
    videos: list[Path]
    encoder: str

    def run(self, kind: str, *settings: str) -> Path:
        out = self.folder / "-".join([kind, str(len(settings))])
        if not out.exists():
            config = self.folder / f"{kind}.yaml"
            text = CONFIG.replace("ROOT", str(self.folder / "pack"))
            config.write_text(text.replace("MODEL", MODELS[kind]))
            train(load_config(str(config), settings), out, device="cpu")
        return out

    def predictions(self, run: Path, *options: object) -> dict[tuple[str, str], Any]:
        """What ``vmr predict`` says on the pack, by video and sentence."""
        out, pack = run / "again.jsonl", self.folder / "pack"
        asked = [pack / "train.jsonl", "--checkpoint", run, "--features", pack, "--out", out]
        assert main(["predict", *map(str, [*asked, "--device", "cpu", *options])]) == 0
        return {(str(one.vid), str(one.query)): one for one in vmr.read_predictions(out)}


def write_pack(folder: Path, encoder: str, name: str = "pack") -> list[Path]:
    """Two videos, three sentences on each, and their features."""
    orders = {"warm": ("red", "green", "blue"), "cold": ("blue", "red", "red", "green")}
    videos = []
    (folder / name).mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    for vid, colours in orders.items():
        path = folder / f"{vid}.mp4"
        videos.append(path if path.exists() else write_video(path, colours))
        for sentence in SENTENCES:
            place = next(place for place, colour in enumerate(colours) if colour in sentence)
            lines.append(
                {
                    "qid": len(lines),
                    "query": sentence,
                    "vid": vid,
                    "duration": 4.0 * len(colours),
                    "relevant_windows": [[4 * place, 4 * place + 4]],
                }
            )
    queries = folder / "queries.jsonl"
    queries.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["features", "extract", *map(str, videos), "--encoder", encoder, "--every", "1"]
    (folder / name).rmdir()
    assert main([*command, "--queries", str(queries), "--out", str(folder / name)]) == 0
    shutil.copy(queries, folder / name / "train.jsonl")
    return videos


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Features of a tiny CLIP with random weights."""
    folder = tmp_path_factory.mktemp("clip")
    encoder = f"transformers:{tiny_models.clip(folder / 'tiny')},device=cpu"
    return Trained(folder, write_pack(folder, encoder), encoder)


def assert_same(results: vmr.Results, predictions: dict[tuple[str, str], Any], vid: str) -> None:
    for result in results:
        expected = predictions[vid, result.query]
        found = [(moment.start, moment.end, moment.score) for moment in result.moments]
        assert len(found) == min(5, len(expected.pred_relevant_windows)) > 0
        np.testing.assert_allclose(found, expected.pred_relevant_windows[:5], atol=1e-4)
        scores = result.frame_scores
        # Hosts have none.
        np.testing.assert_allclose(scores.scores, expected.pred_saliency_scores or (), atol=1e-4)
        np.testing.assert_allclose(scores.times, np.arange(len(scores.scores)) + 0.5)


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, no frame is decoded for an encoder."""

    def refuse(*arguments: object, **options: object) -> Iterator[Frames]:
        raise AssertionError("a video was decoded")

    return lambda: monkeypatch.setattr(vmr.encoding, "stream", refuse)


@pytest.mark.parametrize("kind", MODELS)
def test_the_answers_are_those_on_the_extracted_pack(
    clip: Trained, kind: str, undecoded: Callable[[], None]
) -> None:
    run = clip.run(kind)
    predictions = clip.predictions(run)
    retriever = vmr.Retriever.from_pretrained(run, device="cpu")
    for video in clip.videos:
        found = retriever.retrieve(video, SENTENCES)
        assert_same(found, predictions, video.stem)
        assert found.backends["model"] == f"{kind} ({run})"
        assert found.backends["encoder"].startswith("tiny@")
    assert found[0].duration == 16.0
    # Any of the sentences alone, and another object: nothing is decoded again.
    undecoded()
    again = vmr.Retriever.from_pretrained(run, device="cpu")
    assert_same(again.retrieve(clip.videos[0], SENTENCES[1]), predictions, "warm")
    assert len(again.retrieve(clip.videos[0], SENTENCES, top_k=1)[2].moments) == 1


def test_the_pack_says_what_made_it(clip: Trained) -> None:
    pack = read_pack(clip.folder / "pack" / "pack.yaml")
    assert pack.made["encoder"] == pack.made["sentence_encoder"]
    assert pack.made["encoder_spec"] == f"transformers:{clip.folder / 'tiny'},dtype=float32"
    assert (pack.sources["video"].dim, pack.text) == (10, msgspec.convert(
        {"files": ["text/qid{qid}.npz"], "dim": 16, "pooled_dim": 10}, type(pack.text)
    ))  # fmt: skip
    # Frame and sentence in one space; the tokens before the projection.
    query = vmr.read_queries(clip.folder / "queries.jsonl")[0]
    opened = vmr.load_pack(clip.folder / "pack")
    encoder = vmr.backends.load_encoder(clip.encoder)
    np.testing.assert_allclose(
        opened.pooled_text(query), encoder.encode_texts([query.text])[0], atol=1e-4
    )
    assert opened.text(query).shape == (5, 16)  # three words between a start and an end token


@pytest.mark.parametrize("kind", ["afa-fsgd", "host", "bm-detr"])
def test_the_command(
    clip: Trained, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = clip.run(kind), tmp_path / "out"
    asked = ["retrieve", str(clip.videos[0]), "--checkpoint", str(run), "--device", "cpu"]
    asked += ["--system", kind.replace("-", "_")]
    asked += ["-q", SENTENCES[0], "-q", SENTENCES[2], "-k", "2", "--json"]
    assert main([*asked, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert f"{kind} (" in said.err
    document = json.loads(said.out)
    schema = resources.files("vmr").joinpath("schemas/results-1.json").read_text()
    jsonschema.validate(document, json.loads(schema))
    assert [len(result["moments"]) for result in document["results"]] == [2, 2]
    scores = [len(result["frame_scores"]["scores"]) for result in document["results"]]
    assert scores == ([0, 0] if kind == "host" else [12, 12])
    names = {path.name for path in out.iterdir()}
    assert {"index.html", "results.json"} < names
    assert "recording.jsonl" not in names
    assert len(names) == 4  # and two pictures


@needs_models
def test_the_embedded_encoder(
    tmp_path: Path, models_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMR_CACHE_DIR", str(models_cache))
    trained = Trained(tmp_path, write_pack(tmp_path, "embedded"), "embedded")
    run = trained.run("afa-fsgd")
    retriever = vmr.Retriever.from_pretrained(run, device="cpu")
    found = retriever.retrieve(trained.videos[1], SENTENCES)
    assert_same(found, trained.predictions(run), "cold")


def test_another_models_features_for_the_anchor(
    clip: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    siglip = f"transformers:{tiny_models.siglip(clip.folder / 'siglip')},device=cpu"
    write_pack(clip.folder, siglip, "other")
    other = clip.folder / "other"
    run = clip.run("afa-fsgd", f"data.anchor_root={other}")
    pack = clip.folder / "pack"
    asked = [
        "predict",
        str(pack / "train.jsonl"),
        "--checkpoint",
        str(run),
        "--features",
        str(pack),
    ]
    assert main(asked) == 3
    assert "add --anchor-features DIR" in capsys.readouterr().err
    assert main([*asked, "--anchor-pack", str(other)]) == 3
    assert "--anchor-pack: expected --anchor-features DIR" in capsys.readouterr().err
    predictions = clip.predictions(run, "--anchor-features", other)
    retriever = vmr.Retriever.from_pretrained(run, device="cpu")
    found = retriever.retrieve(clip.videos[0], SENTENCES)
    assert_same(found, predictions, "warm")
    assert found.backends["anchor encoder"].startswith("siglip@")

    def asked_with(**options: Any) -> vmr.Results:
        retriever = vmr.Retriever.from_pretrained(run, device="cpu", **options)
        return retriever.retrieve(clip.videos[0], SENTENCES)

    assert [len(one.frame_scores.times) for one in asked_with(every=2.0)] == [6, 6, 6]
    assert_same(asked_with(anchor_encoder=siglip), predictions, "warm")
    found = asked_with(anchor_features=other)
    assert_same(found, predictions, "warm")
    assert found.backends["anchor encoder"] == f"features in {other}"
    with pytest.raises(InputError, match="anchor: every: does not go with features"):
        asked_with(anchor_features=other, every=2.0)
    # Features that vmr did not make: it has to be told whose they are.
    model = vmr.MomentModel.from_pretrained(run)
    assert model.about is not None
    assert model.about.anchor_pack is not None
    foreign = msgspec.structs.replace(model.about.anchor_pack, made={})
    model.about = msgspec.structs.replace(model.about, anchor_pack=foreign)
    for options in ({}, {"anchor_features": other}):
        with pytest.raises(InputError, match=r"by anchor_encoder \(--anchor-encoder MODEL\)$"):
            vmr.Retriever(model, device="cpu", **options)
    named = vmr.Retriever(model, anchor_encoder=siglip, anchor_features=other, device="cpu")
    assert_same(named.retrieve(clip.videos[0], SENTENCES), predictions, "warm")
    with pytest.raises(InputError, match=r"anchor_encoder and anchor_features .* another model's"):
        vmr.Retriever.from_pretrained(clip.run("afa-fsgd"), anchor_features=other)


def test_features_from_disk(clip: Trained, tmp_path: Path, undecoded: Callable[[], None]) -> None:
    run = clip.run("moment-detr")
    undecoded()
    retriever = vmr.Retriever.from_pretrained(run, features=clip.folder / "pack", device="cpu")
    found = retriever.retrieve(clip.videos[1], SENTENCES)
    assert_same(found, clip.predictions(run), "cold")
    other = Path(shutil.copy(clip.videos[0], tmp_path / "cold.mp4"))
    with pytest.raises(
        InputError, match=r"cold\.npz: was made from another video than .*cold\.mp4"
    ):
        retriever.retrieve(other, SENTENCES)
    unknown = Path(shutil.copy(other, tmp_path / "new.mp4"))
    with pytest.raises(InputError, match="video new: no video features; looked for"):
        retriever.retrieve(unknown, SENTENCES)
    with pytest.raises(InputError, match="every: does not go with features"):
        vmr.Retriever.from_pretrained(run, features=clip.folder / "pack", every=1.0)


def test_features_of_no_encoder_with_word_vectors(tmp_path: Path, colour_video: Path) -> None:
    """I3D and GloVe: nothing has to be encoded."""
    pack = Pack(
        columns=("i3d",),
        sources={"i3d": Source(files=("{vid}.npy",), key=None, dim=6)},
        seconds_per_row=1.0,
        glove=Glove(files=("glove.txt",), split="words", dim=4),
    )
    np.save(tmp_path / "colours.npy", np.eye(12, 6, dtype=np.float32) + 0.1)
    (tmp_path / "glove.txt").write_text("red 1 0 0 0\nball 0 1 0 1\n")
    model = vmr.MomentDETR(
        vmr.MomentDETRConfig(video_dim=6, text_dim=4, hidden=16, heads=2, round_to=None)
    )
    model.about = About(name="i3d", pack=pack)
    with pytest.raises(
        InputError, match=r"was trained on i3d 6 and word vectors, .*--features DIR"
    ):
        vmr.Retriever(model, encoder=ColourEncoder())
    found = vmr.Retriever(model, features=tmp_path, device="cpu").retrieve(colour_video, "red ball")
    assert len(found[0].moments) == 5
    assert len(found[0].frame_scores.times) == 12


# ---- without training ---------------------------------------------------------------------------------


def untrained(**options: Any) -> vmr.A2FAF2SGD:
    config = vmr.A2FAF2SGDConfig(video_dim=3, text_dim=3, predict="segment", **options)
    return vmr.A2FAF2SGD(config)


def test_a2fa_alone_needs_no_training(colour_video: Path) -> None:
    retriever = vmr.Retriever(untrained(), encoder=ColourEncoder(), every=0.5, device="cpu")
    red, blue = retriever.retrieve(colour_video, ["red", "a blue picture"])
    assert (red.moments[0].start, red.moments[0].end) == (0.0, 4.0)
    assert 8.0 <= (blue.moments[0].start + blue.moments[0].end) / 2 < 12.0
    assert len(red.frame_scores.times) == 24
    with pytest.raises(
        InputError, match="does not say what features it was trained on; name it by"
    ):
        vmr.Retriever(untrained())
    with pytest.raises(InputError, match="every must be a number of seconds > 0"):
        vmr.Retriever(untrained(), encoder=ColourEncoder(), every=-1.0).retrieve(
            colour_video, "red"
        )


class Breaking(ColourEncoder):
    """Fails after some calls; counts the frames that it saw."""

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.seen = 0

    def encode_frames(self, frames: Frames) -> NDArray[np.float32]:
        if self.calls == 0:
            raise BackendError("the power went")
        self.calls -= 1
        self.seen += len(frames)
        return super().encode_frames(frames)


def test_what_was_encoded_before_a_stop_is_kept(colour_video: Path, tmp_path: Path) -> None:
    model = untrained()

    def ask(encoder: Breaking, cache: Cache | None) -> vmr.Results:
        retriever = vmr.Retriever(model, encoder=encoder, every=0.1, device="cpu", cache=cache)
        return retriever.retrieve(colour_video, "green")

    cache = Cache(tmp_path)
    with pytest.raises(BackendError, match="the power went"):
        ask(Breaking(1), cache)
    second = Breaking(9)
    found = ask(second, cache)
    assert second.seen == 120 - 64
    alone = ask(Breaking(9), None)
    assert found[0].moments == alone[0].moments
    np.testing.assert_array_equal(found[0].frame_scores.scores, alone[0].frame_scores.scores)


def test_queries_in_parts_share_the_video(
    colour_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained()
    whole = vmr.Retriever(model, encoder=ColourEncoder(), device="cpu")
    texts = ["red", "green", "blue", "red green"]
    expected = whole.retrieve(colour_video, texts)
    calls: list[int] = []
    frames = model.frames

    def counted(*given: Any) -> Any:
        calls.append(1)
        return frames(*given)

    monkeypatch.setattr(model, "frames", counted)
    monkeypatch.setattr(vmr.models.retriever, "_MOST_PAIRS", 1)
    found = whole.retrieve(colour_video, texts)
    assert calls == [1]
    assert [result.moments for result in found] == [result.moments for result in expected]


# ---- what is refused ----------------------------------------------------------------------------------


def test_what_does_not_fit_is_said(clip: Trained, colour_video: Path, tmp_path: Path) -> None:
    run = clip.run("afa-fsgd")
    with pytest.warns(VmrWarning, match="was trained with tiny@.*; colour-encoder is another"):
        narrow = vmr.Retriever.from_pretrained(run, encoder=ColourEncoder(), device="cpu")
    with pytest.raises(
        InputError, match=r"sentences of 10 columns, .* colour-encoder have 3; name"
    ):
        narrow.retrieve(colour_video, "red")
    detr = clip.run("moment-detr")
    with pytest.warns(VmrWarning), pytest.raises(InputError, match="reads the tokens of"):
        vmr.Retriever.from_pretrained(detr, sentence_encoder=WordCounts(), device="cpu").retrieve(
            colour_video, "red"
        )
    with pytest.raises(VideoError, match="none"):
        vmr.Retriever.from_pretrained(run, device="cpu").retrieve(tmp_path / "none.mp4", "red")
    model = vmr.MomentModel.from_pretrained(run)
    assert model.about is not None

    def known(pack: Pack) -> vmr.A2FAF2SGD:
        made = untrained()
        made.about = About(name="mine", pack=pack)
        return made

    ready = ready_packs()
    with pytest.raises(
        InputError, match=r"trained on clip 512 .*not know of which encoder; name it by"
    ):
        vmr.Retriever(known(ready["afa-fsgd-charades"]))
    with pytest.raises(
        InputError, match=r"slowfast 2304 and clip 512, which no one encoder gives; .*DIR"
    ):
        vmr.Retriever(known(ready["moment-detr-qvhighlights"]))
    pack = model.about.pack
    gone = {**pack.made, "encoder_spec": f"transformers:{tmp_path / 'gone'}"}
    with pytest.raises(BackendError, match=r"was trained with tiny@.* not to be had: .*--encoder"):
        vmr.Retriever(known(msgspec.structs.replace(pack, made=gone)))
    changed = {**pack.made, "encoder": "tiny@0 (float32)", "sentence_encoder": "tiny@0 (float32)"}
    with pytest.raises(InputError, match=r"trained with tiny@0 .* is tiny@.* now; .* all the same"):
        vmr.Retriever(known(msgspec.structs.replace(pack, made=changed)))
    with pytest.raises(InputError, match=r"afa-fsgd is a model that is trained; vmr\.Retriever"):
        vmr.load("afa-fsgd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "C", "--captioner", "embedded"], "--captioner: does not go with --check"),
        (["--checkpoint", "C", "-p", "pairs=2"], "--param: does not go with --checkpoint"),
        (["--features", "."], "--features: goes with --checkpoint alone"),
        (
            ["--system", "granalign", "--checkpoint", "C"],
            "--system: granalign takes no --checkpoint",
        ),
        (
            ["--system", "bm_detr", "--checkpoint", "C"],
            "is a checkpoint of afa-fsgd, not of bm_detr",
        ),
        (["--system", "bm_detr"], "--system: bm_detr is trained: it needs a --checkpoint"),
        (["--system", "bmdetr"], "did you mean 'bm-detr'"),
        (["--anchor-features", "."], "--anchor-features: goes with --checkpoint alone"),
        (["--device", "cpu"], "--device: goes with --checkpoint alone; a part of GranAlign has it"),
        (["--checkpoint", "nowhere.ckpt"], "checkpoint: expected a folder with config.json"),
        (["--checkpoint", "C", "-k", "0"], "top_k: expected at least 1"),
    ],
)
def test_options_of_the_other_side_are_refused(
    clip: Trained, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(clip.run("afa-fsgd"))
    given = [run if option == "C" else option for option in options]
    assert main(["retrieve", str(clip.videos[0]), "-q", "red", *given]) == InputError.exit_code
    assert message in capsys.readouterr().err
