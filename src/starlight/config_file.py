"""Settings files in TOML: read whole, checked by a pydantic model, refused in one line."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Section(BaseModel):
    """A table of a settings file: frozen, no unknown setting, no conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Settings = TypeVar("Settings", bound=Section)


def load_settings(model: type[Settings], path: str | os.PathLike[str], what: str) -> Settings:
    """Read a TOML file.

    what: the kind of file, for messages. Raises FileNotFoundError, or ValueError with one line that
    names the first setting at fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what}: file must exist, got {path}")
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {path}: file must be TOML, got {error}") from None
    return parse_settings(model, fields, f"{what} {path}")


def parse_settings(model: type[Settings], fields: dict[str, Any], what: str) -> Settings:
    """The settings of nested dicts, as `load_settings`."""
    try:
        # Strict tuples take no lists, which TOML's arrays are, but JSON's arrays.
        return model.model_validate_json(json.dumps(fields, default=str))
    except ValidationError as error:
        raise ValueError(explain(error, what)) from None


def expanded_path(path: str) -> str:
    """The path with environment variables put in. Raises ValueError for one that is not set."""
    expanded = os.path.expandvars(path)
    if missing := re.search(r"\$\{?(\w+)", expanded):
        raise ValueError(f"environment variable {missing[1]} must be set, got none (path {path})")
    return expanded


def explain(error: ValidationError, what: str) -> str:
    """The first fault of a settings file in one line."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{what}: {name + ' ' if name else ''}{message}"
    if first["type"] == "extra_forbidden":
        return f"{what}: {name} must be a known setting, got {first['input']!r}"
    if first["type"] == "missing":
        return f"{what}: {name} must be given, got none"
    return f"{what}: {name} must be valid ({message}), got {first['input']!r}"
