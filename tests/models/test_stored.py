"""Checkpoints: written, read again, from the hub, and refused where they are not right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from tests.hub import Repository, serving
from tests.models import detr_case
from vmr.data.pack_spec import Pack, Source
from vmr.errors import InputError
from vmr.models.base import MomentModel
from vmr.models.moment_detr import MomentDETR, MomentDETRConfig
from vmr.models.registry import model_type
from vmr.models.stored import CARD, CONFIG, WEIGHTS, About
from vmr.models.window_prior import WindowPrior, WindowPriorConfig

ABOUT = About(
    name="moment-detr on a few",
    pack=Pack(
        about="features of a test",
        columns=("clip",),
        sources={"clip": Source(files=("{vid}.npz",), dim=6)},
        seconds_per_row=2,
    ),
    data={"train": "3 queries on 3 videos"},
    protocol="qvhighlights",
    metrics={"val": {"MR-full-mAP": 31.25, "MR-long-mAP": None}},
    command="vmr train moment-detr.yaml seed=7",
    steps=1200,
    seed=7,
)


@pytest.fixture
def model() -> MomentDETR:
    made = MomentDETR(detr_case.CONFIG)
    detr_case.draw_weights(made)
    made.about = ABOUT
    return made.eval()


@pytest.fixture
def kept(model: MomentDETR, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "kept")
    return tmp_path / "kept"


def change(folder: Path, **values: Any) -> None:
    """Changes keys of config.json."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **values}))


# ---- written and read -------------------------------------------------------------------------------


@pytest.mark.parametrize("through", [MomentModel, MomentDETR])
def test_a_model_comes_back_as_it_was(
    through: type[MomentModel], model: MomentDETR, kept: Path
) -> None:
    loaded = through.from_pretrained(kept)
    assert type(loaded) is MomentDETR
    assert loaded.config == model.config
    assert loaded.about == ABOUT
    assert not loaded.training
    inputs = model.inputs(detr_case.batch())
    for one, other in zip(loaded(**inputs), model(**inputs), strict=True):
        assert other is one or torch.equal(one, other)


def test_a_model_of_ones_own_is_loaded_by_its_class(kept: Path) -> None:
    class OwnConfig(MomentDETRConfig, frozen=True, kw_only=True, tag="own"):
        pass

    class Own(MomentDETR):
        kind = "own"
        config_type = OwnConfig

    made = Own(OwnConfig(**msgspec.structs.asdict(detr_case.CONFIG)))
    made.save_pretrained(kept)
    loaded = Own.from_pretrained(kept)
    assert type(loaded) is Own
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), made.parameters(), strict=True)
    )
    with pytest.raises(InputError, match="expected the kind of a model"):
        MomentModel.from_pretrained(kept)


def test_a_result_folder_gives_its_best(model: MomentDETR, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "run" / "best")
    assert type(MomentModel.from_pretrained(tmp_path / "run")) is MomentDETR


def test_the_card_says_what_the_weights_are(kept: Path) -> None:
    card = (kept / CARD).read_text()
    assert card.startswith("---\nlibrary_name: vmr\n")
    for said in (
        "# moment-detr on a few",
        "features of a test",
        "3 queries on 3 videos",
        "Protocol qvhighlights",
        "| MR-full-mAP | 31.25 |",
        "vmr train moment-detr.yaml seed=7",
        "Seed 7; the weights have seen 1,200 steps.",
        "- moment-detr",
    ):
        assert said in card
    assert {path.name for path in kept.iterdir()} == {CONFIG, WEIGHTS, CARD}


def test_the_card_of_new_weights_says_so(tmp_path: Path) -> None:
    MomentDETR(detr_case.CONFIG).save_pretrained(tmp_path)
    assert "is not known" in (tmp_path / CARD).read_text()


@pytest.mark.parametrize("kind", ["moment-detr", "qd-detr", "window-prior", "similarity"])
def test_every_model_is_called_by_its_kind(kind: str) -> None:
    found = model_type(kind)
    assert found.kind == kind
    assert found.config_type.__struct_config__.tag == kind


# ---- refused ----------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_model(kept: Path) -> None:
    with pytest.raises(
        InputError, match=r"expected a checkpoint of window-prior, got .* moment-detr"
    ):
        WindowPrior.from_pretrained(kept)


def test_weights_of_another_model(kept: Path, tmp_path: Path) -> None:
    WindowPrior(WindowPriorConfig()).save_pretrained(tmp_path / "other")
    (kept / WEIGHTS).write_bytes((tmp_path / "other" / WEIGHTS).read_bytes())
    with pytest.raises(InputError, match="not those of the model; lacks:"):
        MomentModel.from_pretrained(kept)


