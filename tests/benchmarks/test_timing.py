"""Peers in turns: who runs when, and how often. Nothing here depends on how long anything takes."""

from collections.abc import Callable

import pytest

from benchmarks import timing
from benchmarks.timing import Timing, time_in_turns


def test_peers_are_warmed_up_then_take_turns_and_another_leads_each_round() -> None:
    order: list[str] = []
    peers = {name: lambda name=name: order.append(name) for name in "abc"}
    timings = time_in_turns(peers, seconds=0.0, least=3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(timing.wall_s) for name, timing in timings.items()} == dict.fromkeys(peers, 3)


def test_a_peer_leaves_when_it_has_its_runs_and_its_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def takes(seconds: float) -> Callable[[], None]:
        def peer() -> None:
            clock[0] += seconds

        return peer

    peers = {"slow": takes(4.0), "fair": takes(1.0), "fast": takes(0.5)}
    timings = time_in_turns(peers, seconds=3.0, least=2)
    assert {name: timing.wall_s for name, timing in timings.items()} == {
        "slow": (4.0,) * 2,
        "fair": (1.0,) * 3,
        "fast": (0.5,) * 6,
    }


def test_percentiles_are_of_the_clock_and_cores_of_both() -> None:
    timing = Timing(wall_s=(0.004, 0.001, 0.002, 0.003, 0.005), cpu_s=(0.006,) * 5)
    assert timing.median_ms == pytest.approx(3.0)
    assert timing.p20_ms == pytest.approx(1.8)
    assert timing.p80_ms == pytest.approx(4.2)
    assert timing.cores == pytest.approx(2.0)


def test_least_is_refused_below_one() -> None:
    with pytest.raises(ValueError, match="timing: least must be at least 1, got 0"):
        time_in_turns({}, seconds=1.0, least=0)
