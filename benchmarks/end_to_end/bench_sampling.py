"""Sampling 1 frame a second of a 10-minute 720p H.264 file: vmr against what else there is.

Each reader runs in a process of its own, all of them in turn, several rounds, and is timed there once
its modules are imported; every one gives its frames as full-size RGB arrays, one at a time or a batch at
a time, and keeps none. Readers that cannot be imported are left out and named. Rivals need not be in
vmr's environment (torchcodec 0.11.1 is the newest that runs beside a torch without CUDA):

    python -m venv rivals && rivals/bin/pip install --no-deps av decord torchcodec==0.11.1
    python benchmarks/end_to_end/bench_sampling.py --packages rivals/lib/python3.11/site-packages \\
        --out benchmarks/results/sampling.md
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE, WIDTH, HEIGHT = 25, 1280, 720


def make_video(folder: Path, minutes: float) -> Path:
    """A moving test picture with noise, x264's defaults; a minute is encoded, then repeated."""
    path = folder / f"vmr-sampling-{minutes:g}.mp4"
    minute = folder / "vmr-sampling-minute.mp4"
    ffmpeg = ["ffmpeg", "-v", "error", "-y"]
    if not minute.exists():
        partial = minute.with_suffix(".part.mp4")
        source = f"testsrc2=s={WIDTH}x{HEIGHT}:r={RATE}:d=60,noise=alls=6:allf=t,format=yuv420p"
        subprocess.run(
            [*ffmpeg, "-f", "lavfi", "-i", source, "-c:v", "libx264", partial], check=True
        )
        partial.rename(minute)
    if not path.exists():
        partial = path.with_suffix(".part.mp4")
        loop = [
            "-stream_loop",
            "-1",
            "-i",
            str(minute),
            "-t",
            str(minutes * 60),
            "-c",
            "copy",
            str(partial),
        ]
        subprocess.run([*ffmpeg, *loop], check=True)
        partial.rename(path)
    return path


# ---- the readers: each gives the number of frames it read --------------------------------------------


def read_vmr(path: Path, seconds: int, short_side: int | None = None) -> int:
    from vmr.video import sample_times, stream

    batches = stream(path, sample_times(seconds, 1.0), short_side=short_side)
    return sum(len(frames.pixels) for frames in batches)


def read_vmr_small(path: Path, seconds: int) -> int:
    return read_vmr(path, seconds, 224)


def read_vmr_compiled(path: Path, seconds: int) -> int:
    from vmr.video import readers

    del readers.READERS["cv2"]
    return read_vmr(path, seconds)


def read_ffmpeg(path: Path, seconds: int) -> int:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", "fps=1"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    count = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while len(data := process.stdout.read(WIDTH * HEIGHT * 3)) == WIDTH * HEIGHT * 3:
            count += len(np.frombuffer(data, dtype=np.uint8).reshape(1, HEIGHT, WIDTH, 3))
    return count


def read_opencv(path: Path, seconds: int) -> int:
    import cv2

    capture = cv2.VideoCapture(str(path))
    number = count = 0
    while capture.grab():
        if number % RATE == RATE // 2:
            _, frame = capture.retrieve()
            count += len(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)[None])
        number += 1
    return count


def read_pyav(path: Path, seconds: int) -> int:
    av: Any = importlib.import_module("av")
    count = 0
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number % RATE == RATE // 2:
                count += len(frame.to_ndarray(format="rgb24")[None])
    return count


