"""The CUDA operators: `python -m benchmarks.cuda`, on a GPU timed, without one on paper.

Without a GPU: registers, spills and occupancy from the compiler, bytes and bank conflicts from the
emulator, and the time that memory or arithmetic alone would take. With one: the same, and times of
the operators through torch beside cuDNN's convolutions, and of their kernels alone through CuPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import click
import emulator
import gpu
import ptxas
import raw_module
import torch
from cases import ERROR_RATIO, Case, DenseBlockCase, StridedConvCase, error
from cuda_operators import Emulated, Operators
from torch import Tensor

from benchmarks import ROOT
from benchmarks.command import Benchmark
from benchmarks.machine import Machine
from starlight.tables import check_block, markdown_table, write_block

DOCUMENT: Final = ROOT / "docs" / "KERNELS.md"
BLOCK: Final = "cuda"


@dataclass(frozen=True)
class Chip:
    """A GPU by its data sheet: dense rates in T operations, GB a second, bytes of shared memory.

    `shared`: of a multiprocessor; `reserved` of it by every block. `threads`: of a multiprocessor.
    """

    name: str
    architecture: str
    multiprocessors: int
    threads: int
    shared: int
    memory_gb_per_s: float
    tera_per_s: dict[str, float]

    reserved = 1024
    registers = 65536

    def seconds(self, flops: int, byte_count: int, dtype: str) -> float:
        """The longer of arithmetic and memory, each at its limit."""
        return max(
            flops / (self.tera_per_s[dtype] * 1e12), byte_count / (self.memory_gb_per_s * 1e9)
        )

    def blocks(self, registers: int, threads: int, shared_bytes: int) -> int:
        """Of a kernel, those that a multiprocessor holds at a time."""
        per_warp = -(-registers * 32 // 256) * 256
        return min(
            self.threads // threads,
            self.registers // per_warp // (threads // 32),
            self.shared // (shared_bytes + self.reserved),
            32,
        )


def _rates(float32: float, half: float, int8: float) -> dict[str, float]:
    return {"float32": float32, "float16": half, "bfloat16": half, "int8": int8}


# NVIDIA's data sheets: A100 SXM 80 GB, H100 SXM, B200, Jetson AGX Orin 64 GB; without sparsity.
CHIPS: Final = (
    Chip("A100", "sm_80", 108, 2048, 164 << 10, 2039, _rates(19.5, 312, 624)),
    Chip("H100", "sm_90", 132, 2048, 228 << 10, 3350, _rates(67, 989, 1979)),
    Chip("B200", "sm_100", 148, 2048, 228 << 10, 8000, _rates(75, 2250, 4500)),
    Chip("Orin", "sm_87", 16, 1536, 164 << 10, 204.8, _rates(5.3, 42.5, 85)),
)
# The chip as which the emulator answers: grids depend on it.
LAUNCHED_ON: Final = CHIPS[1]
# sm_87 is compiled as sm_80, whose code it runs.
COMPILED: Final = {"sm_87": "sm_80"}
DTYPES: Final = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
}
ACTIVATIONS: Final = ("x", "out", "grad_out", "grad_x", "result")


@dataclass(frozen=True)
class CudaCase:
    """A case in a type, forward or training, the latter forward and backward."""

    case: Case
    dtype: str
    mode: str

    @property
    def name(self) -> str:
        return f"{self.case.name}-{self.dtype}-{self.mode}"

    @property
    def flops(self) -> int:
        """Two per multiply-add; the backward pass has twice as many as the forward."""
        return self.case.flops * (1 if self.mode == "forward" else 3)

    @property
    def compulsory_bytes(self) -> int:
        """Activations once in and once out; with backward x and two gradients too."""
        images, width, rows, columns = (
            self.case.images,
            self.case.width,
            self.case.rows,
            self.case.columns,
        )
        inputs = images * width * rows * columns
        outputs = torch.Size(self.case.out_shape).numel()
        values = inputs + outputs
        if self.mode == "training":
            values += 2 * inputs + outputs
        return values * DTYPES[self.dtype].itemsize


CASES: Final = {
    case.name: case
    for case in (
        *(
            CudaCase(DenseBlockCase(16, growth, 512, 512), dtype, "forward")
            for growth in (8, 16)
            for dtype in ("float16", "int8")
        ),
        CudaCase(DenseBlockCase(16, 8, 128, 128), "float32", "forward"),
        CudaCase(DenseBlockCase(32, 16, 128, 128), "float16", "forward"),
        CudaCase(DenseBlockCase(64, 32, 64, 64), "float16", "forward"),
        CudaCase(DenseBlockCase(16, 8, 128, 128), "float16", "training"),
        CudaCase(StridedConvCase(16, 32, 256, 256), "float16", "forward"),
        CudaCase(StridedConvCase(16, 32, 256, 256), "int8", "forward"),
        CudaCase(StridedConvCase(16, 32, 128, 128), "float16", "training"),
    )
}
TINY: Final = CudaCase(DenseBlockCase(16, 8, 24, 40), "float16", "forward")


# ---- on paper


def calls(operators: Operators, case: CudaCase) -> Iterator[Tensor]:
    """Forward, held against float64 but for int8, then backward where the case trains.

    Yields the result after each call.
    """
    if case.dtype == "int8":
        yield _integers(operators, case.case)
        return
    inputs = case.case.inputs(0, DTYPES[case.dtype])
    if case.mode == "training":
        inputs = [value.requires_grad_() for value in inputs]
    out = operators.run(case.case)(inputs)
    verify(case, inputs, out)
    yield out
    if case.mode == "training":
        out.backward(torch.ones_like(out))
        yield out


def emulate(case: CudaCase, chip: Chip) -> list[emulator.Launch]:
    """Launches as on `chip`."""
    limit = chip.shared - chip.reserved
    operators = Emulated(multiprocessors=chip.multiprocessors, shared_bytes=limit)
    return [launch for _ in calls(operators, case) for launch in operators.launches]


def _integers(operators: Operators, case: Case) -> Tensor:
    generator = torch.Generator().manual_seed(0)

    def integers(*shape: int, dtype: torch.dtype = torch.int8) -> Tensor:
        return torch.randint(-100, 100, shape, generator=generator, dtype=dtype)

    x = integers(case.images, case.width, case.rows, case.columns)
    x = x.contiguous(memory_format=torch.channels_last)
    weights = [integers(*shape) for shape in case.shapes if len(shape) == 4]
    biases = [integers(shape[0], dtype=torch.int32) for shape in case.shapes if len(shape) == 1]
    shifts = [torch.full_like(bias, 12) for bias in biases]
    if isinstance(case, DenseBlockCase):
        return operators.dense_block(x, weights, biases, shifts, torch.full_like(biases[3], 5))
    return operators.strided_conv(x, weights[0], biases[0], False, shifts[0])


def verify(case: CudaCase, inputs: Sequence[Tensor], out: Tensor) -> None:
    """Raise RuntimeError unless the result is as near to float64 as plain PyTorch's in its type."""
    with torch.no_grad():
        plain = [value.detach().cpu() for value in inputs]
        exact = case.case.reference([value.double() for value in plain])
        peer = max(error(case.case.reference(plain), exact), torch.finfo(out.dtype).eps / 2)
        ours = error(out.detach().cpu(), exact)
    if not ours <= ERROR_RATIO * peer:
        raise RuntimeError(
            f"{case.name}: error must be at most {ERROR_RATIO} times PyTorch's {peer:.1e}, "
            f"got {ours:.1e}"
        )


