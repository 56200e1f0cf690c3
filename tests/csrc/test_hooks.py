"""Hooks: a layer done elsewhere, declined, or done wrong; and the example of docs/FIRMWARE.md."""

import ctypes
import re
from pathlib import Path

import native_build
import numpy as np
import pytest
from runtime_library import INCLUDES, PROBE, SOURCES, Model, aligned, library, statuses
from strategies import FORMS, STYLES, TINY, Form, Style, random_graph, random_image
from stripe_plans import with_sram
from wide_bundles import WIDE

from hls_export.bundle import pack_bundle
from hls_export.group_shape import Options
from hls_export.npu import load_chip
from hls_export.planner import plan_stripes
from quant import interpret
from quant.contract import Op

DOCUMENT = native_build.ROOT / "docs" / "FIRMWARE.md"
HOOK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
DECLINED, DONE = 0, 1


class Hooks(ctypes.Structure):
    _fields_ = [
        ("ops", HOOK * (max(Op) + 1)),
        ("context", ctypes.c_void_p),
        ("wide", ctypes.c_int),
        ("tiles", HOOK * (max(Op) + 1)),
    ]


def with_hooks(
    model: Model,
    answer: int,
    ops: tuple[Op, ...] = tuple(Op),
    table: str = "ops",
    *,
    wide: int = 0,
) -> list[int]:
    """Attach a hook that does nothing and gives `answer`; returns its calls by operation."""
    calls = [0] * (max(Op) + 1)
    hooks = Hooks(wide=wide)

    def hook_of(op: Op) -> object:
        def hook(context: int, job: int) -> int:
            calls[op] += 1
            return answer

        return HOOK(hook)

    for op in ops:
        getattr(hooks, table)[op] = hook_of(op)
    model.keeps = hooks  # type: ignore[attr-defined]  # as long as the model asks them
    assert model.call("sl_attach", ctypes.byref(hooks)) == "SL_OK"
    return calls


GRAPH = random_graph(3, TINY)
BUNDLE = pack_bundle(GRAPH, load_chip("reference"))
TIGHT = with_sram(3000)  # many tiles
PLANNED = pack_bundle(GRAPH, TIGHT, plan_stripes(GRAPH, TIGHT, Options(frame=(10, 13))))
IMAGE = random_image(1, 10, 13)


def opened() -> tuple[Model, np.ndarray]:
    model = Model(BUNDLE)
    assert model.status == "SL_OK"
    return model, aligned(model.arena_bytes(37, 21)[1])


def test_declined_layers_are_the_runtimes() -> None:
    model, arena = opened()
    calls = with_hooks(model, DECLINED)
    output = np.zeros_like(IMAGE)
    assert model.run(IMAGE, output, arena) == "SL_OK"
    assert np.array_equal(output, interpret.run(GRAPH, IMAGE))
    for op in Op:
        assert calls[op] == sum(layer.op is op for layer in GRAPH.layers)


def test_the_self_test_names_the_first_layer_that_a_hook_gets_wrong() -> None:
    model, arena = opened()
    arena[:] = 0x11
    calls = with_hooks(model, DONE, (Op.CONV1X1,))  # says done, and writes nothing
    status, layer = model.self_test(arena)
    assert status == "SL_SELF_TEST_FAILED"
    assert GRAPH.layers[layer].op is Op.CONV1X1
    assert calls[Op.CONV1X1] > 1


def test_a_traced_tail_is_the_runtimes_own() -> None:
    model, arena = opened()
    calls = with_hooks(model, DONE, (Op.TAIL,))
    assert model.self_test(arena) == ("SL_OK", 0)
    assert calls[Op.TAIL] == 0


@pytest.mark.parametrize("table", ["ops", "tiles"])
def test_declined_tiles_are_the_runtimes(table: str) -> None:
    model = Model(PLANNED)
    calls = with_hooks(model, DECLINED, table=table)
    output = np.zeros_like(IMAGE)
    assert model.run_planned(IMAGE, output) == "SL_OK"
    assert np.array_equal(output, interpret.run(GRAPH, IMAGE))
    for op in Op:
        layers = sum(layer.op is op for layer in GRAPH.layers)
        assert calls[op] > layers if table == "tiles" else calls[op] == 0


