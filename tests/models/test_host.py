"""Hosts: each alignment with each detector, padding, losses cut into parts, that they learn, answers."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import vmr
from tests.models import detr_case
from tests.models.detr_case import TEXT, batch, item
from tests.models.test_moment_detr import ODD
from tests.training.corpus import write_config, write_corpus
from vmr.data.dataset import Batch, Item, collate
from vmr.errors import InputError
from vmr.models.host import HostConfig, PluginHost
from vmr.models.layers.regression import FrameSpans, RegressionDetector
from vmr.models.layers.set_detector import SetDetector, SetOutput
from vmr.models.layers.tan import MapDetector
from vmr.training import load_config, train

# Of the six columns of the features the first five lie in the sentence's space.
CONFIG = HostConfig(
    video_dim=detr_case.VIDEO,
    text_dim=TEXT,
    first_column=0,
    hidden=16,
    heads=4,
    encoder_layers=1,
    feed_forward=24,
    dropout=0.0,
    input_dropout=0.0,
    moment_queries=4,
    map_channels=4,
    map_layers=2,
    kernel_size=3,
    top_k=3,
)
DETECTORS = ("detr", "regression", "tan", "points")
ALL = pytest.mark.parametrize(
    ("alignment", "detector"), list(product(("original", "a2fa"), DETECTORS))
)


def host(alignment: str, detector: str, **changes: Any) -> PluginHost:
    config = msgspec.structs.replace(CONFIG, alignment=alignment, detector=detector, **changes)
    made = PluginHost(config)
    detr_case.draw_weights(made)
    return made


def loss_of(model: PluginHost, of: Batch) -> Any:
    return model.loss(model(**model.inputs(of)), of)


def tensors(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


# ---- outputs ----------------------------------------------------------------------------------------


@ALL
def test_shapes(alignment: str, detector: str) -> None:
    model = host(alignment, detector)
    of = batch()
    outputs = model(**model.inputs(of))
    expected = {
        "detr": [[2, 3, 4, 2], [2, 3, 4, 2]],
        "regression": [[3, 12], [3, 12, 2]],
        "tan": [[3, 12, 12]],
        "points": [[3, 12, 12]],
    }
    assert [list(value.shape) for value in tensors(outputs)] == expected[detector]
    loss = model.loss(outputs, of)
    assert loss.terms.keys() == model.loss_weights().keys()
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@ALL
@pytest.mark.parametrize("value", [torch.nan, 3.0])
def test_padding_changes_nothing(alignment: str, detector: str, value: float) -> None:
    model = host(alignment, detector)
    items = [item("a", 9, 4, [(2, 8)]), item("b", 5, 2, [(0, 2), (4, 10)])]
    of = batch(items)
    changes: dict[str, Tensor] = {}
    for name, lengths in (
        ("video", of.video_lengths),
        ("text", of.text_lengths),
        ("windows", of.window_counts),
    ):
        changes[name] = torch.nn.functional.pad(getattr(of, name), (0, 0, 0, 2))
        for row, length in enumerate(lengths.tolist()):
            changes[name][row, length:] = value
    padded = batch(items, **changes)
    found, gradients = [], []
    for given in (of, padded):
        model.zero_grad()
        if alignment == "a2fa":
            # The check of the inputs reads all of them; what forward is given may be anything.
            inputs = {**model.inputs(of), "video": given.video}
        else:
            inputs = model.inputs(given)
        outputs = model(**inputs)
        loss = model.loss(outputs, given)
        loss.total.backward()
        found.append((loss, model.decode(outputs, given)))
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(
            one.pred_relevant_windows or (), other.pred_relevant_windows or (), atol=1e-4
        )


@ALL
def test_alone_as_in_a_batch(alignment: str, detector: str) -> None:
    model = host(alignment, detector)
    items = detr_case.items()
    whole = model.decode(model(**model.inputs(batch())), batch())
    for given, together in zip(items, whole, strict=True):
        of = collate([given])
        (alone,) = model.decode(model(**model.inputs(of)), of)
        np.testing.assert_allclose(
            alone.pred_relevant_windows or (), together.pred_relevant_windows or (), atol=1e-4
        )


def test_both_sides_begin_with_the_same_weights() -> None:
    sides = []
    for alignment in ("original", "a2fa"):
        torch.manual_seed(0)
        config = msgspec.structs.replace(CONFIG, alignment=alignment)
        sides.append(PluginHost(config).state_dict())
    shared = sides[0].keys() & sides[1].keys()
    assert {name.split(".")[0] for name in shared} == {"video_projection", "encoder", "detector"}
    assert all(torch.equal(sides[0][name], sides[1][name]) for name in shared)
    own = [{name.split(".")[0] for name in side if name not in shared} for side in sides]
    assert own == [{"text_projection"}, {"alignment"}]


def test_aligned_frames_take_the_place_of_their_columns() -> None:
    torch.manual_seed(0)
    model = host("a2fa", "regression", first_column=1)
    seen = []
    model.video_projection.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    of = batch()
    inputs = model.inputs(of)
    model(**inputs)
    aligned, _ = model.alignment(of.video[..., 1:], of.video_lengths, inputs["queries"])
    expected = torch.cat((of.video[..., :1], aligned), dim=-1)
    torch.testing.assert_close(seen[0], expected)


# ---- the loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("name", ODD)
def test_odd_queries_have_a_finite_loss(name: str, detector: str) -> None:
    model = host("a2fa", detector)
    of = collate([ODD[name]])
    outputs = model(**model.inputs(of))
    loss = model.loss(outputs, of)
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    (answer,) = model.decode(outputs, of)
    assert answer.pred_saliency_scores is None
    for start, end, score in answer.pred_relevant_windows or ():
        assert 0 <= start <= end <= of.queries[0].duration
        assert np.isfinite(score)


@ALL
def test_parts_of_a_batch_add_up(alignment: str, detector: str) -> None:
    model = host(alignment, detector)
    items = [*detr_case.items(), *ODD.values()]
    whole = collate(items)
    counts = model.loss_counts(whole)
    expected = loss_of(model, whole)
    parts = [collate(items[:4]), collate(items[4:5]), collate(items[5:])]
    for name, count in counts.items():
        assert count == sum(model.loss_counts(part)[name] for part in parts)
    found = [model.loss(model(**model.inputs(part)), part, counts) for part in parts]
    for name, term in expected.terms.items():
        torch.testing.assert_close(sum(part.terms[name] for part in found), term)
    torch.testing.assert_close(sum(part.total for part in found), expected.total)


def test_regression_by_hand() -> None:
    of = collate([item("a", 4, 1, [(2, 6)])])
    logits = torch.tensor([[-1.0, 2.0, 0.5, 0.0]])
    spans = torch.tensor([[[0.0, 1.0], [0.25, 0.75], [0.5, 0.75], [0.0, 1.0]]])
    detector = RegressionDetector(4)
    sums = detector.loss_sums(FrameSpans(logits, spans), of)
    counts = detector.loss_counts(of)
    assert [counts[name].item() for name in ("span", "giou", "label")] == [2, 2, 4]
    # The two middle rows are in the window; the second of them begins half of it too late.
    assert sums["span"].item() == pytest.approx(0.5 * 0.25**2)
    assert sums["giou"].item() == pytest.approx(0.5)
    inside = np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-0.5))
    outside = np.log1p(np.exp(-1.0)) + np.log(2.0)
    assert sums["label"].item() == pytest.approx(inside + 0.1 * outside, rel=1e-5)
    found, scores, counted = detector.moments(
        FrameSpans(logits, spans), of.video_lengths, of.row_seconds, 2
    )
    assert counted.tolist() == [2]
    # (4, 6) overlaps (2, 6) by a half: both stay.
    torch.testing.assert_close(found, torch.tensor([[[2.0, 6.0], [4.0, 6.0]]]))
    torch.testing.assert_close(scores, torch.tensor([[2.0, 0.5]]).sigmoid())


def test_a_frame_answers_for_the_nearest_of_its_windows() -> None:
    of = collate([item("a", 10, 1, [(0, 20), (2, 6)])])
    middles = (torch.arange(10) + 0.5) / 10
    wanted = torch.tensor([[0.0, 1.0]]).repeat(10, 1)
    wanted[1:3] = torch.tensor([0.1, 0.3])
    detector = RegressionDetector(4)
    sums = detector.loss_sums(FrameSpans(middles[None], wanted[None]), of)
    assert sums["span"] == 0
    assert sums["giou"].item() == pytest.approx(0, abs=1e-5)


def test_map_by_hand() -> None:
    of = collate([item("a", 4, 1, [(0, 8)]), item("b", 2, 1, [(0, 2)])])
    detector = MapDetector(4)
    sums = detector.loss_sums(torch.zeros(2, 4, 4), of)
    assert sums["overlap"].item() == pytest.approx(13 * np.log(2), rel=1e-5)
    assert detector.loss_counts(of)["overlap"] == 13
    # IoU 1 and 3/4 (twice) of the first video, scaled to 1 and 1/2; 1/2 is 0.
    logits = torch.full((2, 4, 4), -20.0)
    logits[0, 0, 3] = 20.0
    logits[1, 0, 0] = 20.0
    logits[0, 0, 2] = logits[0, 1, 3] = 0.0
    assert detector.loss_sums(logits, of)["overlap"].item() == pytest.approx(
        2 * np.log(2), abs=1e-4
    )
    found, _, counts = detector.moments(logits, of.video_lengths, of.row_seconds, 3)
    assert found[:, 0].tolist() == [[0, 8], [0, 2]]
    assert counts.tolist() == [3, 3]


def test_a_map_holds_the_largest_of_its_frames() -> None:
    detector = MapDetector(3, channels=3, layers=0)
    with torch.no_grad():
        detector.inputs.weight.copy_(torch.eye(3))
        detector.inputs.bias.zero_()
        detector.score.weight.fill_(1)
        detector.score.bias.zero_()
    frames = torch.rand(1, 5, 3)
    found = detector(frames, torch.tensor([5]))
    for first in range(5):
        for last in range(first, 5):
            expected = frames[0, first : last + 1].amax(dim=0).sum()
            torch.testing.assert_close(found[0, first, last], expected)


def test_padding_of_a_map_has_no_gradient() -> None:
    gradients = []
    for value in (0.0, torch.nan):
        torch.manual_seed(0)
        detector = MapDetector(3, channels=3)
        frames = torch.rand(1, 5, 3)
        frames[0, 3:] = value
        detector(frames, torch.tensor([3]))[0, :3, :3].triu().sum().backward()
        gradients.append([parameter.grad for parameter in detector.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_the_best_of_a_set_come_first() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    logits = torch.stack((logits, torch.zeros_like(logits)), dim=-1)
    spans = torch.tensor([[[0.5, 0.5], [0.1, 0.5], [0.8, 0.2]]])
    found, scores, counts = SetDetector(4, heads=2, queries=3).moments(
        SetOutput(spans[None], logits[None]), torch.tensor([5]), torch.tensor([2.0]), 2
    )
    torch.testing.assert_close(found, torch.tensor([[[0.0, 3.5], [7.0, 9.0]]]))
    torch.testing.assert_close(scores, torch.tensor([[2.0, 1.0]]).sigmoid())
    assert counts.tolist() == [2]


# ---- answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", DETECTORS)
def test_answers_are_in_seconds(detector: str) -> None:
    model = host("a2fa", detector)
    of = collate([item("a", 9, 4, [(3, 9)], row_seconds=1.5)])
    outputs = model(**model.inputs(of))
    spans, scores, counts = model.detector.moments(outputs, of.video_lengths, of.row_seconds, 3)
    (answer,) = model.decode(outputs, of)
    windows = np.array(answer.pred_relevant_windows)
    assert len(windows) == counts[0] <= 3
    np.testing.assert_allclose(windows[:, :2], spans[0, : counts[0]].numpy(), rtol=1e-5)
    np.testing.assert_allclose(windows[:, 2], scores[0, : counts[0]].numpy(), rtol=1e-5)
    assert (np.diff(windows[:, 2]) <= 0).all()
    assert windows[:, 1].max() > 1.5
    rounded = PluginHost(msgspec.structs.replace(model.config, round_to=3.0))
    rounded.load_state_dict(model.state_dict())
    (answer,) = rounded.decode(outputs, of)
    assert all(start % 3 == 0 for start, _, _ in answer.pred_relevant_windows or ())


@ALL
def test_kept_and_read_again(alignment: str, detector: str, tmp_path: Path) -> None:
    model = host(alignment, detector).eval()
    model.save_pretrained(tmp_path)
    again = vmr.MomentModel.from_pretrained(tmp_path)
    assert isinstance(again, PluginHost)
    assert again.config == model.config
    of = batch()
    with torch.no_grad():
        torch.testing.assert_close(
            again(**again.inputs(of)), model(**model.inputs(of)), rtol=0, atol=0
        )


# ---- that they learn ---------------------------------------------------------------------------------


def told(place: int) -> Item:
    """A query whose frames are like its sentence, and unlike other ones elsewhere."""
    generator = np.random.default_rng(place)
    rows, length = 12, int(generator.integers(3, 6))
    start = int(generator.integers(0, rows - length))
    made = item(str(place), rows, 1, [(2.0 * start, 2.0 * (start + length))])
    topic = place % 4
    sentence = torch.nn.functional.one_hot(torch.tensor(topic), TEXT).float()
    other = torch.nn.functional.one_hot(torch.tensor((topic + 1) % 4), TEXT).float()
    video = 0.05 * made.video
    video[:, :TEXT] += other
    video[start : start + length, :TEXT] = sentence + 0.05 * made.video[start : start + length, :5]
    video[:, TEXT] = torch.arange(rows) / rows
    values = {name: getattr(made, name) for name in Item.__slots__}
    return Item(**{**values, "video": video, "text": sentence[None], "pooled": sentence})


@ALL
def test_learns_a_small_set_by_heart(alignment: str, detector: str) -> None:
    torch.manual_seed(0)
    config = msgspec.structs.replace(
        CONFIG,
        alignment=alignment,
        detector=detector,
        hidden=32,
        kernel_size=7,
        decoder_layers=1,
        map_channels=16,
    )
    model = PluginHost(config)
    of = collate([told(place) for place in range(12)])
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss_of(model, of).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    with torch.no_grad():
        answers = model.eval().decode(model(**model.inputs(of)), of)
    assert vmr.evaluate(answers, of.queries).brief["MR-full-R1@0.7"] >= 80


def test_a_run(tmp_path: Path) -> None:
    """On a pack with a column more than the source's, which fit has to find."""
    config = write_config(write_corpus(tmp_path))
    assert load_config("host-simulated").model["kind"] == "host"
    own = Path(config).read_text()
    begin, end = own.index("model:"), own.index("data:")
    model = "model: {kind: host, alignment: a2fa, detector: regression, hidden: 16, heads: 2}\n"
    Path(config).write_text(own[:begin] + model + own[end:])
    results = train(load_config(config, ["training.epochs=2"]), tmp_path / "run", device="cpu")
    assert results.steps == 10
    again = vmr.MomentModel.from_pretrained(tmp_path / "run")
    assert isinstance(again, PluginHost)
    assert again.config.first_column == 0
    assert again.config.video_dim == 18


