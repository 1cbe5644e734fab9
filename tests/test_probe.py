"""Scores of altered inputs: one pass for all targets, any batch size, classes and callables, what it refuses."""

from __future__ import annotations

import pytest
import torch

from cam_nets import Counting
from midgrain import driver
from midgrain.network.probe import Probe, check_output
from models_for_tests import batch_for, one_thread, tiny_net  # noqa: F401

FACTORS = torch.linspace(0.0, 1.0, 7)


def dimmed(x):
    return lambda sample, numbers: x[sample] * FACTORS[list(numbers)].reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def expected(net, x, classes, output):
    with torch.no_grad():
        rows = [net(x * factor)[torch.arange(len(x))] for factor in FACTORS.to(x.dtype)]
    read = [row.softmax(1) if output == "probability" else row for row in rows]
    return torch.stack([row[torch.arange(len(x)), classes] for row in read], 1)


def asked(net, x, targets, wanted=None, **options):
    with driver.preserved(net, x):
        probe = Probe(net, x, targets, **options)
        everything = torch.ones(len(x), len(FACTORS), dtype=torch.bool)
        return probe, probe.scores(dimmed(x), everything if wanted is None else wanted)


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("batch_size", [None, 1, 3, 100])
def test_scores_of_classes(dims, output, batch_size) -> None:
    net, x = tiny_net(dims, dtype=torch.float64), batch_for(dims, 3, dtype=torch.float64)
    classes = torch.tensor([4, 0, 2])
    probe, scores = asked(net, x, [classes], output=output, batch_size=batch_size)
    torch.testing.assert_close(scores[0], expected(net, x, classes, output).double())
    torch.testing.assert_close(probe.unaltered[0], scores[0, :, -1])
    assert probe.passes.tolist() == [8, 8, 8]
    assert probe.results[0].target.tolist() == [4, 0, 2]


def test_several_targets_share_the_passes() -> None:
    net, x = Counting(tiny_net()), batch_for(batch=2)
    _, scores = asked(net, x, [1, None, [0, 3]], batch_size=7)
    assert net.samples == 2 + 2 * 7
    with torch.no_grad():
        predicted = net(x).argmax(1)
    for place, classes in enumerate([torch.tensor([1, 1]), predicted, torch.tensor([0, 3])]):
        torch.testing.assert_close(scores[place].float(), expected(net, x, classes, "probability"))


def test_a_callable_sees_the_batch_in_its_order() -> None:
    net, x = tiny_net(), batch_for(batch=3)
    classes = torch.tensor([4, 0, 2])

    def pick(outputs):
        assert outputs.shape == (3, 5)
        return outputs[torch.arange(3), classes]

    probe, scores = asked(net, x, [pick, classes], output="logit", batch_size=2)
    assert probe.results[0].target is None
    torch.testing.assert_close(scores[0], scores[1])


def test_a_callable_and_a_class_together() -> None:
    """The class's probability is read from the same passes whose outputs the callable gets as they are."""
    net, x = tiny_net(), batch_for(batch=2)
    _, scores = asked(net, x, [lambda outputs: outputs[:, 1], 1])
    torch.testing.assert_close(scores[0].float(), expected(net, x, torch.tensor([1, 1]), "logit"))
    torch.testing.assert_close(scores[1].float(), expected(net, x, torch.tensor([1, 1]), "probability"))


@pytest.mark.parametrize("target", [2, lambda outputs: outputs.softmax(1)[:, 2]])
def test_only_what_is_wanted_is_run(target) -> None:
    net, x = tiny_net(), batch_for(batch=2)
    wanted = torch.zeros(2, len(FACTORS), dtype=torch.bool)
    wanted[0, 1], wanted[1, 4], wanted[1, 5] = True, True, True
    steps = []
    with driver.preserved(net, x):
        probe = Probe(net, x, [target], batch_size=2)
        scores = probe.scores(dimmed(x), wanted, steps.append)[0]
    full = asked(net, x, [target])[1][0]
    torch.testing.assert_close(scores, full * wanted)
    assert sum(steps) == 3
    assert probe.passes.tolist() == [2, 3]


def test_the_network_may_write_into_its_input() -> None:
    class InPlace(torch.nn.Module):
        def forward(self, x):
            return x.mul_(2).mean((2, 3))

    x = batch_for(batch=2)
    before = x.clone()
    _, scores = asked(InPlace(), x, [0], output="logit")
    assert torch.equal(x, before)
    torch.testing.assert_close(scores[0, :, -1].float(), 2 * before.mean((2, 3))[:, 0])


def test_nan_after_alteration_is_refused() -> None:
    class Brittle(torch.nn.Module):
        def forward(self, x):
            return torch.where(x.abs().sum((1, 2, 3), keepdim=True)[:, :, 0, 0] > 0, x.mean((2, 3)), torch.nan)

    with pytest.raises(ValueError, match="score is NaN or infinite"):
        asked(Brittle(), batch_for(batch=2), [0])


def test_output_is_checked() -> None:
    assert check_output("logit") == "logit"
    with pytest.raises(ValueError, match="output: expected one of probability, logit, got 'softmax'"):
        check_output("softmax")
