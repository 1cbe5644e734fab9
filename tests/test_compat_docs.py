"""What docs/compat.md says exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from midgrain import compat

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "compat.md").read_text(encoding="utf-8")
FAULTS = [line for line in TEXT.splitlines() if line.startswith("|") and "test_" in line]


@pytest.mark.parametrize("line", FAULTS, ids=range(len(FAULTS)))
def test_every_fault_has_its_test(line) -> None:
    named = re.findall(r"`(test_\w+\.py)`: ((?:`test_\w+`(?:, )?)+)", line)
    assert named
    for file, tests in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        for test in re.findall(r"`(test_\w+)`", tests):
            assert f"def {test}(" in source, f"{file} has no {test}"


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) > 25


def test_every_import_works() -> None:
    lines = re.findall(r"`from (midgrain\.compat[\w.]*) import (\w+)`", TEXT)
    assert len(lines) >= 8
    for module, name in lines:
        assert hasattr(importlib.import_module(module), name)


def test_every_part_is_there_on_demand() -> None:
    assert set(compat.__all__) <= set(dir(compat))
    for name in compat.__all__:
        if name != "lightning":
            assert getattr(compat, name).__all__
    with pytest.raises(AttributeError, match="no attribute 'tensorflow'"):
        compat.tensorflow  # noqa: B018
