"""What a network costs, from its config alone: parameters, MACs per pixel, receptive radius."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from starlight.models.config import DenoiserConfig
from starlight.models.denoiser import DenoisingNetwork


def parameter_count(config: DenoiserConfig) -> int:
    with torch.device("meta"):
        network = DenoisingNetwork(config)
    return sum(parameter.numel() for parameter in network.parameters())


def macs_per_pixel(config: DenoiserConfig) -> float:
    """Multiply-accumulates of all convolutions per image pixel, counted on the meta device."""
    with torch.device("meta"):
        network = DenoisingNetwork(config)
        image = torch.empty(1, 3, config.grid, config.grid)
    with FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() / 2 / config.grid**2


def receptive_radius(config: DenoiserConfig) -> int:
    """Largest distance in pixels (along a row or column) at which input can move an output.

    Follows the interval of samples that one output pixel reads back through the network, for
    every position of that pixel on the grid.
    """
    return max(
        max(pixel - low, high - pixel)
        for pixel in range(config.grid)
        for low, high in [_reach(config, pixel)]
    )


def tile_halo(config: DenoiserConfig) -> int:
    """Pixels, on the grid, that a tile of whole grid cells reads beyond each of its borders.

    Less than the receptive radius: a cell's reach counts from the cell's border.
    """
    reach = [_reach(config, pixel) for pixel in range(config.grid)]
    beyond = max(max(-low, high - (config.grid - 1)) for low, high in reach)
    return -(-beyond // config.grid) * config.grid


Interval = tuple[int, int]


def _wider(interval: Interval, by: int) -> Interval:
    return interval[0] - by, interval[1] + by


def _union(first: Interval | None, second: Interval) -> Interval:
    if first is None:
        return second
    return min(first[0], second[0]), max(first[1], second[1])


def _reach(config: DenoiserConfig, pixel: int) -> Interval:
    reads_head = _wider((pixel, pixel), 1)  # tail; the outer add reads the head's output here
    x = _wider(reads_head, 1)  # second
    blocks: dict[int, Interval] = {}
    modules: dict[int, Interval] = {}
    for level in range(config.levels):
        x = _wider(x, 3)  # dense block
        if config.skip == "post_up":
            blocks[level] = x
        if config.upsampling == "nearest":
            x = _wider(x, 1)
        x = x[0] // 2, x[1] // 2
        if config.skip == "module":
            modules[level] = x
        elif config.skip == "literal" and level + 1 < config.levels:
            blocks[level + 1] = x
    x = _wider(x, 3)  # middle
    for level in reversed(range(config.levels)):
        x = _union(modules.get(level), x)
        x = 2 * x[0] - 1, 2 * x[1] + 1  # stride-2 convolution
        x = _union(blocks.get(level), x)
        x = _wider(x, 3)
    return _wider(_union(reads_head, x), 1)
