"""What the project's HTML reports share: one file that needs nothing beside it, in either colour
scheme, wide or narrow, printed or not; figures as inline SVG.

The same numbers give the same bytes. Drawn without pyplot or a display; loads neither torch nor
numbers of ours.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Final

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

THIN_SPACE, EN_DASH, MINUS, TIMES = "\u2009", "\u2013", "\u2212", "\u00d7"
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
