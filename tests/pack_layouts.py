"""What each ready pack's code base has on disk, and its loader's arithmetic written out once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from vmr.data.records import Query

Array = npt.NDArray[Any]

VID, QID = "abc_0.0_150.0", 7
QUERY = Query(qid=QID, video=VID, text="A man's dog doesn't RUN. Zyxx", duration=150.0)


@dataclass(frozen=True)
class Layout:
    """What a code base has on disk, and what its loader makes of it."""

    video: dict[str, Sequence[tuple[str, int]]]  # source: its parts, as (file, columns)
    columns: str  # names of sources in order, and "tef"
    seconds: float | None
    most: int | None = 75
    text: str = "clip_text_features/qid7.npz"
    key: str = "last_hidden_state"
    dim: int = 512
    tokens: int | None = 32
    unit_text: bool = True
    unit: bool = True
    glove: str | None = None
    query: Query = QUERY
    already: bool = False


def one(folder: str, columns: int, end: str = "npz") -> Sequence[tuple[str, int]]:
    return [(f"{folder}/{VID}.{end}", columns)]


SLOWFAST = one("slowfast_features", 2304)
CLIP = one("clip_features", 512)
SUB = Query(qid=f"{VID}_12", video=VID, text="words", duration=150.0)


def detr(folder: str, seconds: float, **more: Any) -> Layout:
    video = {
        "slowfast": [(f"{folder}{SLOWFAST[0][0]}", 2304)],
        "clip": [(f"{folder}{CLIP[0][0]}", 512)],
    }
    text = f"{folder}clip_text_features/qid7.npz"
    return Layout(**{"video": video, "columns": "slowfast clip tef", "seconds": seconds,
                     "text": text, **more})  # fmt: skip


def bm(folder: str, source: str, file: str, columns: int, seconds: float | None = 1) -> Layout:
    text = f"{folder}/clip_text_features/qid7.npz"
    return Layout({source: [(f"{folder}/{file}", columns)]}, f"{source} tef", seconds, text=text)


def emb(task: str, file: str) -> Layout:
    return Layout(
        {"i3d": [(f"data/features/{task}/{file}", 1024)]}, "i3d", None, most=128, unit=False,
        glove="data/features/glove.840B.300d.txt",
    )  # fmt: skip


LIGHTHOUSE = {
    "clip": ("npz", 512), "slowfast": ("npz", 2304), "resnet": ("npz", 2048), "pann": ("npy", 2048),
    "clap": ("npz", 768),
}  # fmt: skip


def lighthouse(dataset: str, columns: str, seconds: float, **more: Any) -> Layout:
    folder = f"features/{dataset}"
    video = {
        name: one(f"{folder}/{name}", LIGHTHOUSE[name][1], LIGHTHOUSE[name][0])
        for name in columns.split()
        if name != "tef"
    }
    values = {"text": f"{folder}/clip_text/qid7.npz", **more}
    return Layout(video, columns, seconds, **values)


def i3d(folder: str) -> Sequence[tuple[str, int]]:
    return [(f"{folder}/{VID}_rgb.npy", 1024), (f"{folder}/{VID}_opt.npy", 1024)]


GLOVE = {"glove": "features/glove.6B.300d.txt"}
TACOS: dict[str, Any] = {"most": None, "tokens": 100, "text": "features/tacos/clip_text/7.npz"}
TVSUM: dict[str, Any] = {
    "most": 1000, "key": "token", "unit_text": False, "tokens": None,
    "text": "features/tvsum/clip_text/7.npz",
}  # fmt: skip
YOUTUBE: dict[str, Any] = {
    "most": 1000, "unit_text": False, "tokens": None,
    "text": "features/youtube_highlight/clip_text/7.npz",
}  # fmt: skip
CLAP: dict[str, Any] = {"dim": 768}
PRETRAIN: dict[str, Any] = {
    "text": f"features/qvhighlight/clip_text_subs_train/{VID}/12.npz", "query": SUB
}  # fmt: skip
UNIVTG: dict[str, Any] = {"most": None, "tokens": None}

LAYOUTS: dict[str, Layout] = {
    "moment-detr-qvhighlights": detr("features/", 2),
    "moment-detr-qvhighlights-pretrain": detr("", 2, text="clip_sub_features/qid7.npz"),
    "qd-detr-qvhighlights-audio": Layout(
        {"slowfast": SLOWFAST, "clip": CLIP, "pann": one("umt_pann_features", 2048, "npy")},
        "slowfast clip tef pann tef", 2, text="umt_clip_text_features/qid7.npz",
    ),
    "qd-detr-tvsum": Layout(
        {"i3d": i3d("tvsum/video_features")}, "i3d tef", 2,
        **{**TVSUM, "text": "tvsum/query_features/7.npz"},
    ),
    "qd-detr-tvsum-audio": Layout(
        {"i3d": i3d("video_features"), "pann": one("audio_features", 2048, "npy")},
        "i3d tef pann tef", 2, **{**TVSUM, "text": "query_features/7.npz"},
    ),
    "bm-detr-qvhighlights": detr("features/hl_features/", 2),
    "bm-detr-charades": detr("charades_features/", 1),
    "bm-detr-charades-c3d": bm("charades_features", "c3d", f"c3d_features/{VID}.npy", 1024),
    "bm-detr-charades-vgg": bm("charades_features", "vgg", f"vgg_features/{VID}.npy", 4096),
    "bm-detr-charades-cd": bm("charades-CD_features", "i3d", f"i3d_features/{VID}.npy", 1024),
    "bm-detr-tacos": bm("tacos_features", "c3d", f"c3d_features/{VID}.avi.npy", 4096),
    "bm-detr-activitynet": bm("activitynet_features", "c3d", f"c3d_features/{VID}.npy", 500),
    "bm-detr-tacos-spread": bm(
        "tacos_features", "c3d", f"c3d_features/{VID}.avi.npy", 4096, None
    ),
    "bm-detr-activitynet-spread": bm(
        "activitynet_features", "c3d", f"c3d_features/{VID}.npy", 500, None
    ),
    "emb-charades": emb("charades", f"new/{VID}.npy"),
    "emb-activitynet": emb("activitynet", f"org/{VID}.npy"),
    "emb-tacos": emb("tacos", f"new/{VID}.avi.npy"),
    "afa-fsgd-qvhighlights": lighthouse("qvhighlight", "clip", 2, most=None),
    "afa-fsgd-charades": lighthouse("charades", "clip", 1, most=None),
    "afa-fsgd-activitynet": lighthouse("activitynet", "clip", 2, most=None),
    "lighthouse-qvhighlights-clip-slowfast": lighthouse("QVHighlight", "clip slowfast tef", 2,
        text="features/QVHighlight/clip_text/qid7.npz"),
    "lighthouse-qvhighlights-clip": lighthouse("qvhighlight", "clip tef", 2),
    "lighthouse-qvhighlights-clip-slowfast-pann":
        lighthouse("qvhighlight", "clip slowfast tef pann", 2),
    "lighthouse-qvhighlights-resnet-glove": lighthouse("qvhighlight", "resnet tef", 2, **GLOVE),
    "lighthouse-qvhighlights-clip-slowfast-pretrain":
        lighthouse("qvhighlight", "clip slowfast tef", 2, **PRETRAIN),
    "lighthouse-qvhighlights-clip-pretrain": lighthouse("qvhighlight", "clip tef", 2, **PRETRAIN),
    "lighthouse-qvhighlights-clip-slowfast-pann-pretrain":
        lighthouse("qvhighlight", "clip slowfast tef pann", 2, **PRETRAIN),
    "lighthouse-charades-clip-slowfast": lighthouse("charades", "clip slowfast tef", 1),
    "lighthouse-charades-clip": lighthouse("Charades", "clip tef", 1),
    "lighthouse-charades-resnet-glove": lighthouse("charades", "resnet tef", 1, **GLOVE),
    "lighthouse-activitynet-clip-slowfast": lighthouse("activitynet", "clip slowfast tef", 2),
    "lighthouse-activitynet-clip": lighthouse("ActivityNet", "clip tef", 2),
    "lighthouse-activitynet-resnet-glove": lighthouse("activitynet", "resnet tef", 2, **GLOVE),
    "lighthouse-tacos-clip-slowfast": lighthouse("tacos", "clip slowfast tef", 2, **TACOS),
    "lighthouse-tacos-clip": lighthouse("tacos", "clip tef", 2, **TACOS),
    "lighthouse-tacos-resnet-glove": lighthouse("tacos", "resnet tef", 2, most=None, **GLOVE),
    "lighthouse-tvsum-clip-slowfast": lighthouse("tvsum", "clip slowfast tef", 2, **TVSUM),
    "lighthouse-tvsum-clip": lighthouse("tvsum", "clip tef", 2, **TVSUM),
    "lighthouse-tvsum-i3d": Layout({"i3d": i3d("features/tvsum/i3d")}, "i3d tef", 2, **TVSUM),
    "lighthouse-youtube-highlights-clip-slowfast":
        lighthouse("youtube_highlight", "clip slowfast tef", 1, **YOUTUBE),
    "lighthouse-youtube-highlights-clip": lighthouse("youtube_highlight", "clip tef", 1, **YOUTUBE),
    **{
        f"lighthouse-{name}-clap": lighthouse(name, "tef clap", 1, **CLAP,
            text=f"features/{name}/clap_text/qid7.npz", most=300 if name == "castella" else 75)
        for name in ("clotho-moment", "unav100-subset", "tut2017", "castella")
    },
    "univtg": Layout(
        {"slowfast": one("vid_slowfast", 2304), "clip": one("vid_clip", 512)},
        "slowfast clip tef", 2, text="txt_clip/7.npz", **UNIVTG,
    ),
    "univtg-hdf5": Layout(
        {"slowfast": [("h5py/vid_slowfast.hdf5", 2304)], "clip": [("h5py/vid_clip.hdf5", 512)]},
        "slowfast clip tef", 2, text="h5py/txt_clip.hdf5", key="7", already=True, **UNIVTG,
    ),
    "univtg-demo": Layout(
        {"clip": [("vid.npz", 512)]}, "clip tef", 2, text="txt.npz", key="features", **UNIVTG
    ),
}  # fmt: skip


# ---- files in a layout, and the loaders' arithmetic -----------------------------------------------


def save(path: Path, array: Array, key: str = "features") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **{key: array})
    else:
        with h5py.File(path, "a") as file:
            file[key] = array


def unit(rows: Array) -> Array:
    return rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-5)


def make(root: Path, layout: Layout, *, rows: int, dtype: str = "f4") -> dict[str, list[Array]]:
    """Writes the layout; sources differ by a row, as real ones do."""
    generator = np.random.default_rng(1)
    made: dict[str, list[Array]] = {}
    for place, (name, parts) in enumerate(layout.video.items()):
        made[name] = []
        for file, columns in parts:
            array = generator.normal(size=(rows + place, columns)).astype(dtype) * 3
            array = unit(array) if layout.already else array
            save(root / file, array, VID if layout.already else "features")
            made[name].append(array)
    if layout.glove is None:
        text = generator.normal(size=(110, layout.dim)).astype(dtype) * 3
        save(root / layout.text, unit(text) if layout.already else text, layout.key)
        made["text"] = [unit(text) if layout.already else text]
    else:
        (root / layout.glove).parent.mkdir(parents=True, exist_ok=True)
        (root / layout.glove).write_text("\n".join(glove_lines()), encoding="utf-8")
    return made


GLOVE_WORDS = [
    "the",
    "a",
    "man",
    "man's",
    "'s",
    "dog",
    "does",
    "n't",
    "doesn't",
    "run",
    "run.",
    ".",
]


def glove_lines() -> list[str]:
    return [
        f"{word} {' '.join(f'{number:.5f}' for number in glove_row(word))}" for word in GLOVE_WORDS
    ]


def glove_row(word: str) -> Array:
    if word not in GLOVE_WORDS:
        return np.zeros(300)
    return np.round(np.random.default_rng(GLOVE_WORDS.index(word)).normal(size=300), 5)


def emb_pool(rows: Array, most: int) -> Array:
    if len(rows) <= most:
        return rows
    last = len(rows) - 1
    border = [min(round(k / most * len(rows)), last) for k in range(most + 1)]
    groups = [
        rows[border[k] : border[k + 1]] if border[k] < border[k + 1] else rows[border[k]][None]
        for k in range(most)
    ]
    return np.array([np.mean(group, axis=0) for group in groups])


def expected_video(layout: Layout, made: dict[str, list[Array]]) -> Array:
    parts = {}
    for name in layout.video:
        if layout.seconds is None and layout.most is not None:
            pooled = emb_pool(made[name][0], layout.most).astype(np.float32)
            parts[name] = unit(pooled) if layout.unit else pooled
            continue
        loaded = [array[: layout.most].astype(np.float32) for array in made[name]]
        joined = np.concatenate(loaded, axis=-1)
        parts[name] = unit(joined) if layout.unit and not layout.already else joined
    rows = min(len(part) for part in parts.values())
    begin = np.arange(rows) / rows
    parts["tef"] = np.stack([begin, begin + 1 / rows], axis=1)
    return np.concatenate([parts[name][:rows] for name in layout.columns.split()], axis=1)


def expected_text(layout: Layout, made: dict[str, list[Array]]) -> Array:
    if layout.glove is not None:
        blanks = ["a", "man's", "dog", "doesn't", "run.", "zyxx"]
        words = ["a", "man", "'s", "dog", "does", "n't", "run", ".", "zyxx"]
        return np.array([glove_row(word) for word in (words if "840B" in layout.glove else blanks)])
    text = made["text"][0].astype(np.float32)[: layout.tokens]
    return unit(text) if layout.unit_text and not layout.already else text