def occupancy(launch: emulator.Launch, chip: Chip) -> tuple[int, int]:
    """Registers a thread, blocks a multiprocessor."""
    name = ptxas.plain(launch.kernel)
    architecture = COMPILED.get(chip.architecture, chip.architecture)
    kernel = next(kernel for kernel in ptxas.kernels(architecture) if kernel.name == name)
    shared = launch.dynamic_shared_bytes + kernel.static_shared_bytes
    return kernel.registers, chip.blocks(kernel.registers, launch.block[0], shared)


def paper_row(case: CudaCase, with_compiler: bool) -> dict[str, Any]:
    """What the case moves as launched on `LAUNCHED_ON`, and the least time of every chip."""
    launches = emulate(case, LAUNCHED_ON)
    activations = [
        sum(
            traffic.moved_bytes
            for name, both in launch.buffers.items()
            if name in ACTIVATIONS
            for traffic in both
        )
        for launch in launches
    ]
    traffic = sum((launch.traffic for launch in launches), emulator.Traffic())
    main = launches[activations.index(max(activations))]
    found = {chip.name: occupancy(main, chip) if with_compiler else None for chip in CHIPS}
    return {
        "case": case.name,
        "launches": [launch.name for launch in launches],
        "kernel": main.name,
        "blocks": main.grid[0] * main.grid[1] * main.grid[2],
        "threads": main.block[0],
        "shared_bytes": main.dynamic_shared_bytes,
        "registers": {name: pair and pair[0] for name, pair in found.items()},
        "blocks_per_multiprocessor": {name: pair and pair[1] for name, pair in found.items()},
        "activation_bytes": sum(activations),
        "compulsory_bytes": case.compulsory_bytes,
        "all_bytes": traffic.moved_bytes,
        "full_share": traffic.full_transactions / max(traffic.transactions, 1),
        "bank_conflicts": sum(launch.bank_conflicts for launch in launches),
        "least_us": {
            chip.name: 1e6 * chip.seconds(case.flops, case.compulsory_bytes, case.dtype)
            for chip in CHIPS
        },
    }


