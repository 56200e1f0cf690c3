"""The CUDA operators against their meaning: on the emulator, and on a GPU where there is one.

Integers are equal; float tolerance is that of the CPU operators, beside plain PyTorch's error in
the same dtype.
"""

from collections.abc import Sequence
from typing import Any

import emulator
import gpu
import numpy as np
import pytest
import torch
from cases import (
    ERROR_RATIO,
    SMALL,
    WIDE,
    Case,
    DenseBlockCase,
    Run,
    StridedConvCase,
    draws,
    error,
    exact,
    gradients,
    hold_against,
    hold_against_pytorch,
    hold_to_rounding,
)
from cuda_operators import Emulated
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import tree_map_only

from quant import contract, intmath
from starlight.models import DenoiserConfig, DenoisingNetwork

pytestmark = pytest.mark.skipif(
    emulator.missing() is not None, reason=f"CUDA operators: {emulator.missing()}"
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# What an emulated case may cost; a GPU runs all.
MOST_FLOPS = 45_000_000
# Shared memory of a block: as on an H100, and too little for the blocks here in one pass.
SHARED = {"one pass": 227 << 10, "layered": 40 << 10}


def need_gpu() -> None:
    if reason := gpu.operators_missing():
        pytest.skip(reason)


def on_gpu(case: Case) -> Run:
    """Inputs and result on the CPU, the operator between on the GPU."""
    need_gpu()
    return lambda inputs: case.fused([value.cuda() for value in inputs]).cpu()


def run_of(where: str, case: Case) -> Run:
    if where == "gpu":
        return on_gpu(case)
    if case.flops > MOST_FLOPS:
        pytest.skip("takes long on the emulator; smaller cases have the same kernels")
    return Emulated(count=False).run(case)


# On a GPU the others are PyTorch's own convolutions.
KERNEL_CASES = [
    case for case in (*SMALL, *WIDE) if isinstance(case, DenseBlockCase | StridedConvCase)
]
PLAIN_CASES = [case for case in SMALL if case not in KERNEL_CASES]

everywhere = pytest.mark.parametrize("where", ["emulator", "gpu"])
one_of_each = pytest.mark.parametrize(
    "case",
    [DenseBlockCase(16, 8, 6, 9, images=2), StridedConvCase(8, 16, 7, 6, images=2)],
    ids=lambda case: case.op,
)


@pytest.mark.parametrize(
    ("where", "case"),
    [
        *(pytest.param("emulator", case, id=f"emulator-{case.name}") for case in KERNEL_CASES),
        *(pytest.param("gpu", case, id=f"gpu-{case.name}") for case in KERNEL_CASES),
        *(pytest.param("gpu", case, id=f"gpu-{case.name}") for case in PLAIN_CASES),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_is_at_most_twice_that_of_pytorch(where: str, case: Case, dtype: torch.dtype) -> None:
    run = run_of(where, case)
    hold_against_pytorch(case, run, 0, dtype, ERROR_RATIO, draws(case))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "case",
    [DenseBlockCase(16, 8, 40, 70), DenseBlockCase(16, 16, 9, 61), DenseBlockCase(24, 11, 7, 6)],
    ids=lambda case: case.name,
)
def test_both_ways_through_a_block_keep_the_bound(case: DenseBlockCase, dtype: torch.dtype) -> None:
    """Segments and strips meet where the image is larger than one of them."""
    inputs = case.inputs(1, dtype)
    wanted = case.reference([value.double() for value in inputs])
    plain = case.reference(inputs)
    for name, shared_bytes in SHARED.items():
        operators = Emulated(count=False, shared_bytes=shared_bytes, multiprocessors=64)
        assert operators.fits(inputs[0], case.growth) is (name == "one pass")
        hold_against([wanted], [operators.run(case)(inputs)], [plain], ERROR_RATIO)


@everywhere
@pytest.mark.parametrize(
    "case",
    [DenseBlockCase(3, 2, 4, 5, images=2), StridedConvCase(2, 3, 5, 4, activation=True)],
    ids=lambda case: case.op,
)
def test_gradcheck(where: str, case: Case) -> None:
    run = run_of(where, case)
    inputs = [value.requires_grad_() for value in case.inputs(4, torch.float64)]
    assert torch.autograd.gradcheck(lambda *values: run(values), inputs, fast_mode=True)


@settings(max_examples=12)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 9),
    st.integers(0, 20),
    st.integers(0, 2),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@example(16, 8, 0, 5, 1, False, 0)
@example(16, 8, 5, 5, 0, True, 0)
def test_any_size_in_float64(
    width: int, other: int, rows: int, columns: int, images: int, activation: bool, seed: int
) -> None:
    for case in (
        DenseBlockCase(width, other, rows, columns, images),
        StridedConvCase(width, other, rows, columns, images, activation),
    ):
        inputs = case.inputs(seed, torch.float64)
        run = Emulated(count=False, seed=1 + seed % 1000).run(case)
        hold_to_rounding(exact(case, inputs), [run(inputs), *gradients(run, inputs)])


@everywhere
@one_of_each
def test_strides_change_nothing(where: str, case: Case) -> None:
    run = run_of(where, case)
    x, *parameters = case.inputs(8)
    wanted = [run([x, *parameters]), *gradients(run, [x, *parameters])]
    images, channels, rows, columns = x.shape
    wide = torch.zeros(images, rows + 3, columns + 5, channels + 4)
    for offset in (4, 3):  # whole units of 16 bytes, and not
        view = wide[:, 2:-1, 1:-4, offset : offset + channels]
        view.copy_(x.permute(0, 2, 3, 1))
        got = run([view.permute(0, 3, 1, 2), *parameters])
        assert torch.equal(got, wanted[0])
        assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(run([x.contiguous(), *parameters]), wanted[0])


@one_of_each
def test_no_order_of_threads_moves_a_bit(case: Case) -> None:
    inputs = case.inputs(9, torch.float16)
    first = Emulated(count=False).run(case)
    wanted = [first(inputs), *gradients(first, inputs)]
    for seed in (1, 2):
        run = Emulated(count=False, seed=seed).run(case)
        for ours, value in zip([run(inputs), *gradients(run, inputs)], wanted, strict=True):
            assert torch.equal(ours, value)


@one_of_each
def test_nan_and_infinity_come_through(case: Case) -> None:
    x, *parameters = case.inputs(12, torch.float16)
    x[0, 0, 3, 3] = float("nan")
    x[1, 0, 3, 3] = float("inf")
    out = Emulated(count=False).run(case)([x, *parameters])
    assert out[0].isnan().any()
    assert not out[1].isfinite().all()


@one_of_each
def test_calls_may_be_captured_in_a_graph(case: Case) -> None:
    need_gpu()
    first, second = ([value.cuda() for value in case.inputs(seed)] for seed in (13, 14))
    case.fused(first)  # loads kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = case.fused(first)
    for kept, value in zip(first, second, strict=True):
        kept.copy_(value)
    graph.replay()
    assert torch.equal(out, case.fused(second))


@pytest.mark.parametrize("autocast", [None, torch.float16, torch.bfloat16], ids=str)
def test_the_fused_network_runs_on_a_gpu(autocast: torch.dtype | None) -> None:
    """Output and gradients: types of backend `reference`, errors at most twice its."""
    need_gpu()
    torch.manual_seed(0)
    config = DenoiserConfig(width=8, levels=2)
    plain, fused = DenoisingNetwork(config).cuda(), DenoisingNetwork(config, "fused").cuda()
    fused.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 24, 20, device="cuda")

    def run(network: DenoisingNetwork, image: Tensor) -> list[Tensor]:
        output = network(image)
        parameters = list(network.parameters())
        return [output.detach(), *torch.autograd.grad(output.square().mean(), parameters)]

    with torch.autocast("cuda", autocast or torch.float16, enabled=autocast is not None):
        got, peers = run(fused, image), run(plain, image)
    wanted = run(plain.double(), image.double())
    for ours, peer in zip(got, peers, strict=True):
        assert (ours.dtype, ours.shape, ours.device) == (peer.dtype, peer.shape, peer.device)
    total, peer_total = (
        sum(error(value, exact) ** 2 for value, exact in zip(values, wanted, strict=True))
        for values in (got, peers)
    )
    assert total**0.5 <= ERROR_RATIO * peer_total**0.5


