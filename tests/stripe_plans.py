"""Small graphs for stripe plans, and the least cost of any plan of theirs by trying them all."""

import itertools
import math

import numpy as np

from hls_export.group_shape import Array, Options, Problem, Shape, ways_to_remake
from hls_export.npu import Chip, load_chip
from quant import contract
from quant.contract import Op
from quant.integer_graph import IMAGE, Buffer, IntegerGraph, Layer, View


def with_sram(size: int) -> Chip:
    """The reference chip with other SRAM."""
    chip = load_chip("reference")
    performance = chip.performance.model_copy(update={"sram_bytes": size})
    return chip.model_copy(update={"performance": performance})


def chain(seed: int, count: int) -> IntegerGraph:
    """A random graph of `count` layers: 3x3, 1x1, one pair of stride 2 and UP, joins over skips."""
    rng = np.random.default_rng([seed, count])
    buffers = [Buffer(IMAGE, 3, 0, contract.IMAGE_EXPONENT)]
    layers: list[Layer] = []
    source = View(IMAGE, 0, 3)
    down = int(rng.integers(1, max(2, count - 3))) if count >= 4 else None
    up = int(rng.integers(down + 1, count - 1)) if down is not None else None

    def numbers(*shape: int) -> dict[str, np.ndarray]:
        return {
            "weight": np.ones(shape, np.int8),
            "weight_exponent": np.full(shape[0], 7),
            "bias": np.zeros(shape[0], np.int64),
        }

    level = 0
    for index in range(count - 1):
        op = Op.CONV3X3 if rng.random() < 0.6 else Op.CONV1X1
        if index == down:
            op = Op.CONV3X3_STRIDE2
        elif index == up:
            op = Op.UP
        level += {Op.CONV3X3_STRIDE2: 1, Op.UP: -1}.get(op, 0)
        channels = int(rng.integers(2, 9))
        mates = [b for b in buffers[1:] if b.level == level]
        join = None
        if mates and rng.random() < 0.5:
            mate = mates[int(rng.integers(len(mates)))]
            join, channels = View(mate.name, 0, mate.channels), mate.channels
        buffers.append(Buffer(f"b{index}", channels, level, 7))
        out = View(f"b{index}", 0, channels)
        spread = 4 if op is Op.UP else 1
        shape = (channels * spread, source.channels, op.kernel, op.kernel)
        layers.append(Layer(f"l{index}", op, source, out, join, False, **numbers(*shape)))
        source = out
    layers.append(
        Layer("tail", Op.TAIL, source, None, None, False, **numbers(3, source.channels, 3, 3))
    )
    return IntegerGraph(f"chain-{seed}", 1, tuple(buffers), tuple(layers))


class EveryTile(Problem):
    """A problem of DRAM bytes alone, in tiles of every size."""

    price = 0.0

    def tiles(self, depth: int) -> tuple[Array, Array]:
        unit = 1 << depth
        sides = (np.arange(unit, side + 1, unit) for side in self.padded)
        rows, columns = np.meshgrid(*sides, indexing="ij")
        return self._tiles.setdefault(depth, (rows.ravel(), columns.ravel()))


def brute_force(
    graph: IntegerGraph, chip: Chip, options: Options, problem_of: type[Problem] = Problem
) -> float:
    """Least cost over all cuts, all sets of line buffers, all tiles and both ways with `head`."""
    best = math.inf
    for again in ways_to_remake(graph, options):
        problem = problem_of(graph, chip, options, again)
        count = len(graph.layers)
        cost: dict[tuple[int, int], float] = {}
        for start, end in itertools.combinations(range(count + 1), 2):
            drafts = problem.drafts(start, end)
            if problem.made_elsewhere(drafts):
                continue
            names = sorted({d.view.buffer for d in drafts if d.view is not None})
            for size in range(len(names) + 1):
                for keep in itertools.combinations(names, size):
                    shape = Shape(problem, drafts, frozenset(keep))
                    rows, columns = problem.tiles(shape.depth)
                    live = shape.live(rows, columns)
                    fits = live <= problem.limit
                    if fits.any():
                        least = float(shape.cost(rows, columns, live)[fits].min())
                        cost[start, end] = min(cost.get((start, end), math.inf), least)
        reach = [0.0] + [math.inf] * count
        for end in range(1, count + 1):
            reach[end] = min(
                reach[start] + cost.get((start, end), math.inf) for start in range(end)
            )
        best = min(best, reach[count])
    return best
