"""Filter removal curves: a hooked network says the same, the trunk runs once, data sets, going on, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import midgrain as mg
from cam_nets import Counting, TinyTransformer, curved_net
from midgrain.measures import filter_removal, filter_removal_curves
from midgrain.network.resume import CannotResume
from models_for_tests import batch_for, one_thread, seeded, tiny_net  # noqa: F401
from oracles.filters import removal


class Skipping(nn.Module):
    """The last convolution's output is added to what came before it, so the rest needs more than this layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.norm, self.head = (
            nn.Conv2d(3, 7, 3, stride=2, padding=1),
            nn.Conv2d(7, 7, 3, padding=1),
            nn.BatchNorm2d(7),
            nn.Linear(7, 4),
        )

    def forward(self, x):
        stem = F.relu(self.stem(x))
        return self.head(F.relu_(stem + self.norm(self.conv(stem))).mean((2, 3)))


class Unsteady(Skipping):
    """Outside of modules the input is used again after the layer: the network cannot be entered there by its parts."""

    def forward(self, x):
        return super().forward(x) + x.mean((2, 3)).sum(1, keepdim=True) * torch.tensor([1.0, -1.0, 2.0, 0.0])


def hooked_outputs(net, layer, x):
    """(sample, filters) -> logits, by a hook that sets the filters to 0."""

    def outputs_of(sample, filters):
        def cut(module, inputs, output):
            output = output.clone()
            output[:, list(filters)] = 0.0
            return output

        handle = dict(net.named_modules())[layer].register_forward_hook(cut)
        try:
            with torch.no_grad():
                return net(x[sample : sample + 1].clone())[0].double().numpy()
        finally:
            handle.remove()

    return outputs_of


def scores_for(batch, filters, seed=0, levels=None):
    scores = torch.randn(batch, filters, generator=torch.Generator().manual_seed(seed))
    return scores if levels is None else (scores * levels).round()


NETS = {
    "plain": (curved_net, "3", {}),
    "clip": (lambda: curved_net(3), "3", {}),
    "after the norm": (curved_net, "4", {"after_norm": True}),
    "named": (curved_net, "2", {"layer": "2"}),
    "skipping": (lambda: seeded(lambda: Skipping().eval().double()), "conv", {}),
    "unsteady": (lambda: seeded(lambda: Unsteady().eval().double()), "conv", {}),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("step", "order"), [(1, "most"), (3, "least"), (16, "most")])
def test_a_network_with_hooks_says_the_same(name, step, order) -> None:
    build, layer, options = NETS[name]
    net = build()
    x = batch_for(3 if name == "clip" else 2, batch=3, dtype=torch.float64)
    filters = 6 if layer == "2" else 7
    scores = scores_for(3, filters, levels=1)
    target = net(x).argmax(1)
    target[2] = (target[2] + 1) % 4
    expected = removal(hooked_outputs(net, layer, x), scores.numpy(), target.tolist(), step, order == "least")
    for batch_size in (None, 1, 4):
        found = filter_removal(net, x, scores, target, step=step, order=order, batch_size=batch_size, **options)
        np.testing.assert_array_equal(found.correct, expected[0])
        np.testing.assert_allclose(found.probability, expected[1], rtol=0, atol=1e-6)
        assert found.counts.tolist() == expected[2]
        np.testing.assert_allclose(found.curve, expected[3])
        assert found.value == pytest.approx(expected[4])
        assert torch.equal(found.target, target)


def test_a_network_that_cannot_be_entered_at_the_layer(monkeypatch) -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    expected = filter_removal(net, x, scores_for(3, 7), step=2)

    def refuse(*_, **__):
        raise CannotResume

    monkeypatch.setattr("midgrain.measures.filters.Resume", refuse)
    found = filter_removal(net, x, scores_for(3, 7), step=2)
    assert torch.equal(found.correct, expected.correct)
    torch.testing.assert_close(found.probability, expected.probability, rtol=0, atol=1e-6)


def test_tokens_lose_a_channel_of_their_patches_only() -> None:
    net, x = seeded(lambda: TinyTransformer().eval()), batch_for()
    found = filter_removal(net, x, scores_for(2, 8), layer="first", step=8)

    def cut(module, inputs, output):
        return torch.cat([output[:, :1], torch.zeros_like(output[:, 1:])], 1)

    handle = net.first.register_forward_hook(cut)
    with torch.no_grad():
        bare = net(x).softmax(1).gather(1, found.target[:, None])[:, 0]
    handle.remove()
    torch.testing.assert_close(found.probability[:, -1], bare)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 9), st.booleans())
