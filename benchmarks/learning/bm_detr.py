"""BM-DETR on simulated corpora: vmr against the official code, against Moment-DETR, and Table 9.

    python benchmarks/learning/bm_detr.py --charades DIR --qvhighlights DIR --official CHECKOUT \\
        --out OUT

The two DIRs are folders of ``vmr data simulate``, CHECKOUT is a clone of minjoong507/BM-DETR. Each run
has one thread, and two run at a time. Started again, it goes on with what is not done; --report only
writes the tables of what is. They are in OUT/report.md, and each run's folder is OUT/CORPUS/SIDE/seedN.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
from frame_probabilities import COLUMNS, held_out, probabilities

from vmr.data.annotations import read_queries
from vmr.data.dataset import MomentDataset
from vmr.data.packs import load_pack
from vmr.evaluation.scoring import Evaluation, evaluate
from vmr.evaluation.statistics import seed_differences
from vmr.files import make_folder, write_text
from vmr.training.results import RunResults
from vmr.training.run_folder import RESULTS

HERE = Path(__file__).parent
KEYS = ("MR-full-R1@0.5", "MR-full-R1@0.7", "MR-full-mAP")
CODE, LIKE_CODE = "official code", "vmr as the code"
PAPER, WITHOUT = "vmr as the paper", "without negatives"
RIVAL, SIMILARITY, PRIOR = "Moment-DETR style", "raw similarity", "window prior"
CONFIGS = {
    LIKE_CODE: "bm-detr-official.yaml",
    PAPER: "bm-detr-simulated",
    CODE: "bm-detr-official.yaml",
    RIVAL: "moment-detr-small.yaml",
    WITHOUT: "bm-detr-no-negatives.yaml",
    SIMILARITY: "similarity-simulated",
    PRIOR: "window-prior-simulated",
}
LEARN_NOTHING = (SIMILARITY, PRIOR)
# What the difference of the second and the first is asked for.
PAIRS = (
    (CODE, LIKE_CODE), (RIVAL, LIKE_CODE), (RIVAL, PAPER), (WITHOUT, PAPER), (LIKE_CODE, PAPER),
)  # fmt: skip

# Whose frames are asked for, and whether with a negative query.
TABLE_9 = ((WITHOUT, False), (PAPER, False), (PAPER, True), (LIKE_CODE, False), (LIKE_CODE, True))


@dataclass(frozen=True)
class Corpus:
    """A simulated corpus: its settings for all sides, and those for sides as the code."""

    name: str
    root: Path
    settings: tuple[str, ...]
    as_code: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """A side, trained with a seed on a corpus."""

    corpus: Corpus
    side: str
    seed: int
    folder: Path
    official: Path

    @property
    def done(self) -> bool:
        return (self.folder / RESULTS).is_file()

    def command(self) -> list[str]:
        name = CONFIGS[self.side]
        config = str(HERE / name) if name.endswith(".yaml") else name
        settings = [f"data.root={self.corpus.root}", f"training.seed={self.seed}"]
        settings += self.corpus.settings
        if self.side in (CODE, LIKE_CODE):
            settings += self.corpus.as_code
        if self.side in LEARN_NOTHING:
            settings = [one for one in settings if not one.startswith(("model.", "training."))]
        start = [sys.executable, "-m", "vmr", "train"]
        if self.side == CODE:
            start = [sys.executable, str(HERE / "official_bm_detr.py"), str(self.official)]
        return [*start, config, *settings, "--out", str(self.folder)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("charades", "qvhighlights", "official", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="train nothing")
    asked = parser.parse_args()
    corpora = (
        Corpus("charades", asked.charades.resolve(), (), ()),
        # Its clips have 2 s, and its videos 150 s: neither paper nor code shift them.
        Corpus(
            "qvhighlights",
            asked.qvhighlights.resolve(),
            ("data.val={root}/val_500.jsonl",),
            ("model.round_to=2.0", "model.shifting=none"),
        ),
    )
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    runs = [
        Run(
            corpus,
            side,
            seed,
            asked.out / corpus.name / _folder(side) / f"seed{seed}",
            asked.official,
        )
        for corpus in corpora
        for seed in seeds
        for side in CONFIGS
        if side not in LEARN_NOTHING or seed == seeds[0]
    ]
    runs.sort(key=lambda run: (run.corpus.name, run.side == WITHOUT))
    make_folder(asked.out)
    if not asked.report:
        _train(runs, asked.jobs)
    lines = [line for corpus in corpora for line in _report(corpus, runs)]
    write_text(asked.out / "report.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def _folder(side: str) -> str:
    return side.replace(" ", "-").lower()


def _train(runs: Sequence[Run], jobs: int) -> None:
    """Does what is not done, ``jobs`` at a time."""
    todo = [run for run in runs if not run.done]
    began = time.monotonic()

    def one(run: Run) -> bool:
        if run.done:
            return True
        make_folder(run.folder.parent)
        log = run.folder.with_suffix(".log")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with log.open("ab") as file:
            code = subprocess.call(
                run.command(), stdout=file, stderr=subprocess.STDOUT, env=environment
            )
        what = f"{run.corpus.name}, {run.side}, seed {run.seed}"
        minutes = (time.monotonic() - began) / 60
        print(f"{minutes:5.1f} min: {what}: {f'FAILED, see {log}' if code else 'done'}", flush=True)
        return code == 0

    with ThreadPoolExecutor(jobs) as pool:
        failed = len(todo) - sum(pool.map(one, todo))
    if failed:
        print(f"{failed} runs failed; the same command tries them again", flush=True)


# ---- what came of it ----------------------------------------------------------------------------------


def _report(corpus: Corpus, runs: Sequence[Run]) -> list[str]:
    here = [run for run in runs if run.corpus == corpus and run.done]
    if not here:
        return []
    queries = read_queries(corpus.root / "test.jsonl")
    dataset = MomentDataset(queries, load_pack(corpus.root))
    scored: dict[str, dict[int, Evaluation]] = {}
    results: dict[str, list[RunResults]] = {}
    for run in here:
        scored.setdefault(run.side, {})[run.seed] = evaluate(
            run.folder / "test_predictions.jsonl", dataset.queries
        )
        found = msgspec.json.decode((run.folder / RESULTS).read_bytes(), type=RunResults)
        results.setdefault(run.side, []).append(found)
    lines = [f"## {corpus.name}, {len(dataset)} test queries", ""]
    lines += _table(("", "R1@0.5", "R1@0.7", "mAP", "parameters", "steps", "seconds a run"))
    for side, by_seed in scored.items():
        cells = [_spread([one.brief[key] or 0.0 for one in by_seed.values()]) for key in KEYS]
        own = results[side]
        seconds = statistics.mean(one.seconds for one in own)
        lines.append(
            f"| {side} ({len(own)}) | {' | '.join(cells)} | {own[0].parameters:,} | "
            f"{own[0].steps:,} | {seconds:.0f} |"
        )
    lines += ["", *_table(("second minus first, paired", "R1@0.5", "R1@0.7", "mAP"))]
    for first, second in PAIRS:
        seeds = sorted(set(scored.get(first, {})) & set(scored.get(second, {})))
        if len(seeds) < 2:
            continue
        gains = seed_differences(
            [scored[first][seed] for seed in seeds], [scored[second][seed] for seed in seeds]
        )
        by_key = {gain.key: gain for gain in gains}
        cells = []
        for key in KEYS:
            gain = by_key[key]
            low, high = gain.interval.low, gain.interval.high
            cells.append(f"{gain.second - gain.first:+.2f} ({low:+.2f} to {high:+.2f})")
        lines.append(f"| {second} minus {first} ({len(seeds)} seeds) | {' | '.join(cells)} |")
    return [*lines, "", *_table_9(here, dataset), ""]


def _table_9(runs: Sequence[Run], dataset: MomentDataset) -> list[str]:
    lines = _table(("frames of test queries", *COLUMNS, "p, inside minus outside"))
    batches = {negatives: held_out(dataset, negatives=negatives) for negatives in (False, True)}
    for side, negatives in TABLE_9:
        found = [probabilities(run.folder, batches[negatives]) for run in runs if run.side == side]
        if not found:
            continue
        cells = [_spread(list(column), 3) for column in zip(*found, strict=True)]
        gap = _spread([values[2] - values[3] for values in found], 3)
        asked = "with" if negatives else "without"
        lines.append(f"| {side}, asked {asked} a negative query | {' | '.join(cells)} | {gap} |")
    return lines


def _table(heads: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(heads)} |", f"|---{'|---:' * (len(heads) - 1)}|"]


def _spread(values: Sequence[float], digits: int = 2) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
