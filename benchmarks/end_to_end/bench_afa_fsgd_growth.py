"""How time and memory of A2FA + F2SGD grow with the frames of a video, and peak memory of a step.

python benchmarks/end_to_end/bench_afa_fsgd_growth.py --out benchmarks/results/afa-fsgd-growth.md

Each line is a process of its own, so that its peak memory is its own: what is above that of a process
that has loaded everything and computed nothing. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench_afa_fsgd import inputs, literal_step, new_model, ours_step
from literal_afa_fsgd import Literal
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import cpu_name, publish

FRAMES = (50, 75, 150, 300, 600, 1200, 1800, 3600)
QUERIES_OF_ONE = 32


def work(name: str, frames: int) -> Callable[[], object]:
    """What is timed."""
    if name.startswith("step"):
        batch = int(name.split()[1])
        if name.endswith("vmr"):
            return ours_step(new_model(), batch)
        other = Literal(new_model(), channels_last=True)
        return literal_step(other, other, batch)
    model = new_model().eval()
    literal = Literal(model, channels_last=True).eval()
    video, lengths, queries = inputs(1, frames)

    @torch.no_grad()
    def map_of_one(queries: torch.Tensor = queries) -> object:
        shared = model.alignment.frames(video, lengths)
        videos = torch.zeros(len(queries), dtype=torch.int64)
        return model.alignment.similarity(shared, model.alignment.align(shared, queries, videos))

    @torch.no_grad()
    def literal_map(queries: torch.Tensor = queries) -> object:
        v, q = F.normalize(video, dim=-1), F.normalize(queries, dim=-1)
        return literal.similarity(
            v.expand(len(q), -1, -1), q, torch.ones(len(q), frames, dtype=torch.bool)
        )

    many = torch.randn(QUERIES_OF_ONE, queries.shape[1], generator=torch.Generator().manual_seed(2))

    @torch.no_grad()
    def whole() -> object:
        return model(video, lengths, queries).scores

    @torch.no_grad()
    def literal_whole() -> object:
        return literal(video, lengths, queries)

    return {
        "nothing": lambda: None,
        "map, vmr": map_of_one,
        "map, literal": literal_map,
        "many, vmr": lambda: map_of_one(many),
        "many, literal": lambda: literal_map(many),
        "whole, vmr": whole,
        "whole, literal": literal_whole,
    }[name]


def alone(name: str, frames: int) -> tuple[float, float]:
    """Milliseconds and peak MiB, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--work", name, "--frames", str(frames)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    milliseconds, peak = json.loads(done.stdout)
    return milliseconds, peak


def timed(name: str, frames: int) -> None:
    """What the process of its own does."""
    torch.set_num_threads(1)
    run = work(name, frames)
    times = []
    begin = time.perf_counter()
    while len(times) < 2 or (len(times) < 9 and time.perf_counter() - begin < 4):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps((statistics.median(times[1:]), peak)))


def main() -> None:
    """Prints the tables, and writes them where --out says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the tables into this Markdown file")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        timed(arguments.work, arguments.frames)
        return
    lines = [
        "# A2FA + F2SGD: growth with the frames, and peak memory",
        "",
        f"{cpu_name()}, torch {torch.__version__}, one thread, float32, D = 512, C = 21. Medians; MiB "
        "above a process that computes nothing. The literal version has its convolutions channels_last.",
        "",
        "    python benchmarks/end_to_end/bench_afa_fsgd_growth.py --out FILE",
        "",
        "| frames | map of one query: vmr, ms | literal, ms | MiB | literal, MiB "
        "| whole inference: vmr, ms | literal, ms | MiB | literal, MiB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for frames in FRAMES:
        _, base = alone("nothing", frames)
        cells = []
        for what, most in (("map", FRAMES[-1]), ("whole", 600)):
            pairs = [
                alone(f"{what}, {who}", frames) if who == "vmr" or frames <= most else None
                for who in ("vmr", "literal")
            ]
            cells += ["" if pair is None else f"{pair[0]:.3g}" for pair in pairs]
            cells += ["" if pair is None else f"{pair[1] - base:.0f}" for pair in pairs]
        lines.append(f"| {frames} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr)
    lines += ["", "| work | vmr, ms | literal, ms | ratio | vmr, MiB | literal, MiB |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    _, base = alone("nothing", 1800)
    table = [("maps of 32 queries on one video of 1,800 frames", "many,", 1800)]
    table += [(f"training step, B = {batch}, N = 75", f"step {batch}", 75) for batch in (32, 128)]
    for label, what, frames in table:
        ours, theirs = alone(f"{what} vmr", frames), alone(f"{what} literal", frames)
        lines.append(
            f"| {label} | {ours[0]:.4g} | {theirs[0]:.4g} | {theirs[0] / ours[0]:.3g} "
            f"| {ours[1] - base:.0f} | {theirs[1] - base:.0f} |"
        )
        print(lines[-1], file=sys.stderr)
    publish(lines, arguments.out)


if __name__ == "__main__":
    main()