def test_properties(seed, step, least) -> None:
    net, x = curved_net(), batch_for(batch=2, dtype=torch.float64, seed=seed)
    scores = scores_for(2, 7, seed)
    order = "least" if least else "most"
    found = filter_removal(net, x, scores, step=step, order=order)
    assert found.correct[:, 0].all()  # the predicted class
    assert float(found.curve[0]) == 1.0
    assert found.counts[-1] == 7
    mirrored = filter_removal(net, x, -scores, step=step, order="most" if least else "least")
    assert torch.equal(found.probability, mirrored.probability)
    assert torch.equal(found.probability, filter_removal(net, x, scores.exp(), step=step, order=order).probability)
    alone = filter_removal(net, x[1:], scores[1:], step=step, order=order)
    torch.testing.assert_close(alone.probability[0], found.probability[1], rtol=0, atol=1e-6)


def test_the_trunk_is_run_once() -> None:
    net = curved_net()
    net[0] = Counting(net[0])
    x = batch_for(batch=4, dtype=torch.float64)
    remover = mg.measures.FilterRemover(net, step=1)
    remover(x, {"a": scores_for(4, 7)})
    net[0].passes = net[0].samples = 0
    remover(x, {"a": scores_for(4, 7), "b": scores_for(4, 7, 1)})
    assert (net[0].passes, net[0].samples) == (1, 4)


def test_scores_as_a_callable() -> None:
    net, x = curved_net(), batch_for(batch=3, dtype=torch.float64)
    called = filter_removal(net, x, lambda x, y: mg.failures.filter_scores(net, x, y), step=2)
    given_ = filter_removal(net, x, mg.failures.filter_scores(net, x), step=2)
    assert torch.equal(called.probability, given_.probability)


def test_a_good_measure_removes_what_counts() -> None:
    # One filter for each class, each on its own: whose filter goes first decides.
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4, False))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.copy_(torch.tensor([4.0, 3.0, 2.0, 1.0]))
        net[4].weight.copy_(torch.eye(4))
    x = batch_for(batch=1)
    best = filter_removal(net, x, lambda x, y: mg.failures.filter_scores(net, x, y), step=1)
    worst = filter_removal(net, x, lambda x, y: -mg.failures.filter_scores(net, x, y), step=1)
    assert best.correct[0].tolist() == [True, False, False, False, True]  # without all filters the first class wins
    assert worst.correct[0].tolist() == [True, True, True, True, True]
    assert best.value == pytest.approx(0.25)
    assert worst.value == pytest.approx(1.0)


def test_nothing_right_cannot_be_normalised() -> None:
    net, x = curved_net(), batch_for(batch=2, dtype=torch.float64)
    wrong = (net(x).argmax(1) + 1) % 5
    found = filter_removal(net, x, scores_for(2, 7), wrong)
    assert float(found.accuracy[0]) == 0.0
    with pytest.raises(ValueError, match="target: the network gets none of the 2 samples right"):
        found.value  # noqa: B018


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scores": torch.zeros(2, 6)}, ValueError, r"scores: expected one per sample and filter .*\[2, 7\]"),
        ({"scores": torch.full((2, 7), torch.nan)}, ValueError, "scores: expected finite"),
        ({"scores": torch.zeros(2, 7, dtype=torch.int64)}, TypeError, "scores: expected a tensor of floats"),
        ({"scores": None}, TypeError, "scores: expected a tensor of floats"),
        ({"target": lambda outputs: outputs[:, 0]}, TypeError, "target: expected classes"),
        ({"target": 5}, ValueError, "target: expected classes in 0 .. 4"),
        ({"target": [1]}, ValueError, "target: expected one class per sample"),
        ({"step": 0}, ValueError, "step: expected 1 or more"),
        ({"order": "best"}, ValueError, "order: expected 'most' or 'least'"),
        ({"layer": "nothing"}, ValueError, "layer: the model has no module"),
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more"),
        ({"x": torch.zeros(2, 3)}, ValueError, "x: expected"),
        ({"model": 3}, TypeError, "model: expected"),
    ],
)
def test_refusals(options, error, message) -> None:
    arguments = {"model": curved_net(), "x": batch_for(dtype=torch.float64), "scores": torch.zeros(2, 7)} | options
    with pytest.raises(error, match=message):
        filter_removal(**arguments)


