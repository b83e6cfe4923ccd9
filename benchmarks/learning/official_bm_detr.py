"""Trains the official BM-DETR (minjoong507/BM-DETR) as ``vmr train`` trains vmr's.

    python benchmarks/learning/official_bm_detr.py CHECKOUT CONFIG [KEY=VALUE ...] --out DIR

CHECKOUT is a clone of the repository; CONFIG and its settings are those that ``vmr train`` takes, of a
bm-detr that behaves as the code does (bm-detr-official.yaml). The features, the order of the batches,
the negative query of each query, the learning rate of each step, the starting weights (--own-weights
takes theirs) and the epochs that are evaluated are vmr's. All else is the official code: its items and
what it draws for them (margin pairs, temporal shifts), its batches, model, matching, losses, optimiser,
clipping and answers. There are two stand-ins: utils.misc, of which one function is needed, and which
would ask for torchvision; and, where the hidden size is not 256, the sine encoding of spans, which is
written for 256.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import torch
from torch import nn
from torch.utils.data import DataLoader

from vmr.data.dataset import MomentDataset
from vmr.errors import require
from vmr.evaluation.predictions import Prediction, write_predictions
from vmr.evaluation.scoring import evaluate
from vmr.files import make_folder, write_text
from vmr.models.bm_detr_config import BMDETRConfig
from vmr.models.layers.dab import logits_of, span_positions
from vmr.models.official.bm_detr import OFFICIAL, rules
from vmr.models.official.names import translated
from vmr.training.config import Config, load_config
from vmr.training.optim import rate_factor, set_rate
from vmr.training.results import RunResults
from vmr.training.run_folder import RESULTS, Best
from vmr.training.setup import Setup, batches_of, checked_protocol, set_up

# What the code does beside that, whatever its options say.
_ALWAYS = {"background": True, "learnable_spans": True, "auxiliary": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("config")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--own-weights", action="store_true", help="start from theirs")
    asked = parser.parse_args()
    config = load_config(asked.config, asked.settings)
    setup = set_up(config)
    official = Official(asked.checkout, config, setup, own_weights=asked.own_weights)
    make_folder(asked.out)
    official.train(asked.out)


class Official:
    """Their model on vmr's data.

    Args:
        checkout: A clone of their repository.
        config: The run.
        setup: What it opened; its model gives the starting weights.
        own_weights: Whether theirs are drawn instead.
    """

    def __init__(self, checkout: Path, config: Config, setup: Setup, *, own_weights: bool) -> None:
        self.config, self.setup = config, setup
        model = setup.model.config
        assert isinstance(model, BMDETRConfig)
        shifting = "none" if model.shifting == "none" else "published"
        wanted = {**OFFICIAL, **_ALWAYS, "shifting": shifting}
        given = msgspec.structs.asdict(model)
        require(
            config.name,
            given,
            {key: (given[key] == value, repr(value)) for key, value in wanted.items()},
        )
        self.theirs = _modules(checkout, model)
        self.options = self._options(model)
        torch.manual_seed(config.training.seed)
        random.seed(config.training.seed)
        made = self.theirs.inference.setup_model(self.options)
        self.model: nn.Module = made[0]
        self.criterion, self.optimiser = made[1], made[2]
        if not own_weights:
            _copy_weights(setup.model, model, self.model)

    def _options(self, model: BMDETRConfig) -> Any:
        parser = self.theirs.config.BaseOptions()
        parser.initialize()
        options = parser.parser.parse_args([])
        training, clip = self.config.training, self.setup.pack.spec.seconds_per_row
        assert clip is not None, "the code wants rows of one length"
        longest = 1e6 if model.longest is None else model.longest
        shifting = model.shifting != "none"
        changes = {
            "device": torch.device("cpu"), "pin_memory": False, "num_workers": 0, "debug": False,
            "hidden_dim": model.hidden, "nheads": model.heads, "dropout": model.dropout,
            "input_dropout": model.input_dropout, "n_input_proj": model.input_layers,
            "enc_layers": model.encoder_layers, "dec_layers": model.decoder_layers,
            "dim_feedforward": model.feed_forward, "transformer_activation": model.activation,
            "num_queries": model.moment_queries, "contrastive_hdim": model.contrastive_dim,
            "temperature": model.temperature, "v_feat_dim": model.video_dim,
            "t_feat_dim": model.text_dim, "clip_length": clip, "max_v_l": round(longest / clip),
            "span_loss_coef": model.span_weight, "set_cost_span": model.span_weight,
            "giou_loss_coef": model.giou_weight, "set_cost_giou": model.giou_weight,
            "label_loss_coef": model.label_weight, "set_cost_class": model.label_weight,
            "eos_coef": model.background_weight, "lw_saliency": model.margin_weight / 2,
            "saliency_margin": model.margin, "lw_prob_loss_coef": model.probability_weight,
            "lw_contrastive_loss_coef": model.semantic_weight,
            "use_temporal_shifting": shifting,
            "additional_losses": ["shifting"] if shifting else [],
            "lr": training.optimiser.lr, "wd": training.optimiser.weight_decay,
            "grad_clip": training.clip or -1, "n_epoch": training.epochs, "resume": None,
            "eval_bsz": self.config.evaluation.batch_size,
            "train_log_filepath": os.devnull, "train_log_txt_formatter": "{loss_str}",
        }  # fmt: skip
        for name, value in changes.items():
            setattr(options, name, value)
        return options

    def train(self, out: Path) -> None:
        """Trains, keeps the weights that validation chooses, tests them and writes what came of it."""
        config, setup, began = self.config, self.setup, time.monotonic()
        training, metric = config.training, config.evaluation.metric
        protocol = checked_protocol(config, setup.val)
        batches = batches_of(training, setup.train.queries, negatives=setup.negatives)
        reader: Iterator[Any] = iter(
            DataLoader(
                self._items(setup.train, learning=True),
                batch_sampler=batches,
                collate_fn=self.theirs.data.start_end_collate,
                generator=torch.Generator(),
            )
        )
        epochs = _Epochs(reader, self.optimiser, config, batches.per_epoch, batches.steps)
        quiet = SimpleNamespace(add_scalar=lambda *_: None)
        best: Best | None = None
        weights: dict[str, torch.Tensor] = {}
        for epoch in range(1, training.epochs + 1):
            self.theirs.train.train_epoch(
                self.model, self.criterion, epochs, self.optimiser, self.options, epoch - 1, quiet
            )
            if epoch < training.epochs and epoch % config.evaluation.every:
                continue
            found = evaluate(self.predict(setup.val), setup.val.queries, protocol=protocol).brief
            value = found[metric]
            assert value is not None
            print(f"epoch {epoch}/{training.epochs}: {metric} {value:.2f} on val", flush=True)
            if best is None or value > best.value:
                best = Best(value=value, epoch=epoch, step=epochs.step, metrics=found)
                weights = copy.deepcopy(self.model.state_dict())
        assert best is not None
        assert setup.test is not None
        self.model.load_state_dict(weights)
        metrics: dict[str, dict[str, float | None]] = {}
        for split, dataset in (("val", setup.val), ("test", setup.test)):
            answers = self.predict(dataset)
            write_predictions(out / f"{split}_predictions.jsonl", answers)
            metrics[split] = evaluate(answers, dataset.queries, protocol=protocol).brief
        results = RunResults(
            name=f"{config.name}, official code",
            kind="official bm-detr",
            parameters=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            steps=epochs.step,
            seed=training.seed,
            processes=1,
            seconds=round(time.monotonic() - began, 3),
            protocol=protocol,
            metric=metric,
            best=best,
            metrics=metrics,
        )
        write_text(out / RESULTS, msgspec.json.format(msgspec.json.encode(results)).decode() + "\n")

    @torch.no_grad()
    def predict(self, dataset: MomentDataset) -> list[Prediction]:
        """Their answers, without negative queries, as their code gives them for its own evaluation."""
        batches = DataLoader(
            self._items(dataset, learning=False),
            batch_size=self.options.eval_bsz,
            collate_fn=self.theirs.data.start_end_collate,
            generator=torch.Generator(),
        )
        answers, _ = self.theirs.inference.compute_mr_results(self.model, batches, self.options)
        return [
            Prediction(
                qid=answer["qid"],
                pred_relevant_windows=[tuple(window) for window in answer["pred_relevant_windows"]],
                pred_saliency_scores=answer["pred_saliency_scores"],
            )
            for answer in answers
        ]

    def _items(self, dataset: MomentDataset, *, learning: bool) -> Any:
        """Their items of vmr's queries, with the negative query that is asked for."""
        lines = {query.qid: _as_line(query) for query in dataset.queries}
        options = self.options

        class Items(self.theirs.data.StartEndDataset):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:  # theirs lists folders
                self.dset_name = (
                    "hl" if "saliency_scores" in next(iter(lines.values())) else "charades"
                )
                self.use_video = self.use_tef = True
                self.load_labels = learning
                self.use_temporal_shifting = learning and options.use_temporal_shifting
                self.clip_len, self.max_windows = options.clip_length, options.max_windows
                self.span_loss_type = options.span_loss_type

            def __len__(self) -> int:
                return len(dataset)

            def __getitem__(self, index: int | tuple[int, int]) -> Any:
                place, negative = index if isinstance(index, tuple) else (index, None)
                line = copy.deepcopy(lines[dataset.queries[place].qid])  # theirs shuffles windows
                self.use_nq = negative is not None
                if negative is not None:
                    line["neg_query_ids"] = [dataset.queries[negative].qid]
                self._item = dataset[index]
                self.data = {place: line}
                return super().__getitem__(place)

            def _get_query_feat_by_qid(self, qid: int | str, type: str = "") -> torch.Tensor:
                text = self._item.text if qid == self._item.query.qid else self._item.negative_text
                assert text is not None
                return text

            def _get_video_feat_by_vid(self, vid: str) -> torch.Tensor:
                video: torch.Tensor = self._item.video[:, :-2]  # theirs adds TEF
                return video

        return Items()


