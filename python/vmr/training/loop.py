"""The training loop."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import msgspec
import torch
from torch import Tensor

from vmr.data.dataset import MomentDataset
from vmr.devices import pick_device
from vmr.errors import InputError, TrainingError, VmrWarning
from vmr.evaluation.predictions import Prediction, write_predictions
from vmr.evaluation.scoring import Evaluation, evaluate
from vmr.files import write_text
from vmr.models.base import MomentModel
from vmr.models.stored import About, load_tensors, read_tensors
from vmr.progress import Progress, silent
from vmr.training.batches import EpochBatches
from vmr.training.config import Config, TrainingConfig
from vmr.training.distributed import on_main, process_group, rank_and_world, summed
from vmr.training.engine import Engine, Step
from vmr.training.environment import deterministic, interruptible, reading, terminable
from vmr.training.prediction import predict
from vmr.training.results import RunResults, Status, Watch, unwatched
from vmr.training.run_folder import LAST, RESULTS, Best, RunFolder, State
from vmr.training.setup import (
    Setup,
    batches_of,
    beyond_features,
    checked_protocol,
    loader,
    set_up,
)

_GOES_ON = "the same command goes on from there"
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_PICTURES = 30.0


def _mute(line: str) -> None:
    """Tells nobody."""


def train(
    config: Config,
    out: str | os.PathLike[str],
    *,
    test: bool = True,
    device: torch.device | str | None = None,
    command: str = "",
    watch: Watch = unwatched,
    progress: Progress = silent,
    tell: Callable[[str], None] = _mute,
) -> RunResults:
    """Trains a model, or goes on with a run that was interrupted, and tests the best weights once.

    A run that is started again ends with the weights, to the bit on a CPU, of one that was left alone.
    Where torchrun started several processes, they share each batch.

    Args:
        config: The run.
        out: Its folder. Afterwards it holds best/ (a checkpoint for
            :meth:`vmr.MomentModel.from_pretrained`), last.safetensors (what a run goes on from),
            metrics.jsonl, curves.png, results.json and the predictions of each split.
        test: Whether the test split is looked at. A run that was trained without is tested when it is
            started again with.
        device: None takes a GPU where there is one.
        command: That repeats the run, for the model card.
        watch: Told how far the run is.
        progress: Told how far an evaluation is, or the reading of sentences for negative queries.
        tell: Called with a line for people on the negative queries, and on batches that are smaller than
            the config says.

    Raises:
        InputError: A file or setting is not right; the folder holds another run.
        TrainingError: The loss or a weight is no number any more; the checkpoint before that stays.
        CacheError: A result cannot be written; the checkpoint before that stays.
        KeyboardInterrupt: SIGINT or SIGTERM came; the run was saved, and goes on when started again.
    """
    place = pick_device(device)
    with process_group(place), deterministic(config.training.deterministic), terminable():
        setup = set_up(config, progress)
        # One process writes; what goes wrong there is raised in all.
        held: list[RunFolder] = []
        on_main(lambda: held.append(RunFolder(out, config, setup.inputs, command)))
        try:
            run = _Run(config, setup, held[0] if held else None, place)
            run.command, run.watch, run.progress, run.tell = command, watch, progress, tell
            return run.go(test)
        except KeyboardInterrupt as stop:
            if stop.args:
                raise
            raise KeyboardInterrupt(f"what was saved stays, and {_GOES_ON}") from None
        finally:
            for folder in held:
                folder.close()


class _Run:
    """A run, from its checkpoint to its end."""

    command = ""
    watch: Watch = staticmethod(unwatched)
    progress: Progress = staticmethod(silent)
    tell: Callable[[str], None] = staticmethod(_mute)

    def __init__(
        self, config: Config, setup: Setup, folder: RunFolder | None, device: torch.device
    ) -> None:
        self.config, self.setup, self.device = config, setup, device
        self._folder = folder
        self._world = rank_and_world()[1]
        self._state = State()
        self._lines = 0
        self._clock = _Clock()
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        self._loss = math.nan
        self._value: float | None = None
        self._resumed = 0
        self._protocol = checked_protocol(config, setup.val)

    def go(self, test: bool) -> RunResults:
        """Trains where training is not over yet, and tests where that is asked for."""
        finished = on_main(self._finished)
        tests = {"test": self.setup.test} if test and self.setup.test is not None else {}
        if finished is not None and finished.metrics.keys() >= tests.keys():
            return finished
        training, model = self.config.training, self.setup.model
        kept = on_main(self._load)
        model.fit(self.setup.train, self.progress)
        if self.setup.parameters == 0:
            # Nothing is learned step by step.
            model.to(self.device)
            self._evaluate(model, 0)
            return self._end(model, tests)
        if training.epochs == 0:
            raise InputError("training.epochs: expected at least 1 for a model that learns, got 0")
        batches = self._batches()
        engine = Engine(model, training, batches.steps, self.device)
        if kept is not None:
            tensors, self._state = kept
            where = "the checkpoint" if self._folder is None else str(self._folder.path / LAST)
            engine.load(tensors, self._state.scale, where)
            self._resumed = self._state.step
            self._lines = self._state.lines
            self._clock.before = self._state.seconds
        if not self._state.ended:
            self._describe(batches)
            self._steps(engine)
        return self._end(engine.evaluated, tests)

    def _finished(self) -> RunResults | None:
        assert self._folder is not None
        path = self._folder.path / RESULTS
        return msgspec.json.decode(path.read_bytes(), type=RunResults) if path.is_file() else None

    def _load(self) -> tuple[dict[str, Tensor], State] | None:
        assert self._folder is not None
        kept = self._folder.load()
        self._folder.keep_lines(kept[1].lines if kept is not None else 0)
        return kept

    def _batches(self, start: int = 0) -> EpochBatches:
        setup, (rank, world) = self.setup, rank_and_world()
        return batches_of(
            self.config.training, setup.train.queries, negatives=setup.negatives,
            start=start, rank=rank, world=world,
        )  # fmt: skip

    def _describe(self, batches: EpochBatches) -> None:
        """Says of the batches what the config alone does not."""
        if self._folder is None:
            return
        if self.setup.negatives is not None:
            self.tell(self.setup.negatives.describe())
        elif self.setup.model.reads_negatives:
            self.tell("negative queries: none, since data.negatives is not set")
        size = self.config.training.batch_size
        if batches.per_epoch > -(-len(self.setup.train) // size):
            self.tell(
                f"one query a video: batches of {batches.largest} at most instead of {size}, since a "
                f"video has {batches.per_epoch:,} queries"
            )

    # ---- steps ----------------------------------------------------------------------------------------

    def _steps(self, engine: Engine) -> None:
        training = self.config.training
        batches = self._batches(self._state.step)
        batches_read = loader(self.setup.train, batches, self.config, self.device)
        beyond = 0
        with interruptible() as interrupted, reading(batches_read) as data:
            for number in range(self._state.step, batches.steps):
                with self._clock.running():
                    parts = [next(data) for _ in range(training.accumulate)]
                    if number < batches.per_epoch:
                        beyond += sum(map(beyond_features, parts))
                    step = engine.step(number, parts, interrupted())
                    self._add(step)
                self._state = msgspec.structs.replace(self._state, step=number + 1)
                epoch, rest = divmod(number + 1, batches.per_epoch)
                if rest == 0 or step.stopping or (number + 1) % training.log_every == 0:
                    self._log(engine, step.rate, epoch + (rest > 0))
                    if rest > 0 and (step.stopping or self._clock.checkpoint_is_due(training)):
                        self._save(engine)
                if rest == 0:
                    if epoch == 1 and beyond:
                        _warn_beyond(beyond)
                    last = number + 1 == batches.steps
                    if last or epoch % self.config.evaluation.every == 0:
                        self._evaluate(engine.evaluated, epoch)
                    ended = last or self._is_enough()
                    self._state = msgspec.structs.replace(self._state, ended=ended)
                    self._save(engine)
                self._show(batches, step.rate)
                # Signals may have come during the last evaluation, and not to all processes.
                if step.stopping or (self._state.ended and on_main(interrupted)):
                    raise KeyboardInterrupt(
                        f"step {number + 1} of {batches.steps} is saved, and {_GOES_ON}"
                    )
                if self._state.ended:
                    return

    def _add(self, step: Step) -> None:
        self._summed += 1
        found = {"loss": step.loss, **step.terms}
        if step.norm is not None:
            # The same in all processes: their sum is to be it again.
            found["gradient"] = step.norm / self._world
        for name, value in found.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _log(self, engine: Engine, rate: float, epoch: int) -> None:
        """A line of metrics.jsonl; no checkpoint is written without having passed here."""
        means = {name: float(total) / self._summed for name, total in summed(self._sums).items()}
        first = self._state.step - self._summed + 1
        self._sums, self._summed = {}, 0
        self._loss = means["loss"]
        if not (math.isfinite(means["loss"]) and _is_finite(engine.model)):
            self._give_up(means, first)
        # What a scaled gradient overflows in is no step.
        line = {name: value if math.isfinite(value) else None for name, value in means.items()}
        self._line({"step": self._state.step, "epoch": epoch, "rate": rate, **line,
                    "steps_per_second": round(self._clock.rate(), 3)})  # fmt: skip

    def _line(self, line: dict[str, object]) -> None:
        self._lines += 1
        if self._folder is not None:
            self._folder.add_line(line)

    def _give_up(self, means: dict[str, float], first: int) -> None:
        what = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        training = self.config.training
        advice = f"a lower training.optimiser.lr (now {training.optimiser.lr:g})"
        advice += ", training.clip" if training.clip is None else ""
        advice += ", training.precision=fp32" if training.precision != "fp32" else ""
        raise TrainingError(
            f"training: the loss or a weight is no number any more after steps {first} to "
            f"{self._state.step} ({what}); checkpoints from before that are whole. The same command "
            f"would do the same again: try {advice} with another --out"
        )

    def _save(self, engine: Engine) -> None:
        self._clock.saved = time.monotonic()
        if self._folder is not None:
            self._state = msgspec.structs.replace(
                self._state, lines=self._lines, scale=engine.scaler.state_dict(),
                seconds=self._clock.seconds(),
            )  # fmt: skip
            self._folder.save(engine.tensors(), self._state)

    def _show(self, batches: EpochBatches, rate: float) -> None:
        done = self._state.step
        if self._folder is None or not self._clock.look_is_due(done % batches.per_epoch == 0):
            return
        if self._summed:
            # This process's part of the loss stands for the others'.
            self._loss = float(self._sums["loss"]) * self._world / self._summed
        speed = self._clock.rate()
        self.watch(
            Status(
                epoch=-(-done // batches.per_epoch),
                epochs=self.config.training.epochs,
                step=done,
                steps=batches.steps,
                loss=self._loss,
                rate=rate,
                steps_per_second=speed,
                queries_per_second=speed * len(self.setup.train) / batches.per_epoch,
                metric=self.config.evaluation.metric,
                value=self._value,
                best=self._state.best,
                seconds_left=(batches.steps - done) / speed if speed else math.inf,
                resumed=self._resumed,
                ends_epoch=done % batches.per_epoch == 0,
            )
        )

    # ---- evaluation -----------------------------------------------------------------------------------

    def _evaluate(self, model: MomentModel, epoch: int) -> None:
        """Scores the validation queries, and keeps the weights where they are the best so far."""
        metric = self.config.evaluation.metric
        metrics = self._scored(self._predicted(model, self.setup.val), self.setup.val).brief
        self._value = metrics[metric]
        value = -math.inf if self._value is None else self._value
        self._line({"step": self._state.step, "epoch": epoch, "val": metrics})
        best, since = self._state.best, self._state.since_best + 1
        if best is None or value > best.value:
            since = 0
            best = Best(value=value, epoch=epoch, step=self._state.step, metrics=metrics)
            self._keep_best(model, best, {"val": metrics})
        self._state = msgspec.structs.replace(self._state, best=best, since_best=since)
        if self._folder is not None and self._clock.picture_is_due():
            self._draw()

    def _is_enough(self) -> bool:
        early = self.config.training.early_stopping
        return early is not None and self._state.since_best >= early.patience

    def _predicted(self, model: MomentModel, dataset: MomentDataset) -> list[Prediction]:
        return predict(
            model,
            dataset,
            batch_size=self.config.evaluation.batch_size,
            workers=self.config.data.workers,
            device=self.device,
            progress=self.progress if self._folder is not None else silent,
        )

    def _scored(self, predictions: list[Prediction], dataset: MomentDataset) -> Evaluation:
        return evaluate(predictions, dataset.queries, protocol=self._protocol)

    def _keep_best(
        self, model: MomentModel, best: Best, metrics: dict[str, dict[str, float | None]]
    ) -> None:
        if self._folder is None:
            return
        model.about = About(
            name=self.config.name,
            pack=self.setup.pack.spec,
            data=dict(self.setup.sources),
            protocol=self._protocol,
            metrics=metrics,
            command=self.command,
            steps=best.step,
            seed=self.config.training.seed,
            anchor_pack=anchors.spec if (anchors := self.setup.train.anchor_pack) else None,
        )
        model.save_pretrained(self._folder.path / "best")

    def _draw(self) -> None:
        from vmr.viz.curves import save_curves

        assert self._folder is not None
        path = self._folder.path / "curves.png"
        save_curves(self._folder.lines(), self.config.evaluation.metric, path, self.config.name)

    def _end(self, model: MomentModel, tests: Mapping[str, MomentDataset]) -> RunResults:
        """The results of the best weights, which are tested here, once."""
        folder = self._folder
        load_tensors(
            model, on_main(lambda: read_tensors(folder.path / "best") if folder else {}), "best"
        )
        metrics: dict[str, dict[str, float | None]] = {}
        for split, dataset in {"val": self.setup.val, **tests}.items():
            predictions = self._predicted(model, dataset)
            if folder is not None:
                write_predictions(folder.path / f"{split}_predictions.jsonl", predictions)
            # A test set whose ground truth is kept secret is predicted for its server.
            known = any(query.windows or query.saliency for query in dataset.queries)
            metrics[split] = self._scored(predictions, dataset).brief if known else {}
        assert self._state.best is not None
        results = RunResults(
            name=self.config.name,
            kind=self.setup.model.kind,
            parameters=self.setup.parameters,
            steps=self._state.step,
            seed=self.config.training.seed,
            processes=self._world,
            seconds=round(self._clock.seconds(), 3),
            protocol=self._protocol,
            metric=self.config.evaluation.metric,
            best=self._state.best,
            metrics=metrics,
        )
        self._keep_best(model, self._state.best, metrics)
        if folder is not None:
            self._draw()
            text = msgspec.json.format(msgspec.json.encode(results)).decode()
            write_text(folder.path / RESULTS, text + "\n")
        return results


class _Clock:
    """What a run asks of the time."""

    def __init__(self) -> None:
        self._begun = self.saved = time.monotonic()
        self._drawn = self._looked = -math.inf
        self._stepping = 0.0
        self._steps = 0
        self.before = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts the block as a step."""
        begin = time.monotonic()
        yield
        self._stepping += time.monotonic() - begin
        self._steps += 1

    def rate(self) -> float:
        """Steps a second."""
        return self._steps / self._stepping if self._stepping else 0.0

    def seconds(self) -> float:
        """Of the run, over all its starts."""
        return self.before + time.monotonic() - self._begun

    def checkpoint_is_due(self, training: TrainingConfig) -> bool:
        return time.monotonic() - self.saved >= 60 * training.checkpoint_minutes

    def look_is_due(self, anyway: bool) -> bool:
        if anyway or time.monotonic() - self._looked >= _SECONDS_BETWEEN_LOOKS:
            self._looked = time.monotonic()
            return True
        return False

    def picture_is_due(self) -> bool:
        if time.monotonic() - self._drawn >= _SECONDS_BETWEEN_PICTURES:
            self._drawn = time.monotonic()
            return True
        return False


def _is_finite(model: torch.nn.Module) -> bool:
    """Whether all weights are numbers."""
    norms = torch._foreach_norm([value.detach() for value in model.parameters()])
    return bool(torch.isfinite(torch.stack(norms)).all())


def _warn_beyond(count: int) -> None:
    warnings.warn(
        f"{count} training windows begin after the last row of their video's features and cannot be "
        "found: the features are cut (max_rows of the pack), or shorter than the video",
        VmrWarning,
        stacklevel=2,
    )
