"""A small corpus that can be learned: frames of a moment resemble the sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vmr.data.annotations import write_queries
from vmr.data.records import Query, Saliency

PACK = """\
version: 1
columns: [frames, tef]
sources: {frames: {files: "video/{vid}.npz", dim: 16}}
seconds_per_row: 2
text: {files: "text/qid{qid}.npz", dim: 16}
"""
CONFIG = """\
name: tiny
model:
  kind: moment-detr
  hidden: 16
  heads: 2
  encoder_layers: 1
  decoder_layers: 1
  feed_forward: 16
  moment_queries: 4
data: {root: ROOT, train: "{root}/train.jsonl", val: "{root}/val.jsonl"}
training:
  epochs: 3
  batch_size: 8
  optimiser: {lr: 1.0e-3}
  clip: 0.1
  log_every: 3
  seed: 5
"""


def write_corpus(root: Path, train: int = 37, val: int = 11, seed: int = 0) -> Path:
    """pack.yaml, features, train.jsonl and val.jsonl; two queries a video."""
    rng = np.random.default_rng(seed)
    for folder in ("video", "text"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "pack.yaml").write_text(PACK, encoding="utf-8")
    qid = 0
    for split, count in (("train", train), ("val", val)):
        queries = []
        for place in range(count):
            video = f"{split}{place // 2}"
            rows = 10 + (place // 2) % 5
            if place % 2 == 0:
                frames = rng.normal(0, 0.3, (rows, 16))
            start = int(rng.integers(0, rows - 3))
            end = int(rng.integers(start + 2, rows + 1))
            topic = rng.normal(0, 1, 16)
            frames[start:end] += topic
            tokens = topic + rng.normal(0, 0.3, (4 + place % 3, 16))
            np.savez(
                root / "text" / f"qid{qid}.npz",
                last_hidden_state=tokens.astype(np.float32),
                pooler_output=tokens.mean(axis=0).astype(np.float32),
            )
            clips = tuple(range(start, end))
            queries.append(
                Query(
                    qid=qid,
                    video=video,
                    text=f"topic {qid}",
                    duration=2.0 * rows,
                    windows=((2.0 * start, 2.0 * end),),
                    saliency=Saliency(
                        clip_ids=clips,
                        scores=tuple((3.0, 4.0, 2.0) for _ in clips),
                        clips=rows,
                        clip_seconds=2.0,
                    ),
                )
            )
            np.savez(root / "video" / f"{video}.npz", features=frames.astype(np.float32))
            qid += 1
        write_queries(root / f"{split}.jsonl", queries)
    return root


def write_config(root: Path, path: Path | None = None) -> str:
    """The config of a run on the corpus; gives its path."""
    path = path or root / "tiny.yaml"
    path.write_text(CONFIG.replace("ROOT", str(root)), encoding="utf-8")
    return str(path)
