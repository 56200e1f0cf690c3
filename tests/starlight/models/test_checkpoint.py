"""Weights on disk: round trip and every way to be refused."""

from pathlib import Path

import pytest
import torch

from starlight.models import PRESETS, DenoisingNetwork, checkpoint
from starlight.models.checkpoint import load_network, save_weights
from starlight.models.shipped import FOLDER, bundle_path, shipped_weights


@pytest.fixture
def saved(tmp_path: Path) -> tuple[DenoisingNetwork, Path]:
    torch.manual_seed(0)
    network = DenoisingNetwork(PRESETS["tiny"])
    path = tmp_path / "tiny.safetensors"
    save_weights(network, path)
    return network, path


def test_round_trip_is_fp16(saved: tuple[DenoisingNetwork, Path]) -> None:
    network, path = saved
    loaded = load_network(path, PRESETS["tiny"])
    assert loaded.config == network.config
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float())


def test_channels_last_weights_save_alike(saved: tuple[DenoisingNetwork, Path]) -> None:
    network, path = saved
    other = path.with_name("other.safetensors")
    save_weights(network.to(memory_format=torch.channels_last), other)
    assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("keep", [0, 7, 100, 1000, -1])
def test_truncated(saved: tuple[DenoisingNetwork, Path], keep: int) -> None:
    path = saved[1]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="complete safetensors file"):
        load_network(path)


def test_missing_lists_what_ships() -> None:
    with pytest.raises(FileNotFoundError, match="edge"):
        load_network("no/such/file")


def test_another_preset_is_refused(saved: tuple[DenoisingNetwork, Path]) -> None:
    with pytest.raises(ValueError, match="choose the preset"):
        load_network(saved[1], PRESETS["edge"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_what_is_not_finite_in_fp16_is_not_saved(
    saved: tuple[DenoisingNetwork, Path], value: float
) -> None:
    network, path = saved
    before = path.read_bytes()
    with torch.no_grad():
        network.head.bias[3] = value
    with pytest.raises(ValueError, match=r"head\.bias must be finite"):
        save_weights(network, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_nan_in_a_file_is_refused(saved: tuple[DenoisingNetwork, Path]) -> None:
    path = saved[1]
    data = bytearray(path.read_bytes())
    data[-2:] = b"\x00\x7e"  # the last fp16 becomes NaN
    path.write_bytes(data)
    with pytest.raises(ValueError, match="must be finite"):
        load_network(path)


def test_wrong_shapes_are_named(saved: tuple[DenoisingNetwork, Path]) -> None:
    path = saved[1]
    text = path.read_bytes()
    other = PRESETS["tiny"].model_copy(update={"levels": 1}).to_json()
    path.write_bytes(
        text.replace(
            PRESETS["tiny"].to_json().replace('"', '\\"').encode(),
            other.replace('"', '\\"').encode(),
        )
    )
    with pytest.raises(ValueError, match=r"decoder\.1\.dense\.conv1\.bias must have shape none"):
        load_network(path)


def test_what_ships_is_complete_and_what_it_was() -> None:
    shipped = shipped_weights()
    assert "edge" in shipped
    for name, (path, entry) in shipped.items():
        assert load_network(name).config == PRESETS[entry.preset]
        assert path.with_suffix(".md").is_file()
        if entry.bundle_sha256 is not None:
            assert bundle_path(name) == path.with_suffix(".slb")
    assert {path.name for path, _ in shipped.values()} == {
        file.name for file in FOLDER.glob("*.safetensors")
    }
    assert {bundle_path(name).name for name in ("edge", "edge-camera", "edge-gaussian")} == {
        file.name for file in FOLDER.glob("*.slb")
    }


def test_a_shipped_file_that_was_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, entry = shipped_weights()["edge"]
    changed = bytearray(path.read_bytes())
    changed[-2] ^= 1
    copy = tmp_path / path.name
    copy.write_bytes(changed)
    monkeypatch.setattr(checkpoint, "shipped_weights", lambda: {"edge": (copy, entry)})
    with pytest.raises(ValueError, match=r"SHA-256 must be .* install the kit anew"):
        load_network("edge")
    assert load_network(copy).config == PRESETS["edge"]  # a file of one's own
