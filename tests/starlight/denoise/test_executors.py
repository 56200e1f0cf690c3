"""Executors behind one face: the same image on each, bundles bit for bit, tiles or not."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import TINY, random_graph, random_image

from hls_export.bundle import pack_bundle
from hls_export.executors import engine
from hls_export.npu import load_chip
from quant import interpret
from quant.integer_graph import IntegerGraph
from quant.intmath import UInt8Array
from quant.topology import Topology
from starlight.denoise.denoiser import Denoiser
from starlight.denoise.executors import EXECUTORS, Executor
from starlight.evaluation.photographs import evaluation_photographs
from starlight.models import DenoiserConfig, DenoisingNetwork
from starlight.models.checkpoint import save_weights
from starlight.noise import NoiseCondition
from starlight.ops import native

TWO_LEVELS = Topology(widths=(4, 6, 8), growths=(2, 3, 4))


@dataclass
class Golden:
    """The golden model as an opened bundle."""

    graph: IntegerGraph
    pixel_bytes: float = 100.0

    @property
    def levels(self) -> int:
        return self.graph.levels

    def run(self, image: UInt8Array) -> UInt8Array:
        return interpret.run(self.graph, image)


@settings(max_examples=20)
@given(
    st.sampled_from([TINY, TWO_LEVELS]), st.integers(1, 90), st.integers(1, 90), st.integers(1, 40)
)
@example(TWO_LEVELS, 90, 87, 4)
def test_integer_tiles_equal_the_untiled_image_bit_for_bit(
    topology: Topology, height: int, width: int, tile: int
) -> None:
    golden, image = Golden(random_graph(3, topology)), random_image(0, height, width)
    tiled = Denoiser(golden, tile=tile).denoise(image)
    np.testing.assert_array_equal(tiled, golden.run(image))


def test_a_smaller_integer_halo_shows() -> None:
    golden = Golden(random_graph(3, TWO_LEVELS))
    denoiser, image = Denoiser(golden, tile=4), random_image(1, 90, 87)
    denoiser.machine = replace(denoiser.machine, halo=4)
    assert (denoiser.denoise(image) != golden.run(image)).any()


def bundle_file(folder: Path) -> tuple[Path, IntegerGraph]:
    graph = random_graph(3, TWO_LEVELS)
    path = folder / "model.slb"
    path.write_bytes(pack_bundle(graph, load_chip("reference")))
    return path, graph


needs_engine = pytest.mark.skipif(
    engine.Engine().available() is not None, reason="the engine is not built"
)


@needs_engine
@pytest.mark.parametrize("tile", [None, 16])
def test_a_bundle_runs_on_the_engine_as_the_golden_model(tmp_path: Path, tile: int | None) -> None:
    path, graph = bundle_file(tmp_path)
    denoiser = Denoiser(path, tile=tile)
    assert denoiser.executor is Executor.ENGINE
    image = random_image(2, 71, 93)
    np.testing.assert_array_equal(denoiser.denoise(image), interpret.run(graph, image))
    with pytest.raises(TypeError, match=r"must be uint8 on executor engine, got uint16.*--to-8bit"):
        denoiser.denoise(image.astype(np.uint16))
    with pytest.raises(ValueError, match="network must be a float one"):
        _ = denoiser.network


def test_an_engine_that_is_not_built_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = bundle_file(tmp_path)
    monkeypatch.setattr(engine.Engine, "module", "no_such_engine")
    with pytest.raises(ImportError, match=r"engine: native module must be built.*run `pip install"):
        Denoiser(path)


def strength_in_integers(image: UInt8Array, full: UInt8Array, scale: int) -> Any:
    difference = image.astype(np.int64) - full
    return np.clip(image - ((difference * scale + (1 << 15)) >> 16), 0, 255)


@settings(max_examples=15)
@given(st.integers(0, 1 << 16))
def test_strength_scales_the_residual_by_the_stated_rounding(scale: int) -> None:
    golden, image = Golden(random_graph(0, TINY)), random_image(3, 20, 31)
    found = Denoiser(golden, strength=scale / (1 << 16)).denoise(image)
    np.testing.assert_array_equal(found, strength_in_integers(image, golden.run(image), scale))


def float_network() -> DenoisingNetwork:
    torch.manual_seed(0)
    network = DenoisingNetwork(DenoiserConfig(width=4, levels=2), "reference")
    with torch.no_grad():
        network.tail.weight.mul_(5.0)
    return network


def test_strength_of_floats_lies_between_input_and_output() -> None:
    network, image = float_network().double(), random_image(4, 20, 30) / 255.0
    full = Denoiser(network).denoise(image)
    np.testing.assert_array_equal(Denoiser(network, strength=1.0).denoise(image), full)
    half = Denoiser(network, strength=0.5).denoise(image)
    np.testing.assert_allclose(half, (image + full) / 2, rtol=0, atol=2e-15)
    none = Denoiser(network, strength=0.0).denoise(image)
    np.testing.assert_allclose(none, image, rtol=0, atol=2e-16)


def test_every_float_executor_gives_the_same_image(tmp_path: Path) -> None:
    """Largest difference seen: 4e-7 of full scale."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = tmp_path / "net.safetensors"
    save_weights(float_network(), path)
    image = (random_image(5, 45, 70) / 255.0).astype(np.float32)
    wanted = Denoiser(path, executor="reference").denoise(image)
    assert np.abs(wanted - image).max() > 0.01
    for executor in [Executor.FUSED] * native.built() + [Executor.ONNXRUNTIME]:
        for tile in (None, 16):
            denoiser = Denoiser(path, executor=executor, tile=tile, threads=1)
            assert denoiser.executor is executor
            np.testing.assert_allclose(denoiser.denoise(image), wanted, rtol=0, atol=4e-6)


