"""The arrows of docs/ARCHITECTURE.md, by what a fresh interpreter has loaded; and no cycle."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASES = {"starlight": ROOT / "src", "quant": ROOT, "hls_export": ROOT}


def module_name(path: Path, base: Path) -> str:
    relative = path.relative_to(base).with_suffix("")
    return ".".join((relative.parent if path.stem == "__init__" else relative).parts)


SOURCES = {
    module_name(path, base): path
    for package, base in BASES.items()
    for path in sorted((base / package).rglob("*.py"))
}


def room(name: str) -> list[str]:
    """Every module of a package."""
    return [module for module in SOURCES if module == name or module.startswith(f"{name}.")]


INTEGERS = [
    f"quant.{name}"
    for name in ("contract", "intmath", "integer_graph", "topology", "interpret", "contract_header")
]
CHIP_SIDE = ["quant", "hls_export"]
TORCH = ["torch", "brevitas"]

# A list is one interpreter, which imports the modules of a pair and must then not have loaded what
# stands beside them; pairs share an interpreter where the later may load what the earlier has.
FRESH: dict[str, list[tuple[list[str], list[str]]]] = {
    "integers": [
        (["starlight"], [*TORCH, "numpy", "starlight.cli", *CHIP_SIDE]),
        (["starlight.cli"], [*TORCH, "numpy", *CHIP_SIDE]),
        (["starlight.pages"], [*TORCH, *CHIP_SIDE, "starlight.models", "starlight.noise"]),
        (INTEGERS, [*TORCH, "hls_export", "starlight.models", "starlight.training"]),
        (["quant.report"], [*TORCH, "hls_export", "starlight.models", "starlight.training"]),
        (room("hls_export"), [*TORCH, "starlight.models", "starlight.training"]),
    ],
    "float": [
        (
            ["starlight.noise", "starlight.evaluation"],
            [*TORCH, *CHIP_SIDE, "starlight.models", "starlight.training"],
        ),
        (
            room("starlight.capture"),
            [*TORCH, *CHIP_SIDE, "starlight.models", "starlight.training"],
        ),
        (
            room("starlight.models"),
            ["brevitas", *CHIP_SIDE, "starlight.training", "starlight.denoise.denoiser"],
        ),
        (
            [name for name in room("starlight") if not name.endswith("__main__")],
            ["brevitas", *CHIP_SIDE],
        ),
    ],
    "operators": [
        (
            room("starlight.ops"),
            ["brevitas", *CHIP_SIDE, "starlight.models", "starlight.noise", "starlight.training"],
        ),
        (
            ["starlight.distributed"],
            ["brevitas", *CHIP_SIDE, "starlight.models", "starlight.noise", "starlight.training"],
        ),
    ],
    "quantisation": [
        (
            [f"quant.{name}" for name in ("quantizers", "modules", "convert", "lower")],
            ["hls_export", "starlight.training", "starlight.denoise", "starlight.noise"],
        )
    ],
}

PROGRAM = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for modules, forbidden in json.loads(sys.argv[1]):
    for module in modules:
        importlib.import_module(module)
        loaded = sorted(name for name in forbidden if name in sys.modules)
        if loaded:
            sys.exit(f"{module} must not load {', '.join(loaded)}")
"""


@pytest.mark.parametrize("name", FRESH)
def test_a_room_loads_only_what_lies_behind_it(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(FRESH[name])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def module_level(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when a module is imported: not in functions, not for type checkers alone."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from module_level(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody"):
                yield from module_level(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from module_level(handler.body)


def imported(name: str) -> set[str]:
    """Modules of the project that importing a module imports, but for its own parents."""
    found: set[str] = set()
    for node in module_level(ast.parse(SOURCES[name].read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{name} imports relatively"
            targets = [node.module or ""]
            targets += [f"{node.module}.{alias.name}" for alias in node.names]
        for target in targets:
            parts = target.split(".")
            found |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    own = {name[:end] for end in range(len(name)) if name[end] == "."}
    return (found & SOURCES.keys()) - own - {name}


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: imported(name) for name in SOURCES}
    assert sum(map(len, graph.values())) > 50
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert sorted(order) == sorted(SOURCES)


APPLICATIONS = {"quant.qat", "quant.sensitivity"}


def test_rooms_have_no_cycle_below_the_applications() -> None:
    """quant and hls_export, and the rooms of starlight among each other."""

    def room_of(name: str) -> str:
        parts = name.split(".")
        return ".".join(parts[:2]) if parts[0] == "starlight" else parts[0]

    arrows: dict[str, set[str]] = {}
    for name in SOURCES.keys() - APPLICATIONS:
        arrows.setdefault(room_of(name), set()).update(
            room_of(target) for target in imported(name) if room_of(target) != room_of(name)
        )
    assert "quant" in arrows["hls_export"]
    list(graphlib.TopologicalSorter(arrows).static_order())
