"""Configs: what is right is read, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.corpus import write_config
from vmr.data.pack_spec import list_packs
from vmr.errors import InputError
from vmr.evaluation.protocols import protocol_named
from vmr.models.registry import model_type
from vmr.settings import convert
from vmr.training import list_configs, load_config


@pytest.mark.parametrize("name", list_configs())
def test_ready_configs_are_right(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    assert config.about
    kind = model_type(config.model["kind"])
    convert(config.model, kind.config_type, name)
    if config.data.pack is not None:
        assert config.data.pack in list_packs()
    protocol = protocol_named(config.evaluation.protocol or "qvhighlights")
    known = dict(protocol.brief_without_highlights or protocol.brief)
    reported = config.paper.metrics if config.paper else {}
    assert {config.evaluation.metric, *reported} <= known.keys()


def test_arguments_replace_settings(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    config = load_config(
        path,
        ["training.epochs=7", "training.optimiser.lr=1e-4", "data.test=a=b.jsonl",
         "training.early_stopping.patience=2", "training.ema=null"],
    )  # fmt: skip
    assert config.training.epochs == 7
    assert config.training.optimiser.lr == 1e-4
    assert config.data.test == "a=b.jsonl"
    assert config.training.early_stopping is not None
    assert config.training.early_stopping.patience == 2
    assert config.training.ema is None


def test_a_base_is_changed_key_by_key(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("base: moment-detr-qvhighlights\nname: own\ntraining: {seed: 3}\n")
    config, base = load_config(str(own)), load_config("moment-detr-qvhighlights")
    assert (config.name, config.training.seed) == ("own", 3)
    assert config.training.optimiser == base.training.optimiser
    again = tmp_path / "again.yaml"
    again.write_text("base: own.yaml\nname: again\n")
    assert load_config(str(again)).training.seed == 3
    own.write_text("base: own.yaml\nname: own\n")
    with pytest.raises(InputError, match="base: expected the name of another config"):
        load_config(str(own))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("training.epoch=3", "unknown key training.epoch; did you mean 'training.epochs'?"),
        ("training.optimiser.learning=3", "unknown key training.optimiser.learning"),
        ("trainning.seed=3", "unknown key trainning; did you mean 'training'?"),
        ("training.epochs=many", r"training.epochs: expected `int`, got `str` \('many'\)"),
        ("training.lr=1", "unknown key training.lr; did you mean 'training.optimiser.lr'?"),
        ("training.schedule.kind=cosin",
         "schedule.kind: expected one of .*linear, step; got 'cosin'; did you mean 'cosine'"),
        ("training.optimiser.groups=[{match: x, rl: 1}]",
         r"unknown key training.optimiser.groups.0.rl; known here: match, lr"),
        ("training.accumulate=9", "training.accumulate: expected 1 to 8, got 9"),
        ("training.epochs=-1", "training.epochs: expected 0 to"),
        ("training.ema=1.5", "training.ema: expected 0 to 1, got 1.5"),
        ("training.seed.x=1", "training.seed is one value and has no keys"),
        ("epochs", "expected KEY=VALUE"),
        ("version=2", "is in version 2 of the format, and this vmr reads up to 1; update vmr"),
        ("training.early_stopping.patience=0", "patience: expected 1 to"),
        ("training.optimiser.betas=[1.5, 0.9]", "betas.0: expected 0 to 1, got 1.5"),
        ("training.optimiser.groups=[{match: x, lr: -1}]", "groups.0.lr: expected 0 to 1000"),
        ("training.schedule.kind=step", "schedule.drops: expected shares of all steps.*got none"),
        ("training.schedule={kind: step, drops: [0.4, 40]}", "drops.1: expected 0 to 1, got 40"),
        ("training.schedule.drop_factor=10", "drop_factor: expected 0 to 1, got 10"),
        ("name=a/b", "name: expected the name of a folder"),
        ("data=3", "data: expected `object`, got `int`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path: Path, argument: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as told:
        load_config(write_config(tmp_path), [argument])
    # The file is right, and the message says what was given beside it.
    assert argument in str(told.value)


def test_other_data_takes_nothing_of_the_base(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "base: moment-detr-qvhighlights\nname: own\ndata: {train: a.jsonl, val: b.jsonl, root: c}\n"
    )
    config = load_config(str(own))
    assert (config.data.pack, config.data.test, config.paper) == (None, None, None)
    assert config.training == load_config("moment-detr-qvhighlights").training


def test_a_newer_file_says_so_whatever_is_given_beside_it(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    text = Path(path).read_text() + "version: 2\nnovelty: 1\n"
    Path(path).write_text(text)
    for arguments in ([], ["training.epochs=3"]):
        with pytest.raises(InputError, match=r"is in version 2 of the format.* update vmr"):
            load_config(path, arguments)


def test_an_unknown_config_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'moment-detr-simulated'"):
        load_config("moment-detr-simulate")
    with pytest.raises(InputError, match=r"nothing\.yaml"):
        load_config("nothing.yaml")
