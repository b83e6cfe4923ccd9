"""The contrastive loss over a batch that two processes share, and models trained so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from tests.models import bm_detr_case, detr_case
from vmr.data.dataset import Batch, collate
from vmr.models.base import MomentModel
from vmr.models.bm_detr import BMDETR
from vmr.models.layers.contrastive import batch_contrastive
from vmr.models.moment_detr import MomentDETR

TEMPERATURE = 0.1
SPLITS = [(3, 3), (4, 2), (5, 0), (0, 1)]
CONFIG = msgspec.structs.replace(detr_case.CONFIG, batch_contrastive=0.5)


def rows(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Videos, sentences, and a matrix that all processes learn together."""
    return tuple(detr_case.numbers(f"{name}{count}", *shape) for name, shape in
                 (("v", (count, 4)), ("t", (count, 5)), ("w", (4, 5))))  # fmt: skip


def test_is_cross_entropy_both_ways() -> None:
    video, text = detr_case.numbers("v", 3, 4), detr_case.numbers("t", 3, 4)
    cosines = torch.nn.functional.cosine_similarity(video[:, None], text[None], dim=-1)
    logits = cosines / TEMPERATURE
    expected = -(logits.log_softmax(1).diag() + logits.log_softmax(0).diag()).sum() / 2
    torch.testing.assert_close(batch_contrastive(video, text, TEMPERATURE), expected)


def test_a_single_or_no_row_is_free() -> None:
    one = torch.ones(1, 4, requires_grad=True)
    loss = batch_contrastive(one, one, TEMPERATURE) + batch_contrastive(
        one[:0], one[:0], TEMPERATURE
    )
    assert loss.item() == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert one.grad is not None
    assert one.grad.isfinite().all()


def learned(count: int, own: slice) -> tuple[Tensor, list[Tensor]]:
    """The loss of some rows, and the gradients of videos, sentences and matrix."""
    video, text, matrix = (tensor.requires_grad_() for tensor in rows(count))
    loss = batch_contrastive(video[own] @ matrix, text[own], TEMPERATURE)
    loss.backward()
    return loss.detach(), [tensor.grad for tensor in (video, text, matrix)]  # type: ignore[misc]


def moment_detr(own: slice) -> tuple[MomentModel, Batch]:
    """A share of a batch of three queries."""
    return MomentDETR(CONFIG), detr_case.batch(detr_case.items()[own])


def bm_detr(own: slice) -> tuple[MomentModel, Batch]:
    """Likewise; only the second video, which the first process has, is short enough to be shifted."""
    config = msgspec.structs.replace(bm_detr_case.PAPER, shift_below=8.0)
    return BMDETR(config), collate(bm_detr_case.items()[own])


MODELS = {"moment-detr": moment_detr, "bm-detr": bm_detr}


def model_gradients(name: str, own: slice, world: int) -> list[Tensor]:
    """A model in a training loop: counts of all, the loss by the number of processes."""
    model, batch = MODELS[name](own)
    detr_case.draw_weights(model)
    counts = model.loss_counts(batch)
    if world > 1:
        for count in counts.values():
            dist.all_reduce(count)
    torch.manual_seed(0)
    loss = model.loss(model(**model.inputs(batch)), batch, counts).total
    (loss * world).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if world > 1:  # as DistributedDataParallel does, whose import takes longer than this test
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= world
    return gradients


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for split in SPLITS:
        first = 0 if rank == 0 else split[0]
        found[str(split)] = learned(sum(split), slice(first, first + split[rank]))
    for name in MODELS:
        found[name] = model_gradients(name, slice(0, 2) if rank == 0 else slice(2, 3), 2)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes computed."""
    folder: Path = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, args=(str(folder),), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("split", SPLITS)
def test_two_processes_add_up_to_one(split: tuple[int, int], found: list[dict[str, Any]]) -> None:
    value, gradients = learned(sum(split), slice(None))
    parts = [of_rank[str(split)] for of_rank in found]
    torch.testing.assert_close(parts[0][0] + parts[1][0], value)
    for place, expected in enumerate(gradients):
        torch.testing.assert_close(parts[0][1][place] + parts[1][1][place], expected)


@pytest.mark.parametrize("name", MODELS)
def test_models_learn_the_same_in_two_processes(name: str, found: list[dict[str, Any]]) -> None:
    expected = model_gradients(name, slice(None), 1)
    for of_rank in found:
        torch.testing.assert_close(of_rank[name], expected, atol=2e-5, rtol=1e-4)