def process(rank: int, store: str, alignment: str, detector: str) -> None:
    """Two of four queries on each of two processes; the first keeps the gradients."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    model = host(alignment, detector)
    parallel = DistributedDataParallel(model)
    whole, of = collate(four()), collate(four()[2 * rank : 2 * rank + 2])
    # Gradients are averaged over processes.
    loss = model.loss(parallel(**model.inputs(of)), of, model.loss_counts(whole))
    (2 * loss.total).backward()
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], f"{store}.gradients")
    torch.distributed.destroy_process_group()


def four() -> list[Item]:
    return [told(place) for place in range(4)]


@pytest.mark.parametrize(("alignment", "detector"), [("a2fa", "points"), ("original", "detr")])
def test_two_processes_are_one(alignment: str, detector: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    torch.multiprocessing.spawn(process, (str(store), alignment, detector), nprocs=2)
    model = host(alignment, detector)
    loss_of(model, collate(four())).total.backward()
    found = torch.load(f"{store}.gradients", weights_only=True)
    torch.testing.assert_close(found, [p.grad for p in model.parameters()], rtol=1e-4, atol=1e-5)


# ---- compiled, exported, in half precision -----------------------------------------------------------


@ALL
def test_works_under_autocast(alignment: str, detector: str) -> None:
    model = host(alignment, detector)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, batch())
    loss.total.backward()
    torch.testing.assert_close(loss.total, loss_of(model, batch()).total, rtol=0.1, atol=0.1)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("alignment", "detector"),
    [("original", "detr"), ("original", "points"), ("a2fa", "regression"), ("a2fa", "tan")],
)
def test_exports(alignment: str, detector: str) -> None:
    model = host(alignment, detector).eval()
    inputs = model.inputs(batch())
    program = torch.export.export(model, (), inputs)
    torch.testing.assert_close(program.module()(**inputs), model(**inputs))


# ---- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_dim": None}, "expected video_dim and text_dim"),
        ({"hidden": 10}, "hidden: expected an even multiple of heads"),
        ({"encoder_layers": 0}, "encoder_layers: expected at least 1 with original"),
        ({"top_k": 0}, "top_k: expected at least 1, got 0"),
        ({"detector": "points", "kernel_size": 4}, "kernel_size: expected an odd number"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PluginHost(msgspec.structs.replace(CONFIG, **change))


def test_a2fa_in_place_of_the_whole_encoder() -> None:
    model = host("a2fa", "regression", encoder_layers=0)
    assert not list(model.encoder.parameters())
    assert loss_of(model, batch()).total.isfinite()


@ALL
def test_an_empty_batch_is_named(alignment: str, detector: str) -> None:
    model = host(alignment, detector)
    inputs = {name: value[:0] for name, value in model.inputs(batch()).items()}
    with pytest.raises(InputError, match="host: expected at least one query, got an empty batch"):
        model(**inputs)


def test_other_features_are_named() -> None:
    original, aligned = host("original", "detr"), host("a2fa", "detr")
    with pytest.raises(
        InputError, match="video features of 6 columns and tokens of 5, got 8 and 5"
    ):
        original.inputs(batch(video=torch.zeros(3, 12, 8)))
    with pytest.raises(InputError, match="expected the tokens of sentences"):
        original.inputs(batch(text=None))
    with pytest.raises(InputError, match="expected sentences as one vector"):
        aligned.inputs(batch(pooled=None))
    broken = batch()
    broken.video[1, 2, 0] = torch.nan
    with pytest.raises(InputError, match=r"host: expected finite .* in row 2 of video video b"):
        aligned.inputs(broken)
    unfit = host("a2fa", "detr", first_column=None)
    with pytest.raises(InputError, match="expected it to be fit on training queries"):
        unfit(**unfit.inputs(batch()))
    with pytest.raises(InputError, match="a2fa: expected queries"):
        aligned(**original.inputs(batch()))
    with pytest.raises(InputError, match="original: expected text and text_lengths"):
        original(**aligned.inputs(batch()))
