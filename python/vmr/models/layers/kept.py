"""What follows from weights alone, kept between calls that learn nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Kept(Generic[T]):
    """Something made of weights, made anew once they change.

    It is no part of a model's state: copies and checkpoints of the model make their own. What changes
    values in place behind autograd's back (``weight.data.mul_(2)``) is not seen; under
    ``torch.no_grad()`` it is.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, T] = {}
        self._of: Hashable = None
        self._weights: list[Tensor] = []

    def get(self, key: Hashable, weights: Sequence[Tensor], make: Callable[[], T]) -> T:
        """What ``make`` gives for these weights; other keys of the same weights stay too."""
        of = tuple((w.data_ptr(), w._version, w.dtype, w.device) for w in weights)
        if of != self._of:
            # The weights' memory is held, so that no other weights can come to lie there.
            self._made, self._of = {}, of
            self._weights = [weight.detach() for weight in weights]
        if key not in self._made:
            # What is made in inference mode could not be used outside it.
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(weights[0].device.type, enabled=False),
            ):
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
