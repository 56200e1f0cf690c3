"""How an image is cut: tiles on the network's grid, each read with its halo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# More cuts of a side than this are not tried.
_CUTS = 256


@dataclass(frozen=True)
class Side:
    """A length cut into shares of `share` pixels, the last one smaller; each reads `halo` more on
    both ends, as far as there is more.

    Shares start on the grid, so a tile's pixels are computed from the same cells as without tiles.
    """

    length: int
    share: int
    halo: int

    def shares(self) -> Iterator[tuple[int, int]]:
        """(start, end) of each."""
        for start in range(0, self.length, self.share):
            yield start, min(start + self.share, self.length)

    def with_halo(self, start: int, end: int) -> tuple[int, int]:
        return max(start - self.halo, 0), min(end + self.halo, self.length)

    def read(self) -> list[int]:
        """How much each share reads."""
        return [end - start for start, end in (self.with_halo(*share) for share in self.shares())]


@dataclass(frozen=True)
class Tiling:
    """Tiles: every share of the height with every share of the width."""

    rows: Side
    columns: Side

    @property
    def largest_pass(self) -> int:
        """Pixels of the largest tile with its halo."""
        return max(self.rows.read()) * max(self.columns.read())

    @property
    def computed(self) -> int:
        """Pixels that all passes compute together, halos included."""
        return sum(self.rows.read()) * sum(self.columns.read())


def choose_tiling(height: int, width: int, grid: int, halo: int, pass_pixels: float) -> Tiling:
    """The tiling with the fewest computed pixels of those whose passes stay within `pass_pixels`.

    Where not even tiles of one cell do, these: the halo is needed whatever the budget.
    """
    across = [(side, side.read()) for side in _cuts(width, grid, halo)]
    ways = [(side, max(read), sum(read)) for side, read in across]
    best: tuple[int, Side, Side] | None = None
    for rows in _cuts(height, grid, halo):
        read = rows.read()
        for columns, widest, together in ways:
            if max(read) * widest <= pass_pixels:
                computed = sum(read) * together
                if best is None or computed < best[0]:
                    best = computed, rows, columns
                break  # narrower tiles of these rows only compute more
    if best is None:
        return Tiling(Side(height, grid, halo), Side(width, grid, halo))
    return Tiling(best[1], best[2])


def _cuts(length: int, grid: int, halo: int) -> list[Side]:
    """A length in 1, 2, 3 ... equal shares, rounded up to the grid."""
    cells = -(-length // grid)
    counts = range(1, min(cells, _CUTS) + 1)
    shares = dict.fromkeys(-(-cells // count) * grid for count in counts)
    return [Side(length, share, halo) for share in shares]
