"""What the HTML reports share: numbers as people read them, address maps, a page's environment."""

import re
from pathlib import Path

import pytest

from starlight.pages import (
    PALETTE,
    Box,
    address_map_svg,
    colour,
    grouped,
    page_environment,
    value_text,
)

BOXES = [
    Box("first", "near", 0, 4, 0, 1 << 20),
    Box("second", "far", 2, 6, 1 << 20, 2 << 20),
    Box("x" * 200, "far", 5, 6, 0, 1 << 20),
]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1\u2009234\u2009567"), (-0.25, "\u22120.25"), (1 / 3, "0.333333"),
        ((1, 2000), "1, 2\u2009000"), ([], "\u2013"), (None, "\u2013"), ("", "\u2013"),
        (True, "True"), ("dyadic", "dyadic"),
    ],
)  # fmt: skip
def test_values_read_well(value: object, text: str) -> None:
    assert value_text(value) == text


def test_thousands_can_stay_together() -> None:
    assert value_text(20240101, grouping=False) == "20240101"
    assert grouped(999) == "999"


def test_the_palette_begins_again() -> None:
    assert [colour(index) for index in range(len(PALETTE) + 1)] == [*PALETTE, PALETTE[0]]


def test_an_address_map_names_what_fits_and_repeats_to_the_byte() -> None:
    drawn = address_map_svg(BOXES, 6, "layer", "memory", "memory of two")
    assert drawn == address_map_svg(BOXES, 6, "layer", "memory", "memory of two")
    assert drawn.startswith('<svg class="plot"')
    assert 'aria-label="memory of two"' in drawn
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert {"first", "second", "near", "far", "layer", "address, MiB"} <= set(texts)
    assert "x" * 200 not in texts
    small = [box._replace(address=box.address >> 10, size=box.size >> 10) for box in BOXES]
    assert "address, KiB" in address_map_svg(small, 6, "layer", "memory", "small")


def test_the_limit_of_a_memory_is_a_line() -> None:
    without, drawn = (
        address_map_svg(BOXES, 6, "layer", "memory", "memory", limit) for limit in (None, 4 << 20)
    )
    assert "stroke-dasharray" in drawn
    assert "stroke-dasharray" not in without


def test_a_page_has_the_style_and_escapes(tmp_path: Path) -> None:
    (tmp_path / "page.j2").write_text("<style>{{ style }}</style>{{ name }} {{ count | grouped }}")
    page = page_environment(tmp_path).get_template("page.j2").render(name="<b>", count=1000)
    assert "color-scheme: light dark" in page
    assert page.endswith("&lt;b&gt; 1\u2009000")
