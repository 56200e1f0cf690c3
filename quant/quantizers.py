"""Brevitas quantisers of the integer contract: dyadic scales, half-up rounding, learned exponents.

Every scale is 2^-floor(e + 1/2) with e a parameter, so in float64 the fake-quantised network and
the integer graph are the same numbers.
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
    def integer(self) -> Tensor:
        """The exponent in use, int64."""
        return torch.clamp(torch.floor(self.exponent.detach() + 0.5), self.low, self.high).long()


class _Dyadic(ExtendedInjector):
    """What the three quantisers share. The solvers want a restriction; DyadicScale needs none."""

    float_to_int_impl = RoundHalfUp
    tensor_clamp_impl = TensorClamp
    restrict_scaling_type = RestrictValueType.FP


class Activation(_Dyadic, IntQuant, ActQuantSolver):
    """int8 with one exponent per tensor; one instance serves all members of a dense block."""

    bit_width = contract.ACTIVATION_BITS
    scaling_per_output_type = ScalingPerOutputType.TENSOR

    @value
    def scaling_impl() -> DyadicScale:
        low, high = contract.ACTIVATION_EXPONENT_MIN, contract.ACTIVATION_EXPONENT_MAX
        return DyadicScale((), low, high)


class Weight(_Dyadic, NarrowIntQuant, WeightQuantSolver):
    """int8 in -127..127 with an exponent per output channel."""

    bit_width = contract.WEIGHT_BITS
    scaling_per_output_type = ScalingPerOutputType.CHANNEL

    @value
    def scaling_impl(scaling_per_output_channel_shape: tuple[int, ...]) -> DyadicScale:
        low, high = contract.WEIGHT_EXPONENT_MIN, contract.WEIGHT_EXPONENT_MAX
        return DyadicScale(scaling_per_output_channel_shape, low, high)


class Bias(_Dyadic, IntQuant, BiasQuantSolver):
    """int32 at the accumulator's scale, which is input scale times weight scale."""

    bit_width = contract.BIAS_BITS
    requires_input_scale = True
