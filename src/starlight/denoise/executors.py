"""Who computes a network: the one list of executors, and each behind one face.

reference     plain PyTorch, float32
fused         the operators of `starlight.ops`, float32
engine        a bundle's integers on the native engine
onnxruntime   the float network as an ONNX graph on onnxruntime
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.models.checkpoint import load_network
from starlight.models.cost import tile_halo
from starlight.models.shipped import bundle_path
from starlight.ops import BACKENDS

BUNDLE_SUFFIX: Final = ".slb"
ENGINE: Final = "hls_export.executors.engine"
ONNX_PACKAGES: Final = 'pip install "starlight[onnxruntime]"'


class Executor(str, Enum):
    """Who computes the network. Its values are the words of the library and of every command."""

    REFERENCE = "reference"
    FUSED = "fused"
    ENGINE = "engine"
    ONNXRUNTIME = "onnxruntime"

    @classmethod
    def named(cls, name: str | Executor) -> Executor:
        """Raises ValueError that lists the names."""
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(EXECUTORS)
            raise ValueError(f"denoiser: executor must be one of {known}, got {name!r}") from None


EXECUTORS: Final = tuple(executor.value for executor in Executor)

# Megabytes of one pass of a float network: `fixed`, and bytes per pixel and unit of width. Measured
# as the growth of the process's peak from 512 x 512 to 1024 x 1024, rounded up.
_PASS_FIXED: Final = 96e6
_PASS_BYTES: Final = {
    Executor.REFERENCE: 36.0,
    Executor.FUSED: 28.0,
    Executor.ONNXRUNTIME: 56.0,
}


class BundleRunner(Protocol):
    """An opened bundle: all that is asked of the native engine. Threads may share one."""

    levels: int  # stride-2 steps of its network
    pixel_bytes: float  # what a run works in, per pixel

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], any size, to the same."""
        ...


@dataclass(frozen=True)
class Machine:
    """A network that is ready to run; threads may share one.

    grid       images are padded to multiples of it
    halo       pixels around a tile, on the grid, that its result depends on
    integers   `run` takes and gives uint8 [H, W, 3] of any size; else floats [3, H, W] on the grid,
               values (pixel - 128) / 128
    fixed_bytes, pixel_bytes   memory of a pass: what it takes whatever its size, and per pixel
    """

    executor: Executor
    grid: int
    halo: int
    integers: bool
    fixed_bytes: float
    pixel_bytes: float
    run: Callable[[NDArray[Any]], NDArray[Any]]
    network: DenoisingNetwork | None = None


def open_machine(
    weights: str | Path | DenoisingNetwork | BundleRunner,
    executor: Executor | None,
    threads: int | None,
) -> Machine:
    """A machine for weights: a name that ships, a file (a bundle by its ending .slb), a network, or
    an opened bundle.

    executor: None: `engine` for a bundle; for others `fused` where it is built and has the
    network's Choices, else `reference`. A name that ships stands for its float weights, with
    `engine` for its bundle. Raises FileNotFoundError or ValueError for weights that
    cannot be read or that the executor does not run, ImportError for an executor that is not built
    or not installed.
    """
    if isinstance(weights, DenoisingNetwork):
        return _network_machine(weights, executor, threads)
    if not isinstance(weights, str | Path) or Path(weights).suffix.lower() == BUNDLE_SUFFIX:
        if executor is not None and executor is not Executor.ENGINE:
            raise ValueError(
                f"denoiser: executor must be engine for a bundle, got {executor.value}"
            )
        if isinstance(weights, str | Path):
            return bundle_machine(open_bundle(weights, threads))
        return bundle_machine(weights)
    if executor is Executor.ENGINE:
        if Path(weights).is_file():
            raise ValueError(
                f"denoiser: weights must be a bundle (*{BUNDLE_SUFFIX}) for executor engine, "
                f"got {weights}; python -m quant.qat makes one of float weights"
            )
        return bundle_machine(open_bundle(weights, threads))
    if executor is Executor.ONNXRUNTIME:
        return _network_machine(load_network(weights), executor, threads)
    backend: Any = None if executor is None else executor.value
    return _network_machine(load_network(weights, backend=backend), executor, threads)