def loader_for(net, batch_size=2, count=7, seed=1):
    x = batch_for(batch=count, dtype=torch.float64, seed=seed)
    return DataLoader(TensorDataset(x, net(x).argmax(1).detach()), batch_size=batch_size)


def scorer_of(net):
    return lambda x, y: mg.failures.filter_scores(net, x, y, ["grad-amap", "random"])


def test_a_data_set_is_its_samples() -> None:
    net = curved_net()
    curves = filter_removal_curves(net, loader_for(net), scorer_of(net), step=2)
    x, y = loader_for(net).dataset.tensors
    for name in ("grad-amap", "random"):
        whole = filter_removal(net, x, mg.failures.filter_scores(net, x, y, name), y, step=2)
        torch.testing.assert_close(curves[name].probability, whole.probability, rtol=0, atol=1e-6)
        assert curves[name].value == pytest.approx(whole.value)
    assert torch.equal(curves["random"].target, y)
    assert set(filter_removal_curves(net, loader_for(net), lambda x, y: scores_for(len(x), 7))) == {"scores"}


def test_a_stopped_run_goes_on(tmp_path) -> None:
    net, file = curved_net(), tmp_path / "new" / "curves.npz"
    calls = []

    def stopping(x, y):
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return scorer_of(net)(x, y)

    with pytest.raises(KeyboardInterrupt):
        filter_removal_curves(net, loader_for(net), stopping, step=2, out=file)
    found = filter_removal_curves(net, loader_for(net), stopping, step=2, out=file)
    assert calls == [2, 2, 2, 2, 1]
    whole = filter_removal_curves(net, loader_for(net), scorer_of(net), step=2)
    for name, each in whole.items():
        assert torch.equal(found[name].probability, each.probability)
    again = filter_removal_curves(net, loader_for(net), stopping, step=2, out=file)
    assert len(calls) == 5
    assert torch.equal(again["random"].correct, whole["random"].correct)


def test_what_cannot_be_continued_is_refused(tmp_path) -> None:
    net, file = curved_net(), tmp_path / "curves.npz"
    filter_removal_curves(net, loader_for(net), scorer_of(net), step=2, out=file)
    with pytest.raises(ValueError, match=r"out: .* was made in another way \(step was 2 and is 3\)"):
        filter_removal_curves(net, loader_for(net), scorer_of(net), step=3, out=file)
    other = curved_net(hidden=5)
    with pytest.raises(ValueError, match=r"out: .* was made in another way \(model was"):
        filter_removal_curves(other, loader_for(net), scorer_of(other), step=2, out=file)
    for loader in (loader_for(net, batch_size=3), loader_for(net, seed=5), loader_for(net, count=2)):
        with pytest.raises(ValueError, match="loader: it gives other samples"):
            filter_removal_curves(net, loader, scorer_of(net), step=2, out=file)
    file.write_bytes(b"something else")
    with pytest.raises(ValueError, match="out: expected curves"):
        filter_removal_curves(net, loader_for(net), scorer_of(net), step=2, out=file)


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        ([], ValueError, "loader: expected at least one batch"),
        (5, TypeError, "loader: expected an iterable"),
        ([torch.zeros(2, 3, 8, 8)], TypeError, r"loader: expected \(x, y\)"),
        ([(torch.zeros(2, 3, 8), [0, 1])], ValueError, "loader, batch 0: x: expected"),
        ([(torch.zeros(2, 3, 8, 8), [0.5, 1])], TypeError, "loader: expected classes as integers"),
        ([(torch.zeros(2, 3, 8, 8), [0])], ValueError, "loader: expected one class per sample"),
        ([(torch.zeros(2, 3, 8, 8), [0, -1])], ValueError, "loader: expected classes from 0 on"),
        ([(torch.zeros(2, 3, 8, 8), ["a", "b"])], TypeError, "loader: expected classes as integers"),
    ],
)
def test_loaders_of_another_kind(loader, error, message) -> None:
    with pytest.raises(error, match=message):
        filter_removal_curves(tiny_net(), loader, lambda x, y: torch.zeros(len(x), 8))


def test_measures_must_stay_the_same() -> None:
    net = curved_net()
    names = iter(["a", "b"])
    with pytest.raises(ValueError, match="score: expected the same measures in every batch"):
        filter_removal_curves(net, loader_for(net), lambda x, y: {next(names): scores_for(len(x), 7)})
    with pytest.raises(TypeError, match="score: expected a callable"):
        filter_removal_curves(net, loader_for(net), "grad-amap")
