"""Fixtures and settings that several test files share."""

from __future__ import annotations

import contextlib
import signal
import sys

import numpy as np
import pytest
from skimage import color, data, transform

from midgrain._kernels import _cpu

# The same examples on every run: a failure in continuous integration is one that can be repeated.
with contextlib.suppress(ModuleNotFoundError):  # A machine lent for its GPU may lack it; tests/gpu does without.
    from hypothesis import settings

    settings.register_profile("midgrain", deadline=None, derandomize=True)
    settings.load_profile("midgrain")

PHOTOS = ("chelsea", "coffee", "astronaut", "rocket")


@pytest.fixture(scope="session")
def photos() -> dict[str, np.ndarray]:
    """scikit-image's packaged photographs, uint8 [224, 224, 3]."""
    small = {name: transform.resize(getattr(data, name)(), (224, 224), anti_aliasing=True) for name in PHOTOS}
    return {name: np.rint(255 * image).astype(np.uint8) for name, image in small.items()}


@pytest.fixture(params=PHOTOS)
def photo(request: pytest.FixtureRequest, photos: dict[str, np.ndarray]) -> np.ndarray:
    """Each photograph in turn."""
    return photos[request.param]


@pytest.fixture
def edge_map(photo: np.ndarray) -> np.ndarray:
    """The slope of the photograph's brightness, float32 [224, 224] in 0 .. 100: it stands in for a gradient map."""
    slope = np.hypot(*np.gradient(color.rgb2gray(photo)))
    return (100 * (slope - slope.min()) / np.ptp(slope)).astype(np.float32)


@pytest.fixture(params=_cpu.available_instruction_sets())
def instruction_set(request: pytest.FixtureRequest):
    """Each instruction set that this processor has in turn; the one in use comes back afterwards."""
    before = _cpu.instruction_set()
    _cpu.select_instruction_set(request.param)
    yield request.param
    _cpu.select_instruction_set(before)


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt here, and ends what is started; shells have their background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `midgrain ARGUMENTS`: (exit code, stdout, stderr)."""
    from midgrain.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["midgrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call
