"""Op cases, the one home: shapes, inputs, floating-point operations, bounds, goals.

Tests take the small cases, benchmarks the large ones.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from starlight.ops import reference

# Root-mean-square error against a float64 reference, as a multiple of plain PyTorch's in the same
# dtype: direct convolutions, and float32 Winograd F(4x4, 3x3); docs/KERNELS.md has the measured.
ERROR_RATIO: Final = 2.0
ERROR_RATIO_WINOGRAD: Final = 6.0
# Fewer values than these have no root mean square to speak of: the one gradient of a bias may be
# what is left of a sum that cancels, or PyTorch's right by luck. So more inputs are drawn.
ENOUGH_VALUES: Final = 32
# Of any size and channels: relative to the result's own root mean square.
ERROR_WINOGRAD: Final = 3e-6
ERROR_WINOGRAD_CONV3X3: Final = 1e-6
ERROR_WINOGRAD_STRIDED: Final = 2e-7  # relative to that of the sums of absolute values
# Of float64, where only the order of additions differs; relative to the root mean square.
ROUNDING: Final = 1e-14


@dataclass(frozen=True)
class DenseBlockCase:
    """[images, width, rows, columns] through a dense block of `growth`.

    forward_goal, training_goal: the least speed over the best peer, and over eager with backward.
    """

    width: int
    growth: int
    rows: int
    columns: int
    images: int = 1
    forward_goal: float | None = None
    training_goal: float | None = None

    op = "dense_block"
    activations = (0,)  # among the inputs: what autocast lowers

    @property
    def name(self) -> str:
        return f"dense-{self.width}-{self.growth}-{self.columns}x{self.rows}" + (
            f"x{self.images}" if self.images != 1 else ""
        )

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of weights 0..3, then of biases 0..3."""
        m, g = self.width, self.growth
        return [*((g, m + k * g, 3, 3) for k in range(3)), (m, m + 3 * g, 1, 1), *[(g,)] * 3, (m,)]

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.images, self.width, self.rows, self.columns

    @property
    def flops(self) -> int:
        """Forward, two per multiply-add; the backward pass has twice as many."""
        weights = sum(torch.Size(shape).numel() for shape in self.shapes[:4])
        return 2 * weights * self.images * self.rows * self.columns

    def inputs(self, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """x (channels last), weights 0..3, biases 0..3, as at the start of a training."""
        generator = torch.Generator().manual_seed(seed)
        x = _normal(generator, (self.images, self.width, self.rows, self.columns))
        return _inputs(generator, x, self.shapes, dtype)

    def reference(self, inputs: Sequence[Tensor]) -> Tensor:
        return reference.dense_block(inputs[0], inputs[1:5], inputs[5:9])

    def fused(self, inputs: Sequence[Tensor], **options: Any) -> Tensor:
        from starlight.ops.dense_block import dense_block

        return dense_block(inputs[0], inputs[1:5], inputs[5:9], **options)


@dataclass(frozen=True)
class StridedConvCase:
    """[images, width, rows, columns] through a 3x3 of stride 2 to `outputs` channels."""

    width: int
    outputs: int
    rows: int
    columns: int
    images: int = 1
    activation: bool = False
    forward_goal: float | None = None
    training_goal: float | None = None

    op = "strided_conv"
    activations = (0,)

    @property
    def name(self) -> str:
        return (
            f"strided-{self.width}-{self.outputs}-{self.columns}x{self.rows}"
            + (f"x{self.images}" if self.images != 1 else "")
            + ("-relu" if self.activation else "")
        )

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [(self.outputs, self.width, 3, 3), (self.outputs,)]

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.images, self.outputs, (self.rows + 1) // 2, (self.columns + 1) // 2

    @property
    def flops(self) -> int:
        return 2 * 9 * self.width * torch.Size(self.out_shape).numel()

    def inputs(self, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """x (channels last), weight, bias."""
        generator = torch.Generator().manual_seed(seed)
        x = _normal(generator, (self.images, self.width, self.rows, self.columns))
        return _inputs(generator, x, self.shapes, dtype)

    def reference(self, inputs: Sequence[Tensor]) -> Tensor:
        return reference.strided_conv(*inputs, self.activation)

    def fused(self, inputs: Sequence[Tensor], **options: Any) -> Tensor:
        from starlight.ops.strided_conv import strided_conv

        x, weight, bias = inputs
        return strided_conv(x, weight, bias, self.activation, **options)


@dataclass(frozen=True)
class _SkipCase:
    """[images, width, rows, columns] to `outputs` channels, a skip added."""

    width: int
    outputs: int
    rows: int
    columns: int
    images: int = 1
    skip: bool = True
    forward_goal: float | None = None
    training_goal: float | None = None

    op: ClassVar[str]
    shapes: ClassVar[Any]
    out_shape: ClassVar[Any]
    activations = (0, 3)

    @property
    def name(self) -> str:
        return (
            f"{self.op}-{self.width}-{self.outputs}-{self.columns}x{self.rows}"
            + (f"x{self.images}" if self.images != 1 else "")
            + ("" if self.skip else "-alone")
        )

    @property
    def flops(self) -> int:
        return 2 * torch.Size(self.shapes[0]).numel() * self.images * self.rows * self.columns

    def inputs(self, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """x (channels last), weight, bias, and the skip (channels last) if there is one."""
        generator = torch.Generator().manual_seed(seed)
        x = _normal(generator, (self.images, self.width, self.rows, self.columns))
        values = _inputs(generator, x, self.shapes, dtype)
        if self.skip:
            skip = _normal(generator, self.out_shape).bfloat16().to(dtype)
            values.append(skip.contiguous(memory_format=torch.channels_last))
        return values


@dataclass(frozen=True)
class Conv3x3Case(_SkipCase):
    op = "conv3x3"

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [(self.outputs, self.width, 3, 3), (self.outputs,)]

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.images, self.outputs, self.rows, self.columns

    def reference(self, inputs: Sequence[Tensor]) -> Tensor:
        return reference.conv3x3(*inputs)

    def fused(self, inputs: Sequence[Tensor], **options: Any) -> Tensor:
        from starlight.ops.conv3x3 import conv3x3

        return conv3x3(*inputs, **options)


@dataclass(frozen=True)
class UpsampleCase(_SkipCase):
    op = "upsample"

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [(4 * self.outputs, self.width, 1, 1), (4 * self.outputs,)]

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.images, self.outputs, 2 * self.rows, 2 * self.columns

    def reference(self, inputs: Sequence[Tensor]) -> Tensor:
        return reference.upsample(*inputs)

    def fused(self, inputs: Sequence[Tensor]) -> Tensor:
        from starlight.ops.upsample import upsample

        return upsample(*inputs)


Case = DenseBlockCase | StridedConvCase | Conv3x3Case | UpsampleCase
Run = Callable[[Sequence[Tensor]], Tensor]


def _inputs(
    generator: torch.Generator, x: Tensor, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype
) -> list[Tensor]:
    """Values that bfloat16 holds exactly, so that every dtype starts from the same numbers."""
    parameters = []
    for shape in shapes:
        fan_in = torch.Size(shape[1:]).numel() if len(shape) == 4 else 16
        parameters.append(_normal(generator, shape) * (2.0 / fan_in) ** 0.5)
    x = x.contiguous(memory_format=torch.channels_last)
    return [value.bfloat16().to(dtype) for value in (x, *parameters)]


def _normal(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=generator)


def gradients(run: Run, inputs: Sequence[Tensor], draw: int = 0) -> list[Tensor]:
    """d(sum(run * r)) / d(inputs), inputs as they are; r normal, by shape and draw alone."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    out = run(leaves)
    generator = torch.Generator().manual_seed(out.numel() + draw)
    grad_out = torch.randn(out.shape, generator=generator).bfloat16().to(out.dtype)
    return list(torch.autograd.grad(out, leaves, grad_out))


def exact(case: Case, inputs: Sequence[Tensor], draw: int = 0) -> list[Tensor]:
    """Result and gradients in float64, of inputs in any dtype; zeros where there is no pixel."""
    wide = [value.double() for value in inputs]
    if inputs[0].numel() == 0:  # torch's convolutions take no empty rows
        return [torch.zeros(case.out_shape, dtype=torch.float64), *map(torch.zeros_like, wide)]
    return [case.reference(wide), *gradients(case.reference, wide, draw)]


def error(got: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference over that of the float64 reference."""
    return float((got.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def draws(case: Case) -> range:
    """As many as give every result and gradient enough values."""
    x_shape = (case.images, case.width, case.rows, case.columns)
    fewest = min(torch.Size(shape).numel() for shape in (x_shape, case.out_shape, *case.shapes))
    return range(-(-ENOUGH_VALUES // fewest))


def side_by_side(results: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """The values of all draws, for each result and gradient."""
    return [
        torch.cat([value.flatten() for value in values]) for values in zip(*results, strict=True)
    ]


def hold_against(
    wanted: Sequence[Tensor], got: Sequence[Tensor], plain: Sequence[Tensor], ratio: float
) -> None:
    """Assert that got's errors are at most `ratio` times plain's, which are a rounding at least.

    What is zero must be zero.
    """
    for index, (value, ours, peers) in enumerate(zip(wanted, got, plain, strict=True)):
        assert (ours.dtype, ours.shape) == (peers.dtype, peers.shape)
        if not value.any():
            assert not ours.any(), index
            continue
        allowed = torch.finfo(ours.dtype).eps / 2
        if peers.isfinite().all():  # PyTorch's bfloat16 gradient of a single pixel is not
            allowed = max(error(peers, value), allowed)
        assert error(ours, value) <= ratio * allowed, index


def hold_to_rounding(wanted: Sequence[Tensor], got: Sequence[Tensor]) -> None:
    """Assert that float64 differs by the order of additions alone."""
    for index, (value, ours) in enumerate(zip(wanted, got, strict=True)):
        assert (ours.dtype, ours.shape) == (value.dtype, value.shape)
        if value.any():
            assert error(ours, value) <= ROUNDING, index
        else:
            assert not ours.any(), index


def hold_against_pytorch(
    case: Case, run: Run, seed: int, dtype: torch.dtype, ratio: float, of_draws: Iterable[int]
) -> None:
    """`hold_against` PyTorch in `dtype`: result and gradients, all draws side by side."""
    wanted, got, plain = [], [], []
    for draw in of_draws:
        inputs = case.inputs(seed + 1000 * draw, dtype)
        wanted.append(exact(case, inputs, draw))
        got.append([run(inputs), *gradients(run, inputs, draw)])
        plain.append([case.reference(inputs), *gradients(case.reference, inputs, draw)])
        for ours, peers in zip(got[-1], plain[-1], strict=True):
            assert ours.shape == peers.shape
    hold_against(*map(side_by_side, (wanted, got, plain)), ratio)


# Off every tile grid, batched, one pixel, one row, one column, channels off every vector width.
SMALL: Final[tuple[Case, ...]] = (
    DenseBlockCase(16, 16, 24, 33),
    DenseBlockCase(16, 8, 17, 50, images=2),
    DenseBlockCase(32, 32, 36, 36),
    DenseBlockCase(32, 16, 29, 31),
    DenseBlockCase(64, 32, 22, 19, images=3),
    DenseBlockCase(128, 64, 24, 27),
    DenseBlockCase(8, 4, 21, 13),
    DenseBlockCase(5, 3, 11, 6, images=2),
    DenseBlockCase(1, 1, 4, 4),
    DenseBlockCase(16, 8, 1, 1),
    DenseBlockCase(16, 8, 1, 19),
    DenseBlockCase(16, 8, 19, 1),
    DenseBlockCase(16, 8, 3, 300),
    StridedConvCase(16, 32, 24, 33),
    StridedConvCase(32, 64, 17, 20, images=2),
    StridedConvCase(64, 128, 8, 9, activation=True),
    StridedConvCase(8, 16, 13, 70, images=2, activation=True),
    StridedConvCase(3, 5, 7, 6, images=2),
    StridedConvCase(33, 20, 9, 12, images=2, activation=True),
    StridedConvCase(70, 90, 6, 11),
    StridedConvCase(16, 32, 1, 1),
    StridedConvCase(16, 32, 2, 31, activation=True),
    StridedConvCase(1, 1, 5, 5),
    Conv3x3Case(3, 16, 21, 34),
    Conv3x3Case(16, 16, 24, 33, images=2),
    Conv3x3Case(16, 3, 18, 50, skip=False),
    Conv3x3Case(40, 24, 9, 11),
    Conv3x3Case(5, 7, 1, 1, images=2),
    Conv3x3Case(16, 16, 1, 600),
    UpsampleCase(32, 16, 9, 50, images=2),
    UpsampleCase(64, 32, 12, 17, skip=False),
    UpsampleCase(5, 3, 4, 7),
    UpsampleCase(40, 20, 1, 1),
)

# Wide ones of few pixels: the longest sums, and every way through the CUDA kernels, quick on the
# emulator.
WIDE: Final[tuple[Case, ...]] = (
    DenseBlockCase(64, 64, 3, 18),
    DenseBlockCase(128, 64, 2, 17),
    StridedConvCase(128, 256, 3, 4),
    Conv3x3Case(256, 24, 5, 7),
)

# What the model's levels look like, with the goals of docs/KERNELS.md.
LARGE: Final[tuple[Case, ...]] = (
    *(
        DenseBlockCase(width, growth, side, side, forward_goal=goal, training_goal=1.6)
        for width, side, goal in ((16, 512, 3.0), (32, 256, 2.5), (64, 128, 1.7), (128, 128, 1.3))
        for growth in (width, width // 2)
    ),
    StridedConvCase(16, 32, 512, 512, forward_goal=1.5),
    StridedConvCase(32, 64, 256, 256, forward_goal=1.1),
    StridedConvCase(64, 128, 128, 128, forward_goal=1.1),
    StridedConvCase(128, 256, 64, 64, forward_goal=1.1),
    *(Conv3x3Case(*channels, 512, 512, skip=False) for channels in ((3, 16), (16, 16), (16, 3))),
    *(
        UpsampleCase(2 * width, width, 4096 // width, 4096 // width, skip=False)
        for width in (16, 32)
    ),
)