@pytest.mark.parametrize("kind", ["network", "bundle"])
def test_threads_may_share_a_denoiser(kind: str) -> None:
    weights: Any = float_network() if kind == "network" else Golden(random_graph(0, TINY))
    denoiser = Denoiser(weights, tile=16, threads=1)
    images = [random_image(seed, 40 + seed, 50) for seed in range(6)]
    wanted = [denoiser.denoise(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(denoiser.denoise, images), wanted, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_torch_goes_in_and_comes_out_channels_first() -> None:
    denoiser, image = Denoiser(float_network()), random_image(6, 20, 30)
    wanted = denoiser.denoise(image)
    found = denoiser.denoise(torch.from_numpy(image).permute(2, 0, 1))
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), wanted)
    batch = torch.from_numpy(np.stack([image, image])).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(denoiser.denoise(batch)[1].permute(1, 2, 0).numpy(), wanted)
    with pytest.raises(ValueError, match=r"torch \[3, H, W\]"):
        denoiser.denoise(torch.zeros(4, 5))


def test_sixteen_bits_are_floats_rounded_by_floor_of_x_plus_one_half() -> None:
    network = float_network().double()
    image = random_image(7, 20, 30).astype(np.uint16) * 257 + 13
    image = np.minimum(image, 65535).astype(np.uint16)
    exact = Denoiser(network).denoise(image / 65535.0) * 65535.0
    found = Denoiser(network).denoise(image)
    assert found.dtype == np.uint16
    assert np.abs(found - np.clip(exact, 0, 65535)).max() <= 0.5 + 0.01  # float32 on the way


def test_grey_is_the_mean_and_alpha_passes_through() -> None:
    golden = Golden(random_graph(0, TINY))
    image = random_image(8, 33, 21)
    grey, alpha = image[..., :1], image[..., 1:2]
    three = golden.run(np.repeat(grey, 3, axis=2)).astype(int).sum(axis=2)
    denoiser = Denoiser(golden, tile=8)
    (found,) = [np.concatenate(list(denoiser.bands([np.dstack([grey, alpha])], 33, 21)))]
    np.testing.assert_array_equal(found[..., 0], np.floor(three / 3 + 0.5))
    np.testing.assert_array_equal(found[..., 1:], alpha)
    coloured = np.concatenate(list(denoiser.bands([np.dstack([image, alpha])], 33, 21)))
    np.testing.assert_array_equal(coloured, np.dstack([golden.run(image), alpha]))


@settings(max_examples=20)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 24))
def test_rows_may_come_in_any_portions(portions: list[int], tile: int) -> None:
    golden = Golden(random_graph(0, TINY))
    image = random_image(9, sum(portions), 19)
    chunks = np.split(image, np.cumsum(portions)[:-1])
    denoiser = Denoiser(golden, tile=tile)
    found = np.concatenate(list(denoiser.bands(chunks, *image.shape[:2])))
    np.testing.assert_array_equal(found, golden.run(image))
    with pytest.raises(ValueError, match="rows must be"):
        list(denoiser.bands(chunks[:-1], *image.shape[:2]))
    with pytest.raises(ValueError, match="got more"):
        list(denoiser.bands([*chunks, chunks[0]], *image.shape[:2]))


@pytest.mark.parametrize(
    ("arguments", "error", "rule"),
    [
        ({"executor": "gpu"}, ValueError, f"must be one of {', '.join(EXECUTORS)}, got 'gpu'"),
        ({"executor": "engine"}, ValueError, "must be a bundle"),
        ({"strength": 1.5}, ValueError, r"strength must lie in 0\.\.1, got 1.5"),
        ({"memory": 10}, ValueError, "memory must be at least 150, got 10"),
        ({"executor": "fused"}, ValueError, "must be the network's own, reference, got fused"),
    ],
)
def test_other_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], rule: str
) -> None:
    with pytest.raises(error, match=rule):
        Denoiser(float_network(), **arguments)


def test_a_shipped_name_runs_as_integers_near_its_float_self() -> None:
    clean = evaluation_photographs()["chelsea"][:96, :96]
    noisy = NoiseCondition.parse("sigma_25").apply(clean, seed=0, output="u8_clipped")
    errors = []
    for executor in (Executor.ENGINE, Executor.REFERENCE):
        denoised = Denoiser("edge-camera", executor=executor).denoise(noisy)
        errors.append(float(np.square(denoised.astype(np.float64) - clean).mean()))
    assert errors[0] < 1.05 * errors[1]
    noise = np.square(noisy.astype(np.float64) - clean).mean()
    assert errors[1] < 0.2 * noise


def test_weights_and_executor_must_fit(tmp_path: Path) -> None:
    weights = tmp_path / "own.safetensors"
    save_weights(float_network(), weights)
    with pytest.raises(ValueError, match=r"must be a bundle \(\*\.slb\).*got .*own\.safetensors"):
        Denoiser(weights, executor="engine")
    with pytest.raises(ValueError, match="must be engine for a bundle, got fused"):
        Denoiser(Golden(random_graph(0, TINY)), executor="fused")
    with pytest.raises(FileNotFoundError, match="bundle must be an existing file"):
        Denoiser(tmp_path / "none.slb")
