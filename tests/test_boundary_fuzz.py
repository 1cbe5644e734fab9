"""Capsules that lie, by the hundred: see boundary_fuzz.py. Whatever takes the process down fails the test."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("examples", "seed"), [(150, 0), pytest.param(20_000, 1, marks=pytest.mark.slow)], ids=["quick", "long"]
)
def test_nothing_crashes(tmp_path, examples, seed):
    notes = tmp_path / "notes"
    script = Path(__file__).with_name("boundary_fuzz.py")
    done = subprocess.run(
        [sys.executable, script, str(examples), notes, str(seed)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=3000,
    )
    assert done.returncode == 0, f"{notes.read_text()}\n{done.stderr[-6000:]}"
