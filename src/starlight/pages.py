"""What the project's HTML reports share: one file that needs nothing beside it, in either colour
scheme, wide or narrow, printed or not; figures as inline SVG.

The same numbers give the same bytes. Drawn without pyplot or a display; loads neither torch nor
numbers of ours.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

THIN_SPACE, EN_DASH, MINUS, TIMES = "\u2009", "\u2013", "\u2212", "\u00d7"
MIB: Final = 1 << 20
# Everything drawn in this colour becomes the page's text colour, whatever its scheme.
INK: Final = "#010203"
# Middle tones, distinct on white and on black and to colour-blind eyes.
PALETTE: Final = ("#3a8fd0", "#9a6fd0", "#d98511", "#1e9e74", "#c05050")
WIDTH: Final = 12.4  # inches of 96 CSS pixels

STYLE: Final = Path(__file__).with_name("page.css")

_FIGURES: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.18,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    **dict.fromkeys(("text.color", "xtick.color", "ytick.color", "grid.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), INK),
}


def page_environment(templates: Path) -> jinja2.Environment:
    """Templates of a folder, escaping HTML, with `style` and the filters `grouped` and `value`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = Markup(STYLE.read_text(encoding="utf-8").strip())
    environment.filters.update(grouped=grouped, value=value_text)
    return environment


def grouped(value: int) -> str:
    """An integer with its thousands apart."""
    return f"{value:,}".replace(",", THIN_SPACE)


def value_text(value: Any, grouping: bool = True) -> str:
    """A fact of a table: lists joined, floats short; grouping: integers by thousands."""
    if isinstance(value, (list, tuple)):
        return ", ".join(value_text(item, grouping) for item in value) or EN_DASH
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", MINUS)
    if isinstance(value, int) and not isinstance(value, bool) and grouping:
        return grouped(value)
    return EN_DASH if value is None or value == "" else str(value)


def colour(index: int) -> str:
    """A colour of the palette, which begins again behind its end."""
    return PALETTE[index % len(PALETTE)]


@contextmanager
def house_style() -> Iterator[None]:
    """The house style over matplotlib's defaults: a matplotlibrc of the machine changes nothing."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_FIGURES)
        yield


def inline_svg(figure: Figure, stem: str, label: str) -> str:
    """A figure as an <svg> element for HTML; `stem` keeps its identifiers apart from others'."""
    text = io.StringIO()
    matplotlib.rcParams["svg.hashsalt"] = stem
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(text, metadata=nothing)
    source = text.getvalue()
    box = re.search(r'<svg [^>]*viewBox="(?P<box>[\d. ]+)"[^>]*>', source, re.DOTALL)
    assert box is not None
    width = float(box["box"].split()[2])
    body = re.sub(r'<g id="[^"]*"', "<g", source[box.end() :])
    opening = (
        f'<svg class="plot" viewBox="{box["box"]}" style="max-width:{width:.0f}pt" role="img" '
        f'aria-label="{escape(label)}">'
    )
    return opening + body.replace(INK, "currentColor").rstrip()


class Box(NamedTuple):
    """Bytes [address, address + size) that hold `name` during [first, last) of the time axis."""

    name: str
    group: str
    first: float
    last: float
    address: int
    size: int


def address_map_svg(
    boxes: Sequence[Box], end: float, time: str, stem: str, label: str, limit: int | None = None
) -> str:
    """Memory over time: a box per thing stored, in its group's colour; groups by first occurrence.

    end: of the time axis, whose units `time` names. limit: bytes of the memory, drawn as a line.
    """
    top = max(box.address + box.size for box in boxes)
    unit, title = (MIB, "MiB") if top >= MIB else (1 << 10, "KiB")
    groups = list(dict.fromkeys(box.group for box in boxes))
    with house_style():
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        for box in boxes:
            width, height = box.last - box.first, box.size / unit
            place = Rectangle(
                (box.first - 0.5, box.address / unit),
                width,
                height,
                facecolor=colour(groups.index(box.group)),
                alpha=0.5,
                edgecolor=INK,
                linewidth=0.5,
            )
            axes.add_patch(place)
            # Axes of about 630 x 200 pt, letters of 4 pt.
            if len(box.name) * 4.0 < width / end * 630 and box.size / top * 200 > 8:
                axes.text(
                    box.first - 0.5 + width / 2,
                    box.address / unit + height / 2,
                    box.name,
                    ha="center",
                    va="center",
                    fontsize=7,
                    clip_on=True,
                )
        if limit is not None:
            axes.axhline(limit / unit, color=INK, linestyle="--", linewidth=0.8)
        axes.set_xlim(-0.5, end - 0.5)
        axes.set_ylim(0, max(top, limit or 0) / unit * (1 if limit is None else 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=20))
        axes.set_xlabel(time)
        axes.set_ylabel(f"address, {title}")
        handles = [
            Rectangle((0, 0), 1, 1, color=colour(index), alpha=0.5) for index in range(len(groups))
        ]
        figure.legend(handles, groups, ncols=len(groups), loc="outside upper right")
        return inline_svg(figure, stem, label)
