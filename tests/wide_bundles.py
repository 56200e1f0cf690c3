"""A chip that takes all that format 2 can say, and stripe plans whose windows have room for it."""

import dataclasses
from collections.abc import Iterable

from hls_export import container
from hls_export.layer_table import (
    PlanGroupRecord,
    PlanItemRecord,
    PlanRecord,
    PlanSpillRecord,
    PlanWindowRecord,
    Record,
)
from hls_export.npu import Chip, load_chip

NONE = 2**32 - 1


def wide_chip(chip: Chip, **changes: object) -> Chip:
    """The chip with 16-bit activations, weights of 4..8 bits and multipliers too."""
    added: dict[str, object] = {
        "activation_bits": [8, 16],
        "weight_bits": [4, 8],
        "arithmetic": ["dyadic", "multiplier"],
    }
    capability = chip.capability.model_copy(update=added | changes)
    return chip.model_copy(update={"capability": capability})


WIDE = wide_chip(load_chip("reference"))


def with_section(bundle: bytes, kind: str, content: bytes | None) -> bytes:
    """A section changed, added as an optional one, or dropped (None); every CRC right."""
    sections = container.read_container(bundle)
    kept = [(s.kind, s.required, s.data) for s in sections if s.kind != kind]
    if content is not None:
        kept.append((kind, container.is_required(kind), content))
    return container.pack_container(kept, container.read_header(bundle).format_major)


def doubled_plan(plan: bytes) -> bytes:
    """PLAN with every address and size doubled: what holds for one byte a value holds for two."""
    head = PlanRecord.unpack(plan[: PlanRecord.SIZE], "PLAN")
    counts = (
        (PlanGroupRecord, head.group_count, ()),
        (PlanWindowRecord, head.window_count, ("address",)),
        (PlanItemRecord, head.item_count, ("weight_address",)),
        (PlanSpillRecord, head.spill_count, ("address_per_cell",)),
    )
    made = [_doubled(head, ("sram_bytes", "dram_bytes_per_cell"))]
    start = PlanRecord.SIZE
    for record, count, fields in counts:
        for _ in range(count):
            row = record.unpack(plan[start : start + record.SIZE], "PLAN")  # type: ignore[attr-defined]
            made.append(_doubled(row, fields))
            start += record.SIZE
    return b"".join(made)


def _doubled(row: Record, fields: Iterable[str]) -> bytes:
    old = {name: getattr(row, name) for name in fields}
    new = {name: value if value == NONE else 2 * value for name, value in old.items()}
    return dataclasses.replace(row, **new).pack()  # type: ignore[type-var]