def read_decord(path: Path, seconds: int) -> int:
    decord: Any = importlib.import_module("decord")
    reader = decord.VideoReader(str(path))
    wanted = list(range(RATE // 2, seconds * RATE, RATE))
    return sum(
        len(reader.get_batch(wanted[at : at + 32]).asnumpy()) for at in range(0, len(wanted), 32)
    )


def read_torchcodec(path: Path, seconds: int) -> int:
    decoders: Any = importlib.import_module("torchcodec.decoders")
    decoder = decoders.VideoDecoder(str(path), num_ffmpeg_threads=0, dimension_order="NHWC")
    wanted = [second + 0.5 for second in range(seconds)]
    parts = (wanted[at : at + 32] for at in range(0, seconds, 32))
    return sum(len(decoder.get_frames_played_at(seconds=part).data.numpy()) for part in parts)


READERS: dict[str, tuple[Callable[[Path, int], int], tuple[str, ...]]] = {
    "vmr": (read_vmr, ("vmr.video", "cv2")),
    "vmr, frames scaled to 224": (read_vmr_small, ("vmr.video", "cv2")),
    "vmr on its C++ reader alone": (read_vmr_compiled, ("vmr.video", "vmr._video")),
    "ffmpeg -vf fps=1, a pipe": (read_ffmpeg, ()),
    "OpenCV loop (grab, retrieve)": (read_opencv, ("cv2",)),
    "PyAV": (read_pyav, ("av",)),
    "decord": (read_decord, ("decord",)),
    "torchcodec": (read_torchcodec, ("torchcodec.decoders",)),
}


# ---- measuring ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Wall and processor time (s) and peak memory (MiB), child processes included."""

    wall: float
    cpu: float
    peak: float


def measure(name: str, arguments: argparse.Namespace, video: Path) -> Run | str:
    """A run in a process of its own, or why the reader cannot be imported."""
    command = [sys.executable, __file__, "--one", name, "--video", str(video)]
    command += ["--minutes", str(arguments.minutes)]
    command += ["--packages", *map(str, arguments.packages)] if arguments.packages else []
    said = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return said if isinstance(said, str) else Run(*said)


def run_one(name: str, video: Path, minutes: float) -> None:
    read, modules = READERS[name]
    for module in modules:
        try:
            importlib.import_module(module)
        except (ImportError, OSError, RuntimeError) as error:
            print(json.dumps(str(error).strip().splitlines()[0][:100]))
            return
    used = [resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN]

    def cpu() -> float:
        return sum(sum(resource.getrusage(who)[:2]) for who in used)

    seconds = round(minutes * 60)
    before, begin = cpu(), time.perf_counter()
    count = read(video, seconds)
    wall = time.perf_counter() - begin
    # ffmpeg's fps filter may give one frame more at the end.
    if not seconds <= count <= seconds + 1:
        raise SystemExit(f"{name}: expected {seconds} frames, got {count}")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    own = int(status.split("VmHWM:")[1].split()[0])
    peak = (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
    print(json.dumps([wall, cpu() - before, peak]))


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def versions() -> str:
    from vmr.video import readers

    found = [f"Python {platform.python_version()}"]
    for package in ("opencv-python-headless", "av", "decord", "torchcodec", "numpy"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    said = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
    found.append(" ".join(said.split()[:3]))
    with contextlib.suppress(ImportError):
        from vmr import _video

        found.append(f"vmr._video on OpenCV {_video.opencv_version}")
    found.append(f"vmr chose {readers.chosen()[0].__name__}")
    return ", ".join(found)


def table(
    runs: dict[str, list[Run]], left_out: dict[str, str], arguments: argparse.Namespace
) -> str:
    own = runs["vmr"]
    lines = [
        "# Sampling 1 frame a second",
        "",
        f"{arguments.minutes:g} minutes of {WIDTH}x{HEIGHT} H.264 at {RATE} frames a second (x264's "
        f"defaults), full-size RGB frames; {cpu_name()}, {os.cpu_count()} cores, {platform.system()}.",
        f"{versions()}.",
        "",
        f"Command: `python benchmarks/end_to_end/bench_sampling.py {' '.join(arguments.shown)}`",
        "",
        f"Medians of {len(own)} rounds, in each of which every reader ran once; the ratio is the median "
        "of the rounds' ratios to vmr (above 1: vmr is faster), with the lowest and the highest.",
        "",
        "| reader | s | CPU s | peak memory MiB | time / vmr's | CPU / vmr's |",
        "|---|---|---|---|---|---|",
    ]
    for name, mine in runs.items():
        ratios = [run.wall / base.wall for run, base in zip(mine, own, strict=True)]
        work = statistics.median(run.cpu / base.cpu for run, base in zip(mine, own, strict=True))
        wall, cpu = (
            statistics.median(getattr(run, key) for run in mine) for key in ("wall", "cpu")
        )
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        peak = max(run.peak for run in mine)
        lines.append(f"| {name} | {wall:.1f} | {cpu:.1f} | {peak:.0f} | {spread} | {work:.2f} |")
    lines += ["", *(f"Left out: {name} ({why})." for name, why in left_out.items())]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--packages", type=Path, nargs="*", default=[], help="folders of other packages"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="keeps the video"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--video", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.shown = [word for word in ("--packages", "...") if arguments.packages]
    sys.path.extend(map(str, arguments.packages))
    if arguments.one:
        run_one(arguments.one, arguments.video, arguments.minutes)
        return
    video = make_video(arguments.folder, arguments.minutes)
    left_out: dict[str, str] = {}
    runs: dict[str, list[Run]] = {name: [] for name in READERS}
    for number in range(arguments.rounds):
        for name in list(runs):
            run = measure(name, arguments, video)
            print(f"round {number + 1}: {name}: {run}", file=sys.stderr)
            if isinstance(run, str):
                left_out[name] = run
                del runs[name]
            else:
                runs[name].append(run)
    text = table(runs, left_out, arguments)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
