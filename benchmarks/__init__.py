"""Measurements that print tables and write JSON: `python -m benchmarks`, from the repository.

    machine <- command <- executors, choices, recipe, ops, engine, cuda <- __main__
    timing, tables, processes           stand alone
    noise_gan <- data_mix               what noise is learnt, what it is good for; by themselves
    raw_frames <- capture               what the steps of a truth image bring; by itself
    ablation <- choices, ablation_training (torch, in the processes that choices starts)
    firmware                            compiled for cores, not timed; by itself
    engines <- int8_engines             other people's, beside which `ops` and `engine` time ours

A benchmark verifies before it times and compares peers within one run. Graphs and images are those
of tests/strategies.py, so src/ and tests/ are on the path as under pytest, in this order: tests/
has folders of the same names.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "src"), str(ROOT / "tests")]