class _Engine:
    """A bundle on the native engine, as a `BundleRunner`."""

    def __init__(self, bundle: bytes, threads: int | None) -> None:
        self.model = import_module(ENGINE).native().Model(bundle)
        self.threads = threads or 0
        self.levels: int = self.model.levels
        self.pixel_bytes: float = self.model.frame_bytes(1024, 1024, self.threads) / 1024**2

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self.model.run(image, threads=self.threads)[0]


def open_bundle(path: str | Path, threads: int | None) -> BundleRunner:
    """A bundle on the native engine; path: or the name of one that ships.

    Raises FileNotFoundError, ValueError for what is no bundle, ImportError when the engine is not
    built.
    """
    path = bundle_path(path)
    try:
        return _Engine(path.read_bytes(), threads)
    except ValueError as error:
        raise ValueError(f"weights {path}: {error}") from None


def bundle_machine(runner: BundleRunner) -> Machine:
    # What can be lowered has one shape: the width decides nothing about grid and halo.
    config = DenoiserConfig(width=2, levels=runner.levels)
    return Machine(
        Executor.ENGINE, config.grid, tile_halo(config), True, 0.0, runner.pixel_bytes, runner.run
    )


def _network_machine(
    network: DenoisingNetwork, executor: Executor | None, threads: int | None
) -> Machine:
    config = network.config
    if executor is None:
        executor = Executor(network.backend)
    elif executor is Executor.ENGINE:
        raise ValueError("denoiser: weights must be a bundle for executor engine, got a network")
    elif executor.value in BACKENDS and executor.value != network.backend:
        raise ValueError(
            f"denoiser: executor must be the network's own, {network.backend}, got {executor.value}"
        )
    run = (
        _onnx_run(network, threads)
        if executor is Executor.ONNXRUNTIME
        else lambda pixels: _torch_run(network, threads, pixels)
    )
    return Machine(
        executor, config.grid, tile_halo(config), False, _PASS_FIXED,
        _PASS_BYTES[executor] * config.width, run, network,
    )  # fmt: skip


def _torch_run(
    network: DenoisingNetwork, threads: int | None, pixels: NDArray[Any]
) -> NDArray[Any]:
    """[3, H, W] through the network, in its dtype and on its device."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(next(network.parameters()))[None]
            output = network(batch.contiguous(memory_format=torch.channels_last))
            exact = torch.float64 if output.dtype == torch.float64 else torch.float32
            return output[0].to(exact).cpu().numpy()
    finally:
        torch.set_num_threads(before)


def _onnx_run(
    network: DenoisingNetwork, threads: int | None
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """A session that all threads share; height and width are free."""
    try:
        onnxruntime = import_module("onnxruntime")
    except ImportError as error:
        raise ImportError(
            f"denoiser: executor onnxruntime must be installed, got {error}; {ONNX_PACKAGES}"
        ) from error
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False  # it keeps the largest pass, twice over
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        onnx_bytes(network), options, providers=["CPUExecutionProvider"]
    )
    return lambda pixels: session.run(None, {"image": pixels.astype(np.float32)[None]})[0][0]


def onnx_bytes(network: DenoisingNetwork) -> bytes:
    """The network as ONNX: `image` to `denoised`, float32 [1, 3, H, W], any size on the grid."""
    plain = DenoisingNetwork(network.config).eval()
    plain.load_state_dict(network.state_dict())
    plain = plain.float()
    grid = network.config.grid
    axes = {2: "height", 3: "width"}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter by tracing needs onnx alone, and the checks of shapes are constants in it.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            plain,
            (torch.zeros(1, 3, grid, 2 * grid),),
            stream,  # type: ignore[arg-type]  # any file object
            dynamo=False,
            input_names=["image"],
            output_names=["denoised"],
            dynamic_axes={"image": axes, "denoised": axes},
            opset_version=17,
        )
    return stream.getvalue()
