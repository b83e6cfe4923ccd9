"""What every operator promises, on its samples: see samples.py."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops import alignment_samples, background_samples, dropout_samples
from tests.ops.sample import Sample
from tests.ops.samples import DIFFERENTIABLE, DTYPES, SAMPLES, TOLERANCES
from vmr import ops, reference

DEVICES = ["cpu"] + (["cuda"] if ops.HAS_CUDA and torch.cuda.is_available() else [])
NAMES = sorted(SAMPLES)


def operator(name: str) -> Any:
    return getattr(torch.ops.vmr, name).default


def in_plain_pytorch(name: str) -> Any:
    """The function of that name in vmr.reference, whichever stem it is in."""
    for stem in pkgutil.iter_modules(reference.__path__, "vmr.reference."):
        function = getattr(importlib.import_module(stem.name), name, None)
        if function is not None:
            return function
    raise AssertionError(f"{name} has no reference in vmr.reference")


def outputs(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple | list) else (result,)


def on(device: str, sample: Sample) -> tuple[Any, ...]:
    return tuple(
        argument.to(device) if isinstance(argument, Tensor) else argument
        for argument in sample.arguments
    )


def leaves(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, their floating-point tensors asking for a gradient."""
    return tuple(
        argument.detach().requires_grad_()
        if isinstance(argument, Tensor) and argument.is_floating_point()
        else argument
        for argument in arguments
    )


