"""Two readers, one in Python and one in C, written apart: they accept the same forged bundles.

Every CRC of a forged bundle is right, so only the rules behind the CRCs can refuse it.
"""

import random

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import FORMS, STYLES, TINY, random_graph, random_image, seeds
from wide_bundles import WIDE

from hls_export import container
from hls_export.bundle import pack_bundle, read_bundle
from hls_export.executors.c_runtime import native
from hls_export.layer_table import (
    BufferRecord,
    ChannelRecord,
    ChipRecord,
    LayerRecord,
    ModelRecord,
    MultiplierRecord,
    Record,
)
from quant import interpret

BUNDLES = [
    pack_bundle(random_graph(seed, TINY, style, form), WIDE)
    for seed in range(4)
    for style in STYLES
    for form in FORMS
]
ARENA_MAX = 2**16
RECORDS: dict[str, type[Record]] = {
    "MODL": ModelRecord,
    "CHIP": ChipRecord,
    "BUFS": BufferRecord,
    "LAYR": LayerRecord,
    "CHAN": ChannelRecord,
    "MULT": MultiplierRecord,
}


def is_name(kind: str, at: int) -> bool:
    """Names are the one thing on which Python is stricter: C reads their bounds alone."""
    record = RECORDS.get(kind)
    if record is None:
        return False
    places = [place for place in record.places() if place.name == "name"]
    return any(0 <= at % record.SIZE - place.offset < place.size for place in places)


def forge(data: bytes, kind: str, rng: random.Random) -> bytes:
    """One to three bytes of a section changed, every CRC and the SHA-256 right."""
    sections = [(s.kind, s.required, s.data) for s in container.read_container(data)]
    kinds = [section[0] for section in sections]
    index = kinds.index(kind if kind in kinds else "CHAN")
    content = bytearray(sections[index][2])
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(content))
        if not is_name(kind, at):
            flipped = content[at] ^ 1 << rng.randrange(8)
            content[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256), flipped])
    sections[index] = (kind, sections[index][1], bytes(content))
    return container.pack_container(sections, container.read_header(data).format_major)


@given(st.sampled_from([*RECORDS, "WGHT", "VECT"]), seeds)
@example("CHAN", 3)
def test_python_and_c_accept_the_same_and_compute_the_same(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    data = forge(rng.choice(BUNDLES), kind, rng)
    refusals = []
    for reader in (read_bundle, native().Model):
        try:
            reader(data)
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) in (0, 2), refusals
    # An arena may be larger than its buffers need: lawful, but not to be allocated here.
    if not refusals and read_bundle(data).plan.arena < ARENA_MAX:
        image = random_image(seed, rng.randint(1, 12), rng.randint(1, 12))
        output, _ = native().Model(data).run(image, trace=True)
        assert np.array_equal(output, interpret.run(read_bundle(data).graph(), image))
