"""The engine beside other people's int8: `python -m benchmarks.engine`.

A dense block is timed as the step of a network that it is, its maps in the engine's own layout; the
peers run the block alone, its maps as their tensors. `edge` is a whole network, from uint8 image to
image. Every layer is held against the golden model by == on a small frame before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import click
import numpy as np
import torch
from strategies import random_graph, random_image

from benchmarks import ROOT
from benchmarks.command import Benchmark
from benchmarks.engines import ENGINES, INPUT, Graph
from benchmarks.int8_engines import (
    ACTIVATIONS,
    ENDS,
    FORMS,
    Ends,
    onnxruntime_int8,
    openvino_int8,
    torch_float,
)
from benchmarks.machine import Machine, core_count, dot_limit
from benchmarks.timing import Timing, time_in_turns
from hls_export.bundle import pack_bundle
from hls_export.executors import EXECUTORS
from hls_export.executors.engine import Engine, native
from hls_export.npu import load_chip
from hls_export.verify import compare_results
from quant.integer_graph import IntegerGraph
from quant.topology import Topology
from starlight.models.config import PRESETS
from starlight.models.denoiser import DenoisingNetwork
from starlight.tables import check_block, markdown_table, write_block

Run = Callable[[], object]


@dataclass(frozen=True)
class DenseCase:
    """A dense block of `width` channels, three members of `growth`, on `side` pixels square."""

    width: int
    growth: int
    side: int
    goal: float | None = None

    @property
    def name(self) -> str:
        return f"dense-{self.width}-{self.growth}-{self.side}"

    @property
    def graph(self) -> IntegerGraph:
        return random_graph(0, Topology((self.width, 16), (self.growth, 8)))

    @property
    def operations(self) -> int:
        m, g = self.width, self.growth
        return 2 * self.side**2 * (9 * g * (3 * m + 3 * g) + m * (m + 3 * g))

    def ours(self, model: Any, threads: int) -> Run:
        replay = native().Replay(model, random_image(0, self.side, self.side), threads)
        (step,) = (i for i, name in enumerate(replay.steps) if name.startswith("encoder.0.dense"))
        return partial(replay.run, step)

    def peers_graph(self) -> Graph:
        m, g = self.width, self.growth
        graph = Graph((1, m, self.side, self.side))
        generator = torch.Generator().manual_seed(0)
        shapes = [(g, m + i * g, 3, 3) for i in range(3)] + [(m, m + 3 * g, 1, 1)]
        weights = [
            torch.randn(shape, generator=generator) / np.sqrt(np.prod(shape[1:]))
            for shape in shapes
        ]
        graph.dense_block(INPUT, weights, [torch.zeros(shape[0]) for shape in shapes])
        return graph

    @property
    def frame(self) -> tuple[int, int]:
        return self.side, self.side


@dataclass(frozen=True)
class NetworkCase:
    """The preset `edge` on a frame."""

    columns: int
    rows: int
    goal: float | None = None

    @property
    def name(self) -> str:
        return f"edge-{self.columns}x{self.rows}"

    @property
    def graph(self) -> IntegerGraph:
        config = PRESETS["edge"]
        return random_graph(0, Topology(tuple(config.widths), tuple(config.growths)))

    @property
    def operations(self) -> int:
        graph = self.graph
        return 2 * sum(graph.macs(layer, self.rows, self.columns) for layer in graph.layers)

    def ours(self, model: Any, threads: int) -> Run:
        image = random_image(0, self.rows, self.columns)
        return partial(model.run, image, threads=threads, out=np.empty_like(image))

    def peers_graph(self) -> Graph:
        grid = 2 ** (len(PRESETS["edge"].widths) - 1)
        graph = Graph((1, 3, -(-self.rows // grid) * grid, -(-self.columns // grid) * grid))
        torch.manual_seed(0)
        graph.network(DenoisingNetwork(PRESETS["edge"]))
        return graph

    @property
    def frame(self) -> tuple[int, int]:
        return self.columns, self.rows


QUICK: Final = DenseCase(16, 8, 48)
HD: Final = NetworkCase(1920, 1080, 3.0)
BLOCKS: Final = (
    DenseCase(16, 16, 512, 2.8),
    DenseCase(16, 8, 512),
    DenseCase(32, 32, 256, 1.9),
    DenseCase(32, 16, 256),
    DenseCase(64, 64, 128, 1.35),
    DenseCase(64, 32, 128),
    DenseCase(128, 128, 128, 1.2),
    DenseCase(128, 64, 128),
)
SCALING: Final = (NetworkCase(640, 480), NetworkCase(1280, 720), HD, NetworkCase(3840, 2160))
CASES: Final[dict[str, DenseCase | NetworkCase]] = {
    case.name: case for case in (QUICK, *BLOCKS, *SCALING)
}
INT8: Final = "int8"
REST: Final = 0.02  # seconds between runs
PEERS: Final = ("onnxruntime", "openvino", "torch")


def peers_of(
    case: DenseCase | NetworkCase, ends: Ends, threads: int, peers: tuple[str, ...]
) -> dict[str, Run]:
    """Name -> run. Those in 8 bits have INT8 in their names; only they count for the ratio."""
    graph = case.peers_graph()
    opens: dict[str, Callable[[], Run]] = {}
    # Of a whole network u8 alone: it was the faster on every block, and memory is short.
    for activation in ACTIVATIONS if isinstance(case, DenseCase) else ACTIVATIONS[:1]:
        if "onnxruntime" in peers:
            for form in FORMS:
                name = f"onnxruntime {INT8} {form} {activation}"
                opens[name] = partial(onnxruntime_int8, graph, form, activation, ends, threads)
        if "openvino" in peers:
            name = f"openvino {INT8} {activation}"
            opens[name] = partial(openvino_int8, graph, activation, ends, threads)
    runs: dict[str, Run] = {}
    for name, peer in opens.items():
        try:
            runs[name] = peer()
        except Exception as error:  # every engine has classes of its own for what it cannot run
            click.echo(f"{case.name}: {name} left out: {str(error).strip()[-100:]!r}", err=True)
    if "openvino" in peers and case is HD:
        x = np.zeros(graph.shape, np.float32)
        runs["openvino bfloat16"] = ENGINES["openvino"].open(graph, x, threads, "bfloat16")
    if "torch" in peers:
        runs["torch float32"] = torch_float(graph, threads)
    return runs


def open_verified(case: DenseCase | NetworkCase) -> Any:
    """The engine's model. Raises ValueError where it differs from the golden model in any layer."""
    bundle = pack_bundle(case.graph, load_chip("reference"))
    image = random_image(1, 37, 70)
    difference = compare_results(Engine().run(bundle, image), EXECUTORS[0].run(bundle, image))
    if difference is not None:
        raise ValueError(f"{case.name}: engine must equal the golden model, got {difference}")
    return native().Model(bundle)


