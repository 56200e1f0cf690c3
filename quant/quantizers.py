"""Brevitas quantisers of the integer contract: half-up rounding, learned exponents.

A dyadic scale is 2^-floor(e + 1/2) with e a parameter, so in float64 the fake-quantised network and
the integer graph are the same numbers. In multiplier arithmetic the scale is 2^-e, any real.
"""

import torch
from brevitas.core.function_wrapper import TensorClamp
from brevitas.core.scaling import ScalingPerOutputType
from brevitas.function.ops_ste import floor_ste
from brevitas.inject import ExtendedInjector, value
from brevitas.inject.enum import RestrictValueType
from brevitas.quant.base import IntQuant, NarrowIntQuant
from brevitas.quant.solver import ActQuantSolver, BiasQuantSolver, WeightQuantSolver
from torch import Tensor, nn

from quant import contract


class RoundHalfUp(nn.Module):
    """floor(x + 1/2) with a straight-through gradient: ties go toward +infinity."""

    def __init__(self) -> None:  # the injector needs an explicit one
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return floor_ste(x + 0.5)


class DyadicScale(nn.Module):
    """scale = 2^-clamp(floor(e + 1/2), low, high), `exponent` e being the parameter.

    The gradient passes straight through floor and reaches e where e is in range.
    """

    def __init__(self, shape: tuple[int, ...], low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.exponent = nn.Parameter(torch.full(shape, (low + high) / 2))

    def forward(self, x: Tensor, threshold: Tensor | None = None) -> Tensor:
        return torch.exp2(-torch.clamp(floor_ste(self.exponent + 0.5), self.low, self.high))

    @property
    def in_use(self) -> Tensor:
        """The exponent that forward takes."""
        return torch.clamp(torch.floor(self.exponent.detach() + 0.5), self.low, self.high)


class RealScale(DyadicScale):
    """scale = 2^-clamp(e, low, high) of any real e."""

    def forward(self, x: Tensor, threshold: Tensor | None = None) -> Tensor:
        return torch.exp2(-torch.clamp(self.exponent, self.low, self.high))

    @property
    def in_use(self) -> Tensor:
        return torch.clamp(self.exponent.detach(), self.low, self.high)


def _scale(arithmetic: str, shape: tuple[int, ...], exponents: range) -> DyadicScale:
    kind = DyadicScale if arithmetic == contract.ARITHMETIC else RealScale
    return kind(shape, exponents[0], exponents[-1])


class _Learned(ExtendedInjector):
    """What the three quantisers share. The solvers want a restriction; our scales need none."""

    arithmetic = contract.ARITHMETIC
    float_to_int_impl = RoundHalfUp
    tensor_clamp_impl = TensorClamp
    restrict_scaling_type = RestrictValueType.FP


class Activation(_Learned, IntQuant, ActQuantSolver):
    """int8, or int16 with bit_width 16, with one exponent per tensor.

    One instance serves all members of a dense block.
    """

    bit_width = contract.ACTIVATION_BITS
    scaling_per_output_type = ScalingPerOutputType.TENSOR

    @value
    def scaling_impl(arithmetic: str, bit_width: int) -> DyadicScale:
        return _scale(arithmetic, (), contract.activation_exponents(bit_width))


class Weight(_Learned, NarrowIntQuant, WeightQuantSolver):
    """bit_width b of 4..8, in -(2^(b-1) - 1)..2^(b-1) - 1, with an exponent per output channel."""

    bit_width = contract.WEIGHT_BITS
    scaling_per_output_type = ScalingPerOutputType.CHANNEL

    @value
    def scaling_impl(
        arithmetic: str, scaling_per_output_channel_shape: tuple[int, ...]
    ) -> DyadicScale:
        exponents = range(contract.WEIGHT_EXPONENT_MIN, contract.WEIGHT_EXPONENT_MAX + 1)
        return _scale(arithmetic, scaling_per_output_channel_shape, exponents)


class Bias(_Learned, IntQuant, BiasQuantSolver):
    """int32 at the accumulator's scale, which is input scale times weight scale."""

    bit_width = contract.BIAS_BITS
    requires_input_scale = True
