"""Files that are complete or absent; loads nothing but the standard library."""

import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write a file that takes its name only when it is complete.

    The bytes go to a temporary file in the same folder, then `os.replace` renames it: a reader
    never sees half a file, and an existing one stays as it was until then. Raises
    FileNotFoundError when the folder does not exist.
    """
    path = Path(path)
    check_folder(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the name without its bytes
        os.replace(partial, path)
    except OSError as error:  # a full disk does not say whose file it was
        error.filename = error.filename or str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


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
