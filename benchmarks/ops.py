"""The fused operators against other people's engines: `python -m benchmarks.ops`.

Every peer's result, and ours, is held against float64 before anything is timed. Forward peers are
PyTorch eager in both layouts, torch.compile, onnxruntime, OpenVINO and ncnn where they are
installed; with backward they are PyTorch alone. All have the same threads and precision.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler, which measures memory, is quiet

import click
import numpy as np
import torch
from cases import LARGE, Case, DenseBlockCase, StridedConvCase, UpsampleCase
from torch import Tensor

from benchmarks import ROOT
from benchmarks.command import Benchmark
from benchmarks.engines import ENGINES, INPUT, Graph, Precision, input_array, relative_error
from benchmarks.machine import Machine, core_count
from benchmarks.tables import check_block, markdown_table, write_block
from benchmarks.timing import Timing, time_in_turns
from starlight.models import PRESETS, DenoisingNetwork
from starlight.models.cost import macs_per_pixel

Run = Callable[[], Any]

# Relative root mean square error against float64 beyond which a peer computes something else. In a
# gradient, a ReLU whose input rounds to the other side of zero counts as a whole step.
ERROR_MAX: Final[dict[tuple[str, Precision], float]] = {
    ("forward", "float32"): 1e-4,
    ("forward", "bfloat16"): 3e-2,
    ("training", "float32"): 1e-2,
    ("training", "bfloat16"): 3e-1,
}
DTYPES: Final[dict[Precision, torch.dtype]] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Job:
    """What a row measures: ours (and our direct form) beside peers, once verified.

    flops: as the direct form counts them. goal: the least ratio. memory: our run, then eager's.
    """

    case: str
    mode: str
    flops: int
    goal: float | None
    runs: dict[str, Run]

    @property
    def peers(self) -> list[str]:
        return [name for name in self.runs if not name.startswith("ours")]


@dataclass(frozen=True)
class NetworkCase:
    """A preset on frames; training on patches, a step of `batch` of them."""

    preset: str
    columns: int
    rows: int
    batch: int = 8
    patch: int = 96

    @property
    def name(self) -> str:
        return f"{self.preset}-{self.columns}x{self.rows}"


# 1080 rows on the grid of 16.
NETWORKS: Final = (NetworkCase("edge", 1920, 1088),)
NETWORK_GOALS: Final = {
    ("forward", "float32"): 2.0,
    ("forward", "bfloat16"): 1.15,
    ("training", "float32"): 1.6,
    ("training", "bfloat16"): 1.6,
}
QUICK: Final = DenseBlockCase(16, 8, 48, 64)
CASES: Final[dict[str, Case | NetworkCase]] = {
    case.name: case for case in (QUICK, *LARGE, *NETWORKS)
}
MODES: Final = ("forward", "training")
PEERS: Final = ("eager", "eager_nchw", "compile", *ENGINES)


def operator_job(case: Case, mode: str, precision: Precision, peers: Sequence[str]) -> Job:
    """The runs of an operator; inputs and parameters all have the precision."""
    inputs = case.inputs(0, DTYPES[precision])
    contiguous = [value.contiguous() for value in inputs]
    wide = [value.double() for value in inputs]
    if mode == "training":
        step = partial(training_step, parameters=None)
        runs: dict[str, Run] = {
            "ours": partial(step, case.fused, inputs),
            "eager": partial(step, case.reference, inputs),
            "eager_nchw": partial(step, case.reference, contiguous),
            "compile": partial(step, torch.compile(case.reference), inputs),
        }
        exact = training_step(case.reference, wide, parameters=None)
        flops = 3 * case.flops
    else:
        runs = {"ours": partial(inference, case.fused, inputs)}
        if not isinstance(case, UpsampleCase) and precision == "float32":
            direct = partial(case.fused, winograd=False)
            runs["ours_direct"] = partial(inference, direct, inputs)
        runs |= {
            "eager": partial(inference, case.reference, inputs),
            "eager_nchw": partial(inference, case.reference, contiguous),
            "compile": partial(inference, torch.compile(case.reference), inputs),
        }
        graph = Graph(tuple(inputs[0].shape))
        if isinstance(case, DenseBlockCase):
            graph.dense_block(INPUT, inputs[1:5], inputs[5:9])
        elif isinstance(case, StridedConvCase):
            graph.conv(INPUT, inputs[1], inputs[2], stride=2, relu=case.activation)
        else:
            out = graph.conv(INPUT, inputs[1], inputs[2])
            if isinstance(case, UpsampleCase):
                graph.add("shuffle", out)
        runs |= engine_runs(graph, inputs[0], precision, peers)
        exact = inference(case.reference, wide)
        flops = case.flops
    goal = case.forward_goal if mode == "forward" else case.training_goal
    runs = verified(case.name, runs, exact, ERROR_MAX[mode, precision], peers)
    return Job(case.name, f"{mode} {precision}", flops, goal, runs)


def network_job(case: NetworkCase, mode: str, precision: Precision, peers: Sequence[str]) -> Job:
    """The runs of a whole network: its weights in float32, bfloat16 by autocast."""
    config = PRESETS[case.preset]
    torch.manual_seed(0)
    plain = DenoisingNetwork(config)
    fused = DenoisingNetwork(config, "fused")
    fused.load_state_dict(plain.state_dict())
    shape = (case.rows, case.columns) if mode == "forward" else (case.patch, case.patch)
    batch = 1 if mode == "forward" else case.batch
    x = torch.randn(batch, 3, *shape)
    nchw, flops = copy.deepcopy(plain), int(2 * macs_per_pixel(config) * x.numel() / 3)
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = x.contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(plain)
    networks: dict[str, tuple[Any, Tensor]] = {
        "ours": (fused, last),
        "eager": (plain, last),
        "eager_nchw": (nchw, x),
        "compile": (compiled, last),
    }
    runs: dict[str, Run] = {}
    for name, (network, image) in networks.items():
        lowered = partial(autocast, network, precision)
        if mode == "forward":
            runs[name] = partial(inference, lowered, [image])
        else:
            parameters = list(network.parameters())
            runs[name] = partial(training_step, lowered, [image], parameters=parameters)
    wide = copy.deepcopy(nchw).double()
    if mode == "forward":
        graph = Graph(tuple(x.shape))
        graph.network(nchw)
        runs |= engine_runs(graph, x, precision, peers)
        exact = inference(lambda values: wide(values[0]), [x.double()])
    else:
        exact = training_step(
            lambda values: wide(values[0]), [x.double()], parameters=list(wide.parameters())
        )
        flops *= 3
    runs = verified(case.name, runs, exact, ERROR_MAX[mode, precision], peers)
    return Job(case.name, f"{mode} {precision}", flops, NETWORK_GOALS[mode, precision], runs)


def autocast(network: Any, precision: Precision, values: Sequence[Tensor]) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        return network(values[0])


def inference(run: Callable[[Sequence[Tensor]], Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.inference_mode():
        return [run(inputs)]


def training_step(
    run: Callable[[Sequence[Tensor]], Tensor],
    inputs: Sequence[Tensor],
    *,
    parameters: list[Any] | None,
) -> list[Tensor]:
    """Forward and backward; gradients of `parameters`, of the inputs where they are None."""
    leaves = [value.detach().requires_grad_(parameters is None) for value in inputs]
    out = run(leaves)
    loss = out.square().mean(dtype=torch.promote_types(out.dtype, torch.float32))
    return list(torch.autograd.grad(loss, parameters or leaves))


def engine_runs(
    graph: Graph, x: Tensor, precision: Precision, peers: Sequence[str]
) -> dict[str, Run]:
    threads = torch.get_num_threads()
    return {
        name: ENGINES[name].open(graph, input_array(x), threads, precision)
        for name in ENGINES
        if name in peers and precision in ENGINES[name].precisions
    }


def verified(
    case: str,
    runs: dict[str, Run],
    exact: list[Tensor],
    error_max: float,
    peers: Sequence[str],
) -> dict[str, Run]:
    """Ours and the chosen peers, each within error_max of float64.

    Raises ValueError for one that is not.
    """
    chosen = {name: run for name, run in runs.items() if name.startswith("ours") or name in peers}
    for name, run in chosen.items():
        got = run()
        values = (
            [np.asarray(got)]
            if not isinstance(got, list)
            else [value.detach().double().numpy() for value in got]
        )
        worst = max(relative_error(*pair) for pair in zip(values, exact, strict=True))
        if not worst <= error_max:
            raise ValueError(
                f"{case}: {name} must be within {error_max} of float64, got {worst:.2g}"
            )
    return chosen


def peak_bytes(run: Run) -> int:
    """The most memory that torch's CPU allocator held during a run, beyond what it held before."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    held = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def row_of(job: Job, timings: dict[str, Timing], machine: Machine) -> dict[str, Any]:
    """A row of the document; ratio: best peer over ours; limit_share: of all threads' FMA."""
    ours = timings["ours"].median_ms
    peers = {name: timings[name].median_ms for name in job.peers}
    direct = timings.get("ours_direct")
    limit = machine.fma_gflop_per_s

    def share(ms: float) -> float | None:
        if limit is None:
            return None
        return job.flops / (ms * 1e-3) / (limit * 1e9 * torch.get_num_threads())

    return {
        "case": job.case,
        "mode": job.mode,
        "ours_ms": ours,
        "ours_p20_p80_ms": [timings["ours"].p20_ms, timings["ours"].p80_ms],
        "ours_direct_ms": None if direct is None else direct.median_ms,
        "peers_ms": peers,
        "ratio": min(peers.values()) / ours if peers else None,
        "goal": job.goal,
        "limit_share": share(ours),
        "limit_share_direct": None if direct is None else share(direct.median_ms),
        "peak_bytes": peak_bytes(job.runs["ours"]),
        "peak_bytes_eager": peak_bytes(job.runs["eager"]) if "eager" in job.runs else None,
        "cores": timings["ours"].cores,
        "runs": len(timings["ours"].wall_s),
    }


