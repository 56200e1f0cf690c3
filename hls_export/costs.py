"""What a network costs on a chip, by each schedule there is."""

from hls_export.bundle import Bundle
from hls_export.cycles import FrameCost, layer_by_layer
from hls_export.memory import check_size
from hls_export.npu import Chip, load_chip
from hls_export.plan import StripePlan
from hls_export.plan_cycles import planned
from hls_export.uniform_tiles import uniform_tiles
from quant.integer_graph import IntegerGraph

STRIPE_PLAN, UNIFORM_TILES, LAYER_BY_LAYER = "stripe plan", "uniform tiles", "layer by layer"


def chip_of(bundle: Bundle, name_or_path: str | None) -> Chip:
    """The chip that a bundle was made for: by the name in it, or the one given.

    Raises ValueError when its capability is not the bundle's, FileNotFoundError when there is none.
    """
    name = bundle.text(bundle.chip.name)
    try:
        chip = load_chip(name_or_path or name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; give the bundle's chip with --chip FILE.toml") from None
    if chip.capability.crc32 != bundle.chip.capability_crc32:
        raise ValueError(
            f"chip {chip.name}: capability must have the bundle's CRC-32 "
            f"{bundle.chip.capability_crc32:08x}, got {chip.capability.crc32:08x}; give the file "
            f"that chip {name!r} was exported with by --chip FILE.toml, or export again"
        )
    return chip


def frame_costs(
    graph: IntegerGraph, chip: Chip, height: int, width: int, plan: StripePlan | None = None
) -> dict[str, FrameCost]:
    """Title of a schedule -> its cost on a frame, the one to go by first: the plan when given.

    Raises ValueError when a size is not positive, or when there is no plan and a layer's smallest
    uniform tile does not fit SRAM; where a plan fits and they do not, uniform tiles are left out.
    """
    check_size("costs", height, width)
    found = {} if plan is None else {STRIPE_PLAN: planned(graph, plan, chip, height, width)}
    try:
        found[UNIFORM_TILES] = uniform_tiles(graph, chip, height, width)
    except ValueError:
        if plan is None:
            raise
    found[LAYER_BY_LAYER] = layer_by_layer(graph, chip, height, width)
    return found