def test_hooks_for_tiles_see_no_whole_frame() -> None:
    model, arena = opened()
    calls = with_hooks(model, DONE, table="tiles")
    assert model.self_test(arena) == ("SL_OK", 0)
    assert sum(calls) == 0


def test_hooks_can_be_taken_away() -> None:
    model, arena = opened()
    calls = with_hooks(model, DECLINED)
    assert model.call("sl_attach", None) == "SL_OK"
    assert model.self_test(arena) == ("SL_OK", 0)
    assert sum(calls) == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("style", STYLES)
def test_hooks_meet_what_they_ask_for(form: Form, style: Style) -> None:
    """Those that say nothing meet layers of 8 bits and dyadic alone; others meet them all."""
    graph, image = random_graph(4, TINY, style, form), random_image(4, 6, 7)
    narrow = [
        layer
        for layer in graph.layers
        if graph.dyadic
        and all(
            graph.buffer(view.buffer).bits == 8
            for view in (layer.input, layer.join, layer.output)
            if view is not None
        )
    ]
    for wide, expected in ((0, narrow), (1, list(graph.layers))):
        model = Model(pack_bundle(graph, WIDE))
        calls = with_hooks(model, DECLINED, wide=wide)
        output = np.zeros_like(image)
        arena = aligned(model.arena_bytes(7, 6)[1])
        assert model.run(image, output, arena) == "SL_OK"
        assert np.array_equal(output, interpret.run(graph, image))
        assert [calls[op] for op in Op] == [sum(at.op is op for at in expected) for op in Op]


def test_attach_needs_a_model() -> None:
    assert statuses()[library().sl_attach(None, None)] == "SL_NULL_ARGUMENT"


def test_api_version_is_the_headers() -> None:
    header = (native_build.ROOT / "csrc" / "runtime" / "starlight_runtime.h").read_text()
    stated = re.search(r"^#define SL_API_VERSION (\d+)u$", header, re.MULTILINE)
    assert stated is not None
    assert library().sl_api_version() == int(stated[1])


def test_a_model_is_as_small_as_stated() -> None:
    assert "`sl_model` is under 300 bytes" in DOCUMENT.read_text(encoding="utf-8")
    assert library().probe_model_bytes() < 300


@pytest.mark.parametrize("style", STYLES)
def test_the_documents_example_does_frames_and_tiles(style: Style, tmp_path: Path) -> None:
    code = re.search(r"```c\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    source = tmp_path / "example.c"
    source.write_text(code[1])
    built = native_build.build_shared([source, PROBE, *SOURCES], INCLUDES, native_build.C99)
    graph = random_graph(7, TINY, style)
    chip = with_sram(3000)
    plan = plan_stripes(graph, chip, Options(frame=(10, 13)))
    example = ctypes.CDLL(str(built))
    example.probe_model_bytes.restype = ctypes.c_size_t
    model = Model(pack_bundle(graph, chip, plan), example)
    hooks, count = Hooks(), ctypes.c_uint(0)
    size = ctypes.c_size_t(model.bundle.size)
    assert (
        model.call("open_with_hook", ctypes.byref(hooks), model.bundle, size, ctypes.byref(count))
        == "SL_OK"
    )
    assert model.self_test(aligned(100_000)) == ("SL_OK", 0)
    layers = [layer.name for layer in graph.layers if layer.op is Op.CONV1X1]
    assert count.value == len(layers)
    output = np.zeros_like(IMAGE)
    assert model.run_planned(IMAGE, output) == "SL_OK"
    assert np.array_equal(output, interpret.run(graph, IMAGE))
    items = [item.layer for group in plan.groups for item in group.items]
    assert count.value > len(layers) + sum(name in layers for name in items)
