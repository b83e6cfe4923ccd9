"""What follows from weights alone, kept between calls that learn nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Kept(Generic[T]):
    """Something made of weights, made anew once they change.

    It is no part of a model's state: copies and checkpoints of the model make their own.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, T] = {}
        self._of: Hashable = None

    @torch.no_grad()
    def get(self, key: Hashable, weights: Sequence[Tensor], make: Callable[[], T]) -> T:
        """What ``make`` gives for these weights; other keys of the same weights stay too."""
        of = tuple((w.data_ptr(), w._version, w.dtype, w.device) for w in weights)
        if of != self._of:
            self._made, self._of = {}, of
        if key not in self._made:
            with torch.autocast(weights[0].device.type, enabled=False):
                self._made[key] = make()
        return self._made[key]

    def __deepcopy__(self, memo: object) -> Kept[T]:
        return Kept()

    def __reduce__(self) -> tuple[type[Kept[T]], tuple[()]]:
        return Kept, ()


def may_keep(weights: Sequence[Tensor]) -> bool:
    """Whether a call may use what is kept: nothing learns, and nothing traces the call."""
    if torch.compiler.is_compiling() or any(weight.is_inference() for weight in weights):
        return False
    return not (torch.is_grad_enabled() and any(weight.requires_grad for weight in weights))
