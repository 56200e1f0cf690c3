"""Quantised model -> IntegerGraph: the only bridge from torch to the integer side."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from quant import contract
from quant.convert import buffer_exponents, frozen
from quant.integer_graph import IntArray, IntegerGraph
from quant.modules import QuantDenoisingNetwork, weight_scale
from quant.multipliers import buffer_scales, requantisation
from quant.topology import LayerShape, Numbers, assemble, layer_shapes
from starlight.models.padding import pad_to_grid


@torch.no_grad()
def lower(quantised: QuantDenoisingNetwork, name: str) -> IntegerGraph:
    """Read what the quantisers solved, from the float64 copy, into an IntegerGraph.

    Raises ValueError for what the contract does not hold, naming layer and channel.
    """
    model = frozen(quantised)
    bits = {buffer: quantiser.bits for buffer, quantiser in model.quantisers()}
    if not model.precision.dyadic:
        scales = buffer_scales(quantised)
        numbers = partial(_multiplied, model, quantised, scales)
        return assemble(model.topology, name, {}, numbers, bits, scales)
    exponents = {buffer: int(exponent) for buffer, exponent in buffer_exponents(model).items()}
    return assemble(model.topology, name, exponents, partial(_dyadic, model, exponents), bits)


def _dyadic(
    model: QuantDenoisingNetwork, exponents: Mapping[str, int], shape: LayerShape
) -> Numbers:
    conv = model.convolution(shape.name)
    weight_exponent = weight_scale(conv).in_use.long().flatten()
    weight = conv.quant_weight()
    assert conv.bias is not None
    bias_scale = torch.exp2((weight_exponent + exponents[shape.input.buffer]).double())
    bias = torch.floor(conv.bias * bias_scale + 0.5)
    _check_bias(shape.name, bias)
    return Numbers(
        _whole(weight.value / weight.scale, shape.name).astype(np.int8),
        weight_exponent.numpy(),
        _whole(bias, shape.name),
        conv.weight_bits,
    )


def _multiplied(
    model: QuantDenoisingNetwork,
    quantised: QuantDenoisingNetwork,
    scales: dict[str, float],
    shape: LayerShape,
) -> Numbers:
    conv = model.convolution(shape.name)
    integers = conv.integers
    assert integers is not None
    _check_bias(shape.name, integers.bias)
    bias = _whole(integers.bias, shape.name)
    return Numbers(
        _whole(integers.weight, shape.name).astype(np.int8),
        np.zeros_like(bias),
        bias,
        conv.weight_bits,
        requantisation(quantised, shape, scales),
    )


def _check_bias(layer: str, bias: Tensor) -> None:
    """A bias is refused, never clamped; the QAT model would clamp and go another way."""
    beyond = ~(bias.abs() <= contract.ACCUMULATOR_MAX)
    if beyond.any():
        channel = int(beyond.nonzero()[0])
        raise ValueError(
            f"layer {layer}, channel {channel}: bias must fit {contract.BIAS_BITS} bits at the "
            f"accumulator's exponent, got {bias[channel].item():.0f}"
        )


def _whole(values: Tensor, layer: str) -> IntArray:
    array = values.numpy()
    whole = array.astype(np.int64)
    if not np.array_equal(whole, array):
        raise ValueError(f"layer {layer}: numbers must be whole before lowering, got fractions")
    return whole


@torch.no_grad()
def run_quantised(
    quantised: QuantDenoisingNetwork, image: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The quantised model in float64 on uint8 [H, W, 3], as integers, with every layer's output.

    Returns the uint8 [H, W, 3] result and layer name -> int8 or int16 [h, w, C] (the tail: uint8,
    padded), the same shapes as `quant.interpret.run_traced` gives.
    """
    model = frozen(quantised)
    outputs: list[np.ndarray] = []

    def record(module: torch.nn.Module, inputs: object, output: object) -> None:
        value, scale = output.value, output.scale  # type: ignore[attr-defined]
        dtype = np.int8 if module.bits == contract.ACTIVATION_BITS else np.int16
        outputs.append(_whole((value / scale)[0].permute(1, 2, 0), "trace").astype(dtype))

    for _, quantiser in model.quantisers():
        quantiser.register_forward_hook(record)
    height, width = image.shape[:2]
    pixels = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    steps = 2.0**contract.IMAGE_EXPONENT
    padded = pad_to_grid((pixels - contract.IMAGE_OFFSET) / steps, model.config.grid)
    result = model(padded)[0].permute(1, 2, 0) * steps + contract.IMAGE_OFFSET
    output = _whole(result.contiguous(), "tail").astype(np.uint8)
    names = [shape.name for shape in layer_shapes(model.topology)]
    return output[:height, :width], dict(zip(names, [*outputs, output], strict=True))
