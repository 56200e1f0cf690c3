"""Tiles cover every pixel once, start on the grid, and stay within their budget."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from starlight.denoise.tiles import choose_tiling


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 4), st.integers(0, 9),
       st.integers(1, 40000))  # fmt: skip
def test_tiles_cover_the_image_within_the_budget(
    height: int, width: int, levels: int, cells: int, budget: int
) -> None:
    grid = 1 << levels
    halo = cells * grid
    tiling = choose_tiling(height, width, grid, halo, budget)
    for side, length in ((tiling.rows, height), (tiling.columns, width)):
        shares = list(side.shares())
        assert shares[0][0] == 0
        assert shares[-1][1] == length
        assert all(end == start for (_, end), (start, _) in pairwise(shares))
        assert all(start % grid == 0 for start, _ in shares)
    least = (grid + 2 * halo) ** 2
    assert tiling.largest_pass <= max(budget, least)
    if height * width <= budget:
        assert tiling.computed == height * width
