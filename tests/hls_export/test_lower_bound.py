"""The bound on DRAM traffic: below every plan there is, and not far below those that are found."""

import math

import pytest
from strategies import EDGE, random_graph
from stripe_plans import EveryTile, brute_force, chain, with_sram

from hls_export.group_shape import FRAME, Options
from hls_export.lower_bound import least_traffic
from hls_export.npu import known_chips, load_chip
from hls_export.plan import traffic
from hls_export.planner import plan_stripes

SMALL = Options(frame=(16, 24))


@pytest.mark.parametrize("size", [400, 700, 1200, 3000, 20000])
@pytest.mark.parametrize(("seed", "count"), [(0, 3), (1, 4), (2, 5), (4, 6), (6, 7), (7, 8)])
def test_no_plan_of_a_small_graph_is_below_the_bound(seed: int, count: int, size: int) -> None:
    """Every cut, mode and tile is tried, by DRAM bytes alone."""
    graph, chip = chain(seed, count), with_sram(size)
    least = brute_force(graph, chip, SMALL, EveryTile)
    if math.isinf(least):
        with pytest.raises(ValueError, match="must"):
            plan_stripes(graph, chip, SMALL)
        return
    bound = least_traffic(graph, chip, SMALL)
    assert 0.6 * least <= bound <= least


@pytest.mark.parametrize("name", known_chips())
def test_plans_of_the_chips_that_ship_are_near_the_bound(name: str) -> None:
    graph, chip = random_graph(0, EDGE), load_chip(name)
    moved = traffic(graph, plan_stripes(graph, chip), chip.capability.channel_block, *FRAME).total
    assert least_traffic(graph, chip) <= moved <= 2 * least_traffic(graph, chip)


def test_more_sram_never_raises_the_bound() -> None:
    graph = chain(5, 8)
    bounds = [least_traffic(graph, with_sram(size), SMALL) for size in (600, 1000, 2000, 8000)]
    assert bounds == sorted(bounds, reverse=True)


def test_what_fits_no_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="chip reference: SRAM of the smallest tiles must be at"):
        least_traffic(chain(0, 3), with_sram(64), SMALL)
