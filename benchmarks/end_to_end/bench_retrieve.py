"""`vmr retrieve` on an hour of video: time by stage, memory, a second query, captions saved.

The video is two minutes of the demo video with a drifting hue, turn and noise, again and again.

    python benchmarks/end_to_end/bench_retrieve.py [--minutes 60] [--out benchmarks/results/retrieve.md]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from vmr.backends.packages import demo_video

FIRST = "a person rides a bicycle down the street"
SECOND = "cars are parked along the road"
PERCENTS = (0, 5, 10, 20, 50, 100)


def make_video(folder: Path, minutes: float) -> Path:
    """The demo video with a drifting hue, turn and noise for two minutes, and these again and again."""
    path = folder / f"{minutes:g}-minutes.mp4"
    if path.exists():
        return path
    piece, partial = folder / "piece.mp4", path.with_suffix(".part.mp4")
    filters = "hue=h=t*3:s=1+0.3*sin(t/9),rotate=0.05*sin(t/6),noise=alls=3:allf=t"
    ffmpeg = ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1", "-i"]
    encoding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    subprocess.run(
        [*ffmpeg, str(demo_video()), "-t", "120", "-vf", filters, *encoding, str(piece)], check=True
    )
    subprocess.run(
        [*ffmpeg, str(piece), "-t", f"{minutes * 60}", "-c", "copy", str(partial)], check=True
    )
    partial.rename(path)
    return path


class Run:
    """One `vmr retrieve` in a process of its own."""

    def __init__(self, video: Path, query: str, cache: Path, *options: str) -> None:
        command = [sys.executable, "-m", "vmr", "retrieve", str(video), "-q", query, "--json"]
        environment = {**os.environ, "VMR_CACHE_DIR": str(cache)}
        begin = time.perf_counter()
        with subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        ) as process:
            assert process.stdout is not None
            document = json.loads(process.stdout.read())
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        self.seconds = time.perf_counter() - begin
        self.peak_mib = usage.ru_maxrss / 1024
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.stages: dict[str, float] = document["timings"]
        (result,) = document["results"]
        self.frames = len(result["frame_scores"]["times"])
        self.aware = len(result["explanation"]["query_aware_captions"])


def report(video: Path, minutes: float, scratch: Path) -> str:
    """The tables as Markdown."""
    cache = scratch / "cache"
    first = Run(video, FIRST, cache)
    second = Run(video, SECOND, cache)
    third = Run(video, SECOND, cache)
    stages = sorted(first.stages, key=lambda stage: -first.stages[stage])
    lines = [
        f"# vmr retrieve on {minutes:g} minutes of video",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{first.frames} frames (1 a second), embedded backends.",
        "Made by `python benchmarks/end_to_end/bench_retrieve.py"
        f" --minutes {minutes:g} --out benchmarks/results/retrieve.md`.",
        "",
        "| | first query | second query | the same again |",
        "|---|---:|---:|---:|",
    ]
    runs = (first, second, third)
    rows = [("wall time, whole command (s)", [f"{run.seconds:.2f}" for run in runs])]
    rows += [("CPU time (s)", [f"{run.cpu_seconds:.2f}" for run in runs])]
    rows += [("peak memory (MiB)", [f"{run.peak_mib:.0f}" for run in runs])]
    rows += [(stage, [f"{run.stages.get(stage, 0):.3f}" for run in runs]) for stage in stages]
    lines += [f"| {name} | {' | '.join(values)} |" for name, values in rows]
    lines += [
        "",
        "Stages are seconds; decoding runs beside the models in threads of its own, so that "
        '"wait for frames" is what it adds.',
        "",
        "## Captions saved",
        "",
        "A third query, its frames already described:",
        "",
        "| K (%) | query-aware captions | share of all frames | query-aware stage (s) |",
        "|---:|---:|---:|---:|",
    ]
    for percent in PERCENTS:
        run = Run(video, f"a bridge over water {percent}", cache, "-p", f"aware_percent={percent}")
        stage = run.stages["query-aware captions"]
        share = run.aware / run.frames
        lines.append(f"| {percent} | {run.aware} | {share:.0%} | {stage:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the benchmark and writes its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    videos = Path(tempfile.gettempdir()) / "vmr-benchmarks"
    videos.mkdir(exist_ok=True)
    video = make_video(videos, options.minutes)
    with tempfile.TemporaryDirectory() as scratch:
        text = report(video, options.minutes, Path(scratch))
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