DOCUMENT: Final = ROOT / "docs" / "KERNELS.md"
BLOCK: Final = "ops"
TITLES: Final = (
    *("case", "mode", "ours ms", "best peer", "ms", "ratio", "goal", "of limit", "direct"),
    *("peak MB", "eager MB", "cores"),
)


def cells_of(row: dict[str, Any]) -> list[str]:
    """The row as it is printed."""
    peers = row["peers_ms"]
    best = min(peers, key=peers.get) if peers else "-"

    def text(value: float | None, form: str, scale: float = 1.0) -> str:
        return "-" if value is None else format(value * scale, form)

    return [
        row["case"],
        row["mode"],
        f"{row['ours_ms']:.2f}",
        best,
        text(peers.get(best), ".2f"),
        text(row["ratio"], ".2f"),
        text(row["goal"], ".2f"),
        text(row["limit_share"], ".0f", 100) + " %",
        text(row["limit_share_direct"], ".0f", 100) + " %",
        text(row["peak_bytes"], ".1f", 1e-6),
        text(row["peak_bytes_eager"], ".1f", 1e-6),
        f"{row['cores']:.1f}",
    ]


@click.command(
    "ops",
    cls=Benchmark,
    cases=CASES,
    quick={"seconds": 0.0, "least": 1, "only": (QUICK.name,), "peers": ("eager", *ENGINES)},
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    help="Time each peer for at least that long.",
)
@click.option(
    "--least", type=click.IntRange(1), default=7, show_default=True, help="Runs at the least."
)
@click.option(
    "--mode", "modes", type=click.Choice(MODES), multiple=True, default=MODES, show_default="both"
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(list(DTYPES)),
    multiple=True,
    default=tuple(DTYPES),
    show_default="both",
)
@click.option(
    "--peer",
    "peers",
    type=click.Choice(PEERS),
    multiple=True,
    default=PEERS,
    show_default="all that are installed",
)
@click.option(
    "--threads", type=click.IntRange(1), default=core_count(), show_default="cores", help="Of all."
)
@click.option("--write-docs", is_flag=True, help="Put the table into docs/KERNELS.md.")
def main(
    cases: tuple[str, ...],
    machine: Machine,
    seconds: float,
    least: int,
    modes: tuple[str, ...],
    precisions: tuple[Precision, ...],
    peers: tuple[str, ...],
    threads: int,
    write_docs: bool,
) -> dict[str, Any]:
    """Fused operators and the network on them: milliseconds beside the best peer, memory.

    `of limit` is of the threads' float32 multiply-adds, operations counted as the direct form has
    them: Winograd may pass 100 %. `direct` is that share without Winograd. `cores` is how many were
    kept busy: below the threads the machine had other work, and only the ratio says something.
    """
    if write_docs:
        check_block(DOCUMENT, BLOCK)
    torch.set_num_threads(threads)
    absent = [name for name in ENGINES if name in peers and not ENGINES[name].available()]
    if absent:
        click.echo(f"left out, not installed: {', '.join(absent)}", err=True)
    present = [name for name in peers if name not in absent]
    rows = []
    for name in cases:
        case = CASES[name]
        for mode in modes:
            for precision in precisions:
                make = network_job if isinstance(case, NetworkCase) else operator_job
                job = make(case, mode, precision, present)  # type: ignore[arg-type]
                timings = time_in_turns(job.runs, seconds=seconds, least=least)
                rows.append(row_of(job, timings, machine))
                click.echo(" ".join(cells_of(rows[-1])), err=True)
    table = markdown_table(TITLES, [cells_of(row) for row in rows])
    click.echo(table)
    isa = torch.ops.starlight.isa()
    if write_docs:
        write_block(DOCUMENT, BLOCK, f"{machine}; {threads} threads, {isa}.\n\n{table}")
        click.echo(f"written: {DOCUMENT.relative_to(ROOT)}")
    return {"threads": threads, "isa": isa, "rows": rows}


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.ops")
