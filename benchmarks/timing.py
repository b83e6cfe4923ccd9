"""Times contenders side by side, and writes the table.

A benchmark is a script with a function that returns its comparisons, and ``main(...)`` of this module
at its end. For each number of threads it runs in a process of its own, where NumPy's BLAS obeys too.
The contenders of a comparison take turns, so that what else the machine does hits all of them alike.
Compare times of one table only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

THREAD_COUNTS = (1, 2)


class Comparison(NamedTuple):
    """Contenders that do the same work, the one to compare with first."""

    name: str
    contenders: dict[str, Callable[[], object]]
    repeats: int = 25


class Row(NamedTuple):
    """One line of the table; times in milliseconds, the ratio to the first contender."""

    work: str
    contender: str
    median: float
    fastest: float
    ratio: float


def measure(comparison: Comparison, clock: Callable[[], float] = time.perf_counter) -> list[Row]:
    """The median and the fastest time of each contender, taking turns; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in comparison.contenders}
    for turn in range(comparison.repeats + 1):
        for name, run in comparison.contenders.items():
            start = clock()
            run()
            if turn > 0:
                times[name].append((clock() - start) * 1e3)
    first = statistics.median(next(iter(times.values())))
    return [
        Row(
            comparison.name,
            name,
            statistics.median(found),
            min(found),
            statistics.median(found) / first,
        )
        for name, found in times.items()
    ]


def cpu_name() -> str:
    """The CPU as the system calls it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def publish(lines: list[str], out: Path | None) -> None:
    """Prints a report, and writes it where --out says."""
    text = "\n".join(lines) + "\n"
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")


def unpack_annotations(folder: str | Path) -> None:
    """Unpacks the real annotations of the folder that VMR_SHARED names."""
    shared = Path(os.environ.get("VMR_SHARED", Path(__file__).parents[1] / ".." / "shared"))
    with tarfile.open(shared / "annotations.tar.xz") as archive:
        archive.extractall(folder, filter="data")


def main(
    title: str,
    comparisons: Callable[[], list[Comparison]],
    script: str,
    further: Callable[[], list[str]] = list,
) -> None:
    """The command line of a benchmark: prints its tables, and writes them where --out says.

    ``further`` makes lines to follow the tables.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--out", type=Path, help="write the tables into this Markdown file")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
        # A thread alone is measured by what it computes, whatever else the machine does.
        clock = time.process_time if arguments.threads == 1 else time.perf_counter
        rows = []
        for comparison in comparisons():
            rows += measure(comparison, clock)
            print(*rows[-len(comparison.contenders) :], sep="\n", file=sys.stderr, flush=True)
        print(json.dumps(rows))
        return

    import numpy
    import torch

    from vmr import _core

    config = _core.build_config()
    relative = Path(script).resolve().relative_to(Path.cwd())
    lines = [
        f"# {title}",
        "",
        f"{cpu_name()}, {os.cpu_count()} cores, kernels: {config['cpu_isa']}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {numpy.__version__}, "
        f"{config['compiler']} {config['build_type']}. "
        "Medians of runs that take turns, of one thread in CPU time; ratios are to the first line of "
        "each comparison. "
        "On a busy machine threads that wait for each other inflate the table of two threads.",
        "",
        f"    python {relative} --out {arguments.out or 'FILE'}",
    ]
    for threads in THREAD_COUNTS:
        counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        done = subprocess.run(
            [sys.executable, script, "--threads", str(threads)],
            env={**os.environ, **counts},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        lines += ["", f"## {threads} thread{'s' if threads > 1 else ''}", ""]
        lines += ["| work | by | median, ms | fastest, ms | ratio |", "|---|---|---:|---:|---:|"]
        for row in (Row(*values) for values in json.loads(done.stdout)):
            lines.append(
                f"| {row.work} | {row.contender} | {row.median:.3g} | {row.fastest:.3g} "
                f"| {row.ratio:.3g} |"
            )
    publish([*lines, *further()], arguments.out)
