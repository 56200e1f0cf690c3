"""The denoiser in quantised blocks: what the IntegerGraph will do, with gradients.

The network mirrors `starlight.models.DenoisingNetwork` for the Choices that can be lowered. Values
that flow between modules are accumulators, not yet rounded; the quantiser of the buffer that
receives them rounds once. Quantisers run in the order of `quant.topology.layer_shapes`, one call
per layer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from brevitas.function.ops_ste import floor_ste
from brevitas.nn import QuantConv2d, QuantIdentity
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle, relu

from quant import contract
from quant.precision import Precision
from quant.quantizers import Activation, Bias, DyadicScale, Weight
from quant.topology import Topology
from starlight.models.config import DenoiserConfig
from starlight.models.denoiser import check_input

Observer = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Integers:
    """A layer of multiplier arithmetic as float64 integers: weight [O, I, k, k], bias [O].

    factor M / 2^n and join_factor R / 2^n, both [O]: floor(acc * factor + q * join_factor + 1/2) is
    exact, see docs/NUMERICS.md. out_scale: a power of two, the unit of what the layer hands on.
    """

    weight: Tensor
    bias: Tensor
    factor: Tensor
    join_factor: Tensor
    out_scale: float


class QuantConv(QuantConv2d):
    """A convolution that takes QuantTensors and hands on its accumulator, joined, unrounded.

    integers: while set, the layer computes with these and not with its parameters.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        name: str,
        precision: Precision,
        shuffled: bool = False,
    ) -> None:
        super().__init__(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=kernel // 2,
            weight_quant=Weight,
            weight_bit_width=precision.layer(name),
            weight_arithmetic=precision.arithmetic,
            bias_quant=Bias,
            return_quant_tensor=False,
        )
        self.weight_bits = precision.layer(name)
        self.shuffled = shuffled
        self.integers: Integers | None = None

    def forward(self, x: IntQuantTensor, join: IntQuantTensor | None = None) -> Tensor:
        """[N, I, H, W] -> [N, O, H, W], or [N, O / 4, 2H, 2W] when shuffled, plus `join`."""
        if self.integers is not None:
            return self._exact(self.integers, x, join)
        accumulator: Tensor = super().forward(x)
        if self.shuffled:
            accumulator = pixel_shuffle(accumulator, 2)
        return accumulator if join is None else accumulator + join.value

    def _exact(self, integers: Integers, x: IntQuantTensor, join: IntQuantTensor | None) -> Tensor:
        q, stride, padding = x.value / x.scale, self.stride, self.padding
        acc = conv2d(q, integers.weight, integers.bias, stride, padding)
        total = acc * integers.factor.view(-1, 1, 1)
        if self.shuffled:
            total = pixel_shuffle(total, 2)
        if join is not None:
            factor = integers.join_factor.view(-1, 1, 1).expand(acc.shape[-3:])
            factor = pixel_shuffle(factor, 2) if self.shuffled else factor
            total = total + join.value / join.scale * factor
        return total * integers.out_scale


def weight_scale(conv: QuantConv2d) -> DyadicScale:
    """Where the exponents of a convolution's weights live, shape [O, 1, 1, 1]."""
    scale: DyadicScale = conv.weight_quant.tensor_quant.scaling_impl
    return scale


class BufferQuantiser(QuantIdentity):
    """Rounds what enters a buffer; while `observer` is set, shows it the values and rounds not."""

    def __init__(self, name: str, precision: Precision) -> None:
        super().__init__(
            act_quant=Activation,
            bit_width=precision.buffer(name),
            arithmetic=precision.arithmetic,
            return_quant_tensor=True,
        )
        self.bits = precision.buffer(name)
        self.observer: Callable[[Tensor], None] | None = None

    @property
    def scale(self) -> DyadicScale:
        scale: DyadicScale = self.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl
        return scale

    def forward(self, x: Tensor) -> IntQuantTensor:
        if self.observer is None:
            return super().forward(x)
        self.observer(x)
        return _quantised(x, self.scale(x), self.training, self.bits)


def _quantised(
    x: Tensor, scale: Tensor, training: bool, bits: int = contract.ACTIVATION_BITS
) -> IntQuantTensor:
    zero = torch.zeros((), dtype=x.dtype)
    width = torch.full((), float(bits), dtype=x.dtype)
    return IntQuantTensor(x, scale, zero, width, signed=True, training=training)


def _joined(*members: IntQuantTensor) -> IntQuantTensor:
    """Join channels of tensors that share their quantiser (Brevitas' own cat averages scales)."""
    first = members[0]
    return IntQuantTensor(
        torch.cat([member.value for member in members], 1),
        first.scale,
        first.zero_point,
        first.bit_width,
        signed=True,
        training=first.training,
    )


class QuantDenseBlock(nn.Module):
    """`members` quantises every slice of the growth buffer, `out` the block's output."""

    def __init__(self, width: int, growth: int, step: str, precision: Precision) -> None:
        super().__init__()
        name = f"{step}.dense"
        self.members = BufferQuantiser(name, precision)
        self.out = BufferQuantiser(f"{step}.out", precision)
        self.conv1, self.conv2, self.conv3 = (
            QuantConv(width + k * growth, growth, name=f"{name}.conv{k + 1}", precision=precision)
            for k in range(3)
        )
        self.fuse = QuantConv(
            width + 3 * growth, width, 1, name=f"{name}.fuse", precision=precision
        )

    def forward(self, accumulator: Tensor) -> tuple[IntQuantTensor, IntQuantTensor]:
        """Accumulator [N, M, H, W] -> (the block's input, its output), quantised."""
        x = self.members(accumulator)
        out1 = self.members(relu(self.conv1(x)))
        out2 = self.members(relu(self.conv2(_joined(x, out1))))
        out3 = self.members(relu(self.conv3(_joined(x, out1, out2))))
        return x, self.out(self.fuse(_joined(x, out1, out2, out3), x))


