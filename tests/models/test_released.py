"""Released checkpoints: the official numbers, every form of the file, and what is refused, and why."""

from __future__ import annotations

import json
import os
import sys
import types
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from tests.models.released_case import KINDS, batch, golden, options, own_options, state_dict
from vmr.data.pack_spec import ready_packs
from vmr.errors import InputError
from vmr.models import from_official
from vmr.models.base import MomentModel
from vmr.models.moment_detr import MomentDETR
from vmr.models.official.options import Options, feature_pack
from vmr.models.qd_detr import QDDETR, QDDETRConfig
from vmr.models.stored import CARD


def write(folder: Path, case: str, content: Any = None, **save: Any) -> Path:
    """A released file; by default as the codes write them."""
    path = folder / "model_best.ckpt"
    if content is None:
        content = {"model": state_dict(case), "epoch": 7, "opt": own_options(case)}
    torch.save(content, path, **save)
    return path


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---- the official numbers ---------------------------------------------------------------------------


def test_answers_are_the_official_ones(case: str, tmp_path: Path) -> None:
    model, of, expected = from_official(write(tmp_path, case)), batch(case), golden(case)
    assert model.kind == KINDS[case]
    assert not model.training
    with torch.no_grad():
        found = model(**model.inputs(of))
    check(found, expected, "alone", of)
    if case == "moment-detr":
        check(found, expected, "batch", of)
        return
    # QD-DETR's code reads a query by the padding of others.
    assert (golden(case)["alone.spans"] - golden(case)["batch.spans"]).abs().max() > 1e-3
    model.config = msgspec.structs.replace(model.config, official_padding=True)
    with torch.no_grad():
        check(model(**model.inputs(of)), expected, "batch", of)


def check(found: Any, expected: dict[str, Tensor], how: str, of: Any) -> None:
    torch.testing.assert_close(found.spans[-1], expected[f"{how}.spans"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.logits[-1], expected[f"{how}.logits"], atol=1e-5, rtol=0)
    for row, length in enumerate(of.video_lengths.tolist()):
        torch.testing.assert_close(
            found.saliency[row, :length],
            expected[f"{how}.saliency"][row, :length],
            atol=1e-5,
            rtol=0,
        )


# ---- forms of the file ------------------------------------------------------------------------------


class EasyDict(dict[str, Any]):
    """As the package of that name has it: entries are attributes too."""

    def __init__(self, entries: dict[str, Any]) -> None:
        super().__init__()
        for name, value in entries.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        super().__setitem__(name, value)


def easydict(case: str) -> Any:
    EasyDict.__module__ = "easydict"
    return EasyDict(vars(own_options(case)))


FORMS: dict[str, Callable[[Path], Path]] = {
    "zip": lambda folder: write(folder, "moment-detr"),
    "old": lambda folder: write(folder, "moment-detr", _use_new_zipfile_serialization=False),
    "parallel": lambda folder: write(
        folder,
        "moment-detr",
        {
            "model": {f"module.{name}": value for name, value in state_dict("moment-detr").items()},
            "opt": own_options("moment-detr"),
        },
    ),
    "easydict": lambda folder: write(
        folder, "moment-detr", {"model": state_dict("moment-detr"), "opt": easydict("moment-detr")}
    ),
    "mapping": lambda folder: write(
        folder, "moment-detr", {"model": state_dict("moment-detr"), "opt": options("moment-detr")}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_file(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        module = types.ModuleType("easydict")
        module.EasyDict = EasyDict  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "easydict", module)
        path = FORMS[form](tmp_path)
    assert form != "easydict" or "easydict" not in sys.modules
    same(from_official(path))


def test_options_from_elsewhere(tmp_path: Path) -> None:
    bare = write(tmp_path, "moment-detr", state_dict("moment-detr"))
    with pytest.raises(InputError, match=r"there is no opt\.json beside it; opt \(--opt FILE\)"):
        from_official(bare)
    (tmp_path / "run.json").write_text(json.dumps(options("moment-detr")))
    same(from_official(bare, tmp_path / "run.json"))
    same(from_official(bare, options("moment-detr")))
    (tmp_path / "run.json").rename(tmp_path / "opt.json")
    same(from_official(bare))


def same(model: MomentModel) -> None:
    assert isinstance(model, MomentDETR)
    assert model.config.heads == 4
    assert model.config.contrastive_align == 0.02
    weights = model.state_dict()
    theirs = state_dict("moment-detr")
    assert torch.equal(weights["moment_queries"], theirs["query_embed.weight"])
    assert torch.equal(weights["span_head.4.bias"], theirs["span_embed.layers.2.bias"])


def test_what_the_file_says_is_kept(case: str, tmp_path: Path) -> None:
    model = from_official(write(tmp_path, case))
    model.save_pretrained(tmp_path / "kept")
    loaded = MomentModel.from_pretrained(tmp_path / "kept")
    assert type(loaded) is type(model)
    assert loaded.about == model.about
    assert loaded.about is not None
    origin, pack = loaded.about.origin, loaded.about.pack
    assert origin is not None
    assert pack is not None
    assert (origin.file, origin.epoch) == ("model_best.ckpt", 7)
    assert origin.options["device"] == "cuda"
    sounds = ("pann", "tef") if case == "qd-detr-audio" else ()
    assert pack.columns == ("clip", "tef", *sounds)
    card = (tmp_path / "kept" / CARD).read_text()
    for said in (origin.sha256, f"https://github.com/{origin.code}", "epoch 7", "| nheads | 4 |"):
        assert said in card
    of = batch(case)
    with torch.no_grad():
        for one, other in zip(loaded(**loaded.inputs(of)), model(**model.inputs(of)), strict=True):
            assert one is other or torch.equal(one, other)


def test_layers_of_a_loss_without_weight_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "moment-detr")
    off = options("moment-detr", contrastive_align_loss_coef=0.0)
    model = from_official(path, off)
    assert isinstance(model, MomentDETR)
    assert model.config.contrastive_align == 0
    assert not hasattr(model, "slot_alignment")


# ---- nothing is run ---------------------------------------------------------------------------------


class Runs:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        ((os.system, "touch ran"), r"posix\.system"),
        ((eval, "open('ran', 'w')"), "eval"),
        ((Path, "ran"), r"pathlib\.Path"),
    ],
)
def test_what_asks_for_code_is_refused(
    call: tuple[Any, ...], name: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"model": state_dict("moment-detr"), "opt": Runs(*call)}
    path = write(tmp_path, "moment-detr", content, _use_new_zipfile_serialization=not old)
    with pytest.raises(InputError, match=f"refused: to read it would run {name}"):
        from_official(path)
    assert not (tmp_path / "ran").exists()


