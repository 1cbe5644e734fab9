"""What `midgrain bench` and the benchmarks are measured with; never how long anything takes."""

from __future__ import annotations

import itertools
import time

from midgrain.timing import Times, machine, race, summary


def test_contestants_take_turns_on_every_input() -> None:
    calls: list[tuple[str, int]] = []
    times = race({name: lambda item, name=name: calls.append((name, item)) for name in "ab"}, [1, 2, 3], 0.0, least=4)
    turns = [calls[i : i + 2] for i in range(0, len(calls), 2)]
    assert [turn[0][1] for turn in turns] == [3, 1, 2, 3, 1]  # the first is the warm-up
    assert all({name for name, _ in turn} == {"a", "b"} and turn[0][1] == turn[1][1] for turn in turns)
    assert {turn[0][0] for turn in turns} == {"a", "b"}, "the same one always begins"
    assert {name: (len(t.wall), len(t.cpu)) for name, t in times.items()} == {"a": (4, 4), "b": (4, 4)}


def test_what_comes_before_a_call_is_done_each_time() -> None:
    calls: list[str] = []
    race({"a": lambda _: calls.append("a")}, [0], 0.0, least=2, before={"a": lambda: calls.append("before")})
    assert calls == ["before", "a"] * 3


def test_others_come_to_rest_before_each_call() -> None:
    began, calls = time.perf_counter(), []
    race({name: lambda _: calls.append(time.perf_counter()) for name in "ab"}, [0], 0.0, least=2, rest=0.01)
    assert len(calls) == 6
    assert all(later - earlier >= 0.01 for earlier, later in itertools.pairwise([began, *calls]))


def test_a_race_goes_on_until_the_time_is_up() -> None:
    assert len(race({"a": lambda _: None}, [0], 0.02, least=0)["a"].wall) > 10


def test_figures_of_times() -> None:
    assert summary(Times([3.0], [1.0])) == {
        "median": 3.0,
        "p10": 3.0,
        "p90": 3.0,
        "fastest": 3.0,
        "cpu": 1.0,
        "runs": 1,
    }
    hundred = [float(n) for n in range(101)]
    figures = summary(Times(hundred, hundred))
    assert (figures["p10"], figures["median"], figures["p90"]) == (10.0, 50.0, 90.0)
    figures = summary(Times([5.0, 50.0, 7.0, 4.0, 60.0, 9.0, 6.0], [1.0, 2.0, 3.0, 4.0, 1.0, 3.0, 1.0]), inputs=3)
    assert (figures["fastest"], figures["cpu"]) == (7.0, 1.0)
    assert summary(Times([5.0, 3.0], [1.0, 1.0]), inputs=3)["fastest"] == 4.0


def test_waiting_takes_no_core() -> None:
    times = race({"a": lambda _: time.sleep(0.02)}, [0], 0.0)["a"]
    assert max(times.cpu) < min(times.wall)


def test_machine_has_a_name_and_cores() -> None:
    assert machine()["processor"]
    assert machine()["cores"] >= 1