def test_weights_of_another_size(model: MomentDETR, kept: Path, tmp_path: Path) -> None:
    wider = MomentDETR(msgspec.structs.replace(model.config, video_dim=8))
    wider.save_pretrained(tmp_path / "wider")
    (kept / WEIGHTS).write_bytes((tmp_path / "wider" / WEIGHTS).read_bytes())
    with pytest.raises(
        InputError, match=r"shapes: video_projection.0.bias is \[8\] instead of \[6\]"
    ):
        MomentModel.from_pretrained(kept)


@pytest.mark.parametrize("size", [0, 7, 5000, -1])
def test_weights_that_were_cut_off(kept: Path, size: int) -> None:
    whole = (kept / WEIGHTS).read_bytes()
    (kept / WEIGHTS).write_bytes(whole[:size])
    with pytest.raises(InputError, match="damaged or cut off"):
        MomentModel.from_pretrained(kept)


def test_weights_that_are_missing(kept: Path) -> None:
    (kept / WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"model\.safetensors"):
        MomentModel.from_pretrained(kept)


def test_a_config_that_is_missing(kept: Path) -> None:
    (kept / CONFIG).unlink()
    with pytest.raises(InputError, match=r"there is no config\.json"):
        MomentModel.from_pretrained(kept)


def test_a_config_of_a_newer_format(kept: Path) -> None:
    change(kept, format=2, vmr="9.1", shape="unknown")
    with pytest.raises(InputError, match=r"written by vmr 9\.1 in format 2.*update vmr"):
        MomentModel.from_pretrained(kept)


def test_a_config_that_is_cut_off(kept: Path) -> None:
    (kept / CONFIG).write_text((kept / CONFIG).read_text()[:60])
    with pytest.raises(InputError, match="is damaged"):
        MomentModel.from_pretrained(kept)


def test_a_config_of_something_else(kept: Path) -> None:
    (kept / CONFIG).write_text('{"model_type": "clip"}')
    with pytest.raises(InputError, match="is not a checkpoint of vmr"):
        MomentModel.from_pretrained(kept)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "moment-dert"}, "did you mean 'moment-detr'"),
        ({"kind": "moment-detr", "hidden": "wide"}, r"Expected `int`.*\$\.hidden"),
        ({"kind": "moment-detr", "width": 3}, "unknown field `width`"),
    ],
)
def test_hyper_parameters_that_are_not_right(
    kept: Path, config: dict[str, Any], message: str
) -> None:
    change(kept, config=config)
    with pytest.raises(InputError, match=message):
        MomentModel.from_pretrained(kept)


@pytest.mark.parametrize("name", ["nowhere", "./a/b", "a/b/c"])
def test_a_name_that_is_no_place(name: str) -> None:
    with pytest.raises(InputError, match="expected a folder with"):
        MomentModel.from_pretrained(name)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model_best.ckpt").touch()
    with pytest.raises(
        InputError, match=r"expected a checkpoint's folder, got a file.*vmr convert"
    ):
        MomentModel.from_pretrained(tmp_path / "model_best.ckpt")


def test_a_name_like_that_of_a_folder(kept: Path) -> None:
    kept.with_name("notebook.md").touch()
    with pytest.raises(InputError, match=r"did you mean 'kept'\?$"):
        MomentModel.from_pretrained(kept.with_name("kpet"))
    with pytest.raises(InputError, match=r"on the hub, got '.*notebok'$"):
        MomentModel.from_pretrained(kept.with_name("notebok"))


# ---- the hub ----------------------------------------------------------------------------------------


@pytest.fixture
def hub(kept: Path) -> Iterator[str]:
    """A hub on this machine that has one repository."""
    with serving({"someone/detr": Repository(kept)}) as running:
        yield running.url


SCRIPT = """
import json, vmr
import huggingface_hub.constants as constants
said = []
for name in ("someone/detr", "someone/other", "someone/detr"):
    try:
        said.append(type(vmr.MomentModel.from_pretrained(name)).__name__)
    except vmr.InputError as error:
        said.append(str(error))
    constants.HF_HUB_OFFLINE = len(said) >= 2
try:
    vmr.MomentModel.from_pretrained("someone/unseen")
except vmr.InputError as error:
    said.append(str(error))
print(json.dumps(said))
"""


def test_the_hub(hub: str, tmp_path: Path) -> None:
    # The hub library reads its settings when it is imported.
    settings = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    downloaded, unknown, again, unseen = json.loads(run.stdout)
    assert downloaded == "MomentDETR"
    assert unknown.startswith("someone/other: is neither a folder here nor on the hub")
    assert again == "MomentDETR"
    assert unseen.startswith("someone/unseen: is not a folder here, was not downloaded before")