TITLES: Final = (
    *("case", "kernel", "blocks", "shared KB", "registers", "blocks/SM", "moved MB"),
    *("compulsory MB", "ratio", "full", "conflicts", "least us"),
)


def paper_cells(row: dict[str, Any]) -> list[str]:
    def of_chips(values: dict[str, Any], text: str = "{}") -> str:
        return "/".join("-" if value is None else text.format(value) for value in values.values())

    return [
        row["case"],
        row["kernel"],
        str(row["blocks"]),
        f"{row['shared_bytes'] / 1024:.1f}",
        of_chips(row["registers"]),
        of_chips(row["blocks_per_multiprocessor"]),
        f"{row['activation_bytes'] / 1e6:.2f}",
        f"{row['compulsory_bytes'] / 1e6:.2f}",
        f"{row['activation_bytes'] / row['compulsory_bytes']:.2f}",
        f"{100 * row['full_share']:.0f} %",
        str(row["bank_conflicts"]),
        of_chips(row["least_us"], "{:.1f}"),
    ]


def compiler_rows() -> list[dict[str, Any]]:
    """Of every kernel and architecture that is compiled."""
    architectures = sorted({COMPILED.get(c.architecture, c.architecture) for c in CHIPS})
    return [
        {"architecture": architecture, **asdict(kernel)}
        for architecture in architectures
        for kernel in ptxas.kernels(architecture)
    ]


# ---- on a GPU


def torch_row(case: CudaCase, seconds: float) -> dict[str, Any]:
    """Through torch beside cuDNN's convolutions, verified first: median milliseconds."""
    inputs = [value.cuda() for value in case.case.inputs(0, DTYPES[case.dtype])]
    if case.mode == "training":
        inputs = [value.requires_grad_() for value in inputs]
    verify(case, inputs, case.case.fused(inputs))
    ours, peer = (
        _milliseconds(partial(_run, function, inputs, case.mode), seconds)
        for function in (case.case.fused, case.case.reference)
    )
    name = torch.cuda.get_device_name()
    return {"case": case.name, "ours_ms": ours, "cudnn_ms": peer, **shares(case, ours, name)}


def raw_row(case: CudaCase, seconds: float) -> dict[str, Any]:
    """Through CuPy's RawModule, without torch's share: median milliseconds of a graph."""
    operators, total = raw_module.operators(), 0.0
    for out in calls(operators, case):
        if case.dtype == "int8" and not torch.equal(
            out, _integers(Emulated(count=False), case.case)
        ):
            raise RuntimeError(f"{case.name}: integers must equal the emulator's, got others")
        total += raw_module.milliseconds(operators.device, seconds)
    return {"case": case.name, "ours_ms": total, **shares(case, total, raw_module.gpu_name())}


