"""Scoring the published QVHighlights example against moment_detr's evaluator; and a million windows.

Needs the real annotations (annotations.tar.xz in the folder that VMR_SHARED names), a checkout of
jayleicn/moment_detr, and scikit-learn:

    VMR_SHARED=../shared python benchmarks/end_to_end/bench_evaluate.py --official MOMENT_DETR --out FILE
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import cpu_name, publish, unpack_annotations

QUERIES, WINDOWS = 100_000, 10


def alternate(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median seconds of each contender, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(found) for name, found in times.items()}


def official_functions(checkout: Path) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The official functions without their pool of processes, which only slows them down here."""
    sys.path.insert(0, str(checkout))
    from standalone_eval import eval as official

    precision, highlights = official.compute_mr_ap, official.compute_hl_ap
    official.compute_mr_ap = lambda *a, **k: precision(*a, **{**k, "num_workers": 1})
    official.compute_hl_ap = lambda *a: highlights(*a, num_workers=1)

    def silent(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            with contextlib.redirect_stdout(io.StringIO()):
                return function(*arguments, verbose=False)

        return run

    return silent(official.eval_moment_retrieval), silent(official.eval_highlight)


def in_process(arguments: argparse.Namespace) -> None:
    """Prints as JSON the seconds of both, from records in memory to the official numbers."""
    import vmr

    lines = [path.read_text(encoding="utf-8").splitlines() for path in arguments.files]
    predictions, truth = ([json.loads(line) for line in part] for part in lines)
    records, queries = (
        vmr.read_predictions(arguments.files[0]),
        vmr.read_queries(arguments.files[1]),
    )
    moments, highlights = official_functions(arguments.official)
    windows = [msgspec.structs.replace(record, pred_saliency_scores=None) for record in records]
    scores = [msgspec.structs.replace(record, pred_relevant_windows=None) for record in records]

    both = moments(predictions, truth) | highlights(predictions, truth)
    ours = vmr.evaluate(records, list(queries)).metrics
    if ours != {"brief": ours["brief"], **both}:
        raise SystemExit("the two do not agree")

    def scored(own: Sequence[Any], against: Sequence[Any]) -> Callable[[], object]:
        return lambda: vmr.evaluate(own, against).metrics

    def official() -> object:
        return moments(predictions, truth), highlights(predictions, truth)

    rows = {
        "moments": alternate(
            {
                "vmr": scored(windows, list(queries)),
                "official": lambda: moments(predictions, truth),
            },
            5,
        ),
        "highlights": alternate(
            {
                "vmr": scored(scores, list(queries)),
                "official": lambda: highlights(predictions, truth),
            },
            3,
        ),
        "both": alternate({"vmr": scored(records, list(queries)), "official": official}, 3),
        "both, vmr from the official dictionaries": alternate(
            {"vmr": scored(predictions, truth), "official": official}, 3
        ),
    }
    print(json.dumps(rows))


def commands(arguments: argparse.Namespace) -> dict[str, float]:
    """Wall seconds of the two command lines, start-up included."""
    files = [str(path) for path in arguments.files]
    with tempfile.NamedTemporaryFile(suffix=".json") as saved:
        official = [
            *(sys.executable, "standalone_eval/eval.py", "--submission_path", files[0]),
            *("--gt_path", files[1], "--save_path", saved.name, "--not_verbose"),
        ]
        there = {**os.environ, "PYTHONPATH": "."}
        ours = [sys.executable, "-m", "vmr", "evaluate", *files, "--json"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "check": True}
        return alternate(
            {
                "vmr": lambda: subprocess.run(ours, **quiet),
                "official": lambda: subprocess.run(
                    official, cwd=arguments.official, env=there, **quiet
                ),
            },
            7,
        )


def write_million(folder: Path) -> tuple[Path, Path]:
    """100,000 queries and 1,000,000 windows in files of the official layout."""
    rng = random.Random(0)
    predictions, truth = folder / "million.jsonl", folder / "queries.jsonl"
    with predictions.open("w") as one, truth.open("w") as two:
        for qid in range(QUERIES):
            head = {"qid": qid, "query": "someone opens a door", "vid": f"video{qid // 4}"}
            start = rng.randrange(0, 140, 2)
            window = [start, start + rng.randrange(2, 152 - start, 2)]
            two.write(json.dumps(head | {"duration": 150, "relevant_windows": [window]}) + "\n")
            found = []
            for place in range(WINDOWS):
                begin = rng.uniform(0, 120)
                end = begin + rng.uniform(2, 30)
                found.append([round(begin, 2), round(end, 2), round(1 - place / WINDOWS, 4)])
            one.write(json.dumps(head | {"pred_relevant_windows": found}) + "\n")
    return predictions, truth


def million(arguments: argparse.Namespace) -> None:
    """Prints as JSON the seconds of reading and of scoring, and the highest memory in MiB."""
    import vmr

    def memory() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    begin = time.perf_counter()
    predictions = vmr.read_predictions(arguments.files[0])
    queries = list(vmr.read_queries(arguments.files[1]))
    read = time.perf_counter()
    brief = vmr.evaluate(predictions, queries).brief
    done = time.perf_counter()
    assert brief["MR-full-mAP"]
    print(json.dumps({"read": read - begin, "score": done - read, "memory": memory()}))


def in_turn(
    arguments: argparse.Namespace, stage: str, files: tuple[Path, Path], threads: int
) -> Any:
    """What a stage prints, in a process of its own."""
    run = subprocess.run(
        [
            *(sys.executable, __file__, "--official", str(arguments.official), "--stage", stage),
            *("--files", *map(str, files)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def report(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The tables."""
    unpack_annotations(folder)
    arguments.files = files = (
        folder / "data" / "evaluator_golden" / "sample_val_preds.jsonl",
        folder / "data" / "qvhighlights" / "highlight_val_release.jsonl",
    )
    lines = [
        "| 1,550 queries | threads | official, ms | vmr, ms | ratio |",
        "|---|---:|---:|---:|---:|",
    ]

    def row(work: str, threads: str, found: dict[str, float]) -> None:
        official, ours = found["official"] * 1e3, found["vmr"] * 1e3
        lines.append(
            f"| {work} | {threads} | {official:,.0f} | {ours:.3g} | {official / ours:.0f} |"
        )

    for threads in (1, 2):
        for work, found in in_turn(arguments, "in-process", files, threads).items():
            row(f"in one process: {work}", str(threads), found)
    row("the command line, start-up included", "all", commands(arguments))
    big = write_million(folder)
    lines += [
        "",
        "| 1,000,000 windows, 100,000 queries | threads | ms |",
        "|---|---:|---:|",
    ]
    for threads in (1, 2):
        found = in_turn(arguments, "million", big, threads)
        lines.append(
            f"| read both files ({big[0].stat().st_size / 1e6:.0f} MB) | {threads} "
            f"| {found['read'] * 1e3:,.0f} |"
        )
        lines.append(f"| score, all measures | {threads} | {found['score'] * 1e3:,.0f} |")
    lines += ["", f"The most memory that the process held: {found['memory']:,.0f} MiB."]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--official", type=Path, required=True, help="the moment_detr checkout")
    parser.add_argument("--out", type=Path, help="write the tables into this Markdown file")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.official = arguments.official.resolve()
    if arguments.stage:
        {"in-process": in_process, "million": million}[arguments.stage](arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = report(arguments, Path(folder))
    head = [
        "# Scoring predictions",
        "",
        f"{cpu_name()}, {os.cpu_count()} cores; Python {platform.python_version()}, NumPy "
        f"{version('numpy')}, scikit-learn {version('scikit-learn')}, msgspec {version('msgspec')}. "
        "Medians of runs that take turns. The published example of QVHighlights (1,550 queries of val, "
        "ten windows and 75 scores each); both give the same numbers, byte for byte. In one process: "
        "each from the records that it reads the files into, to its dictionary of numbers; the official "
        "functions without their pool of eight processes. The command line has the pool, as published.",
        "",
        "    VMR_SHARED=../shared python benchmarks/end_to_end/bench_evaluate.py "
        f"--official MOMENT_DETR --out {arguments.out or 'FILE'}",
        "",
    ]
    publish([*head, *rows], arguments.out)


if __name__ == "__main__":
    main()
