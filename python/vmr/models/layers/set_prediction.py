"""Set prediction on spans: slots are matched one-to-one to windows, and the losses follow from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vmr import ops
from vmr.models.layers.targets import Clips, Windows
from vmr.reference.common import widened

FOREGROUND, BACKGROUND = 0, 1


class Match(NamedTuple):
    """Which slot answers for which window, after each decoder layer.

    Attributes:
        slots: [L, B, M] int64; -1 for windows that no slot answers for.
    """

    slots: Tensor

    def matched_windows(self) -> Tensor:
        """[L, B, M] truth values."""
        return self.slots >= 0

    def matched_slots(self, count: int) -> Tensor:
        """[L, B, Q] truth values, of ``count`` slots Q."""
        places = torch.arange(count, device=self.slots.device)
        return (self.slots[..., None] == places).any(dim=2)


def assign(costs: Tensor, counts: Tensor) -> Match:
    """The cheapest matching of each layer and sample.

    A model that diverged shall end in a loss of NaN, which is reported, not in the matching: costs that
    are no number have a value of their own (:func:`vmr.ops.assignment`).

    Args:
        costs: [L, B, Q, M].
        counts: [B] windows that there are, of M.

    Returns:
        min(Q, count) pairs a layer and sample.
    """
    layers, samples, _, windows = costs.shape
    slots = ops.assignment(costs.flatten(0, 1), counts.repeat(layers))
    return Match(slots.view(layers, samples, windows))


def match_spans(
    spans: Tensor,
    logits: Tensor,
    windows: Windows,
    *,
    span_weight: float,
    giou_weight: float,
    label_weight: float,
) -> Match:
    """Matches predicted spans to windows by the matching cost of Moment-DETR.

    ::

        C(slot, window) = -w_label p_foreground + w_span |slot - window|_1 - w_giou gIoU

    with spans as (centre, width) in the norm. Where a query has more windows than there are slots, the
    cheapest are matched.

    Args:
        spans: [L, B, Q, 2] (centre, width).
        logits: [L, B, Q, 2], foreground first.
        windows: Of B queries.
        span_weight: w_span.
        giou_weight: w_giou.
        label_weight: w_label.
    """
    with torch.no_grad():
        probability = widened(logits).softmax(dim=-1)[..., FOREGROUND]
        own = widened(spans)
        targets = windows.spans.to(own.dtype).expand(len(spans), -1, -1, -1)
        distance = torch.cdist(own, ops.span_to_cxw(targets), p=1)
        overlap = ops.span_giou(ops.cxw_to_span(own), targets)
        costs = (
            span_weight * distance - giou_weight * overlap - label_weight * probability[..., None]
        )
        return assign(costs, windows.counts)


def span_losses(spans: Tensor, windows: Windows, match: Match) -> tuple[Tensor, Tensor]:
    """L1 (mean of centre and width) and 1 - gIoU of matched spans (Moment-DETR's moment loss).

    Args:
        spans: [L, B, Q, 2] (centre, width).
        windows: Of B queries.
        match: Between them.

    Returns:
        Two [L]: sums over the pairs of each layer.
    """
    none = ~match.matched_windows()
    places = match.slots.clamp(min=0)[..., None].expand(-1, -1, -1, 2)
    own = widened(spans).gather(2, places)
    targets = windows.spans.to(own.dtype).expand_as(own)
    distance = (own - ops.span_to_cxw(targets)).abs().mean(dim=-1)
    apart = 1 - ops.span_giou(ops.cxw_to_span(own), targets, aligned=True)
    return (
        distance.masked_fill(none, 0.0).sum(dim=(1, 2)),
        apart.masked_fill(none, 0.0).sum(dim=(1, 2)),
    )


def label_losses(logits: Tensor, match: Match, background_weight: float) -> Tensor:
    """Cross-entropy of foreground (matched) and background (Moment-DETR's overall loss).

    Args:
        logits: [L, B, Q, 2], foreground first.
        match: Of slots.
        background_weight: Of the slots that are not matched.

    Returns:
        [L]: sums over all slots of each layer.
    """
    matched = match.matched_slots(logits.shape[2])
    labels = torch.where(matched, FOREGROUND, BACKGROUND)
    flat = F.cross_entropy(widened(logits).flatten(0, 2), labels.flatten(), reduction="none")
    losses = flat.view_as(matched)
    return torch.where(matched, losses, background_weight * losses).sum(dim=(1, 2))


@dataclass(frozen=True)
class SetLoss:
    """Moment-DETR's terms of set prediction, taken after every decoder layer.

    A term of a layer before the last has the layer's number, from 0, behind its name.

    Attributes:
        slots: Q.
        layers: Of the decoder.
        auxiliary: Whether the terms are also taken after layers before the last.
        span_weight: Of the L1 loss of (centre, width); in the matching cost too.
        giou_weight: Of 1 - gIoU; in the matching cost too.
        label_weight: Of the classification; in the matching cost too.
        background_weight: Of a slot without a window, within the classification.
    """

    slots: int
    layers: int
    auxiliary: bool = True
    span_weight: float = 10.0
    giou_weight: float = 1.0
    label_weight: float = 4.0
    background_weight: float = 0.1

    @property
    def names(self) -> list[str]:
        """What goes behind the name of a term: for each layer that the loss is taken of."""
        early = self.layers - 1 if self.auxiliary else 0
        return [*(f"_{layer}" for layer in range(early)), ""]

    def weights(self, **more: float) -> dict[str, float]:
        """The weight of each term, with ``more`` of every layer."""
        layered = {
            "span": self.span_weight,
            "giou": self.giou_weight,
            "label": self.label_weight,
            **more,
        }
        return {name + layer: weight for layer in self.names for name, weight in layered.items()}

    def counts(self, windows: Windows, **more: Tensor) -> dict[str, Tensor]:
        """Matched windows, and slots, for each term; with ``more`` of every layer."""
        matched = windows.counts.clamp(max=self.slots).sum().float()
        slots = torch.full_like(matched, len(windows.counts) * self.slots)
        layered = {"span": matched, "giou": matched, "label": slots, **more}
        # Tensors of their own, so that each may be summed in place over processes.
        return {
            name + layer: count.clone() for layer in self.names for name, count in layered.items()
        }

    def sums(
        self, spans: Tensor, logits: Tensor, windows: Windows
    ) -> tuple[dict[str, Tensor], Match]:
        """Each term as a sum over the batch, [L] of the L layers that count, and the matching.

        Args:
            spans: [layers, B, Q, 2] (centre, width).
            logits: [layers, B, Q, 2], foreground first.
            windows: Of B queries.
        """
        spans, logits = spans[-len(self.names) :], logits[-len(self.names) :]
        match = match_spans(
            spans,
            logits,
            windows,
            span_weight=self.span_weight,
            giou_weight=self.giou_weight,
            label_weight=self.label_weight,
        )
        span, giou = span_losses(spans, windows, match)
        label = label_losses(logits, match, self.background_weight)
        return {"span": span, "giou": giou, "label": label}, match

    def by_layer(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Terms [L] as scalars under the names of their layers."""
        return {
            name + layer: values[place]
            for place, layer in enumerate(self.names)
            for name, values in sums.items()
        }


def saliency_loss(scores: Tensor, clips: Clips, margin: float) -> Tensor:
    """Hinge between rows that shall score higher and rows that shall not (Moment-DETR's saliency loss).

    ::

        sum_b 2 mean_kinds mean_(i in better, j in worse) max(0, margin + s_j - s_i)

    The mean over all pairs is what sampling one pair, as published, has as its expectation. The factor
    2 is there for the two kinds of pairs, which the published code adds up.

    Args:
        scores: [B, T].
        clips: The pairs.
        margin: From 0.

    Returns:
        Scalar: summed over the queries that have pairs.
    """
    scores = widened(scores)
    hinge = F.relu(margin + scores[:, None, :] - scores[:, :, None])
    better, worse = clips.better.to(hinge.dtype), clips.worse.to(hinge.dtype)
    total = torch.einsum("kbi,bij,kbj->kb", better, hinge, worse)
    pairs = better.sum(dim=-1) * worse.sum(dim=-1)
    kinds = clips.kinds().sum(dim=0).clamp(min=1)
    return (2 * (total / pairs.clamp(min=1)).sum(dim=0) / kinds).sum()


def alignment_losses(slots: Tensor, tokens: Tensor, match: Match, temperature: float) -> Tensor:
    """Contrastive alignment of matched slots with the sentence, against the other slots.

    ::

        l_q = slot_q . sum(tokens) / temperature
        loss = logsumexp_q l_q - mean_(q matched) l_q

    The published code's option, after MDETR (Kamath et al., ICCV 2021).

    Args:
        slots: [L, B, Q, C], of norm 1.
        tokens: [B, N, C], of norm 1 and zeros in the padding.
        match: Of slots.
        temperature: Above 0.

    Returns:
        [L]: sums over the samples with a matched slot.
    """
    logits = torch.einsum("lbqc,bc->lbq", widened(slots), widened(tokens).sum(dim=1)) / temperature
    matched = match.matched_slots(logits.shape[2])
    counts = matched.sum(dim=-1)
    positive = logits.masked_fill(~matched, 0.0).sum(dim=-1) / counts.clamp(min=1)
    return (logits.logsumexp(dim=-1) - positive).masked_fill(counts == 0, 0.0).sum(dim=-1)
