"""explain: the module exists in PyTorch, the places are those of the file, the addresses hold."""

import json
import math
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from strategies import EDGE, TINY, random_graph

from hls_export.__main__ import main
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.costs import frame_costs
from hls_export.explain import explain, render
from hls_export.layer_table import ChannelRecord, LayerRecord
from hls_export.memory import cells
from hls_export.npu import load_chip
from quant.contract import Op
from quant.modules import QuantDenoisingNetwork
from starlight.models.config import DenoiserConfig
from starlight.models.denoiser import DenoisingNetwork

REFERENCE = load_chip("reference")
DATA = pack_bundle(random_graph(1, TINY), REFERENCE)
BUNDLE = read_bundle(DATA)
FRAME = (37, 50)
NAMES = [layer.name for layer in BUNDLE.graph().layers]
SCHEDULES = frame_costs(BUNDLE.graph(), REFERENCE, *FRAME)


def test_modules_are_the_ones_that_hold_the_weights() -> None:
    config = DenoiserConfig(width=4, levels=2)
    networks = {
        f"{type(network).__module__}.{type(network).__name__}": network
        for network in (DenoisingNetwork(config), QuantDenoisingNetwork(config))
    }
    graph = random_graph(0, QuantDenoisingNetwork(config).topology)
    bundle = read_bundle(pack_bundle(graph, REFERENCE))
    for layer in graph.layers:
        found = explain(bundle, layer.name, {}, FRAME)
        assert found["modules"].keys() == networks.keys()
        for network, path in found["modules"].items():
            module = networks[network].get_submodule(path)
            assert module.weight.shape == layer.weight.shape
            stride = module.stride[0]
            assert (stride, module.padding[0]) == (layer.op.stride, layer.op.kernel // 2)
            numbers = (module.in_channels, module.out_channels, module.kernel_size[0])
            assert found["convolution"].startswith(f"Conv2d({', '.join(map(str, numbers))}")
            assert ("stride=2" in found["convolution"]) == (stride == 2)


@pytest.mark.parametrize("name", NAMES)
def test_places_hold_the_records_and_weights(name: str) -> None:
    found = explain(BUNDLE, name, SCHEDULES, FRAME)
    index = NAMES.index(name)
    assert found["index"] == index
    parts = {title: DATA[start : start + size] for title, (start, size) in found["file"].items()}
    record = BUNDLE.layers[index]
    assert LayerRecord.unpack(parts["record"], name) == record
    first = ChannelRecord.unpack(parts["channels"][: ChannelRecord.SIZE], name)
    assert first == BUNDLE.channels[record.channel_row]
    assert len(parts["weights"]) == record.weight_bytes
    for side, operand in found["operands"].items():
        view = getattr(record, side)
        if operand["view"].startswith("image["):
            assert operand.keys() == {"view", "with"}
            continue
        start = view.address_per_cell * cells(BUNDLE.model.levels, *FRAME)
        assert operand["address"] == start + view.channel_offset
        columns = math.ceil(FRAME[1] / 2) * 2 >> view.level
        assert operand["row_stride"] == columns * view.pixel_stride
    assert [cost["schedule"] for cost in found["costs"]] == list(SCHEDULES)
    for cost in found["costs"]:
        title = cost["schedule"]
        (layer,) = [each for each in SCHEDULES[title].layers if each.layer == name]
        assert (cost["cycles"], cost["macs"]) == (layer.cycles, layer.macs)
        phase = SCHEDULES[title].phases[cost["phase"]]
        assert layer in phase.layers
        assert cost["phase_layers"] == [each.layer for each in phase.layers]
        assert cost["tiles"] == sum(step.count for step in phase.steps)
    json.dumps(found)


def test_partners_are_the_layers_beside_it_in_the_data_flow() -> None:
    def partners(name: str) -> dict[str, list[str]]:
        operands = explain(BUNDLE, name, {}, FRAME)["operands"]
        return {side: operand["with"] for side, operand in operands.items()}

    assert partners("head")["input"] == ["image"]
    assert partners("decoder.0.up") == {
        "input": ["middle.dense.fuse"],
        "join": ["encoder.0.dense.fuse"],
        "output": [f"decoder.0.dense.{part}" for part in ("conv1", "conv2", "conv3", "fuse")],
    }
    assert partners("second")["join"] == ["head"]
    assert partners("tail").keys() == {"input"}


def test_text_says_all_of_it() -> None:
    bundle = read_bundle(pack_bundle(random_graph(2, EDGE), REFERENCE))
    found = explain(
        bundle, "decoder.0.up", frame_costs(bundle.graph(), REFERENCE, 1080, 1920), (1080, 1920)
    )
    lines = render(found).splitlines()
    assert lines[0] == f"layer    {found['index']} decoder.0.up"
    assert found["op"] == Op.UP.name
    text = "\n".join(lines)
    for module in found["modules"].values():
        assert f"module   {module} of " in text
    for start, size in found["file"].values():
        assert f"bytes {start:#x}..{start + size:#x} of the bundle" in text
    for cost in found["costs"]:
        assert (
            f"cycles   {cost['schedule']}: {cost['cycles']} = compute {cost['compute_cycles']} "
            f"+ stall {cost['stall_cycles']}; DMA {cost['dma_cycles']}"
        ) in lines
        assert re.search(rf"phase {cost['phase']}, .*, tiles: {cost['tiles']}\n", text)
    shown = [float(number) for number in re.findall(r"([\d.]+) mJ", text)]
    for number, cost in zip(shown, found["costs"], strict=True):
        assert math.isclose(number, 1e3 * sum(cost["energy"].values()), abs_tol=1e-3)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def test_command_shows_and_writes_what_explain_finds(tmp_path: Path) -> None:
    file, report = tmp_path / "model.slb", tmp_path / "found.json"
    file.write_bytes(DATA)
    result = run(file, "tail", "--frame", "50x37", "--json", report)
    expected = explain(BUNDLE, "tail", SCHEDULES, FRAME)
    assert (result.exit_code, result.stdout) == (0, render(expected) + "\n")
    assert json.loads(report.read_text()) == json.loads(json.dumps(expected))


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, ["head"], "bundle: file must exist, got"),
        (b"", ["head"], "size must be at least 128, got 0"),
        (DATA, ["body"], f"explain: layer must be one of {', '.join(NAMES)}, got 'body'"),
        (DATA, [""], "explain: layer must be one of head, "),
        (DATA, ["head", "--frame", "0x3"], "explain: frame must be WIDTHxHEIGHT in pixels"),
        (DATA, ["head", "--chip", "nosuch"], "give the bundle's chip with --chip FILE.toml"),
        (DATA, [], "Missing argument 'LAYER'"),
    ],
)
def test_command_refuses_in_one_line(
    tmp_path: Path, content: bytes | None, arguments: list[str], message: str
) -> None:
    if content is not None:
        (tmp_path / "model.slb").write_bytes(content)
    result = run(tmp_path / "model.slb", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_chip_of_another_capability_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.slb").write_bytes(DATA)
    text = (Path(load_chip.__code__.co_filename).parent / "chips" / "reference.toml").read_text()
    (tmp_path / "other.toml").write_text(text.replace("alignment = 16", "alignment = 32"))
    result = run(tmp_path / "model.slb", "head", "--chip", tmp_path / "other.toml")
    assert result.exit_code == 2
    assert "chip reference: capability must have the bundle's CRC-32" in result.stderr
