"""Tables that the terminal and Markdown both show well, and their place in a document."""

import os
from collections.abc import Sequence
from pathlib import Path

from starlight.files import write_atomically


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with padded cells; the first column to the left, the others to the right.

    Raises ValueError for a row of another length.
    """
    for row in rows:
        if len(row) != len(titles):
            raise ValueError(f"table: row must have {len(titles)} cells, got {list(row)}")
    widths = [max(3, *map(len, column)) for column in zip(titles, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(titles), line(rule), *map(line, rows)])


def write_block(path: str | os.PathLike[str], name: str, text: str) -> None:
    """Replace what stands between `<!-- name:begin -->` and `<!-- name:end -->` of a document.

    Raises as `check_block`.
    """
    write_atomically(path, replace_block(path, name, text).encode())


def replace_block(path: str | os.PathLike[str], name: str, text: str) -> str:
    """The document that `write_block` would write. Raises as `check_block`."""
    before, after = _around_block(Path(path), name)
    return f"{before}\n{text}\n{after}"


def check_block(path: str | os.PathLike[str], name: str) -> None:
    """Raise FileNotFoundError or ValueError unless `write_block` finds its place."""
    _around_block(Path(path), name)


def _around_block(path: Path, name: str) -> tuple[str, str]:
    """The document up to the first marker and from the last, markers included."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if not path.is_file():
        raise FileNotFoundError(f"document: file must exist with {begin} in it, got {path}")
    document = path.read_text(encoding="utf-8")
    before, found, rest = document.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended) or end in after or begin in rest:
        raise ValueError(f"document {path}: {begin} then {end} must each stand in it once")
    return before + begin, end + after
