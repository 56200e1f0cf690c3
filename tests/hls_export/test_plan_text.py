"""A plan in words: every window, item and spill is there; plans that differ are told apart."""

import dataclasses

import pytest
from strategies import TINY, random_graph

from hls_export.npu import load_chip
from hls_export.plan import StripePlan
from hls_export.plan_text import plan_changes, plan_lines
from hls_export.planner import Options, plan_stripes

REFERENCE = load_chip("reference")
TIGHT = REFERENCE.model_copy(
    update={"performance": REFERENCE.performance.model_copy(update={"sram_bytes": 24_000})}
)
GRAPH = random_graph(1, TINY)
PLAN = plan_stripes(GRAPH, TIGHT, Options(frame=(64, 96)))


def test_every_part_of_a_plan_is_listed() -> None:
    lines = list(plan_lines(PLAN))
    assert lines[0].startswith(f"plan  {PLAN.sram} bytes of SRAM, {PLAN.dram} bytes of DRAM")
    assert sum(line.startswith("spill ") for line in lines) == len(PLAN.spills)
    assert sum(line.startswith("group ") for line in lines) == len(PLAN.groups)
    windows = [line for line in lines if line.startswith("    window ")]
    assert len(windows) == sum(len(group.windows) for group in PLAN.groups)
    items = [item for group in PLAN.groups for item in group.items]
    loads = [line for line in lines if line.startswith("    load ")]
    assert len(loads) == sum(item.layer is None for item in items)
    for item in items:
        if item.layer is not None:
            assert any(line.startswith(f"    {item.layer}: window ") for line in lines)
    assert any("-> the output, " in line for line in lines)
    assert any("from the image into window" in line for line in loads)


def changed(**fields: object) -> StripePlan:
    group = dataclasses.replace(PLAN.groups[0], **fields)
    return dataclasses.replace(PLAN, groups=(group, *PLAN.groups[1:]))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (PLAN, []),
        (dataclasses.replace(PLAN, sram=PLAN.sram + 16), ["sram {0} -> {1}"]),
        (changed(prologue=PLAN.groups[0].prologue + 1), ["group 0 prologue "]),
        (changed(tile_height=2 * PLAN.groups[0].tile_height), ["group 0 tile "]),
        (changed(windows=PLAN.groups[0].windows[:-1]), ["group 0: 1 windows differ"]),
        (changed(items=PLAN.groups[0].items[:-1]), ["groups "]),
    ],
)
def test_changes_are_told(other: StripePlan, words: list[str]) -> None:
    found = list(plan_changes(PLAN, other))
    assert len(found) == len(words)
    for line, start in zip(found, words, strict=True):
        assert line.startswith(start.format(PLAN.sram, other.sram))
