"""The denoiser in quantised blocks: what the IntegerGraph will do, with gradients.

The network mirrors `starlight.models.DenoisingNetwork` for the Choices that can be lowered. Values
that flow between modules are accumulators, not yet rounded; the quantiser of the buffer that
receives them rounds once. Quantisers run in the order of `quant.topology.layer_shapes`, one call
per layer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from brevitas.function.ops_ste import floor_ste
from brevitas.nn import QuantConv2d, QuantIdentity
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, relu

from quant import contract
from quant.quantizers import Activation, Bias, DyadicScale, Weight
from quant.topology import Topology
from starlight.models.config import DenoiserConfig
from starlight.models.denoiser import check_input

Observer = Callable[[str, Tensor], None]


def quant_conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> QuantConv2d:
    """A convolution that takes a QuantTensor and hands on its accumulator as a plain tensor."""
    return QuantConv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2,
        weight_quant=Weight,
        bias_quant=Bias,
        return_quant_tensor=False,
    )


def weight_scale(conv: QuantConv2d) -> DyadicScale:
    """Where the exponents of a convolution's weights live, shape [O, 1, 1, 1]."""
    scale: DyadicScale = conv.weight_quant.tensor_quant.scaling_impl
    return scale


class BufferQuantiser(QuantIdentity):
    """Rounds what enters a buffer; while `observer` is set, shows it the values and rounds not."""

    def __init__(self) -> None:
        super().__init__(act_quant=Activation, return_quant_tensor=True)
        self.observer: Callable[[Tensor], None] | None = None

    @property
    def scale(self) -> DyadicScale:
        scale: DyadicScale = self.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl
        return scale

    def forward(self, x: Tensor) -> IntQuantTensor:
        if self.observer is None:
            return super().forward(x)
        self.observer(x)
        return _quantised(x, self.scale(x), self.training)


def _quantised(x: Tensor, scale: Tensor, training: bool) -> IntQuantTensor:
    zero = torch.zeros((), dtype=x.dtype)
    bits = torch.full((), float(contract.ACTIVATION_BITS), dtype=x.dtype)
    return IntQuantTensor(x, scale, zero, bits, signed=True, training=training)


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

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.members = BufferQuantiser()
        self.out = BufferQuantiser()
        self.conv1 = quant_conv(width, growth)
        self.conv2 = quant_conv(width + growth, growth)
        self.conv3 = quant_conv(width + 2 * growth, growth)
        self.fuse = quant_conv(width + 3 * growth, width, kernel=1)

    def forward(self, accumulator: Tensor) -> tuple[IntQuantTensor, IntQuantTensor]:
        """Accumulator [N, M, H, W] -> (the block's input, its output), quantised."""
        x = self.members(accumulator)
        out1 = self.members(relu(self.conv1(x)))
        out2 = self.members(relu(self.conv2(_joined(x, out1))))
        out3 = self.members(relu(self.conv3(_joined(x, out1, out2))))
        return x, self.out(self.fuse(_joined(x, out1, out2, out3)) + x.value)


class QuantEncoderStep(nn.Module):
    def __init__(self, width: int, growth: int, below: int) -> None:
        super().__init__()
        self.dense = QuantDenseBlock(width, growth)
        self.down = quant_conv(width, below, stride=2)

    def forward(self, accumulator: Tensor) -> tuple[IntQuantTensor, IntQuantTensor, Tensor]:
        """Accumulator -> (the block's input, its output, the next level's accumulator)."""
        x, out = self.dense(accumulator)
        return x, out, self.down(out)


class QuantDecoderStep(nn.Module):
    def __init__(self, below: int, width: int, growth: int) -> None:
        super().__init__()
        self.up = quant_conv(below, 4 * width, kernel=1)
        self.dense = QuantDenseBlock(width, growth)

    def forward(self, x: IntQuantTensor, skip: IntQuantTensor) -> IntQuantTensor:
        """The level below and the skip -> the block's output."""
        _, out = self.dense(pixel_shuffle(self.up(x), 2) + skip.value)
        return out


class QuantDenoisingNetwork(nn.Module):
    """[N, 3, H, W] -> [N, 3, H, W] in the network's units, (pixel - 128) / 128.

    The input must hold whole pixels 0..255. In training mode the output is image minus residual
    accumulator; in eval mode the residual is rounded and the result clipped, as the chip does.

    Raises ValueError for a config with Choices that have no integer form, naming them.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        check_lowerable(config)
        self.config = config
        widths, growths, levels = config.widths, config.growths, range(config.levels)
        self.head = quant_conv(contract.IMAGE_CHANNELS, widths[0])
        self.encoder = nn.ModuleList(
            QuantEncoderStep(widths[k], growths[k], widths[k + 1]) for k in levels
        )
        self.middle = nn.ModuleDict({"dense": QuantDenseBlock(widths[-1], growths[-1])})
        self.decoder = nn.ModuleList(
            QuantDecoderStep(widths[k + 1], widths[k], growths[k]) for k in levels
        )
        self.second = quant_conv(widths[0], widths[0])
        self.second_out = BufferQuantiser()
        self.tail = quant_conv(widths[0], contract.IMAGE_CHANNELS)

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

    def convolution(self, layer: str) -> QuantConv2d:
        """The convolution behind a layer name of `quant.topology`."""
        conv = self.get_submodule(layer)
        assert isinstance(conv, QuantConv2d)
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
        residual = self.tail(self.second_out(self.second(out) + head.value))
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
