"""The same graph gives the same bytes, whatever runs the exporter, and wherever.

Every file that the exporter and the vectors command write, from fresh interpreters that differ in
hash seed, working folder, threads, locale, time zone and checkout.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What a checkout needs to export; the tests bring the graph.
PARTS = ("src", "quant", "hls_export", "tests/strategies.py")

WRITE = """
import sys
from pathlib import Path

from hls_export.export import export
from hls_export.npu import load_chip
from hls_export.vector_set import write_vectors
from quant.graph_files import load_graph, save_graph
from strategies import TINY, random_graph

out, home = Path(sys.argv[1]), Path(sys.argv[2])
for module in ("hls_export.export", "quant.integer_graph", "strategies", "starlight.files"):
    assert home in Path(sys.modules[module].__file__).parents, module
out.mkdir()
save_graph(random_graph(5, TINY), out / "graph.json")
bundle = export(out / "graph.json", out / "export")
write_vectors(out / "vectors", load_chip("reference"), bundle)
"""

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "one thread": {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    "seven threads": {"PYTHONHASHSEED": "42", "OMP_NUM_THREADS": "7", "OPENBLAS_NUM_THREADS": "7"},
    "another country": {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Kathmandu"},
}


def digests(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of all files below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def written(
    out: Path, *, home: Path = ROOT, cwd: Path = ROOT, **environment: str
) -> dict[str, str]:
    """What a fresh interpreter with the sources of `home` writes."""
    paths = os.pathsep.join(str(home / part) for part in ("src", ".", "tests"))
    subprocess.run(
        [sys.executable, "-P", "-c", WRITE, str(out), str(home)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        check=True,
    )
    return digests(out)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = written(tmp_path_factory.mktemp("first") / "out")
    assert {"graph.npz", "export/model.slb", "export/layers.json", "vectors/index.json"} <= set(
        found
    )
    return found


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environment(expected: dict[str, str], name: str, tmp_path: Path) -> None:
    assert written(tmp_path / "out", **ENVIRONMENTS[name]) == expected


def test_working_folder(expected: dict[str, str], tmp_path: Path) -> None:
    assert written(tmp_path / "out", cwd=tmp_path) == expected


def test_another_checkout(expected: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "a checkout of another name"
    for part in PARTS:
        source, target = ROOT / part, other / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(source, target)
    assert written(tmp_path / "out", home=other, cwd=tmp_path) == expected
