"""Padded rows behind one another, without the padding, for layers that look at each row alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vmr.models.layers.padding import without_padding


class KeptRows:
    """Which rows [A, N] of padded samples are kept.

    On a CPU these are the rows that are no padding: linear layers then do nothing for padding. On other
    devices, and where a graph is traced, shapes must not depend on values: all rows are kept, and
    padding is zeros.

    Args:
        mask: [A, N] truth values, false for padding.

    Attributes:
        mask: It.
        places: [R] int64, the kept rows' places in [A * N]; None for all.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.places: Tensor | None = None
        self._full = False
        if mask.device.type == "cpu" and not torch.compiler.is_compiling():
            self._full = bool(mask.all())
            if not self._full:
                self.places = mask.flatten().nonzero()[:, 0]

    def first(self, samples: int) -> int:
        """How many rows the first samples have."""
        return (
            int(self.mask[:samples].sum())
            if self.places is not None
            else self.mask[:samples].numel()
        )

    def taken(self, rows: Tensor) -> Tensor:
        """Rows [A, N, D] as [R, D]."""
        if self.places is not None:
            return gathered(rows.reshape(-1, rows.shape[-1]), self.places)
        return (rows if self._full else without_padding(rows, self.mask)).reshape(
            -1, rows.shape[-1]
        )

    def put_back(self, flat: Tensor) -> Tensor:
        """Rows [R, D] as [A, N, D]; zeros elsewhere."""
        shape = *self.mask.shape, flat.shape[-1]
        if self.places is None:
            return flat.reshape(shape)
        return placed(flat, self.places, self.mask.numel()).view(shape)


class JoinedRows:
    """Rows of frames and of tokens, each behind one another, and the samples that both belong to.

    Args:
        frames: [A, T] of them.
        tokens: [A, L] of them.
    """

    def __init__(self, frames: KeptRows, tokens: KeptRows) -> None:
        self._frames, self._tokens = frames, tokens
        self.mask = torch.cat((frames.mask, tokens.mask), dim=1)
        rows, words, both = frames.mask.shape[1], tokens.mask.shape[1], self.mask.shape[1]
        self._split = frames.first(len(frames.mask))
        self._places: Tensor | None = None
        if frames.places is not None or tokens.places is not None:
            one, other = (
                torch.arange(part.mask.numel()) if part.places is None else part.places
                for part in (frames, tokens)
            )
            seen = one.div(rows, rounding_mode="floor") * both + one % rows
            read = other.div(words, rounding_mode="floor") * both + rows + other % words
            self._places = torch.cat((seen, read))

    def together(self, flat: Tensor) -> Tensor:
        """Frames' rows and then tokens', [R, D], as [A, T + L, D]; zeros elsewhere."""
        if self._places is not None:
            found = placed(flat, self._places, self.mask.numel())
            return found.view(*self.mask.shape, flat.shape[-1])
        seen, read = flat[: self._split], flat[self._split :]
        return torch.cat((self._frames.put_back(seen), self._tokens.put_back(read)), dim=1)

    def apart(self, rows: Tensor) -> Tensor:
        """Rows [A, T + L, D] as [R, D], frames' and then tokens'."""
        columns = rows.shape[-1]
        if self._places is not None:
            return gathered(rows.reshape(-1, columns), self._places)
        count = self._frames.mask.shape[1]
        return torch.cat(
            (rows[:, :count].reshape(-1, columns), rows[:, count:].reshape(-1, columns))
        )


def gathered(rows: Tensor, places: Tensor) -> Tensor:
    """Rows [N, D] at places [R]: [R, D]. As an embedding, whose gradient torch adds up fast."""
    return F.embedding(places, rows)


def placed(rows: Tensor, places: Tensor, count: int) -> Tensor:
    """Rows [R, D] at places [R] of [count, D]; zeros elsewhere."""
    return rows.new_zeros(count, rows.shape[-1]).index_copy(0, places, rows)
