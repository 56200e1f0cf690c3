"""model.h: the tables of a bundle as C99 constants, for firmware that links its model in."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from hls_export.bundle import Bundle
from hls_export.layer_table import (
    BufferRecord,
    ChannelRecord,
    LayerRecord,
    MultiplierRecord,
    Record,
    ViewRecord,
)
from starlight import __version__

TEMPLATES = Path(__file__).parent / "templates"
C_TYPES = {
    "B": "uint8_t",
    "b": "int8_t",
    "H": "uint16_t",
    "I": "uint32_t",
    "i": "int32_t",
    "Q": "uint64_t",
}
STRUCTS: dict[type[Record], str] = {
    ViewRecord: "model_view",
    BufferRecord: "model_buffer",
    LayerRecord: "model_layer",
    ChannelRecord: "model_channel",
    MultiplierRecord: "model_multiplier",
}


@dataclass(frozen=True)
class _Array:
    name: str
    count: str
    record: type[Record]
    rows: tuple[Record, ...]


def c_header(bundle: Bundle) -> str:
    """The text of model.h: counts, places of the sections in the file, every table."""
    arrays = [
        _Array("MODEL_BUFFERS", "MODEL_BUFFER_COUNT", BufferRecord, bundle.buffers),
        _Array("MODEL_LAYERS", "MODEL_LAYER_COUNT", LayerRecord, bundle.layers),
        _Array("MODEL_CHANNELS", "MODEL_CHANNEL_COUNT", ChannelRecord, bundle.channels),
    ]
    if bundle.multipliers:
        rows = bundle.multipliers
        arrays.append(_Array("MODEL_MULTIPLIERS", "MODEL_CHANNEL_COUNT", MultiplierRecord, rows))
    declared = {ViewRecord, *(array.record for array in arrays)}
    return _template().render(
        bundle=bundle,
        version=__version__,
        structs=[
            (name, _members(record)) for record, name in STRUCTS.items() if record in declared
        ],
        arrays=arrays,
        struct_names=STRUCTS,
        row=functools.partial(_row, bundle),
        string=lambda offset: c_string(bundle.text(offset)),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C, not HTML
    )
    return environment.get_template("model.h.j2")


def _members(record: type[Record]) -> list[tuple[str, str]]:
    def c_type(place: Any) -> str:
        if place.name == "name":
            return "const char *"
        return (STRUCTS[place.nested] if place.nested else C_TYPES[place.code]) + " "

    return [(c_type(place), place.name) for place in record.places()]


def _row(bundle: Bundle, record: Record) -> str:
    values = []
    for place in record.places():
        value = getattr(record, place.name)
        if place.name == "name":
            values.append(c_string(bundle.text(value)))
        elif place.nested:
            values.append(_row(bundle, value))
        else:
            values.append(f"{value}{'u' if place.code.isupper() else ''}")
    return "{" + ", ".join(values) + "}"


def c_string(text: str) -> str:
    """A C string literal of the UTF-8 bytes; anything but plain ASCII as octal escapes."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')  # no trigraphs either
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'
