"""The rows of a suite's table: networks and peers as functions of a noisy image and a sigma.

The rooms behind a row (torch, integers, chips) are loaded when a suite names it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from starlight.config_file import expanded_path
from starlight.evaluation import peers
from starlight.evaluation.columns import Column
from starlight.evaluation.suite_config import Model, Peer, Suite

Array = NDArray[Any]


@dataclass(frozen=True)
class Contender:
    """A row: what denoises, what it is told, what it costs.

    denoise     (noisy, sigma in 8-bit units) to the estimate, in noisy's shape, dtype and unit
    told        `nothing`, or where sigma comes from: as of `Peer.sigma`
    identity    all that decides the result, for resuming
    """

    name: str
    denoise: Callable[[Array, float], Array]
    identity: dict[str, Any]
    told: str | float = "nothing"
    grid: tuple[float, ...] = ()
    takes_float: bool = True
    parameters: int | None = None
    macs_per_pixel: float | None = None

    def refuses(self, column: Column) -> str | None:
        """Why a cell stays empty, or None."""
        if not self.takes_float and column.protocol.input == "float_unclipped":
            return "takes 8 bits alone"
        if self.told == "oracle" and column.oracle_sigma is None:
            return "one sigma does not describe this noise"
        return None


NOISY = Contender("noisy input", lambda noisy, _: noisy, {"kind": "noisy input"})


@dataclass
class Contenders:
    """rows: that run here, the noisy input first. left_out: names of the others, with reasons."""

    rows: list[Contender] = field(default_factory=lambda: [NOISY])
    left_out: dict[str, str] = field(default_factory=dict)


def suite_contenders(suite: Suite) -> Contenders:
    """Open every model and peer of a suite.

    Raises what their files and packages raise, but for those that are optional, and ValueError for
    two rows of one name.
    """
    found = Contenders()
    entries: tuple[Model | Peer, ...] = (*suite.model, *suite.peer)
    for entry in entries:
        name = row_name(entry)
        if name in found.left_out or name in [row.name for row in found.rows]:
            raise ValueError(f"suite: names of rows must differ, got {name} twice")
        try:
            row = _model(entry, suite.threads) if isinstance(entry, Model) else _peer(entry)
        except (ImportError, FileNotFoundError) as error:
            if not entry.optional:
                raise
            found.left_out[name] = str(error)
        else:
            found.rows.append(row)
    return found


def row_name(entry: Model | Peer) -> str:
    """The name given, or one made of what the row is."""
    if entry.name is not None:
        return entry.name
    if isinstance(entry, Model):
        if entry.bundle is not None:
            return f"{Path(entry.bundle).name}, {entry.executor}"
        words = [str(entry.weights), *([entry.backend] if entry.backend else [])]
        return ", ".join(words)
    sigma = entry.sigma if isinstance(entry.sigma, str) else f"{entry.sigma:g}"
    return f"{entry.kind}, sigma {sigma}"


def _model(entry: Model, threads: int | None) -> Contender:
    return _bundle(entry, threads) if entry.bundle is not None else _network(entry, threads)


def _network(entry: Model, threads: int | None) -> Contender:
    from starlight.denoise.denoiser import Denoiser
    from starlight.models.checkpoint import weights_path
    from starlight.models.cost import macs_per_pixel, parameter_count

    assert entry.weights is not None
    path = weights_path(expanded_path(entry.weights))
    denoiser = Denoiser(path, threads=threads, executor=entry.backend)
    return Contender(
        row_name(entry),
        lambda noisy, _: denoiser.denoise(noisy),
        {"kind": "network", "sha256": _sha256(path), "backend": denoiser.network.backend},
        parameters=parameter_count(denoiser.network.config),
        macs_per_pixel=macs_per_pixel(denoiser.network.config),
    )


def _bundle(entry: Model, threads: int | None) -> Contender:
    from hls_export.bundle import read_bundle
    from quant import interpret
    from starlight.models.shipped import bundle_path

    assert entry.bundle is not None
    path = bundle_path(expanded_path(entry.bundle))
    graph = read_bundle(path).graph()
    if entry.executor == "c":
        from hls_export.executors.c_runtime import native

        model = native().Model(path.read_bytes())

        def run(noisy: Array, _: float) -> Array:
            return model.run(noisy)[0]
    elif entry.executor == "engine":
        from starlight.denoise.executors import open_bundle

        engine = open_bundle(path, threads)

        def run(noisy: Array, _: float) -> Array:
            return engine.run(noisy)
    else:

        def run(noisy: Array, _: float) -> Array:
            return interpret.run(graph, noisy)

    cell = graph.grid
    return Contender(
        row_name(entry),
        run,
        {"kind": "bundle", "sha256": _sha256(path), "executor": entry.executor},
        takes_float=False,
        parameters=sum(layer.weight.size + layer.bias.size for layer in graph.layers),
        macs_per_pixel=sum(graph.macs(layer, cell, cell) for layer in graph.layers) / cell**2,
    )


def _peer(entry: Peer) -> Contender:
    make = partial(
        Contender,
        row_name(entry),
        told=entry.sigma,
        grid=entry.grid if entry.sigma == "best" else (),
    )
    identity: dict[str, Any] = {"kind": entry.kind, "sigma": entry.sigma}
    if entry.kind == "ffdnet":
        from starlight.evaluation import ffdnet

        assert entry.weights is not None
        path = Path(expanded_path(entry.weights))
        network = ffdnet.load_ffdnet(path)
        return make(
            partial(ffdnet.denoise, network),
            identity | {"sha256": _sha256(path)},
            parameters=ffdnet.PARAMETERS,
            macs_per_pixel=ffdnet.MACS_PER_PIXEL,
        )
    version = getattr(peers.require_package(entry.kind), "__version__", None)
    functions = {"nlm": peers.non_local_means, "bm3d": peers.block_matching}
    return make(
        functions[entry.kind], identity | {"version": version}, takes_float=entry.kind != "nlm"
    )


def told_sigma(contender: Contender, column: Column, noisy: Array) -> float:
    """The sigma that a row gets with an image, in 8-bit units; NaN for one that is told nothing."""
    if contender.told == "estimated":
        estimate = peers.noise_sigma(noisy) * (1.0 if noisy.dtype == np.uint8 else 255.0)
        return max(estimate, 0.1)  # a flat or saturated image has none, and no peer divides by 0
    if contender.told == "oracle":
        assert column.oracle_sigma is not None
        return column.oracle_sigma
    return float("nan") if contender.told == "nothing" else float(contender.told)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
