"""Jobs in processes of their own: what they inherit, how they fail, how the others end."""

import os
import signal
from pathlib import Path

import pytest

from benchmarks.processes import run_side_by_side

JOBS = "side_by_side_jobs"


@pytest.fixture(autouse=True)
def _jobs_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_every_job_runs_on_one_thread_without_a_bar_in_a_process_of_its_own(tmp_path: Path) -> None:
    before, handler = dict(os.environ), signal.getsignal(signal.SIGINT)
    run_side_by_side(f"{JOBS}:leave_environment", [tmp_path] * 3, parallel=2, steps=9)
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert f"{os.getpid()}.txt" not in {file.name for file in files}
    assert {file.read_text() for file in files} == {"1 1 True"}
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ("refuse", "weather: sun must shine, got rain in"),
        ("exit_with_3", "process must exit with 0, got 3"),
    ],
)
def test_a_failed_job_is_named_with_its_reason(tmp_path: Path, work: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        run_side_by_side(f"{JOBS}:{work}", [tmp_path], parallel=1, steps=1)
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_a_failure_ends_the_other_jobs_which_may_save_first(tmp_path: Path) -> None:
    jobs = [tmp_path / "first", tmp_path / "second"]
    with pytest.raises(ValueError, match="luck must hold"):
        run_side_by_side(f"{JOBS}:first_refuses_second_saves", jobs, parallel=2, steps=1)
    assert (tmp_path / "saved").exists()


def test_sigterm_is_ctrl_c_and_lets_the_jobs_save(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_side_by_side(f"{JOBS}:save_when_ended", [tmp_path], parallel=1, steps=1)
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_no_jobs_are_done_at_once() -> None:
    run_side_by_side("no.such.module:work", [], parallel=1, steps=0)