def test_every_op_has_reference_fake_kernel_and_samples() -> None:
    registered = {
        name.removeprefix("vmr::").split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("vmr::")
    }
    assert registered == set(SAMPLES)
    for name in registered:
        assert callable(in_plain_pytorch(name)), name
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"vmr::{name}", "Meta"), name
        for key in ("CPU", "CUDA", "MPS", "AutocastCPU", "AutocastCUDA"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"vmr::{name}", key), (name, key)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_reference(name: str, dtype: torch.dtype, device: str) -> None:
    relative, absolute = TOLERANCES[dtype]
    for sample in SAMPLES[name](dtype):
        arguments = on(device, sample)
        before = [argument.clone() for argument in arguments if isinstance(argument, Tensor)]
        results = outputs(operator(name)(*arguments))
        expected = outputs(in_plain_pytorch(name)(*arguments))
        assert len(results) == len(expected)
        for result, wanted in zip(results, expected, strict=True):
            torch.testing.assert_close(
                result,
                wanted,
                rtol=relative,
                atol=absolute,
                equal_nan=True,
                msg=lambda message, sample=sample: f"{name}, {sample.name}: {message}",
            )
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        for tensor, copy in zip(tensors, before, strict=True):
            torch.testing.assert_close(tensor, copy, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients(name: str, device: str) -> None:
    for sample in SAMPLES[name](torch.float64):
        if sample.name in {"special cases", "NaN in the padding"} or "zero" in sample.name:
            continue  # not differentiable there; test_equals_the_reference has the backward op
        inputs = leaves(on(device, sample))
        assert torch.autograd.gradcheck(operator(name), inputs, fast_mode=True), sample.name


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_second_derivatives_are_refused(name: str) -> None:
    arguments = leaves(SAMPLES[name](torch.float64)[0].arguments)
    loss = sum(output.square().sum() for output in outputs(operator(name)(*arguments)))
    (gradient,) = torch.autograd.grad(loss, arguments[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name: str, device: str) -> None:
    for sample in SAMPLES[name](torch.float32)[:2]:
        arguments = on(device, sample)
        torch.library.opcheck(
            operator(name), leaves(arguments) if name in DIFFERENTIABLE else arguments
        )


class Call(torch.nn.Module):
    """An operator as a module, which torch.export asks for."""

    def __init__(self, name: str, settings: tuple[Any, ...]) -> None:
        super().__init__()
        self.operator = operator(name)
        self.settings = settings

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return outputs(self.operator(*tensors, *self.settings))


def split(sample: Sample) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    tensors = tuple(value for value in sample.arguments if isinstance(value, Tensor))
    return tensors, sample.arguments[len(tensors) :]


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(name: str) -> None:
    tensors, settings = split(SAMPLES[name](torch.float32)[0])
    module = Call(name, settings)
    torch._dynamo.reset()  # one code is compiled for many operators
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for result, wanted in zip(compiled(*tensors), module(*tensors), strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_exports(name: str) -> None:
    tensors, settings = split(SAMPLES[name](torch.float32)[0])
    module = Call(name, settings)
    exported = torch.export.export(module, tensors).module()
    for result, wanted in zip(exported(*tensors), module(*tensors), strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(dropout_samples.SAMPLES)))
def test_autocast_computes_in_float32(name: str, dtype: torch.dtype) -> None:
    sample = SAMPLES[name](dtype)[0]
    wide = [
        argument.float()
        if isinstance(argument, Tensor) and argument.is_floating_point()
        else argument
        for argument in sample.arguments
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = outputs(operator(name)(*sample.arguments))
    for result, wanted in zip(results, outputs(operator(name)(*wide)), strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", dropout_samples.SAMPLES)
def test_autocast_leaves_the_dtype_as_it_is(name: str, dtype: torch.dtype) -> None:
    sample = SAMPLES[name](dtype)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = outputs(operator(name)(*sample.arguments))
    for result, wanted in zip(results, outputs(operator(name)(*sample.arguments)), strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_falls_back_to_the_reference_where_there_is_no_kernel(name: str) -> None:
    # No such device is here: the kernel registered for MPS is called with CPU tensors.
    arguments = SAMPLES[name](torch.float32)[0].arguments
    results = outputs(operator(name)._op_dk(torch._C.DispatchKey.MPS, *arguments))
    for result, wanted in zip(results, outputs(in_plain_pytorch(name)(*arguments)), strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    # Large enough that the work is shared out, and by sizes that no block divides.
    random = torch.Generator().manual_seed(17)
    frames, dim, rows = 3001, 70, 1500
    own = torch.cat([torch.randperm(frames, generator=random)[:rows].sort().values for _ in "ab"])
    splits = torch.tensor([0, rows, 2 * rows])
    embeddings = [
        torch.randn(*shape, generator=random)
        for shape in ((2, 3, dim), (2, 3, dim), (frames, dim), (2 * rows, dim))
    ]
    gradient = torch.randn(2, frames, generator=random)
    spans = torch.rand(900, 2, generator=random)
    by_stem = [
        (name, sample.arguments)
        for stem in (alignment_samples.SAMPLES, background_samples.SAMPLES, dropout_samples.SAMPLES)
        for name, samples in stem.items()
        for sample in samples(torch.float32, large=True)
    ]
    many = torch.rand(8, 20000, generator=random)
    lengths = torch.full((8,), 20000)
    images = torch.randn(21, 37, 37, 5, generator=random)
    tiled = torch.randn(1, 300, 300, 5, generator=random)
    weight, bias = torch.randn(16, 5, 9, 9, generator=random), torch.zeros(16)
    sizes = torch.arange(21) + 17
    maps = torch.randn(3, 301, 301, generator=random)
    of_maps = (torch.tensor([[5, 250]] * 3), torch.arange(4), torch.tensor([301, 280, 301]))
    sevens = torch.full((1290,), 7)
    found: list[list[Tensor]] = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results: list[Tensor] = []
        for min_max in (False, True):
            arguments = (*embeddings, own, splits, min_max, 0.5, 0.5)
            results += outputs(torch.ops.vmr.granular_scores(*arguments))
            results += outputs(torch.ops.vmr.granular_scores_backward(gradient, *arguments))
        results += torch.ops.vmr.granular_proposals(
            many, lengths, torch.full((8,), 0.8), 1, 20.0, 0.3, False
        )
        results += torch.ops.vmr.span_nms(
            torch.stack([many, many + 0.01], -1), many, lengths, 0.5, 20
        )
        results += [torch.ops.vmr.assignment(maps[0, :300].reshape(-1, 10, 7), sevens)]
        results += [torch.ops.vmr.span_giou(spans, spans)]
        results += torch.ops.vmr.span_giou_backward(torch.ones(900, 900), spans, spans)
        for image, valid in ((images, sizes), (tiled, torch.tensor([290]))):
            convolved = torch.ops.vmr.large_conv2d(image, weight, bias, valid)
            spectrum = torch.ops.vmr.large_conv2d_spectrum(weight, image.shape[1])
            results += [convolved, spectrum]
            results += [torch.ops.vmr.large_conv2d_kept(image, weight, bias, valid, spectrum)]
            results += torch.ops.vmr.large_conv2d_backward(convolved, image, weight, valid, True)
        for name, arguments in by_stem:
            results += outputs(operator(name)(*arguments))
        results += [torch.ops.vmr.vertex_loss(maps, *of_maps, False, True)]
        results += [torch.ops.vmr.vertex_loss_backward(maps[:, 0, 0], maps, *of_maps, True, True)]
        results += torch.ops.vmr.top_points(maps, of_maps[2], 20)
        found.append(results)
    for other in found[1:]:
        for result, wanted in zip(other, found[0], strict=True):
            assert torch.equal(result, wanted)


WITH_ISA_VARIANTS = [
    "granular_scores",
    "granular_scores_backward",
    "large_conv2d",
    "large_conv2d_backward",
    "large_conv2d_kept",
    "large_conv2d_spectrum",
    "vertex_loss",
    "vertex_loss_backward",
    *alignment_samples.SAMPLES,
    *background_samples.SAMPLES,
    *dropout_samples.SAMPLES,
]


def run_with_isa(isa: str, program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VMR_CPU_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(isa: str) -> None:
    used = run_with_isa(isa, "from vmr import _core; print(_core.build_config()['cpu_isa'])")
    if "no more than this CPU has" in used.stderr:
        pytest.skip(f"this CPU has no {isa}")
    assert used.stdout.strip() == isa
    done = run_with_isa(
        isa,
        "from tests.ops import test_every_op as t\n"
        "for name in t.WITH_ISA_VARIANTS:\n"
        "    for dtype in t.DTYPES:\n"
        "        t.test_equals_the_reference(name, dtype, 'cpu')",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "program",
    [
        "from vmr import _core; _core.build_config()",
        "import torch, vmr.ops; x = torch.ones(1, 2); vmr.ops.span_iou(x, x)",
    ],
)
def test_an_unknown_instruction_set_is_refused(program: str) -> None:
    done = run_with_isa("mmx", program)
    assert done.returncode != 0
    assert "VMR_CPU_ISA must be baseline, avx2 or avx512" in done.stderr
    assert 'got "mmx"' in done.stderr
