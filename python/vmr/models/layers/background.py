"""BM-DETR's own layers (Jung et al., WACV 2025): frames against two queries, and pooling."""

from __future__ import annotations

from torch import Tensor, nn

from vmr import ops
from vmr.reference.common import widened


class FrameMatcher(nn.Module):
    """The probabilistic frame-query matcher, joint probability and frame attention, eqs. 4 to 8.

    Args:
        columns: d of the frames; even.
        official_padding: As in :class:`vmr.BMDETRConfig`.
    """

    def __init__(self, columns: int, *, official_padding: bool = False) -> None:
        super().__init__()
        self.hidden = nn.Linear(columns, columns // 2, bias=False)
        self.score = nn.Linear(columns // 2, 1, bias=False)
        self.official_padding = official_padding

    def forward(
        self, frames: Tensor, lengths: Tensor, negative: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frames [B, N, d] by a query and by a negative one; see :func:`vmr.ops.frame_attention`."""
        return ops.frame_attention(
            frames,
            self.hidden.weight,
            self.score.weight[0],
            lengths,
            negative,
            official_padding=self.official_padding,
        )


class AttentivePooling(nn.Module):
    """One vector of several rows, eqs. 9 and 10.

    Args:
        columns: d.
        outputs: Columns that "tanh" projects to.
        kind: As ``pooling`` in :class:`vmr.BMDETRConfig`.
    """

    def __init__(self, columns: int, outputs: int, kind: str) -> None:
        super().__init__()
        if kind == "linear":
            self.scores: nn.Module = nn.Linear(columns, 1, bias=False)
            self.project: nn.Module = nn.Identity()
        else:
            self.scores = nn.Sequential(
                nn.Linear(columns, columns, bias=False),
                nn.Tanh(),
                nn.Linear(columns, 1, bias=False),
            )
            self.project = nn.Sequential(nn.Linear(columns, columns), nn.Linear(columns, outputs))

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Rows [B, N, d] of which ``lengths`` [B] count: [B, C]; half precision as float32."""
        rows = widened(rows)
        pooled = ops.attentive_pool(rows, self.scores(rows).squeeze(-1), lengths)
        found: Tensor = self.project(pooled)
        return found
