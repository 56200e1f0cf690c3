"""Memory that the operators keep: used again, bounded, given back, never taken from what lives."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import UpsampleCase
from torch import Tensor

from starlight.ops import memory

CASE = UpsampleCase(8, 16, 64, 64)  # a result of 1 MiB
GIBIBYTE = 1 << 30


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    memory.release_kept()
    yield
    memory.set_kept_limit(GIBIBYTE)


def run() -> Tensor:
    return CASE.fused(CASE.inputs(0))


def test_a_freed_block_serves_the_next_call() -> None:
    out = run()
    place, size, kept = out.data_ptr(), out.nbytes, memory.kept_bytes()
    del out
    assert memory.kept_bytes() == kept + size
    out = run()
    assert out.data_ptr() == place
    assert memory.kept_bytes() == kept


def test_what_lives_on_is_left_alone() -> None:
    first = run()
    copy = first.clone()
    view = first[:, 3]
    del first
    for _ in range(3):
        run()
    memory.release_kept()
    assert torch.equal(view, copy[:, 3])


def test_no_more_is_kept_than_the_limit_and_release_keeps_nothing() -> None:
    results = [run() for _ in range(4)]
    size = results[0].nbytes
    memory.set_kept_limit(5 * size // 2)
    del results
    assert size <= memory.kept_bytes() <= 5 * size // 2
    memory.set_kept_limit(size)
    assert memory.kept_bytes() <= size
    memory.release_kept()
    assert memory.kept_bytes() == 0
    memory.set_kept_limit(0)
    run()
    assert memory.kept_bytes() == 0
    with pytest.raises(ValueError, match="limit of kept memory must be 0 or more, got -1"):
        memory.set_kept_limit(-1)


def test_small_blocks_are_not_kept() -> None:
    small = UpsampleCase(1, 1, 4, 4)
    small.fused(small.inputs(0))
    assert memory.kept_bytes() == 0


def test_threads_share_it() -> None:
    wanted = run()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run(), range(32)))
    assert all(torch.equal(result, wanted) for result in results)
    assert len({result.data_ptr() for result in results}) == 32


def test_torch_counts_what_is_used() -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    inputs = CASE.inputs(0)
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        out = CASE.fused(inputs)
        size = out.nbytes
        del out
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    assert size in changes
    assert -size in changes
    assert sum(changes) == 0


def test_results_can_be_resized_and_outlive_the_operators() -> None:
    program = (
        "from cases import UpsampleCase; case = UpsampleCase(8, 16, 64, 64); "
        "out = case.fused(case.inputs(0)); out.resize_(2 * out.numel()).fill_(1); "
        "import starlight; starlight.kept = out; print(int(out.sum()))"
    )
    assert python(program).stdout == f"{2 * torch.Size(CASE.out_shape).numel()}\n"


@pytest.mark.parametrize(("value", "kept"), [("0", "0"), ("1024", str(1 << 20))])
def test_the_environment_sets_the_limit(value: str, kept: str) -> None:
    program = (
        "from cases import UpsampleCase; case = UpsampleCase(8, 16, 64, 64); "
        "inputs = case.inputs(0); from starlight.ops import memory; out = case.fused(inputs); "
        "before = memory.kept_bytes(); del out; print(memory.kept_bytes() - before)"
    )
    assert python(program, STARLIGHT_KEPT_MB=value).stdout == f"{kept}\n"


def test_a_limit_that_is_no_number_is_refused() -> None:
    program = "from starlight.ops import memory; memory.kept_bytes()"
    result = python(program, STARLIGHT_KEPT_MB="much")
    assert "STARLIGHT_KEPT_MB must be a whole number below 10^9, got much" in result.stderr


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
