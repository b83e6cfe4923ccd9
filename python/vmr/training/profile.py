"""Where the time of a training step goes."""

from __future__ import annotations

from typing import Any

import torch

from vmr.devices import pick_device
from vmr.errors import InputError
from vmr.progress import Stopwatch
from vmr.tables import table
from vmr.training.config import Config
from vmr.training.engine import Engine
from vmr.training.environment import reading
from vmr.training.setup import batches_of, loader, set_up

_WARM_UP = 5


def profile(
    config: Config, steps: int = 30, *, device: torch.device | str | None = None
) -> dict[str, Any]:
    """Runs some steps of a config, and writes nothing.

    Args:
        config: The run.
        steps: That are timed, after five that are not.
        device: None takes a GPU where there is one.

    Returns:
        ``steps``, ``seconds`` (of them all), ``stages`` (seconds of each by name; "data" is the wait
        for the next batch), ``queries_per_second`` and ``parameters``.

    Raises:
        InputError: As :func:`vmr.training.train`, and for a model that learns nothing step by step.
    """
    place = pick_device(device)
    setup = set_up(config)
    if setup.parameters == 0:
        raise InputError(f"{config.name}: {setup.model.kind} learns nothing step by step")
    setup.model.fit(setup.train)
    training = config.training
    epochs = -(-(steps + _WARM_UP) * training.batch_size // len(setup.train)) + 1
    batches = batches_of(training, setup.train.queries, epochs=epochs, negatives=setup.negatives)
    watch = Stopwatch()
    engine = Engine(setup.model, training, batches.steps, place, watch)
    read = loader(setup.train, batches, config, place)
    queries = 0
    total = Stopwatch()
    with reading(read) as data:
        for number in range(_WARM_UP + steps):
            if number == _WARM_UP:
                watch.seconds.clear()
                total.seconds.clear()
                queries = 0
            with total.stage("all"):
                with watch.stage("data"):
                    parts = [next(data) for _ in range(training.accumulate)]
                engine.step(number, parts)
            queries += sum(map(len, parts))
    seconds = total.seconds["all"]
    stages = dict(watch.seconds)
    stages["rest"] = max(0.0, seconds - sum(stages.values()))
    return {
        "version": 1,
        "config": config.name,
        "device": str(place),
        "parameters": setup.parameters,
        "steps": steps,
        "seconds": seconds,
        "queries_per_second": queries / seconds,
        "stages": stages,
    }


def profile_table(found: dict[str, Any]) -> str:
    """What :func:`profile` found, for people."""
    rows = [
        [name, f"{1000 * seconds / found['steps']:.2f}", f"{100 * seconds / found['seconds']:.1f}"]
        for name, seconds in found["stages"].items()
    ]
    rows.append(["a step", f"{1000 * found['seconds'] / found['steps']:.2f}", "100.0"])
    head = (
        f"{found['config']} on {found['device']}: {found['parameters']:,} parameters, "
        f"{found['steps'] / found['seconds']:.1f} steps/s, {found['queries_per_second']:,.0f} queries/s"
    )
    return "\n".join([head, "", *table(["stage", "ms", "%"], rows)])
