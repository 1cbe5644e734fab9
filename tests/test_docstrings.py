"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import midgrain

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(midgrain.__path__, "midgrain.")
    if module.name not in ("midgrain.__main__", "midgrain._kernels._cpu")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    torch.manual_seed(0)  # Untrained networks of examples are the same in every run.
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_public_functions_have_examples():
    for function in (
        midgrain.slic,
        midgrain.pool,
        midgrain.paint,
        midgrain.SWAG,
        midgrain.explainer,
        midgrain.methods,
        midgrain.build_info,
        *[getattr(midgrain.ops, name) for name in midgrain.ops.__all__ if name.islower()],
        *[getattr(midgrain.measures, name) for name in midgrain.measures.__all__ if name.islower()],
    ):
        assert ">>>" in (function.__doc__ or ""), function
