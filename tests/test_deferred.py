"""When values are looked at: at once, at the end of a call, or when asked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from midgrain import driver
from midgrain.ops.deferred import can_read, deferred_checks, deferred_on_device, is_captured, report, static_sizes

ON_CUDA, ON_CPU = SimpleNamespace(is_cuda=True), SimpleNamespace(is_cuda=False)


def bad(*flags):
    return torch.tensor(flags)


def error(flags):
    return ValueError(f"bad: {flags}")


def test_outside_of_any_context_values_are_looked_at_at_once():
    report(bad(0, 0), error)
    with pytest.raises(ValueError, match=r"^bad: \[0, 1\]$"):
        report(bad(False, True), error)


def test_the_first_error_is_raised_when_asked():
    with deferred_checks() as checks:
        report(bad(0), error)
        report(bad(0, 3), error)
        report(bad(5), error)
    with pytest.raises(ValueError, match=r"^bad: \[0, 3\]$"):
        checks.raise_if_bad()


@pytest.mark.parametrize("gathered", [False, True])
def test_flags_are_read_as_they_are_when_asked(gathered):
    flags = bad(0, 0), torch.zeros(3, dtype=torch.bool), torch.tensor(False)
    with deferred_checks() as checks:
        for each in flags:
            report(each, error)
    if gathered:
        checks.gather()
        checks.raise_if_bad()
        checks._gathered[3] = 1
    else:
        checks.raise_if_bad()
        flags[1][1] = True
    with pytest.raises(ValueError, match=r"^bad: \[0, 1, 0\]$"):
        checks.raise_if_bad()


def test_nothing_to_check():
    with deferred_checks() as checks:
        pass
    checks.gather()
    checks.raise_if_bad()


def call(x, *steps):
    """A call that does these steps; says which were done."""
    done = []
    with deferred_on_device(x):
        for step in steps:
            step()
            done.append(step)
    return done


def fail():
    raise TypeError("singular matrix")


def find(*flags):
    return lambda: report(bad(*flags), error)


def test_a_call_on_a_device_is_checked_at_its_end():
    done = []
    with pytest.raises(ValueError, match=r"^bad: \[1\]$"):
        call(ON_CUDA, find(1), lambda: done.append(True))
    assert done == [True]


def test_a_call_on_the_cpu_is_checked_at_once():
    done = []
    with pytest.raises(ValueError, match=r"^bad: \[1\]$"):
        call(ON_CPU, find(1), lambda: done.append(True))
    assert done == []


def test_bad_values_come_before_what_they_led_to():
    with pytest.raises(ValueError, match=r"^bad: \[1\]$"):
        call(ON_CUDA, find(1), fail)
    with pytest.raises(TypeError, match=r"^singular matrix$"):
        call(ON_CUDA, find(0), fail)


def test_a_long_call_hears_of_a_mistake_before_its_end():
    done = []
    with pytest.raises(ValueError, match=r"^bad: \[1\]$"):
        call(ON_CUDA, find(1), *[find(0)] * 100, lambda: done.append(True))
    assert done == []


def test_whoever_defers_outside_asks():
    with deferred_checks() as checks, deferred_on_device(ON_CUDA):
        report(bad(1), error)
    assert len(checks) == 1


def test_what_can_be_read():
    values = torch.ones(2)
    assert can_read(values)
    assert not is_captured(values)
    with deferred_checks():
        assert not can_read(values)
    with static_sizes():
        assert is_captured(values)


@pytest.mark.parametrize("target", [[0, 9], torch.tensor([-1, 2])])
def test_classes_outside_do_no_harm_until_they_are_looked_at(target):
    outputs = torch.zeros(2, 3)
    with deferred_checks() as checks:
        classes, _ = driver.resolve_target(outputs, target, 2)
    assert all(0 <= each < 3 for each in classes.tolist())
    with pytest.raises(ValueError, match=r"^target: expected classes in 0 \.\. 2, got (9|-1)$"):
        checks.raise_if_bad()
