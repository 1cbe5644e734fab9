"""A short form of `benchmarks.soak`: nothing grows while one method explains again and again."""

from __future__ import annotations

import gc
import os

import pytest
import torch

import midgrain as mg
from models_for_tests import METHODS, batch_for, quick_explainer, tiny_net
from models_for_tests import one_thread as one_thread


def observed(net: torch.nn.Module) -> dict[str, int]:
    gc.collect()
    objects = gc.get_objects()
    return {
        "tensors": sum(issubclass(type(each), torch.Tensor) for each in objects),
        "objects": len(objects),
        "threads": len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0,
        "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
        "hooks": sum(len(v) for m in net.modules() for k, v in vars(m).items() if "hook" in k and isinstance(v, dict)),
    }


def grown(explain, net: torch.nn.Module, warm: int, times: int) -> dict[str, int]:
    for _ in range(warm):
        explain()
    before = observed(net)
    for _ in range(times):
        explain()
    after = observed(net)
    return {name: after[name] - before[name] for name in before}


@pytest.mark.parametrize("name", METHODS)
def test_nothing_grows(name) -> None:
    net, x = tiny_net(), batch_for(batch=1, size=(12, 12))
    found = grown(lambda: quick_explainer(name, net)(x, 1), net, 4, 20)
    # An object for each explanation would be 20; a cache that fills once is less.
    assert found.pop("objects") < 20, found
    assert all(value <= 0 for value in found.values()), found


def test_growth_would_be_seen() -> None:
    net, x, kept = tiny_net(), batch_for(batch=1, size=(12, 12)), []

    def explain() -> None:
        kept.append(mg.explainer("vanilla", net)(x, 1))
        net[0].register_forward_hook(lambda *_: None)

    found = grown(explain, net, 1, 20)
    assert found["objects"] >= 20
    assert found["tensors"] >= 20
    assert found["hooks"] == 20
