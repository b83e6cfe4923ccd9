"""Training: what the loop itself costs, how fast features come, two processes, checkpoints.

    python benchmarks/end_to_end/bench_training.py [--official MOMENT_DETR] --out FILE

A checkout of jayleicn/moment_detr adds its data loader to the table of loading rates.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import cpu_name, publish

import vmr
from vmr.data.dataset import Batch, collate
from vmr.data.records import Query, Saliency
from vmr.models import registry
from vmr.models.base import ModelConfig, MomentModel
from vmr.training import Engine, load_config, set_up
from vmr.training.config import Config
from vmr.training.loop import train
from vmr.training.run_folder import RunFolder, State

VIDEOS, ROWS, TOKENS = 256, 75, 20
STEPS = 240


class EmptyConfig(ModelConfig, frozen=True, kw_only=True, tag="empty"):
    """Nothing to set."""


class Empty(MomentModel):
    """One parameter and no work: what is left is the loop."""

    kind: ClassVar[str] = "empty"
    config_type: ClassVar[type[ModelConfig]] = EmptyConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.ones(8))

    def forward(
        self, video: Tensor, video_lengths: Tensor, text: Tensor, text_lengths: Tensor
    ) -> Any:
        return self.weight

    def loss_weights(self) -> dict[str, float]:
        return {"loss": 1.0}

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": torch.tensor(float(len(batch)))}

    def loss_sums(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        return {"loss": outputs.square().sum()}

    def decode(self, outputs: Any, batch: Batch) -> list[vmr.Prediction]:
        return [
            vmr.Prediction(qid=query.qid, pred_relevant_windows=[(0.0, query.duration, 1.0)])
            for query in batch.queries
        ]


def write_pack(root: Path, small: bool) -> None:
    """QVHighlights' layout in npz, and UniVTG's in HDF5; one query a video, one moment each."""
    rng = np.random.default_rng(0)
    widths = {"slowfast": 8, "clip": 8} if small else {"slowfast": 2304, "clip": 512}
    text = 8 if small else 512
    rows = 8 if small else ROWS
    names = [f"v{place}_0.0_150.0" for place in range(VIDEOS)]
    stores = {}
    for source, width in widths.items():
        (root / f"{source}_features").mkdir(parents=True)
        stores[source] = h5py.File(root / f"vid_{source}.hdf5", "w")
        for name in names:
            features = rng.standard_normal((rows, width), dtype=np.float32)
            np.savez(root / f"{source}_features" / f"{name}.npz", features=features)
            stores[source][name] = features
    (root / "clip_text_features").mkdir()
    stores["text"] = h5py.File(root / "txt_clip.hdf5", "w")
    queries = []
    for qid, name in enumerate(names):
        tokens = rng.standard_normal((TOKENS, text), dtype=np.float32)
        np.savez(
            root / "clip_text_features" / f"qid{qid}.npz",
            last_hidden_state=tokens, pooler_output=tokens[0],
        )  # fmt: skip
        stores["text"][str(qid)] = tokens
        clips = tuple(range(2, 6))
        queries.append(
            Query(
                qid=qid, video=name, text="a b c", duration=2.0 * rows, windows=((4.0, 12.0),),
                saliency=Saliency(
                    clip_ids=clips, scores=((2.0, 3.0, 4.0),) * 4, clips=rows, clip_seconds=2.0
                ),
            )
        )  # fmt: skip
    for store in stores.values():
        store.close()
    vmr.write_queries(root / "train.jsonl", queries)
    vmr.write_queries(root / "val.jsonl", queries[:16])
    for kind, folder in (("npz", "{source}_features/{{vid}}.npz"), ("hdf5", "vid_{source}.hdf5")):
        key = "{vid}" if kind == "hdf5" else "features"
        pack = {
            "version": 1, "columns": [*widths, "tef"], "seconds_per_row": 2, "max_rows": 75,
            "sources": {
                source: {"files": folder.format(source=source).replace("{{", "{").replace("}}", "}"),
                         "key": key}
                for source in widths
            },
            "text": {"files": "clip_text_features/qid{qid}.npz", "max_rows": 32},
        }  # fmt: skip
        if kind == "hdf5":
            pack["text"] = {"files": "txt_clip.hdf5", "key": "{qid}", "pooled_key": None}
        (root / f"{kind}.yaml").write_text(json.dumps(pack))


def config_for(root: Path, *settings: str) -> Config:
    """A run on the pack."""
    return load_config(
        "moment-detr-qvhighlights",
        [f"data.root={root}", f"data.annotations={root}", f"data.pack={root}/npz.yaml",
         "data.train={root}/train.jsonl", "data.val={root}/val.jsonl", "data.test=null", *settings],
    )  # fmt: skip


# ---- the loop itself ----------------------------------------------------------------------------------


def bare_loop(root: Path) -> float:
    """Steps a second of the shortest loop that a person writes around the empty model."""
    model = Empty(EmptyConfig())
    dataset = vmr.MomentDataset(
        vmr.read_queries(root / "train.jsonl"), vmr.load_pack(root / "npz.yaml", root)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    epochs = STEPS * 32 // len(dataset)
    begin = time.perf_counter()
    steps = 0
    for _ in range(epochs):
        for batch in DataLoader(dataset, batch_size=32, shuffle=True, collate_fn=collate):
            optimiser.zero_grad()
            loss = model.loss_sums(model(**model.inputs(batch)), batch)["loss"] / len(batch)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimiser.step()
            steps += 1
    return steps / (time.perf_counter() - begin)


def our_loop(root: Path, *settings: str) -> float:
    """Steps a second of vmr's loop around the same model."""
    epochs = STEPS * 32 // VIDEOS
    config = config_for(
        root, "model={kind: empty}", f"training.epochs={epochs}", f"evaluation.every={epochs}",
        "evaluation.metric=MR-full-R1@0.5", *settings,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        train(config, Path(out) / "run", device="cpu")
        lines = (Path(out) / "run" / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(lines[-2])["steps_per_second"])


def engine_alone(root: Path) -> tuple[float, float]:
    """Microseconds of a step on one batch that lies ready: by hand, and by the engine."""
    setup = set_up(config_for(root, "model={kind: empty}", "training.epochs=1"))
    batch = collate([setup.train[place] for place in range(32)])
    engine = Engine(setup.model, config_for(root).training, 10**6, torch.device("cpu"))
    model, optimiser = Empty(EmptyConfig()), None
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def by_hand(number: int) -> None:
        optimiser.zero_grad()
        loss = model.loss_sums(model(**model.inputs(batch)), batch)["loss"] / len(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimiser.step()

    found = []
    for run in (by_hand, lambda number: engine.step(number, [batch])):
        times = []
        for number in range(600):
            begin = time.perf_counter()
            run(number)
            times.append(time.perf_counter() - begin)
        found.append(statistics.median(times) * 1e6)
    return found[0], found[1]


# ---- data ---------------------------------------------------------------------------------------------


def loading(root: Path, official: Path | None) -> list[tuple[str, int, float]]:
    """Queries a second by source and workers; what is read lies in the page cache for all."""
    queries = vmr.read_queries(root / "train.jsonl")
    contenders: dict[str, Callable[[int], Any]] = {}
    for kind in ("npz", "hdf5"):
        dataset = vmr.MomentDataset(queries, vmr.load_pack(root / f"{kind}.yaml", root))
        contenders[f"vmr, {kind}"] = lambda workers, dataset=dataset: DataLoader(
            dataset, batch_size=32, collate_fn=collate, num_workers=workers
        )
    if official is not None:
        sys.path.insert(0, str(official))
        from moment_detr.start_end_dataset import StartEndDataset, start_end_collate

        theirs = StartEndDataset(
            dset_name="hl", data_path=str(root / "train.jsonl"),
            q_feat_dir=str(root / "clip_text_features"),
            v_feat_dirs=[str(root / "slowfast_features"), str(root / "clip_features")],
            q_feat_type="last_hidden_state", ctx_mode="video_tef", clip_len=2,
        )  # fmt: skip
        contenders["moment_detr, npz"] = lambda workers: DataLoader(
            theirs, batch_size=32, collate_fn=start_end_collate, num_workers=workers
        )
    found = []
    for workers in (0, 2):
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(4):
            for name, make in contenders.items():
                begin = time.perf_counter()
                count = sum(1 for _ in make(workers))
                assert count == VIDEOS // 32
                rates[name].append(VIDEOS / (time.perf_counter() - begin))
        found += [(name, workers, statistics.median(values[1:])) for name, values in rates.items()]
    return found


# ---- two processes ------------------------------------------------------------------------------------


def processes(root: Path) -> dict[str, float]:
    """Steps a second of Moment-DETR as published, batch 32: one process, and two that share it."""
    found = {}
    for name, count, threads in (("1 process, 1 thread", 1, 1), ("1 process, 2 threads", 1, 2),
                                 ("2 processes, 1 thread each", 2, 1)):  # fmt: skip
        with tempfile.TemporaryDirectory() as out:
            start = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                     f"--nproc-per-node={count}", "-m", "vmr", "train"]  # fmt: skip
            config = Path(out) / "config.yaml"
            config.write_text("base: moment-detr-qvhighlights\nname: two\n")
            settings = [f"data.root={root}", f"data.pack={root}/npz.yaml", "data.test=null",
                        "data.train={root}/train.jsonl", "data.val={root}/val.jsonl",
                        "training.epochs=5", "evaluation.every=5", "training.log_every=8"]  # fmt: skip
            subprocess.run(
                [*start, str(config), *settings, "--out", f"{out}/run", "--device", "cpu"],
                check=True, capture_output=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )  # fmt: skip
            lines = (Path(out) / "run" / "metrics.jsonl").read_text().splitlines()
            found[name] = float(json.loads(lines[-2])["steps_per_second"])
    return found


# ---- checkpoints --------------------------------------------------------------------------------------


def checkpoints(root: Path) -> tuple[float, dict[str, float]]:
    """MB of a checkpoint of Moment-DETR as published, and milliseconds to write it."""
    config = config_for(root)
    setup = set_up(config)
    engine = Engine(setup.model, config.training, 100, torch.device("cpu"))
    engine.step(0, [collate([setup.train[place] for place in range(8)])])
    times: dict[str, list[float]] = {"vmr: safetensors, synced and renamed": [], "torch.save": [],
                                     "vmr: read back": []}  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        folder = RunFolder(Path(out) / "run", config, {})
        for _ in range(5):
            writers: dict[str, Callable[[], object]] = {
                "vmr: safetensors, synced and renamed": lambda: folder.save(
                    engine.tensors(), State()
                ),
                "torch.save": lambda: torch.save(engine.tensors(), Path(out) / "plain.pt"),
                "vmr: read back": folder.load,
            }
            for name, write in writers.items():
                begin = time.perf_counter()
                write()
                times[name].append(time.perf_counter() - begin)
        size = (Path(out) / "run" / "last.safetensors").stat().st_size / 1e6
        folder.close()
    return size, {name: 1e3 * statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Prints the tables, and writes them where --out says."""
    parser = argparse.ArgumentParser(description="Training")
    parser.add_argument("--official", type=Path, help="a checkout of jayleicn/moment_detr")
    parser.add_argument("--out", type=Path, help="write the tables into this Markdown file")
    options = parser.parse_args()
    registry._MODELS["empty"] = ("__main__", "Empty")
    torch.set_num_threads(1)
    lines = [
        "# Training",
        "",
        f"{cpu_name()}, {os.cpu_count()} cores; Python {platform.python_version()}, torch "
        f"{torch.__version__}, h5py {version('h5py')}. One thread where nothing else is said; "
        "contenders take turns; compare numbers of one table only.",
        "",
        "    python benchmarks/end_to_end/bench_training.py "
        f"{'--official MOMENT_DETR ' * bool(options.official)}--out {options.out or 'FILE'}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        small, whole = Path(folder) / "small", Path(folder) / "whole"
        write_pack(small, small=True)
        write_pack(whole, small=False)
        hand, ours = engine_alone(small)
        lines += [
            "", "## The loop around an empty model, batch 32", "",
            "| | |", "|---|---:|",
            f"| a step by hand on a batch that lies ready, µs | {hand:.0f} |",
            f"| vmr's step on it (seeded, scheduled, counted), µs | {ours:.0f} |",
        ]  # fmt: skip
        rounds = [(bare_loop(small), our_loop(small)) for _ in range(3)]
        averaged = our_loop(small, "training.ema=0.999")
        bare, loop = (statistics.median(values) for values in zip(*rounds, strict=True))
        lines += [
            f"| a bare loop with its data, steps/s | {bare:.0f} |",
            f"| vmr's loop with its data, log and checkpoints, steps/s | {loop:.0f} |",
            f"| the same with a running mean of the weights, steps/s | {averaged:.0f} |",
        ]
        lines += [
            "",
            f"## Loading {VIDEOS} queries, {ROWS} x (2,304 + 512) and {TOKENS} x 512, float32",
            "",
        ]
        lines += ["| loader | workers | queries/s |", "|---|---:|---:|"]
        for name, workers, rate in loading(whole, options.official):
            lines.append(f"| {name} | {workers} | {rate:,.0f} |")
        lines += ["", "## Moment-DETR as published, batch 32 over all processes (gloo)", ""]
        rates = processes(whole)
        first = rates["1 process, 1 thread"]
        lines += ["| | steps/s | ratio |", "|---|---:|---:|"]
        lines += [f"| {name} | {rate:.2f} | {rate / first:.2f} |" for name, rate in rates.items()]
        size, times = checkpoints(whole)
        lines += [
            "",
            f"## A checkpoint with its optimiser, {size:.0f} MB",
            "",
            "| | ms |",
            "|---|---:|",
        ]
        lines += [f"| {name} | {milliseconds:.0f} |" for name, milliseconds in times.items()]
    publish(lines, options.out)


if __name__ == "__main__":
    main()
