"""A pack made from videos: its layout, going on after a kill, and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import vmr.backends
from vmr.backends.packages import PACKAGES, status
from vmr.cli import main
from vmr.data.extract import Extraction, extract
from vmr.data.packs import load_pack
from vmr.data.records import Query
from vmr.errors import InputError, VmrWarning
from vmr.video import Frames

QUERIES = [
    Query(qid=number, video=f"v{number % 2}", text=f"sentence {number}", duration=12.0)
    for number in range(3)
]
needs_models = pytest.mark.skipif(
    any(found.installed is None for found in status(PACKAGES)),
    reason="the small models are not installed (vmr models install)",
)


class Colours:
    """Frames to their mean colour."""

    short_side = 32

    def __init__(self, name: str = "colours 1") -> None:
        self.name = name
        self.videos: list[str] = []

    def encode_frames(self, frames: Frames) -> npt.NDArray[np.float32]:
        self.videos.append(frames.video)
        mean = frames.pixels.mean(axis=(1, 2))
        rows: npt.NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return rows.astype(np.float32)

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        raise NotImplementedError


class Letters:
    """A sentence as how often its letters occur."""

    name = "letters 1"

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        counts = np.array([[text.count(letter) for letter in "aeinst"] for text in texts])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


class LettersByWord(Letters):
    def encode_tokens(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        return [self.encode([*text.split()[:1], text]) * 5 for text in texts]


@pytest.fixture
def videos(tmp_path: Path, colour_video: Path) -> list[Path]:
    folder = tmp_path / "videos"
    folder.mkdir()
    return [Path(shutil.copy(colour_video, folder / f"v{number}.mp4")) for number in range(2)]


def run(videos: Sequence[Path], out: Path, **options: Any) -> Extraction:
    return extract(videos, out, **{"encoder": Colours(), **options})


def test_a_pack_is_written_in_the_fields_layout(tmp_path: Path, videos: list[Path]) -> None:
    out = tmp_path / "pack"
    done = run(videos, out, queries=QUERIES, sentence_encoder=LettersByWord())
    assert done.exit_code == 0
    assert len(done.written) == 5
    with np.load(out / "video" / "v0.npz") as file:
        features = file["features"]
    assert features.dtype == np.float32
    assert features.shape == (6, 3)  # 12 s
    # Red, green and blue, for 4 s each.
    assert features.argmax(axis=1).tolist() == [0, 0, 1, 1, 2, 2]
    with np.load(out / "text" / "qid2.npz") as file:
        assert file["last_hidden_state"].shape == (2, 6)
        assert file["pooler_output"].shape == (6,)
    pack = load_pack(out)
    assert pack.width == 5
    np.testing.assert_array_equal(pack.video("v0", 12.0)[:, :3], features)
    assert pack.text(QUERIES[2]).shape == (2, 6)
    np.testing.assert_allclose(
        pack.pooled_text(QUERIES[2]), Letters().encode(["sentence 2"])[0], atol=1e-4
    )
    found = pack.check(QUERIES)
    assert [(finding.level, finding.kind) for finding in found.findings] == []
    # Any loader of Moment-DETR's kind reads these files too.
    (tmp_path / "features").mkdir()
    shutil.copytree(out / "video", tmp_path / "features" / "clip_features")
    assert "features" in np.load(tmp_path / "features" / "clip_features" / "v1.npz")


def test_without_tokens_the_text_is_pooled_only(tmp_path: Path, videos: list[Path]) -> None:
    run(videos, tmp_path / "pack", queries=QUERIES, sentence_encoder=Letters())
    pack = load_pack(tmp_path / "pack")
    assert pack.pooled_text(QUERIES[0]).shape == (6,)
    with pytest.raises(InputError, match="has no text tokens"):
        pack.text(QUERIES[0])
    assert pack.check(QUERIES).ok
    item = vmr.MomentDataset(QUERIES, pack, pooled=True)[0]
    assert item.text is None
    assert item.pooled is not None


def test_what_is_there_is_kept(tmp_path: Path, videos: list[Path]) -> None:
    out = tmp_path / "pack"
    run(videos[:1], out)
    before = (out / "video" / "v0.npz").stat()
    encoder = Colours()
    done = run(videos, out, encoder=encoder, queries=QUERIES, sentence_encoder=Letters())
    assert encoder.videos == ["v1.mp4"]
    assert [Path(path).name for path in done.skipped] == ["v0.npz"]
    assert (out / "video" / "v0.npz").stat().st_mtime_ns == before.st_mtime_ns
    assert load_pack(out).pooled_text(QUERIES[0]).shape == (6,)
    # A run for videos alone leaves the text be.
    yaml = (out / "pack.yaml").read_text()
    assert run(videos, out).written == ()
    assert (out / "pack.yaml").read_text() == yaml


def test_another_setting_is_refused(tmp_path: Path, videos: list[Path]) -> None:
    out = tmp_path / "pack"
    run(videos, out, queries=QUERIES, sentence_encoder=Letters())
    with pytest.raises(InputError, match=r"holds features with every 2\.0, and 1\.0 is asked for"):
        run(videos, out, every=1.0)
    with pytest.raises(InputError, match="with encoder 'colours 1', and 'colours 2' is asked for"):
        run(videos, out, encoder=Colours("colours 2"))
    other = Letters()
    other.name = "letters 2"
    with pytest.raises(InputError, match="with sentence_encoder 'letters 1', and 'letters 2'"):
        run(videos, out, queries=QUERIES, sentence_encoder=other)
    changed = [Query(qid=0, video="v0", text="another", duration=12.0)]
    with pytest.raises(InputError, match=r"qid0\.npz: was made from another query than 'another'"):
        run(videos, out, queries=changed, sentence_encoder=Letters())
    videos[0].write_bytes(videos[0].read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"v0\.npz: was made from another video than "):
        run(videos, out)


def test_a_folder_of_something_else_is_refused(tmp_path: Path, videos: list[Path]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(InputError, match=r"is not empty and holds no pack\.yaml"):
        run(videos, tmp_path / "full")
    (tmp_path / "full" / "pack.yaml").write_text(
        "columns: [a]\nsources: {a: {files: '{vid}.npz'}}\nseconds_per_row: 2\n"
    )
    with pytest.raises(InputError, match="was not made by vmr features extract"):
        run(videos, tmp_path / "full")
    other = tmp_path / "v0.mp4"
    shutil.copy(videos[0], other)
    with pytest.raises(
        InputError, match=r"expected videos of different names, got .* knows both as v0"
    ):
        run([*videos, other], tmp_path / "new")
    with pytest.raises(InputError, match="every must be a number of seconds > 0"):
        run(videos, tmp_path / "new", every=0.0)


def test_a_video_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, videos: list[Path]
) -> None:
    (tmp_path / "none.mp4").write_bytes(b"no video")
    done = run([tmp_path / "none.mp4", tmp_path / "gone.mp4", *videos], tmp_path / "pack")
    assert done.exit_code == 4
    assert [Path(path).name for path in done.failed] == ["none.mp4", "gone.mp4"]
    assert len(done.written) == 2


def test_only_queries_about_the_packs_videos_are_read(tmp_path: Path, videos: list[Path]) -> None:
    out = tmp_path / "pack"
    options: dict[str, Any] = {"queries": QUERIES, "sentence_encoder": Letters()}
    with pytest.warns(VmrWarning, match="2 of 3 queries are about videos of this pack; the others"):
        done = run(videos[:1], out, **options)
    assert [Path(path).name for path in done.written] == ["v0.npz", "qid0.npz", "qid2.npz"]
    # What was extracted before counts.
    other = Path(shutil.copy(videos[1], tmp_path / "w.mp4"))
    with pytest.warns(VmrWarning, match="2 of 3 queries"):
        run([other], out, **options)
    encoder = Colours()
    with pytest.raises(
        InputError, match=r"none of the 3 queries is about .* 'v0' .* has 'w' and so"
    ):
        run([other], tmp_path / "new", encoder=encoder, **options)
    assert encoder.videos == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("qid", "message"),
    [
        ("a/b", "query 'a/b': cannot be the name of a file: has a slash"),
        ("é" * 130, "cannot be the name of a file: makes a file name of 267 bytes, above 255"),
    ],
)
def test_a_qid_that_cannot_be_a_file_is_refused_first(
    tmp_path: Path, videos: list[Path], qid: str, message: str
) -> None:
    encoder = Colours()
    queries = [*QUERIES, Query(qid=qid, video="v0", text="x", duration=12.0)]
    with pytest.raises(InputError, match=message):
        run(videos, tmp_path / "new", encoder=encoder, queries=queries, sentence_encoder=Letters())
    assert encoder.videos == []
    assert not (tmp_path / "new").exists()


def test_rows_without_end_are_refused(tmp_path: Path, videos: list[Path]) -> None:
    for every in (1e-9, 1e-320):
        with pytest.raises(
            InputError, match=r"every: .* up to 1,000,000 rows of v0\.mp4 \(12 s\), got .*e-"
        ):
            run(videos, tmp_path / "new", every=every)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match=r"video 'vvv.*cannot be the name of a file"):
        run([tmp_path / ("v" * 252)], tmp_path / "new")


SCRIPT = """
import sys, time
import numpy as np
from tests.data.test_extract import Colours
from vmr.data.extract import extract

