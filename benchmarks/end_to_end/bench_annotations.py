"""Reading every annotation file of the archive: vmr against the plain json module on the same bytes.

json only parses: no check, no record, no seconds from frames. Charades-STA's txt is no JSON; its
contender parses charades.json, which vmr reads for it too, and splits the lines. Needs the real
annotations (annotations.tar.xz in the folder that VMR_SHARED names):

    VMR_SHARED=../shared python benchmarks/end_to_end/bench_annotations.py --out FILE
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from vmr.data.annotations import read_queries
from vmr.data.layouts import UnknownLayoutError

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import cpu_name, publish, unpack_annotations


def parse(path: Path) -> object:
    """The file as the json module has it, line by line where it holds lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    lengths = json.loads(path.with_name("charades.json").read_text(encoding="utf-8"))
    return lengths, [line.split("##") for line in text.splitlines()]


def seconds(run: Callable[[Path], object], path: Path) -> float:
    begin = time.perf_counter()
    found = run(path)
    taken = time.perf_counter() - begin
    del found
    return taken


def annotations(folder: Path) -> dict[str, list[Path]]:
    """The annotation files by layout."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".json", ".jsonl", ".txt"}:
            try:
                found.setdefault(read_queries(path).kind, []).append(path)
            except UnknownLayoutError:
                continue
    return found


def table(layouts: dict[str, list[Path]], repeats: int) -> list[str]:
    """Both take turns on each file; the medians are summed up over the files of a layout."""
    lines = [
        "| layout | files | queries | MB | vmr, ms | json, ms | vmr / json |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows = []
    for kind, paths in layouts.items():
        taken = {read_queries: 0.0, parse: 0.0}
        for path in paths:
            times: dict[Callable[..., object], list[float]] = {run: [] for run in taken}
            for _ in range(repeats):
                for run, found in times.items():
                    found.append(seconds(run, path))
            for run, found in times.items():
                taken[run] += statistics.median(found)
        queries = sum(len(read_queries(path)) for path in paths)
        size = sum(path.stat().st_size for path in paths)
        rows.append((kind, len(paths), queries, size, taken[read_queries], taken[parse]))
    rows.sort(key=lambda row: -row[2])
    rows.append(("all", *(sum(row[column] for row in rows) for column in range(1, 6))))
    lines += [
        f"| {kind} | {files} | {queries:,} | {size / 1e6:.1f} | {ours * 1e3:.3g} | {plain * 1e3:.3g} "
        f"| {ours / plain:.2f} |"
        for kind, files, queries, size, ours, plain in rows
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the table into this Markdown file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        unpack_annotations(folder)
        rows = table(annotations(Path(folder)), arguments.repeats)
    head = [
        "# Reading all annotations of the archive",
        "",
        f"{cpu_name()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"msgspec {version('msgspec')}. Into checked records (vmr) against parsing alone (json), in one "
        f"process, taking turns, files in the page cache; sums of medians of {arguments.repeats} runs a "
        "file.",
        "",
        "    VMR_SHARED=../shared python benchmarks/end_to_end/bench_annotations.py "
        f"--out {arguments.out or 'FILE'}",
        "",
    ]
    publish([*head, *rows], arguments.out)


if __name__ == "__main__":
    main()
