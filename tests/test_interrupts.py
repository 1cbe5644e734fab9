"""An interrupt at any pass of anything long leaves the model, the process and files as they were."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import midgrain as mg
from evaluate_for_tests import samples
from midgrain.evaluate import Results
from midgrain.failures import FilterStatistics
from models_for_tests import METHODS, batch_for, quick_explainer, tiny_net
from models_for_tests import one_thread as one_thread
from test_driver import Delicate, unaltered


class Backward(torch.autograd.Function):
    """The identity; its backward pass counts as one of the network's."""

    @staticmethod
    def forward(ctx, x, counts):
        ctx.counts = counts
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        ctx.counts()
        return gradient, None


class Interrupted(Delicate):
    """A model with something of everything that can be left changed, interrupted at a pass, forward or backward.

    The count is kept in a list, so that it is not taken for a change of the model.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left: list[float] = [float("inf")]
        self.passes = [0]

    def interrupt_at(self, number: float) -> None:
        self.left[0], self.passes[0] = number, 0

    def _count(self) -> None:
        self.passes[0] += 1
        if self.left[0] == 0:
            raise KeyboardInterrupt
        self.left[0] -= 1

    def forward(self, x: Tensor) -> Tensor:
        self._count()
        return Backward.apply(super().forward(x), self._count)


def check_every_pass(model: Interrupted, run: Callable[[], Any], most: int = 5) -> None:
    """Interrupts `run` at the first passes, in the middle and at the last one; then it does what it did before."""
    model.interrupt_at(float("inf"))
    run()  # Some look through the network first, once.
    model.interrupt_at(float("inf"))
    before = run()
    total = model.passes[0]
    assert total > 0, "nothing to interrupt"
    for number in sorted({*range(min(total, most - 2)), total // 2, total - 1}):
        model.interrupt_at(number)
        with unaltered(model), pytest.raises(KeyboardInterrupt):
            run()
    model.interrupt_at(float("inf"))
    after = run()
    torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)


# Many passes at a time for each, so that there are several to be interrupted at.
SMALL_BATCHES = {"rise": 4, "occlusion": 4, "lime": 2, "lime-prior": 2, "kernel-shap": 2, "scorecam": 2, "sise": 4}


@pytest.mark.parametrize("name", METHODS)
def test_explanations(name) -> None:
    model = Interrupted()
    options = {"batch_size": SMALL_BATCHES[name]} if name in SMALL_BATCHES else {}
    explain = quick_explainer(name, model, **options)
    x = batch_for(batch=1)
    for number in (0, 1):  # Before it has seen the network as a whole.
        model.interrupt_at(number)
        with unaltered(model), contextlib.suppress(KeyboardInterrupt):
            explain(x, 1)
    check_every_pass(model, lambda: explain(x, 1).heatmap)


MEASURES: dict[str, Callable[[nn.Module, Tensor, Tensor], Any]] = {
    "deletion": lambda m, x, h: mg.measures.deletion(m, x, h, 1, steps=6, batch_size=2).curve,
    "insertion": lambda m, x, h: mg.measures.insertion(m, x, h, 1, steps=6, batch_size=2).curve,
    "combined": lambda m, x, h: mg.measures.combined(m, x, h, 1, steps=6, batch_size=2).score,
    "aopc": lambda m, x, h: mg.measures.aopc(m, x, h, 1, 6, batch_size=2).curve,
    "n_morf": lambda m, x, h: mg.measures.n_morf(m, x, h, 1, 6, batch_size=2).value,
    "average_drop": lambda m, x, h: mg.measures.average_drop(m, x, h, 1).drop,
    "drop_increase": lambda m, x, h: mg.measures.drop_increase(m, x, h, 1).drop,
    "aic": lambda m, x, h: mg.measures.aic(m, x, h, 1, batch_size=2, least_probability=0.0).curve,
    "filter_removal": lambda m, x, h: (
        mg.measures.filter_removal(m, x, torch.arange(8.0)[None], 1, step=2, layer=m.body[3]).curve
    ),
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures(name) -> None:
    model, x = Interrupted(), batch_for(batch=1)
    check_every_pass(model, lambda: MEASURES[name](model, x, x.mean(1)))


def labelled() -> list[tuple[Tensor, Tensor]]:
    x = batch_for(batch=12)
    return [(part, torch.arange(4) % 3) for part in x.split(4)]


def test_statistics_of_filters(tmp_path) -> None:
    model = Interrupted()
    fit = FilterStatistics.fit
    whole = fit(model, labelled())
    total, stops = model.passes[0], 0
    for number in range(total):
        model.interrupt_at(number)
        file = tmp_path / f"{number}.npz"
        with unaltered(model), pytest.raises(KeyboardInterrupt):
            fit(model, labelled(), checkpoint=file)
        stops += 1
        model.interrupt_at(float("inf"))
        found = fit(model, labelled(), checkpoint=file)
        assert torch.equal(found.mean.nan_to_num(-1.0), whole.mean.nan_to_num(-1.0))
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert stops >= 6


def test_failure_reports(tmp_path) -> None:
    model = Interrupted()
    loader, options = labelled(), {"limit": 2, "low": 10, "high": 90, "repair": False, "few": "extreme"}
    stats = FilterStatistics.fit(model, loader)
    model.interrupt_at(float("inf"))
    whole = mg.failures.report(model, loader, stats, tmp_path / "whole", **options).samples()
    total = model.passes[0]
    for number in sorted({0, 1, total // 2, total - 1}):
        out = tmp_path / str(number)
        model.interrupt_at(number)
        with unaltered(model), pytest.raises(KeyboardInterrupt):
            mg.failures.report(model, loader, stats, out, **options)
        model.interrupt_at(float("inf"))
        pd.testing.assert_frame_equal(mg.failures.report(model, loader, stats, out, **options).samples(), whole)


def test_evaluations(tmp_path) -> None:
    model = Interrupted()
    arguments = (samples(3), ["vanilla", "swag-i"], {"deletion": {"steps": 4}})
    whole = mg.evaluate(model, *arguments, tmp_path / "whole", baselines=()).frame()
    total = model.passes[0]
    for number in sorted({0, 1, total // 2, total - 1}):
        out = tmp_path / str(number)
        model.interrupt_at(number)
        with unaltered(model), pytest.raises(KeyboardInterrupt):
            mg.evaluate(model, *arguments, out, baselines=())
        before = Results(out).frame() if (out / "configuration.json").exists() else whole.head(0)
        model.interrupt_at(float("inf"))
        after = mg.evaluate(model, *arguments, out, baselines=()).frame()
        columns = ["id", "explainer", "deletion"]
        pd.testing.assert_frame_equal(after[columns], whole[columns])
        assert after["seconds"].head(len(before)).tolist() == before["seconds"].tolist()
        assert list(out.glob("journal-*")) == []


def test_nothing_of_an_interrupted_explanation_is_kept() -> None:
    """Hooks that stay would keep what they belong to alive."""
    net = tiny_net()
    count = [0]

    def stop(*_: object) -> None:
        count[0] += 1
        if count[0] % 2 == 0:
            raise KeyboardInterrupt

    net[0].register_forward_hook(stop)

    def interrupted() -> None:
        for name in ("gradcam", "jittercam", "smoothgrad", "rise", "fullgrad"):
            options = {"batch_size": 4} if name == "rise" else {}
            count[0] = 0 if name in ("smoothgrad", "rise", "jittercam") else 1
            with pytest.raises(KeyboardInterrupt):
                quick_explainer(name, net, **options)(batch_for(batch=1), 1)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(each), Tensor) for each in gc.get_objects())

    interrupted()
    before = tensors()
    for _ in range(3):
        interrupted()
    assert tensors() <= before
