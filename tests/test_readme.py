"""README.md and docs/: examples run, commands and options exist, links lead somewhere."""

import importlib
import importlib.util
import os
import pydoc
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from strategies import TINY, random_graph

from hls_export.__main__ import main as hls_export_command
from hls_export.bundle import pack_bundle
from hls_export.costs import frame_costs
from hls_export.cycles import summary
from hls_export.export import FRAME
from hls_export.npu import load_chip
from hls_export.planner import plan_stripes
from quant.graph_files import save_graph
from quant.quality import CONDITIONS, cost_lines, psnr_table
from quant.topology import Topology
from starlight.cli import main as starlight_command

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "src/starlight/weights").glob("*.md"),
    ]
)
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in DOCUMENTS}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def in_line(text: str) -> list[str]:
    """Code within the lines of a text."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [code.replace(r"\|", "|") for code in re.findall(r"`([^`]+)`", outside)]


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks("python")
    save_graph(random_graph(0, TINY), tmp_path / "graph.json")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "qat-edge").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, np.ndarray] = {}
    exec(compile(example, "README.md", "exec"), names)
    for name in ("noisy", "restored", "integers"):
        assert names[name].dtype == np.uint8
        assert names[name].shape == names["clean"].shape


def test_device_lines_build_and_run(tmp_path: Path) -> None:
    (lines,) = (block for block in blocks("sh") if "csrc/runtime" in block)
    (tmp_path / "model.slb").write_bytes(pack_bundle(random_graph(0, TINY), load_chip("reference")))
    lines = lines.replace("build/", f"{tmp_path}/").replace("mkdir -p build", "")
    lines = lines.replace("runs/qat-edge/model.slb", str(tmp_path / "model.slb"))
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("layers reproduce their test vectors\n")


def test_demo_output_has_todays_form() -> None:
    found = re.search(r"<!-- demo:begin -->\n```text\n(.*?)```\n<!-- demo:end -->", README, re.S)
    assert found is not None
    lines = found[1].splitlines()
    names = ("noisy", "float", "ptq", "qat")
    table = psnr_table(
        {name: dict.fromkeys((condition.name for condition in CONDITIONS), 0.0) for name in names}
    ).splitlines()
    start = lines.index(table[0])
    shown = lines[start : start + len(table)]
    assert [re.sub(r"\d+\.\d\d", "0.00", line).split() for line in shown] == [
        line.split() for line in table
    ]
    widths = tuple(16 << level for level in range(5))  # `edge`; its weights change no cost
    graph = random_graph(0, Topology(widths, tuple(width // 2 for width in widths)))
    chip = load_chip("reference")
    costs = frame_costs(graph, chip, *FRAME, plan_stripes(graph, chip))
    stated = cost_lines({title: summary(cost) for title, cost in costs.items()})
    end = start + len(table)
    assert lines[end : end + len(costs)] == list(stated)
    assert lines[-1] == "bit check: PASS"


def commands(text: str) -> Iterator[list[str]]:
    """Words of every `starlight ...` and `python ...` in the code of a text."""
    code = "\n".join([*blocks("sh", text), *(" ".join(code.split()) for code in in_line(text))])
    for line in code.replace("\\\n", " ").splitlines():
        if re.match(r"(starlight|python3?|\.venv/bin/python) \S", line):
            yield shlex.split(line, comments=True)


def module_command(module: str) -> click.Command | None:
    """The click command behind `python -m module`; None for other people's modules."""
    if module.split(".")[0] not in ("starlight", "quant", "hls_export", "benchmarks"):
        return None
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"no module {module}"
    if spec.submodule_search_locations is not None:
        module += ".__main__"
    command = importlib.import_module(module).main
    assert isinstance(command, click.Command)
    return command


def check(command: click.Command, words: list[str], line: str) -> None:
    """Every subcommand and option of a command line exists."""
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-"):
            context = click.Context(command)
            _, command, _ = command.resolve_command(context, [word])
            assert command is not None, line
        elif word.startswith("--"):
            options = {name for option in command.params for name in option.opts}
            assert word.partition("=")[0] in options | {"--help"}, f"{word} in: {line}"


@pytest.mark.parametrize("document", TEXTS)
def test_commands_exist(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)  # as `python -m` does
    for words in commands(TEXTS[document]):
        line = shlex.join(words)
        if words[0] == "starlight":
            check(starlight_command, words[1:], line)
        elif words[1] == "-m":
            command = module_command(words[2])
            if command is not None:
                check(command, words[3:], line)
        else:
            assert (ROOT / words[1]).is_file(), line


def test_readme_shows_every_command() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '\nstarlight = "starlight.cli:main"\n' in project
    named = {tuple(words[:4]) for words in commands(README)}
    assert {("starlight", name) for name in starlight_command.commands} <= {
        words[:2] for words in named
    }
    assert {("python", "-m", "hls_export", name) for name in hls_export_command.commands} <= named


def test_every_line_of_the_makefile_stands_in_the_readme() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):.*##", text, re.MULTILINE)
    targets.remove("help")
    # Not what an outer `make test` hands on, and python3 as the Makefile has it.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    printed = subprocess.run(
        ["make", "--always-make", "--dry-run", *targets],
        cwd=ROOT,
        env=environment | {"PYTHON": "python3"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line for line in printed.splitlines() if not line.startswith("touch ")]
    assert len(lines) > len(targets)
    shown = in_line(README)
    assert [line for line in lines if line not in shown] == []
    assert {f"make {target}" for target in targets} <= set(shown)


@pytest.mark.parametrize("document", TEXTS)
def test_links_lead_somewhere(document: str) -> None:
    folder = (ROOT / document).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[document]):
        if target.startswith("https://"):
            continue
        path, _, title = target.partition("#")
        assert (folder / path).exists(), target
        if title:
            linked = folder / path if path else ROOT / document
            titles = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in titles}
            assert title in anchors, target


@pytest.mark.parametrize("document", TEXTS)
def test_named_code_exists(document: str) -> None:
    """`room.module.name` and `path/to/file` in a document exist."""
    for code in in_line(TEXTS[document]):
        if re.match(r"(starlight|quant|hls_export)\.[\w.]+$", code) and code != "starlight.config":
            assert pydoc.locate(code) is not None, code
        elif re.match(r"(src|csrc|quant|hls_export|tests|docs)/[\w./]*$", code):
            assert (ROOT / code).exists(), code
