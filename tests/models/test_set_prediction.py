"""Losses of matched slots against the same, a pair after the other; nothing in them waits for values."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vmr import ops
from vmr.models.layers.set_prediction import SetLoss, alignment_losses
from vmr.models.layers.targets import Windows

LAYERS, BATCH, SLOTS, WINDOWS = 3, 5, 4, 6
LOSS = SetLoss(slots=SLOTS, layers=LAYERS)


def predictions(seed: int = 0) -> tuple[Tensor, Tensor, Windows]:
    """Spans, logits and windows; of the queries one has none, and one more than there are slots."""
    random = torch.Generator().manual_seed(seed)
    spans = torch.rand(LAYERS, BATCH, SLOTS, 2, generator=random).requires_grad_()
    logits = torch.randn(LAYERS, BATCH, SLOTS, 2, generator=random).requires_grad_()
    counts = torch.tensor([2, 0, WINDOWS, 1, SLOTS])
    windows = torch.rand(BATCH, WINDOWS, 2, generator=random).sort(dim=-1).values
    windows[torch.arange(WINDOWS) >= counts[:, None]] = 0
    return spans, logits, Windows(windows, counts)


def test_losses_are_those_of_the_pairs() -> None:
    spans, logits, windows = predictions()
    random = torch.Generator().manual_seed(1)
    slots = torch.randn(LAYERS, BATCH, SLOTS, 7, generator=random)
    tokens = torch.randn(BATCH, 3, 7, generator=random)
    sums, match = LOSS.sums(spans, logits, windows)
    sums["align"] = alignment_losses(slots, tokens, match, 0.5)
    expected = {name: torch.zeros(LAYERS) for name in sums}
    for layer in range(LAYERS):
        for sample, count in enumerate(windows.counts.tolist()):
            own, targets = spans[layer, sample], windows.spans[sample, :count]
            chance = logits[layer, sample].softmax(dim=-1)
            distances = (own[:, None] - ops.span_to_cxw(targets)).abs()
            overlaps = ops.span_giou(ops.cxw_to_span(own), targets)
            costs = 10 * distances.sum(dim=-1) - overlaps - 4 * chance[:, :1]
            pairs = linear_sum_assignment(costs.detach())
            expected["span"][layer] += distances[pairs].mean(dim=-1).sum()
            expected["giou"][layer] += (1 - overlaps[pairs]).sum()
            likely = slots[layer, sample] @ tokens[sample].sum(dim=0) / 0.5
            for slot in range(SLOTS):
                foreground = slot in pairs[0]
                loss = -chance[slot, 0 if foreground else 1].log()
                expected["label"][layer] += loss if foreground else 0.1 * loss
            if count:
                expected["align"][layer] += likely.logsumexp(dim=0) - likely[pairs[0]].mean()
    torch.testing.assert_close(sums, expected)
    inputs = [spans, logits]
    found, wanted = (
        torch.autograd.grad(sum(term.sum() for term in terms.values()), inputs)
        for terms in (sums, expected)
    )
    torch.testing.assert_close(found, wanted)


def test_an_unmatched_slot_has_no_gradient_of_its_span() -> None:
    spans, logits, windows = predictions()
    broken = spans.detach().clone()
    broken[:, :, 0] = torch.nan  # costs more than any other; the first slot, which padding reads
    broken.requires_grad_()
    few = Windows(windows.spans, windows.counts.clamp(max=2))
    sums, match = LOSS.sums(broken, logits, few)
    assert not match.matched_slots(SLOTS)[:, :, 0].any()
    (gradient,) = torch.autograd.grad(sums["span"].sum() + sums["giou"].sum(), broken)
    assert gradient.isfinite().all()
    assert gradient[:, :, 0].eq(0).all()


@pytest.mark.parametrize("windows", [WINDOWS, 0])
def test_nothing_waits_for_values(windows: int) -> None:
    # Tensors without values: whoever asks for one, or for a size that depends on them, fails.
    with FakeTensorMode():
        spans = torch.rand(LAYERS, BATCH, SLOTS, 2).requires_grad_()
        logits = torch.rand(LAYERS, BATCH, SLOTS, 2).requires_grad_()
        targets = Windows(torch.rand(BATCH, windows, 2), torch.ones(BATCH).long())
        sums, match = LOSS.sums(spans, logits, targets)
        sums["align"] = alignment_losses(spans, torch.rand(BATCH, 3, 2), match, 0.5)
        counts = LOSS.counts(targets)
        total = sum(term.sum() for term in sums.values()) / counts["span"]
        assert [tensor.shape for tensor in torch.autograd.grad(total, (spans, logits))] == [
            spans.shape,
            logits.shape,
        ]