def shares(case: CudaCase, milliseconds: float, name: str) -> dict[str, float | None]:
    """Of the limits for what is compulsory; None for a GPU that is not among CHIPS."""
    chip = next((chip for chip in CHIPS if chip.name in name), None)
    if chip is None:
        return {"of_memory": None, "of_arithmetic": None}
    return {
        "of_memory": case.compulsory_bytes / milliseconds / 1e6 / chip.memory_gb_per_s,
        "of_arithmetic": case.flops / milliseconds / 1e9 / chip.tera_per_s[case.dtype],
    }


def gpu_table(rows: Sequence[dict[str, Any]]) -> str:
    def cell(value: Any, title: str) -> str:
        if isinstance(value, str):
            return value
        if title.startswith("of"):
            return "-" if value is None else f"{100 * value:.0f} %"
        return f"{value:.3f}"

    titles = [title.replace("_", " ") for title in rows[0]]
    return markdown_table(titles, [[cell(row[t], t) for t in row] for row in rows])


def _run(function: Callable[[Sequence[Tensor]], Tensor], inputs: list[Tensor], mode: str) -> None:
    out = function(inputs)
    if mode == "training":
        torch.autograd.grad(out, inputs, torch.ones_like(out))


def _milliseconds(run: Callable[[], None], seconds: float) -> float:
    """Median of runs between events; at least ten, and for at least `seconds`."""
    for _ in range(3):
        run()
    times: list[float] = []
    while len(times) < 10 or sum(times) < 1e3 * seconds:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


@click.command(
    "cuda",
    cls=Benchmark,
    cases=list(CASES),
    quick={"small": True},
)
@click.option("--small", is_flag=True, help="One tiny case in place of those chosen.")
@click.option("--seconds", type=click.FloatRange(0), default=0.5, help="A timing, on a GPU.")
@click.option("--write-docs", is_flag=True, help="Put the table into docs/KERNELS.md.")
def main(
    cases: tuple[str, ...],
    machine: Machine,
    small: bool,
    seconds: float,
    write_docs: bool,
) -> dict[str, Any]:
    """CUDA operators: traffic on the emulator, resources from nvcc, on a GPU times beside cuDNN.

    Values with a stroke are of A100/H100/B200/Orin. `moved` and `ratio` are of activations; `full`
    is of all global transactions. `registers` and `blocks/SM` are of the kernel that moves most.
    `least us` is the longer of compulsory bytes at the chip's bandwidth and operations at its
    rate: a bound on paper, not a time.
    """
    if write_docs:
        check_block(DOCUMENT, BLOCK)
    document: dict[str, Any] = {}
    chosen = [TINY] if small else [CASES[name] for name in cases]
    compiler = ptxas.missing()
    if compiler:
        click.echo(f"registers left out: {compiler}", err=True)
    elif not small:
        document["kernels"] = compiler_rows()
        spilled = [row["name"] for row in document["kernels"] if row["spill_bytes"]]
        click.echo(f"{len(document['kernels'])} kernels compiled, {len(spilled)} spill")
    if reason := emulator.missing():
        click.echo(f"traffic left out: {reason}", err=True)
    else:
        rows = []
        for case in chosen:
            rows.append(paper_row(case, compiler is None and not small))
            click.echo(" ".join(paper_cells(rows[-1])), err=True)
        document["paper"] = rows
        table = markdown_table(TITLES, [paper_cells(row) for row in rows])
        click.echo(table)
        if write_docs:
            write_block(DOCUMENT, BLOCK, table)
            click.echo(f"written: {DOCUMENT.relative_to(ROOT)}")
    for name, reason, run, timed in (
        ("torch", gpu.operators_missing(), torch_row, [c for c in chosen if c.dtype != "int8"]),
        ("CuPy", raw_module.missing(), raw_row, chosen),
    ):
        if reason:
            click.echo(f"times through {name} left out: {reason}", err=True)
        elif timed:
            document[name] = [run(case, seconds) for case in timed]
            click.echo(f"through {name}\n{gpu_table(document[name])}")
    return document


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.cuda")
