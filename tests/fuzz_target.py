"""The libFuzzer target of tests/fuzz: its build, its corpus, and a long run.

    PYTHONPATH=src:.:tests python tests/fuzz_target.py FOLDER [libFuzzer's options]

runs it on the committed corpus until it is stopped, keeping in FOLDER what reaches new code and,
with the run's end, what made it crash. `--seeds` in place of FOLDER writes the corpus anew.
"""

import subprocess
import sys
from pathlib import Path

import native_build
from runtime_library import INCLUDES, SOURCES
from strategies import FORMS, STYLES, random_graph
from wide_bundles import doubled_plan, wide_chip, with_section

from hls_export.bundle import pack_bundle
from hls_export.compression import compress
from hls_export.npu import Chip, load_chip
from hls_export.plan_section import pack_plan
from hls_export.planner import plan_stripes
from quant.topology import Topology
from starlight.files import write_atomically

FOLDER = native_build.ROOT / "tests" / "fuzz"
CORPUS = FOLDER / "corpus"
PACKED = "packed-"  # prefix of the seeds with compressed weights
TRIAL = [FOLDER / "bundle_forge.c", FOLDER / "bundle_trial.c"]
FLAGS = ("-std=gnu99", "-Wall", "-Wextra", "-Werror")
# Seconds and bytes that one bundle may take; a bundle has at most 16 KiB.
LIMITS = ("-max_len=16384", "-timeout=10", "-rss_limit_mb=1024")

TOPOLOGIES = {
    "smallest": Topology((1, 1), (1, 1)),
    "uneven": Topology((3, 2), (2, 1)),
    "deep": Topology((1, 2, 1), (1, 1, 2)),
}


def build() -> Path:
    """The target, by clang. Raises RuntimeError when it, or its libFuzzer, is not there."""
    flags = [*FLAGS, "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    return native_build.build_program(
        [FOLDER / "fuzz_bundle.c", *TRIAL, *SOURCES], INCLUDES, flags, compiler="clang"
    )


def small_chip(block: int) -> Chip:
    """The reference chip for frames of a few pixels, so that a trial takes a fraction of a ms."""
    chip = load_chip("reference")
    return wide_chip(chip, channel_block=block, max_width=7, max_height=5)


def seeds() -> dict[str, bytes]:
    """File name -> bundle: every section, operation and join, both formats, three blocks;
    each plain and with compressed weights."""
    found: dict[str, bytes] = {}
    for (name, topology), block in zip(TOPOLOGIES.items(), (1, 2, 4), strict=True):
        chip = small_chip(block)
        for style in STYLES:
            found[f"{name}-{style}-{block}.slb"] = pack_bundle(
                random_graph(1, topology, style), chip
            )
        for form in FORMS:
            graph = random_graph(1, topology, "natural", form)
            plan = doubled_plan(pack_plan(graph, plan_stripes(graph, chip)))
            found[f"{name}-{form}-planned.slb"] = with_section(
                pack_bundle(graph, chip), "PLAN", plan
            )
    return found | {f"{PACKED}{name}": compress(data) for name, data in found.items()}


def main(arguments: list[str]) -> int:
    if not arguments:
        sys.exit("fuzz: arguments must be FOLDER [libFuzzer's options], or --seeds, got none")
    if arguments == ["--seeds"]:
        CORPUS.mkdir(exist_ok=True)
        for name, data in seeds().items():
            write_atomically(CORPUS / name, data)
        return 0
    folder, *options = arguments
    Path(folder).mkdir(parents=True, exist_ok=True)
    crashes = f"-artifact_prefix={folder}/"
    command = [str(build()), *LIMITS, crashes, *options, folder, str(CORPUS)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