# ---- damaged, or something else ---------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_file_that_was_cut_off(kept: float, old: bool, tmp_path: Path) -> None:
    path = write(tmp_path, "moment-detr", _use_new_zipfile_serialization=not old)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match=r"damaged"):
        from_official(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "got a list"),
        ({"model": {}, "opt": None}, "got a mapping with 'model', 'opt'"),
        ({"model": {"weight": 3}}, "got a mapping with 'model'"),
        ({}, "got an empty mapping"),
    ],
)
def test_a_file_of_something_else(content: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"expected a released checkpoint.*{said}"):
        from_official(write(tmp_path, "moment-detr", content))


def test_what_is_no_file(tmp_path: Path) -> None:
    path = write(tmp_path, "moment-detr")
    (tmp_path / "notes.txt").write_text("version https://git-lfs.github.com/spec/v1\n")
    from_official(path).save_pretrained(tmp_path / "kept")
    for place, said in (
        ("none.ckpt", "there is no such file"),
        (".", r"such as model_best\.ckpt in it, got a folder"),
        ("kept", "is a checkpoint of vmr already"),
        ("notes.txt", "is no checkpoint of torch"),
    ):
        with pytest.raises(InputError, match=said):
            from_official(tmp_path / place)
    (tmp_path / "opt.json").write_text("[]")
    for opt, said in (("opt.json", "expected options by name"), ("notes.txt", "is not JSON"),
                      ("none.json", "cannot be read")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            from_official(path, tmp_path / opt)


# ---- which model it is ------------------------------------------------------------------------------


def test_a_class_takes_its_own(case: str, tmp_path: Path) -> None:
    path = write(tmp_path, case)
    own, other = (MomentDETR, QDDETR) if case == "moment-detr" else (QDDETR, MomentDETR)
    assert type(own.from_official(path)) is own
    with pytest.raises(InputError, match=f"expected a checkpoint of {other.kind}, and its tensors"):
        other.from_official(path)


def test_a_model_that_is_not_known(tmp_path: Path) -> None:
    path = write(tmp_path, "", {"model": {"vid_embed.weight": torch.ones(2)}, "opt": Namespace()})
    with pytest.raises(
        InputError, match=r"its tensors are vid_embed\.weight, .*QD-DETR has global"
    ):
        from_official(path)


def change(case: str, **changes: Any) -> dict[str, Any]:
    """A state dict, with tensors changed or (None) taken away."""
    found = {**state_dict(case), **{name.replace("__", "."): v for name, v in changes.items()}}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_embed__bias": None}, r"lacks: class_embed\.bias$"),
        ({"transformer__decoder__norm__bias": None}, r"lacks: transformer\.decoder\.norm\.bias$"),
        ({"dummy_rep_token": torch.ones(3)}, "not of it: dummy_rep_token$"),
        ({"transformer__encoder__norm__bias": torch.ones(3)}, r"not of it: transformer\.enc"),
        ({"class_embed__bias": torch.ones(3)},
         r"shapes: class_embed\.bias is \[3\], for \[2\] of label_head\.bias$"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("case", KINDS)
def test_tensors_that_do_not_fit(
    case: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = write(tmp_path, case, {"model": change(case, **changes), "opt": own_options(case)})
    name = "Moment-DETR" if case == "moment-detr" else "QD-DETR"
    with pytest.raises(InputError, match=f"looks like {name}: its tensors .*{said}"):
        from_official(path)


# ---- its options ------------------------------------------------------------------------------------


def test_columns_of_the_tef_are_counted_or_not(case: str, tmp_path: Path) -> None:
    path = write(tmp_path, case)
    columns = 11 if case == "qd-detr-audio" else 6
    for opt in (None, options(case), vars(own_options(case))):
        assert from_official(path, opt).config.video_dim == columns


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        ("moment-detr", {"v_feat_dim": 2816},
         r"v_feat_dim is 2816, the TEF 2, and the weights take 6 columns: v_feat_dim 4 would fit"),
        ("qd-detr-audio", {"v_feat_dim": 2816}, "a_feat_dim 5, .*take 11 columns: v_feat_dim 4 "),
        ("qd-detr", {"a_feat_dir": "pann", "a_feat_dim": 2050}, "the weights take 6 columns"),
        ("qd-detr", {"ctx_mode": "video"}, r"v_feat_dim is 4, and .* v_feat_dim 6 would fit"),
        ("qd-detr", {"hidden_dim": 128, "dec_layers": 3},
         "hidden_dim is 128, and 256 would fit; dec_layers is 3, and 2 would fit"),
        ("moment-detr", {"t_feat_dim": 300}, "t_feat_dim is 300, and 5 would fit"),
        ("moment-detr", {"nheads": None}, "nheads: expected `int`, got `null`"),
        ("moment-detr", {"nheads": 5}, r"hidden: expected an even multiple of heads \(5\)"),
        ("moment-detr", {"use_txt_pos": True}, "use_txt_pos: True is an option"),
        ("qd-detr", {"pre_norm": True}, "pre_norm: True is an option"),
        ("qd-detr", {"span_loss_type": "ce"}, "span_loss_type: 'ce' is an option"),
        ("qd-detr", {"position_embedding": "learned"}, "position_embedding: 'learned' is"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_with_the_weights(
    case: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        from_official(write(tmp_path, case), options(case, **changes))


def test_heads_must_be_said(tmp_path: Path) -> None:
    given = options("moment-detr")
    del given["nheads"]
    with pytest.raises(InputError, match="missing required field `nheads`"):
        from_official(write(tmp_path, "moment-detr"), given)
    # All else follows from the weights.
    model = from_official(tmp_path / "model_best.ckpt", {"nheads": 4})
    assert model.about is not None
    assert model.about.pack is None
    assert model.config.video_dim == 6


def run_options(**changes: Any) -> Options:
    return msgspec.convert(options("qd-detr", v_feat_dim=2816, t_feat_dim=512, **changes), Options)


SLOWFAST = ["../features/slowfast_features", "../features/clip_features"]


def test_the_pack_is_the_one_of_the_runs_folders() -> None:
    """The runs that were released: SlowFast and CLIP, CLIP alone, and with audio."""
    found = feature_pack(run_options(v_feat_dirs=SLOWFAST), 2818, "QD-DETR")
    ready = ready_packs()["moment-detr-qvhighlights"]
    assert found is not None
    assert found.about == "QD-DETR on QVHighlights: slowfast, clip"
    for name, source in found.sources.items():
        assert source.files[0] == ready.sources[name].files[0]
        assert source.dim == ready.sources[name].dim
    same_place = {"about": ready.about, "folders": ready.folders, "sources": ready.sources}
    assert msgspec.structs.replace(found, **same_place) == ready
    alone = feature_pack(run_options(v_feat_dirs=SLOWFAST[1:]), 514, "QD-DETR")
    assert alone is not None
    assert alone.columns == ("clip", "tef")
    assert alone.sources["clip"].dim == 512
    umt = [folder.replace("s/", "s/umt_") for folder in SLOWFAST]
    sound = run_options(v_feat_dirs=umt, a_feat_dir="../features/umt_pann_features/")
    heard = feature_pack(sound, 4868, "QD-DETR")
    ready = ready_packs()["qd-detr-qvhighlights-audio"]
    assert heard is not None
    assert heard.columns == ready.columns
    for name, source in heard.sources.items():
        assert source.dim == ready.sources[name].dim
        assert source.files[0] in ready.sources[name].files


def test_the_pack_of_folders_that_are_not_known() -> None:
    assert feature_pack(run_options(v_feat_dirs=["a/x", "b/x"]), 22, "QD-DETR") is None
    own = run_options(v_feat_dirs=["a/x", "b/y"], no_norm_vfeat=True, ctx_mode="video")
    found = feature_pack(own, 20, "QD-DETR")
    assert found is not None
    assert found.columns == ("x", "y")
    assert {source.dim for source in found.sources.values()} == {None}
    assert {source.normalise for source in found.sources.values()} == {"none"}


def test_options_of_other_runs_name_their_data() -> None:
    found = feature_pack(
        run_options(v_feat_dirs=["f/vgg_features"], dset_name="charades"), 4098, "X"
    )
    assert found is not None
    assert found.about == "X on Charades-STA: vgg"
    assert found.sources["vgg"].files == ("vgg_features/{vid}.npz", "vgg_features/{vid}.npy")
    assert found.sources["vgg"].dim == 4096


def test_a_run_on_tvsum_has_its_pack(tmp_path: Path) -> None:
    path = write(tmp_path, "qd-detr")
    model = from_official(path, options("qd-detr", dset_name="tvsum", dset_domain="BK"))
    assert model.about is not None
    assert model.about.pack == ready_packs()["qd-detr-tvsum"]


# ---- QD-DETR ----------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> MomentModel:
    return from_official(write(tmp_path, "qd-detr"))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3.0])
def test_padding_changes_nothing(value: float, model: MomentModel) -> None:
    of = batch("qd-detr")
    assert of.text is not None
    inputs = model.inputs(of)
    padded = dict(inputs)
    for name in ("video", "text"):
        wider = torch.nn.functional.pad(inputs[name], (0, 0, 0, 2))
        for row, length in enumerate(inputs[f"{name}_lengths"].tolist()):
            wider[row, length:] = value
        padded[name] = wider
    with torch.no_grad():
        one, other = model(**inputs), model(**padded)
    assert other.spans.isfinite().all()
    torch.testing.assert_close(one.spans, other.spans, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.saliency, other.saliency[:, :12], atol=1e-5, rtol=0)
    assert other.saliency[:, 12:].eq(0).all()


def test_answers(model: MomentModel) -> None:
    of = batch("qd-detr")
    with torch.no_grad():
        outputs = model(**model.inputs(of))
    assert [list(value.shape) for value in outputs] == [[2, 3, 4, 2], [2, 3, 4, 2], [3, 12]]
    found = model.decode(outputs, of)
    assert len(found) == 3
    for answer, query in zip(found, of.queries, strict=True):
        windows = answer.pred_relevant_windows
        assert windows is not None
        assert [w[2] for w in windows] == sorted((w[2] for w in windows), reverse=True)
        assert all(0 <= start <= end <= query.duration for start, end, _ in windows)
        assert all(bound % 2 == 0 for window in windows for bound in window[:2])


def test_works_under_autocast(model: MomentModel) -> None:
    inputs = model.inputs(batch("qd-detr"))
    with torch.no_grad():
        expected = model(**inputs)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(**inputs)
    assert found.spans.dtype == torch.float32
    torch.testing.assert_close(found.spans, expected.spans, atol=0.05, rtol=0.05)


def test_it_is_not_trained(model: MomentModel) -> None:
    of = batch("qd-detr")
    for asked in (
        model.loss_weights,
        lambda: model.loss_counts(of),
        lambda: model.loss(model(**model.inputs(of)), of),
    ):
        with pytest.raises(InputError, match="qd-detr: vmr does not train this model"):
            asked()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden": 18, "heads": 3}, r"hidden: expected a multiple of heads \(3\) and of 4"),
        ({"moment_queries": 0}, "moment_queries: expected at least 1, got 0"),
        ({"round_to": 0.0}, "round_to: expected seconds above 0"),
        ({"video_dim": None}, "expected video_dim and text_dim"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        QDDETR(QDDETRConfig(**{"video_dim": 6, "text_dim": 5, **changes}))


def test_other_features_are_named(model: MomentModel) -> None:
    of = batch("qd-detr-audio")
    with pytest.raises(InputError, match="qd-detr: expected video features of 6 columns, got 11"):
        model.inputs(of)