class QuantEncoderStep(nn.Module):
    def __init__(
        self, width: int, growth: int, below: int, name: str, precision: Precision
    ) -> None:
        super().__init__()
        self.dense = QuantDenseBlock(width, growth, name, precision)
        self.down = QuantConv(width, below, stride=2, name=f"{name}.down", precision=precision)

    def forward(self, accumulator: Tensor) -> tuple[IntQuantTensor, IntQuantTensor, Tensor]:
        """Accumulator -> (the block's input, its output, the next level's accumulator)."""
        x, out = self.dense(accumulator)
        return x, out, self.down(out)


class QuantDecoderStep(nn.Module):
    def __init__(
        self, below: int, width: int, growth: int, name: str, precision: Precision
    ) -> None:
        super().__init__()
        self.up = QuantConv(
            below, 4 * width, 1, name=f"{name}.up", precision=precision, shuffled=True
        )
        self.dense = QuantDenseBlock(width, growth, name, precision)

    def forward(self, x: IntQuantTensor, skip: IntQuantTensor) -> IntQuantTensor:
        """The level below and the skip -> the block's output."""
        _, out = self.dense(self.up(x, skip))
        return out


class QuantDenoisingNetwork(nn.Module):
    """[N, 3, H, W] -> [N, 3, H, W] in the network's units, (pixel - 128) / 128.

    The input must hold whole pixels 0..255. In training mode the output is image minus residual
    accumulator; in eval mode the residual is rounded and the result clipped, as the chip does.

    precision: arithmetic and bits; 8 bits and dyadic unless told.

    Raises ValueError for a config with Choices that have no integer form, naming them, and for a
    precision that names what the network has not.
    """

    def __init__(self, config: DenoiserConfig, precision: Precision | None = None) -> None:
        super().__init__()
        check_lowerable(config)
        self.config = config
        self.precision = precision = precision or Precision()
        precision.check(self.topology)
        widths, growths, levels = config.widths, config.growths, range(config.levels)
        self.head = QuantConv(contract.IMAGE_CHANNELS, widths[0], name="head", precision=precision)
        self.encoder = nn.ModuleList(
            QuantEncoderStep(widths[k], growths[k], widths[k + 1], f"encoder.{k}", precision)
            for k in levels
        )
        middle = QuantDenseBlock(widths[-1], growths[-1], "middle", precision)
        self.middle = nn.ModuleDict({"dense": middle})
        self.decoder = nn.ModuleList(
            QuantDecoderStep(widths[k + 1], widths[k], growths[k], f"decoder.{k}", precision)
            for k in levels
        )
        self.second = QuantConv(widths[0], widths[0], name="second", precision=precision)
        self.second_out = BufferQuantiser("second", precision)
        self.tail = QuantConv(widths[0], contract.IMAGE_CHANNELS, name="tail", precision=precision)

    @property
    def topology(self) -> Topology:
        return Topology(self.config.widths, self.config.growths)

    def quantisers(self) -> Iterator[tuple[str, BufferQuantiser]]:
        """(buffer name of `quant.topology`, its quantiser)."""
        for name, module in self.named_modules():
            if isinstance(module, QuantDenseBlock):
                yield name, module.members
                yield f"{name.removesuffix('.dense')}.out", module.out
        yield "second", self.second_out

    def convolution(self, layer: str) -> QuantConv:
        """The convolution behind a layer name of `quant.topology`."""
        conv = self.get_submodule(layer)
        assert isinstance(conv, QuantConv)
        return conv

    def forward(self, image: Tensor) -> Tensor:
        check_input(image, self.config.grid)
        scale = torch.full((), 2.0**-contract.IMAGE_EXPONENT, dtype=image.dtype)
        accumulator = self.head(_quantised(image, scale, self.training))
        head: IntQuantTensor | None = None
        skips = []
        for step in self.encoder:
            x, out, accumulator = step(accumulator)
            head = x if head is None else head
            skips.append(out)
        _, out = self.middle["dense"](accumulator)
        for level in reversed(range(self.config.levels)):
            out = self.decoder[level](out, skips[level])
        assert head is not None
        residual = self.tail(self.second_out(self.second(out, head)))
        if self.training:
            return image - residual
        steps = 2.0**contract.IMAGE_EXPONENT
        low, high = -contract.IMAGE_OFFSET, contract.PIXEL_MAX - contract.IMAGE_OFFSET
        pixels = torch.clamp(image * steps - floor_ste(residual * steps + 0.5), low, high)
        return pixels / steps

    @contextmanager
    def observing(self, observer: Observer) -> Iterator[None]:
        """Within, activations pass unrounded and `observer(buffer name, values)` sees them."""
        try:
            for name, quantiser in self.quantisers():
                quantiser.observer = lambda values, name=name: observer(name, values)
            yield
        finally:
            for _, quantiser in self.quantisers():
                quantiser.observer = None


def check_lowerable(config: DenoiserConfig) -> None:
    """Raise ValueError naming the Choices that have no integer form."""
    if config.not_lowerable:
        choices = ", ".join(config.not_lowerable)
        raise ValueError(f"quantisation: choices must have an integer form, got {choices}")
