"""Measurements that print tables and write JSON: `python -m benchmarks`, from the repository.

    machine, timing, tables, processes <- command <- a module per benchmark <- __main__
    ablation                           (what `choices` runs in processes of its own)
    engines                            (other people's, beside which `ops` times ours)

A benchmark verifies before it times and compares peers within one run. Graphs and images are those
of the tests, so tests/ is on the path here as it is under pytest.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
