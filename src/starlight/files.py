"""Files that are complete or absent; loads nothing but the standard library."""

import csv
import glob
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def complete_or_absent(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The name to write to; the file takes its own name when the block ends well.

    What is written lies in the same folder, as `.NAME.PID.partial`, until `os.replace` renames it:
    a reader never sees half a file, and an existing one stays as it was until then. It is removed
    when the block raises; what a killed process left behind of this file goes first. Raises
    FileNotFoundError when the folder does not exist.
    """
    path = Path(path)
    check_folder(path)
    for left_behind in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        owner = left_behind.name.split(".")[-2]
        if owner.isdecimal() and not _running(int(owner)):
            left_behind.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # else a power cut could leave the name without its bytes
        os.replace(partial, path)
    except OSError as error:  # a full disk does not say whose file it was
        error.filename = error.filename or str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def write_atomically(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write bytes to a file that is complete or absent, as `complete_or_absent` has it."""
    with complete_or_absent(path) as partial:
        partial.write_bytes(data)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise FileNotFoundError unless the folder of a file to be written exists.

    Long work calls it before it starts.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"write {path.name}: folder must exist, got {path.parent}")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write strict JSON (NaN and Infinity raise ValueError), indented, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_table(
    path: str | os.PathLike[str], columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Row numbers and cells by column of a CSV file whose header, row 1, has these columns.

    Empty lines are left out. Raises ValueError for what is no CSV in UTF-8, other columns, a row of
    another length (with its number) or no row at all; FileNotFoundError when there is no file.
    """
    path = Path(path)
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: file must be CSV in UTF-8, got {error}") from None
    header = rows[0] if rows else []
    if sorted(header) != sorted(columns):
        raise ValueError(f"{path}: columns must be {', '.join(columns)}, got {', '.join(header)}")
    filled = [(number, cells) for number, cells in enumerate(rows[1:], start=2) if cells]
    if not filled:
        raise ValueError(f"{path}: rows must be at least one, got none")
    for number, cells in filled:
        if len(cells) != len(header):
            raise ValueError(f"{path} row {number}: cells must be {len(header)}, got {len(cells)}")
        yield number, dict(zip(header, cells, strict=True))


def write_table(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write CSV in UTF-8 with a header, atomically; a column that a row lacks stays empty.

    Floats are written so that they read back equal. Raises ValueError for a column of no name.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