def row_of(
    case: DenseCase | NetworkCase,
    ends: Ends,
    threads: int,
    model: Any,
    timings: dict[str, Timing],
    limit: float | None,
) -> dict[str, Any]:
    """A row of the document; ratio: best int8 peer over ours; limit_share: of all threads' dots."""
    ours = timings["ours"].median_ms
    peers = {name: timing.median_ms for name, timing in timings.items() if name != "ours"}
    rivals = [ms for name, ms in peers.items() if INT8 in name]
    rate = case.operations / (ours * 1e-3)
    return {
        "case": case.name,
        "mode": ends,
        "threads": threads,
        "ours_ms": ours,
        "ours_p20_p80_ms": [timings["ours"].p20_ms, timings["ours"].p80_ms],
        "peers_ms": peers,
        "ratio": min(rivals) / ours if rivals else None,
        "goal": case.goal,
        "gop_per_s": rate / 1e9,
        "limit_share": None if limit is None else rate / (limit * 1e9 * threads),
        "peak_bytes": model.frame_bytes(*case.frame, threads),
        "cores": timings["ours"].cores,
        "runs": len(timings["ours"].wall_s),
    }


DOCUMENT: Final = ROOT / "docs" / "ENGINE.md"
BLOCK: Final = "engine"
TITLES: Final = (
    *("case", "threads", "peers' ends", "ours ms", "GOP/s", "of limit"),
    *("best int8 peer", "ms", "ratio", "goal", "best float peer", "ms", "memory MB", "cores"),
)