whole, written = np.savez, []

def half(file, **arrays):
    if len(written) == 2:
        whole(file, **arrays)
        file.truncate(file.tell() // 2)
        file.flush()
        print("writing", flush=True)
        time.sleep(60)
    written.append(file)
    whole(file, **arrays)

np.savez = half
extract(sys.argv[2:], sys.argv[1], encoder=Colours())
"""


def test_a_killed_run_goes_on(tmp_path: Path, colour_video: Path) -> None:
    files = [Path(shutil.copy(colour_video, tmp_path / f"k{number}.mp4")) for number in range(4)]
    out = tmp_path / "pack"
    command = [sys.executable, "-c", SCRIPT, str(out), *map(str, files)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    there = sorted(path.name for path in (out / "video").glob("[!.]*"))
    assert there == ["k0.npz", "k1.npz"]
    assert load_pack(out).video("k1").shape == (6, 5)
    done = run(files, out)
    assert (len(done.skipped), len(done.written)) == (2, 2)
    run(files, tmp_path / "at-once")
    for number in range(4):
        name = f"video/k{number}.npz"
        assert (out / name).read_bytes() == (tmp_path / "at-once" / name).read_bytes()
    assert (out / "pack.yaml").read_text() == (tmp_path / "at-once" / "pack.yaml").read_text()


# ---- the command line ---------------------------------------------------------------------------------


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmr.backends, "load_encoder", lambda spec: Colours())
    monkeypatch.setattr(vmr.backends, "load_sentence_encoder", lambda spec: Letters())


@pytest.mark.usefixtures("small_models")
def test_the_commands(
    tmp_path: Path, videos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "pack")
    lines = [
        {
            "qid": q.qid,
            "query": q.text,
            "vid": q.video,
            "duration": q.duration,
            "relevant_windows": [[0, 2]],
        }
        for q in QUERIES
    ]
    queries = tmp_path / "queries.jsonl"
    queries.write_text("\n".join(map(json.dumps, lines)))
    command = ["features", "extract", *map(str, videos), "--out", out, "--queries", str(queries)]
    command += ["--sentence-encoder", "letters"]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["version"] == 1
    assert len(said["written"]) == 5
    assert main(command) == 0
    assert "0 files written, 5 were there" in capsys.readouterr().out
    assert main([*command, "--every", "1"]) == 3
    assert "holds features with every 2.0" in capsys.readouterr().err
    assert main(["features", "extract", "none.mp4", "--out", out]) == 4
    assert "none.mp4" in capsys.readouterr().err
    assert main(["features", "extract", "none.mp4", "--out", str(tmp_path / "new")]) == 4
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "new").exists()

    assert main(["features", "check", out, "--queries", str(queries)]) == 0
    said = capsys.readouterr().out
    assert "3 queries on 2 videos\n  6 rows a video, 5 columns: video 3 + tef 2\n" in said
    (tmp_path / "pack" / "video" / "v1.npz").unlink()
    assert main(["features", "check", out, "--queries", str(queries), "--json"]) == 3
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["level"], finding["kind"], finding["examples"]) == (
        "error",
        "missing video",
        ["v1"],
    )


def test_the_ready_packs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "list"]) == 0
    assert "slowfast 2304: vid_slowfast/{vid}.npz" in capsys.readouterr().out
    assert main(["features", "list", "--json"]) == 0
    packs = json.loads(capsys.readouterr().out)["packs"]
    assert packs["univtg"]["sources"]["clip"]["dim"] == 512
    assert main(["features", "list", "TACoS"]) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert len(heads) > 2
    assert all("tacos" in head.partition(":")[0] for head in heads)
    assert main(["features", "list", "no-such", "--json"]) == 3
    assert "no ready pack has 'no-such' in its name" in capsys.readouterr().err


@needs_models
@pytest.mark.slow
@pytest.mark.xdist_group("models")
def test_the_embedded_models(tmp_path: Path, real_data: Path) -> None:
    video = real_data / "sample" / "charades.mp4"
    query = Query(qid=1, video="charades", text="a person opens a door", duration=30.697)
    encoder, sentences = (
        vmr.backends.load_encoder("embedded"),
        vmr.backends.load_sentence_encoder("embedded"),
    )
    done = run(
        [video], tmp_path / "pack", encoder=encoder, queries=[query], sentence_encoder=sentences
    )
    assert done.exit_code == 0
    pack = load_pack(tmp_path / "pack")
    assert pack.video("charades", 30.697).shape == (16, 386)
    assert pack.text(query).shape == (7, 384)  # five words between a start and an end token
    np.testing.assert_allclose(
        pack.pooled_text(query), sentences.encode([query.text])[0], atol=1e-4
    )
    # The sentence's vector points where the sum of its tokens' states does.
    assert isinstance(sentences, vmr.backends.TokenEncoder)
    total = sentences.encode_tokens([query.text])[0].sum(axis=0)
    np.testing.assert_allclose(
        sentences.encode([query.text])[0], total / np.linalg.norm(total), atol=1e-5
    )
    assert pack.check([query]).ok
