"""BM-DETR beside its official code on the same weights: inference, and a whole training step.

    VMR_OFFICIAL=FOLDER python benchmarks/end_to_end/bench_bm_detr.py --out benchmarks/results/bm-detr.md

FOLDER holds a checkout of minjoong507/BM-DETR, named OWNER+NAME.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from timing import Comparison, main

from tests.golden.make_bm_detr import official
from vmr.data.dataset import Batch
from vmr.data.records import Query
from vmr.models.bm_detr import BMDETR
from vmr.models.bm_detr_config import BMDETRConfig
from vmr.models.layers.shifting import Shift, draw_shift
from vmr.models.layers.targets import relative_windows
from vmr.models.official.bm_detr import OFFICIAL

VIDEO, TEXT, SECONDS = 2818, 512, 2.0
CONFIG = BMDETRConfig(video_dim=VIDEO, text_dim=TEXT, activation="prelu", **OFFICIAL)


class Work(NamedTuple):
    """What is timed.

    Attributes:
        name: Of it.
        rows: [B] of each video.
        tokens: [B] of each sentence.
        negative: Whether each query has a negative one.
        shifting: Whether each video is read with its moment elsewhere as well.
        training: Whether a step of training is timed, or an answer.
        repeats: How often.
    """

    name: str
    rows: Tensor
    tokens: Tensor
    negative: bool = False
    shifting: bool = False
    training: bool = False
    repeats: int = 4


def works() -> list[Work]:
    """The sizes of the published features, all of one length, and of lengths as the data has them."""
    random = torch.Generator().manual_seed(0)

    def between(low: int, high: int, most: int) -> Tensor:
        found = torch.randint(low, high + 1, (32,), generator=random)
        found[0] = most
        return found

    full, words = torch.full((32,), 75), torch.full((32,), 32)
    qv_words = between(8, 17, 27)  # 11.3 words on average, and what CLIP adds
    rows, short = between(20, 42, 62), between(6, 12, 16)  # 30.6 s and 7.2 words on average
    return [
        Work("QVHighlights, B = 1, inference", full[:1], words[:1], repeats=25),
        Work("QVHighlights, B = 32, inference", full, words),
        Work("QVHighlights, B = 32, inference, negative query", full, words, True),
        Work("QVHighlights, B = 32, training step", full, words, True, training=True, repeats=2),
        Work("Charades, B = 32, training step, shifting", full, words, True, True, True, 2),
        Work("QVHighlights, sentences of its lengths, inference", full, qv_words),
        Work("Charades, videos and sentences of its lengths, inference", rows, short),
        Work("the same, training step, shifting", rows, short, True, True, True, 2),
    ]


class Case:
    """Both models with the same weights, and the same inputs for both.

    Args:
        work: What they do.
        autocast: Whether vmr's does it in bfloat16.
    """

    def __init__(self, work: Work, *, autocast: bool = False) -> None:
        torch.manual_seed(0)
        self.work, self.autocast = work, autocast
        shifting: Any = "published" if work.shifting else "none"
        # Without what the padding of a batch does to its queries.
        config = msgspec.structs.replace(CONFIG, shifting=shifting, official_padding=False)
        self.model = BMDETR(config).train(work.training)
        self.theirs, self.criterion, _ = official(Path(os.environ["VMR_OFFICIAL"]), self.model)
        self.theirs.train(work.training)
        self.criterion.additional_losses = ["shifting"] if work.shifting else []
        self.batch = new_batch(work)
        windows = relative_windows(self.batch)
        self.shift: Shift | None = None
        if work.shifting:
            self.shift = draw_shift(self.batch, windows, "published", None)
        self.pairs = self.model.inputs(self.batch).get("pairs")
        self.optimisers = [
            torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
            for model in (self.model, self.theirs)
        ]

    def ours(self) -> Any:
        """vmr's answer or step."""
        if not self.work.training:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                return self.model(**self.model.inputs(self.batch))
        inputs = self.model.inputs(self.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            outputs = self.model(**inputs)
        return self._step(0, self.model, self.model.loss(outputs, self.batch).total)

    def official(self) -> Any:
        """Theirs."""
        if not self.work.training:
            with torch.no_grad():
                return self.theirs(**self._their_inputs())
        own, others = self.criterion(self.theirs(**self._their_inputs()), self._their_targets())
        passes = [own, *others.values()]
        weights = self.criterion.weight_dict
        total = sum(p[name] * weights[name] for p in passes for name in weights) / len(passes)
        return self._step(1, self.theirs, total)

    def _step(self, which: int, model: nn.Module, total: Tensor) -> Tensor:
        self.optimisers[which].zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        self.optimisers[which].step()
        return total

    def _their_inputs(self) -> dict[str, Tensor]:
        batch = self.batch
        assert batch.text is not None
        found = {"src_txt": batch.text, "src_vid": batch.video}
        found["src_vid_mask"] = mask_of(batch.video_lengths, batch.video.shape[1])
        found["src_txt_mask"] = mask_of(batch.text_lengths, batch.text.shape[1])
        if self.work.negative:
            assert batch.negative_text is not None
            found["neg_src_txt"] = batch.negative_text
            found["neg_src_txt_mask"] = found["src_txt_mask"]
        if self.shift is not None:
            order = self.shift.order[..., None].expand_as(batch.video)
            found["shifted_vid"] = batch.video.gather(1, order)
            found["shifted_vid_mask"] = found["src_vid_mask"]
            found["shifted_match_labels"] = self._labels(self.shift.rows)
        return found

    def _their_targets(self) -> dict[str, Any]:
        batch, pairs = self.batch, self.pairs
        assert pairs is not None
        extents = (batch.video_lengths * batch.row_seconds)[:, None]
        rows = (batch.windows[:, 0] / SECONDS).long() - torch.tensor([0, 1])

        def of(spans: Tensor, rows: Tensor, pairs: Tensor) -> dict[str, Any]:
            centres = torch.stack((spans.mean(dim=1), spans[:, 1] - spans[:, 0]), dim=1)
            return {
                "span_labels": [{"spans": span[None]} for span in centres],
                "saliency_pos_labels": pairs[:, 0],
                "saliency_neg_labels": pairs[:, 1],
                "match_labels": self._labels(rows),
                "logit_mask": mask_of(batch.video_lengths, batch.video.shape[1]),
            }

        targets = of(batch.windows[:, 0] / extents, rows, pairs[: len(batch)])
        if self.shift is not None:
            targets["shifting"] = of(self.shift.spans, self.shift.rows, pairs[len(batch) :])
        return targets

    def _labels(self, rows: Tensor) -> Tensor:
        places = torch.arange(self.batch.video.shape[1])
        return ((places >= rows[:, :1]) & (places <= rows[:, 1:])).long()


def mask_of(lengths: Tensor, rows: int) -> Tensor:
    return (torch.arange(rows) < lengths[:, None]).float()


def new_batch(work: Work) -> Batch:
    """Features of unit length, and a moment a query."""
    random = torch.Generator().manual_seed(1)
    count = len(work.rows)

    def features(lengths: Tensor, columns: int) -> Tensor:
        drawn = torch.randn(count, int(lengths.max()), columns, generator=random)
        return F.normalize(drawn, dim=-1) * mask_of(lengths, drawn.shape[1])[..., None]

    windows = torch.stack((work.rows // 4, work.rows // 2), dim=1) * SECONDS
    queries = tuple(
        Query(qid=place, video=str(place), text="", duration=rows * SECONDS)
        for place, rows in enumerate(work.rows.tolist())
    )
    return Batch(
        queries=queries,
        video=features(work.rows, VIDEO),
        video_lengths=work.rows,
        row_seconds=torch.full((count,), SECONDS),
        durations=work.rows * SECONDS,
        text=features(work.tokens, TEXT),
        text_lengths=work.tokens,
        pooled=None,
        windows=windows[:, None],
        window_counts=torch.ones(count, dtype=torch.int64),
        saliency=torch.zeros(count, int(work.rows.max())),
        has_saliency=torch.zeros(count, dtype=torch.bool),
        negative_text=features(work.tokens, TEXT) if work.negative else None,
        negative_lengths=work.tokens if work.negative else None,
    )


def same_numbers() -> None:
    """The contenders compute the same, where nothing is padded."""
    case = Case(Work("", torch.full((2,), 75), torch.full((2,), 20), negative=True))
    found, wanted = case.ours(), case.official()
    torch.testing.assert_close(found.spans[-1], wanted["pred_spans"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.logits[-1], wanted["pred_logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.joint, wanted["vid_logits"], atol=1e-5, rtol=0)


def comparisons() -> list[Comparison]:
    """Each work by both sides, and answers by vmr in half precision too."""
    same_numbers()
    found = []
    for work in works():
        case = Case(work)
        contenders: dict[str, Callable[[], object]] = {
            "vmr": case.ours,
            "official code": case.official,
        }
        if not work.training:
            contenders["vmr, bfloat16 autocast"] = Case(work, autocast=True).ours
        found.append(Comparison(work.name, contenders, work.repeats))
    return found


def operations() -> list[str]:
    """How much there is to compute, how near to the ceiling both are, and what memory they take."""
    ceiling = measured_ceiling()
    lines = [
        "",
        f"## Operations and memory (one thread; MKL multiplies at {ceiling:.0f} GFLOP/s here)",
        "",
        "| work | by | GFLOP | share of the ceiling | peak memory, MiB |",
        "|---|---|---:|---:|---:|",
    ]
    torch.set_num_threads(1)
    for place, work in enumerate(works()):
        case = Case(work)
        for side, run in (("vmr", case.ours), ("official code", case.official)):
            run()
            with FlopCounterMode(display=False) as counter:
                run()
            done = counter.get_total_flops() / 1e9
            seconds = min(cpu_seconds(run) for _ in range(2))
            share = done / seconds / ceiling
            peak = subprocess.run(
                [sys.executable, __file__, "--peak", f"{place}", side],
                stdout=subprocess.PIPE, text=True, check=True,
            ).stdout  # fmt: skip
            lines.append(f"| {work.name} | {side} | {done:.1f} | {share:.0%} | {peak.strip()} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def measured_ceiling() -> float:
    """GFLOP/s of one large product on one thread."""
    torch.set_num_threads(1)
    rows, weight = torch.randn(3424, 1024), torch.randn(1024, 1024)
    seconds = min(cpu_seconds(lambda: rows @ weight) for _ in range(12))
    return 2 * 3424 * 1024 * 1024 / seconds / 1e9


def cpu_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def print_peak(place: int, side: str) -> None:
    """MiB that a run adds to what the process has before it."""
    torch.set_num_threads(1)
    case = Case(works()[place])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        (case.ours if side == "vmr" else case.official)()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


if __name__ == "__main__":
    if "--peak" in sys.argv:
        print_peak(int(sys.argv[-2]), sys.argv[-1])
    else:
        main(
            "BM-DETR: 3 + 3 layers of 256 columns, SlowFast + CLIP, float32 but where it says so",
            comparisons,
            __file__,
            operations,
        )