def cells_of(row: dict[str, Any]) -> list[str]:
    """The row as it is printed."""

    def best(int8: bool) -> tuple[str, str]:
        peers = {name: ms for name, ms in row["peers_ms"].items() if (INT8 in name) == int8}
        name = min(peers, key=lambda one: peers[one], default="-")
        return name.replace(f" {INT8}", ""), f"{peers[name]:.2f}" if peers else "-"

    share, ratio, goal = row["limit_share"], row["ratio"], row["goal"]
    return [
        row["case"],
        str(row["threads"]),
        row["mode"] if row["peers_ms"] else "-",
        f"{row['ours_ms']:.2f}",
        f"{row['gop_per_s']:.0f}",
        "-" if share is None else f"{share:.0%}",
        *best(True),
        "-" if ratio is None else f"{ratio:.2f}",
        "-" if goal is None or ratio is None else f"{goal:.2f}",
        *best(False),
        f"{row['peak_bytes'] / 1e6:.1f}",
        f"{row['cores']:.1f}",
    ]


@click.command(
    "engine",
    cls=Benchmark,
    cases=CASES,
    quick={"seconds": 0.0, "least": 1, "only": (QUICK.name,), "threads": (1,)},
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=0.2,
    show_default=True,
    help="Time each peer for at least that long.",
)
@click.option(
    "--least", type=click.IntRange(1), default=3, show_default=True, help="Runs at the least."
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    multiple=True,
    default=tuple(sorted({1, core_count()})),
    show_default="1 and cores",
    help="Repeatable; peers run with the most.",
)
@click.option(
    "--peer",
    "peers",
    type=click.Choice(PEERS),
    multiple=True,
    default=PEERS,
    show_default="all that are installed",
)
@click.option("--write-docs", is_flag=True, help="Put the table into docs/ENGINE.md.")
def main(
    cases: tuple[str, ...],
    machine: Machine,
    seconds: float,
    least: int,
    threads: tuple[int, ...],
    peers: tuple[str, ...],
    write_docs: bool,
) -> dict[str, Any]:
    """The native engine: milliseconds beside the best int8 peer, share of the processor's limit.

    `of limit` is of the threads' int8 dot products, the operations of the direct form. `cores` is
    how many were kept busy: below the threads the machine had other work. The engine's ends are
    uint8 in every row, the peers' as named.
    """
    if write_docs:
        check_block(DOCUMENT, BLOCK)
    present = tuple(
        name for name in peers if name == "torch" or (name in ENGINES and ENGINES[name].available())
    )
    for name in set(peers) - set(present):
        click.echo(f"left out, not installed: {name}", err=True)
    limit = dot_limit()
    rows = []
    for name in cases:
        case = CASES[name]
        model = open_verified(case)
        for count in sorted(set(threads)):
            beside = case not in SCALING or case is HD
            for ends in ENDS if beside and count == max(threads) else ENDS[:1]:
                runs: dict[str, Run] = {"ours": case.ours(model, count)}
                if beside and count == max(threads):
                    runs |= peers_of(case, ends, count, present)
                timings = time_in_turns(runs, seconds=seconds, least=least, rest=REST)
                rows.append(row_of(case, ends, count, model, timings, limit))
                click.echo(" ".join(cells_of(rows[-1])), err=True)
    table = markdown_table(TITLES, [cells_of(row) for row in rows])
    click.echo(table)
    if write_docs:
        shown = f", {limit:.0f} GOP/s int8" if limit is not None else ""
        text = f"{machine}{shown}; {model.instruction_set}.\n\n{table}"
        write_block(DOCUMENT, BLOCK, text)
        click.echo(f"written: {DOCUMENT.relative_to(ROOT)}")
    return {"dot_gop_per_s": limit, "instruction_set": model.instruction_set, "rows": rows}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.engine")
