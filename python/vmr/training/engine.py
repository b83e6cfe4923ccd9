"""One optimiser step, and all that it changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._pytree import tree_map_only

from vmr.data.dataset import Batch
from vmr.models.base import MomentModel
from vmr.models.stored import load_tensors
from vmr.progress import Stopwatch
from vmr.training.config import TrainingConfig
from vmr.training.distributed import rank_and_world, summed
from vmr.training.optim import build_optimiser, rate_factor, set_rate

_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did.

    Attributes:
        loss: Scalar tensor; this process's part of it, to be summed over processes.
        terms: Scalar tensors by name; likewise.
        rate: The learning rate.
        norm: Of the gradient before clipping, a scalar tensor; None where it is not clipped.
        stopping: Whether any process asked to stop.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    rate: float
    norm: Tensor | None
    stopping: bool


class Engine:
    """A model with all that a step of its training changes: weights, optimiser, running mean, scale.

    What is drawn at random in a step follows from the seed, the step's number and the process alone, so
    that nothing of a generator has to be kept.

    Args:
        model: What is trained; where a process group runs, all processes get the first one's weights.
        config: How.
        steps: Of the whole run, for the schedule.
        device: Where.
        stopwatch: Where time is added up by stage; on a GPU each stage then waits for its end.

    Attributes:
        model: The model itself, on its device.
        optimiser: Its optimiser.
        averaged: The running mean of its weights; None without one.
        scaler: Of the loss; it does nothing but for "fp16".

    Raises:
        InputError: A group of parameters matches none.
    """

    def __init__(
        self,
        model: MomentModel,
        config: TrainingConfig,
        steps: int,
        device: torch.device,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.config, self.device, self._steps = config, device, steps
        self._rank, self._world = rank_and_world()
        self._stopwatch = stopwatch
        self.model = model.to(device).train()
        self.averaged: AveragedModel | None = None
        if config.ema is not None:
            average: Any = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        if config.compile:
            # torch's compiler does not manage varying shapes here: the loader pads all batches alike.
            model.compile(dynamic=False)
        self._wrapped: nn.Module = model
        if self._world > 1:
            self._wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
        self.optimiser = build_optimiser(model, config.optimiser)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    @property
    def evaluated(self) -> MomentModel:
        """The model that is evaluated and kept: the running mean, where there is one."""
        if self.averaged is None:
            return self.model
        return cast("MomentModel", self.averaged.module)

    def step(self, number: int, parts: Sequence[Batch], stop: bool = False) -> Step:
        """One step over this process's parts of a batch; all processes must call it.

        Args:
            number: Of the step, from 0.
            parts: The parts, whose gradients are accumulated; as many in each process.
            stop: Whether this process asks all to stop.
        """
        seed_step(self.config.seed, number, self._rank, self.device)
        rate = set_rate(self.optimiser, rate_factor(self.config.schedule, number, self._steps))
        with self._stage("to the device"):
            parts = [part.to(self.device, non_blocking=True) for part in parts]
        counts, stopping = self._counts(parts, stop)
        self.optimiser.zero_grad(set_to_none=True)
        loss: Tensor | None = None
        terms: dict[str, Tensor] = {}
        for place, part in enumerate(parts):
            with self._one_reduction(place == len(parts) - 1):
                with self._stage("forward"):
                    with autocast(self.device, self.config.precision):
                        outputs = self._wrapped(**self.model.inputs(part))
                    found = self.model.loss(in_float(outputs), part, counts)
                with self._stage("backward"):
                    # Processes' gradients are averaged, and the parts of a loss add up.
                    scaled: Any = self.scaler.scale(found.total * self._world)
                    scaled.backward()
            loss = found.total.detach() + (0 if loss is None else loss)
            for name, term in found.terms.items():
                terms[name] = term.detach() + terms.get(name, 0)
        assert loss is not None
        with self._stage("optimiser"):
            norm = self._update()
        return Step(loss, terms, rate, norm, stopping)

    def _counts(self, parts: Sequence[Batch], stop: bool) -> tuple[Mapping[str, Tensor], bool]:
        """What the terms of the loss are divided by, over all parts of all processes."""
        counts: dict[str, Tensor] = {}
        for part in parts:
            for name, count in self.model.loss_counts(part).items():
                counts[name] = counts[name] + count if name in counts else count
        if self._world == 1:
            return counts, stop
        counts["(stop)"] = torch.tensor(float(stop), device=self.device)
        counts = summed(counts)
        return counts, bool(counts.pop("(stop)") > 0)

    def _update(self) -> Tensor | None:
        norm = None
        if self.config.clip is not None:
            self.scaler.unscale_(self.optimiser)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return norm

    def _one_reduction(self, last: bool) -> AbstractContextManager[None]:
        """Gradients travel once a step: with the last part."""
        if last or not isinstance(self._wrapped, DistributedDataParallel):
            return nullcontext()
        quiet: AbstractContextManager[None] = self._wrapped.no_sync()
        return quiet

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        if self._stopwatch is None:
            yield
            return
        with self._stopwatch.stage(name):
            yield
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

    # ---- what a checkpoint keeps ----------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that a step changes, by name."""
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.averaged is not None:
            mean = self.averaged.state_dict()
            found |= {f"averaged.{name}": value for name, value in mean.items()}
        for place, kept in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser.{place}.{name}": value for name, value in kept.items()}
        return found

    def load(
        self, tensors: Mapping[str, Tensor], scale: Mapping[str, Any], where: str = "checkpoint"
    ) -> None:
        """Puts back what :meth:`tensors` gave, and ``scale``, the state of :attr:`scaler`.

        Raises:
            InputError: The tensors are another model's; ``where`` says in the message whose they are.
        """
        load_tensors(self.model, _below("model.", tensors), where)
        if self.averaged is not None:
            self.averaged.load_state_dict(_below("averaged.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimiser.", tensors).items():
            place, _, key = name.partition(".")
            state.setdefault(int(place), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        if scale:
            self.scaler.load_state_dict(dict(scale))


def seed_step(seed: int, step: int, rank: int = 0, device: torch.device | str = "cpu") -> None:
    """Seeds torch's generators, of the CPU and of a GPU in use, for one step of one process."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    number = int(words[0]) >> 1
    # torch.manual_seed notes a traceback at every call where CUDA was not used yet.
    torch.default_generator.manual_seed(number)
    if torch.device(device).type == "cuda":
        torch.cuda.manual_seed(number)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Autocast to "bf16" or "fp16"; nothing for "fp32"."""
    dtype = _PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def in_float(outputs: Any) -> Any:
    """The same with half-precision tensors as float32: losses and windows are computed in it."""

    def change(value: Tensor) -> Tensor:
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    return tree_map_only(Tensor, change, outputs)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)
    }
