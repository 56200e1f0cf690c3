"""A trained network of multiplier arithmetic in integers: real scales become M, R and n.

For a layer with scales s_x of its input, s_w per channel of its weights, s_r of what joins and s_y
of its output, M / 2^n is nearest to s_x s_w / s_y and R / 2^n to s_r / s_y, with the largest n that
keeps both within MULTIPLIER_MAX.
"""

import numpy as np
import torch
from torch import Tensor

from quant import contract
from quant.integer_graph import IMAGE, Requantisation
from quant.modules import Integers, QuantDenoisingNetwork, weight_scale
from quant.topology import LayerShape, layer_shapes


def buffer_scales(quantised: QuantDenoisingNetwork) -> dict[str, float]:
    """Buffer name -> the value of one unit, the image's included."""
    exponents = {name: q.scale.in_use.double().item() for name, q in quantised.quantisers()}
    image = {IMAGE: float(contract.IMAGE_EXPONENT)}
    return {name: 2.0**-exponent for name, exponent in (image | exponents).items()}


def requantisation(
    quantised: QuantDenoisingNetwork, shape: LayerShape, scales: dict[str, float]
) -> Requantisation:
    """M, R and n of a layer; raises ValueError naming layer and channel when there are none."""
    weight = torch.exp2(-weight_scale(quantised.convolution(shape.name)).in_use.double().flatten())
    leaving = scales[shape.output.buffer if shape.output else IMAGE]
    joined = scales[shape.join.buffer] / leaving if shape.join else 0.0
    factor = np.asarray(weight.cpu().numpy() * scales[shape.input.buffer] / leaving, np.float64)
    try:
        return Requantisation.nearest(factor, joined)
    except ValueError as error:
        raise ValueError(f"layer {shape.name}, {error}") from error


def set_integers(frozen: QuantDenoisingNetwork) -> None:
    """Give each layer of a float64 copy its `integers`, then each buffer the scale 1."""
    scales = buffer_scales(frozen)
    for shape in layer_shapes(frozen.topology):
        conv = frozen.convolution(shape.name)
        found = requantisation(frozen, shape, scales)
        m, r, n = (torch.from_numpy(part).double().to(conv.weight.device) for part in found)
        quantised = conv.quant_weight()
        assert conv.bias is not None
        unit = scales[shape.input.buffer] * quantised.scale.flatten()
        conv.integers = Integers(
            weight=_nearest(quantised.value / quantised.scale),
            bias=_nearest(conv.bias / unit),
            factor=m * torch.exp2(-n),
            join_factor=r * torch.exp2(-n),
            out_scale=1.0 if shape.output else 2.0**-contract.IMAGE_EXPONENT,
        )
    for _, quantiser in frozen.quantisers():
        quantiser.scale.exponent.zero_()


def _nearest(values: Tensor) -> Tensor:
    return torch.floor(values + 0.5)