# ---- integers: equal to quant.intmath


def int8_inputs(
    shapes: Sequence[tuple[int, ...]], x_shape: tuple[int, ...], seed: int
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """x, weights, biases, shifts; shifts so that sums meet both ends of the range."""
    generator = np.random.default_rng(seed)
    low, high = contract.ACTIVATION_MIN, contract.ACTIVATION_MAX
    x = torch.from_numpy(generator.integers(low, high, x_shape, np.int8, endpoint=True))
    weights, biases, shifts = [], [], []
    for shape in shapes:
        weight = generator.integers(-127, 127, shape, np.int8, endpoint=True)
        outputs = shape[0]
        weights.append(torch.from_numpy(weight))
        bias = generator.integers(-(2**14), 2**14, outputs, np.int32)
        biases.append(torch.from_numpy(bias))
        about = int(np.log2(weight[0].size) / 2 + 7)
        shifts.append(torch.from_numpy(generator.integers(about, about + 3, outputs, np.int32)))
    return x.contiguous(memory_format=torch.channels_last), weights, biases, shifts


def layer(
    x: np.ndarray, weight: Tensor, bias: Tensor, shift: Tensor, *, relu: bool, stride: int = 1
) -> np.ndarray:
    """One image [H, W, C] through a layer of the integer contract."""
    acc = intmath.convolve(x, weight.numpy(), bias.numpy(), stride)
    return intmath.requantise(acc, shift.numpy(), relu=relu)


def run_integers(where: str, name: str, x: Tensor, *arguments: Any) -> Tensor:
    """`name` of starlight.ops.int8; `where` is "gpu" or a key of SHARED."""
    if where != "gpu":
        operators = Emulated(count=False, shared_bytes=SHARED[where], multiprocessors=64)
        if name == "dense_block_int8":
            return operators.dense_block(x, *arguments)
        weight, bias, shifts, relu = arguments
        return operators.strided_conv(x, weight, bias, relu, shifts)
    need_gpu()
    from starlight.ops import int8

    moved = tree_map_only(Tensor, Tensor.cuda, arguments)
    return getattr(int8, name)(x.cuda(), *moved).cpu()


@pytest.mark.parametrize("where", [*SHARED, "gpu"])
@pytest.mark.parametrize(
    ("width", "growth", "rows", "columns", "images"),
    [(16, 8, 9, 61, 1), (16, 16, 40, 17, 1), (5, 3, 6, 7, 2), (32, 24, 5, 9, 1), (64, 40, 3, 5, 1)],
)
def test_integer_block_equals_the_contract(
    where: str, width: int, growth: int, rows: int, columns: int, images: int
) -> None:
    case = DenseBlockCase(width, growth, rows, columns, images)
    x_shape = (images, width, rows, columns)
    x, weights, biases, shifts = int8_inputs(case.shapes[:4], x_shape, width + growth)
    join_shifts = torch.arange(width, dtype=torch.int32) % 12
    got = run_integers(where, "dense_block_int8", x, weights, biases, shifts, join_shifts)
    for image, ours in zip(x.permute(0, 2, 3, 1).numpy(), got.permute(0, 2, 3, 1), strict=True):
        members = image
        for k in range(3):
            grown = layer(members, weights[k], biases[k], shifts[k], relu=True)
            members = np.concatenate((members, grown), -1)
        acc = intmath.convolve(members, weights[3].numpy(), biases[3].numpy())
        acc = intmath.join(acc, image, join_shifts.numpy())
        assert np.array_equal(ours.numpy(), intmath.requantise(acc, shifts[3].numpy()))


@pytest.mark.parametrize("where", ["one pass", "gpu"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("inputs", "outputs", "rows", "columns", "images"),
    [(16, 32, 9, 35, 1), (3, 5, 7, 6, 2), (40, 70, 4, 5, 1)],
)
def test_integer_strided_conv_equals_the_contract(
    where: str, relu: bool, inputs: int, outputs: int, rows: int, columns: int, images: int
) -> None:
    shape = (outputs, inputs, 3, 3)
    x, weights, biases, shifts = int8_inputs([shape], (images, inputs, rows, columns), inputs)
    arguments = (weights[0], biases[0], shifts[0], relu)
    got = run_integers(where, "strided_conv_int8", x, *arguments)
    for image, ours in zip(x.permute(0, 2, 3, 1).numpy(), got.permute(0, 2, 3, 1), strict=True):
        wanted = layer(image, weights[0], biases[0], shifts[0], relu=relu, stride=2)
        assert np.array_equal(ours.numpy(), wanted)


def test_integers_have_no_gradient() -> None:
    x, weights, biases, _ = int8_inputs(DenseBlockCase(4, 4, 3, 3).shapes[:4], (1, 4, 3, 3), 0)
    with pytest.raises(emulator.EmulatorFault, match="must be floating point"):
        Emulated().dense_block_backward(x, x, weights, biases)


# ---- what moves


@pytest.mark.parametrize(
    ("dtype", "growth", "most"),
    [(torch.float16, 8, 1.15), (torch.float16, 16, 1.15), (torch.int8, 16, 1.16)],
    ids=str,
)
def test_a_block_in_one_pass_moves_little_more_than_it_must(
    dtype: torch.dtype, growth: int, most: float
) -> None:
    """Activations once in and once out, at 512x512, as on an H100; weights apart."""
    case = DenseBlockCase(16, growth, 512, 512)
    operators = Emulated(multiprocessors=132)
    if dtype == torch.int8:
        x, weights, biases, shifts = int8_inputs(case.shapes[:4], case.out_shape, 0)
        out = operators.dense_block(x, weights, biases, shifts, torch.full_like(shifts[3], 5))
    else:
        out = operators.run(case)(case.inputs(0, dtype))
    packing, block = operators.launches
    assert (packing.name, block.name) == ("pack_weights", "dense_block")
    moved = block.buffers["x"][0].moved_bytes + block.buffers["out"][1].moved_bytes
    compulsory = 2 * out.numel() * out.element_size()
    assert moved <= most * compulsory
    both = packing.traffic + block.traffic
    assert both.full_transactions >= 0.9 * both.transactions
    assert block.bank_conflicts == 0
    assert block.ambiguous == packing.ambiguous == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_shared_memory_is_read_without_conflicts(dtype: torch.dtype) -> None:
    """Of float16 with a stride of 1, written without, too."""
    for case in (DenseBlockCase(16, 8, 20, 40), StridedConvCase(16, 32, 20, 40)):
        operators = Emulated()
        inputs = [value.requires_grad_() for value in case.inputs(0, dtype)]
        out = operators.run(case)(inputs)
        launches = operators.launches
        out.backward(torch.ones_like(out))
        for launch in (*launches, *operators.launches):
            assert launch.ambiguous == 0, launch.name
            for site in launch.sites:
                written = site.operation in ("store", "copy_to")
                if not written or (dtype == torch.float16 and case.op == "dense_block"):
                    assert site.bank_conflicts == 0, (launch.name, site)