class _Epochs:
    """An epoch's batches whenever it is gone over, the learning rate being set before each."""

    def __init__(
        self,
        reader: Iterator[Any],
        optimiser: torch.optim.Optimizer,
        config: Config,
        per_epoch: int,
        steps: int,
    ) -> None:
        self.step = 0
        self._reader, self._optimiser, self._config = reader, optimiser, config
        self._per_epoch, self._steps = per_epoch, steps

    def __len__(self) -> int:
        return self._per_epoch

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._per_epoch):
            set_rate(
                self._optimiser, rate_factor(self._config.training.schedule, self.step, self._steps)
            )
            yield next(self._reader)
            self.step += 1


def _as_line(query: Any) -> dict[str, Any]:
    """A query as their annotation files have it."""
    line: dict[str, Any] = {
        "qid": query.qid,
        "query": query.text,
        "vid": query.video,
        "duration": query.duration,
        "relevant_windows": [list(window) for window in query.windows],
    }
    if query.saliency is not None:
        line["relevant_clip_ids"] = list(query.saliency.clip_ids)
        line["saliency_scores"] = [list(scores) for scores in query.saliency.scores]
    return line


def _modules(checkout: Path, model: BMDETRConfig) -> Any:
    """Their modules."""
    sys.path.insert(0, str(checkout))
    os.environ["TQDM_DISABLE"] = "1"
    utilities: Any = ModuleType("utils.misc")
    utilities.inverse_sigmoid = lambda shares: logits_of(shares, 1e-3)
    sys.modules["utils.misc"] = utilities
    boards: Any = ModuleType("torch.utils.tensorboard")
    boards.SummaryWriter = None
    sys.modules["torch.utils.tensorboard"] = boards
    import logging

    from bm_detr import config, inference, start_end_dataset, train, transformer

    logging.disable(logging.INFO)
    if model.hidden != 256:
        transformer.gen_sineembed_for_position = lambda spans: span_positions(spans, model.hidden)
    return SimpleNamespace(config=config, inference=inference, data=start_end_dataset, train=train)


def _copy_weights(ours: nn.Module, config: BMDETRConfig, theirs: nn.Module) -> None:
    """Puts vmr's weights into their model."""
    own, state = ours.state_dict(), theirs.state_dict()
    found = translated(state, rules(config), ours, "their model")
    with torch.no_grad():
        for name, value in found.items():
            value.copy_(own[name])


if __name__ == "__main__":
    main()
