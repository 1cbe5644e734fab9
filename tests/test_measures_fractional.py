"""AOPC, AFOC, what is kept, and deltas: the formulas step by step, live peers, refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import midgrain as mg
from models_for_tests import batch_for, one_thread, seeded, tiny_net  # noqa: F401
from oracles.measures import logit_of, perturbation_area, softmax_of, without

VALUE_OF = {"logit": logit_of, "probability": softmax_of}
CLOSE = {"rtol": 1e-4, "atol": 2e-6}


def distinct(x, seed=0):
    return seeded(lambda: torch.rand(len(x), *x.shape[2:], dtype=torch.float64), seed)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("output", ["logit", "probability"])
@pytest.mark.parametrize("order", ["morf", "lerf"])
def test_aopc_and_afoc(order, output, dims) -> None:
    net, x = tiny_net(dims), batch_for(dims)
    heatmap, share, steps = distinct(x), 0.3, 6
    options = {"target": [1, 3], "steps": steps, "share": share, "order": order, "output": output}
    area = mg.measures.aopc(net, x, heatmap, **options)
    change = mg.measures.afoc(net, x, heatmap, **options)
    pixels = round(share * x[0, 0].numel())
    for index, target in enumerate((1, 3)):
        value, picture = VALUE_OF[output](net, target), x[index].numpy()
        counts = [(2 * step * pixels + steps) // (2 * steps) for step in range(steps + 1)]
        removed = [
            without(picture, np.zeros_like(picture), heatmap[index].numpy(), count, least_first=order == "lerf")
            for count in counts
        ]
        np.testing.assert_allclose(area.value[index], perturbation_area(value, removed), **CLOSE)
        np.testing.assert_allclose(area.curve[index], [value(each) for each in removed], **CLOSE)
        expected = abs(value(picture) - value(removed[-1])) / abs(value(picture))
        np.testing.assert_allclose(change.value[index], expected, **CLOSE)


def test_a_callables_values_are_taken_as_they_are() -> None:
    net, x = tiny_net(), batch_for()
    by_class = mg.measures.aopc(net, x, distinct(x), [2, 2])
    by_callable = mg.measures.aopc(net, x, distinct(x), lambda outputs: outputs[:, 2])
    torch.testing.assert_close(by_callable.value, by_class.value)
    assert by_callable.target is None


def test_a_score_of_zero_has_no_fractions() -> None:
    def zero(x):
        return x.flatten(1)[:, :2] * 0

    with pytest.raises(ValueError, match=r"explained score is 0 for sample\(s\) \[0, 1\]"):
        mg.measures.afoc(zero, batch_for(), distinct(batch_for()), 0)
    assert mg.measures.afoc(zero, batch_for(), distinct(batch_for()), 0, output="probability").value.tolist() == [0, 0]


@pytest.mark.parametrize("share", [0.15, 1.0, 1e-6])
def test_drop_and_increase(share) -> None:
    net, x = tiny_net(), batch_for(batch=3)
    heatmap, targets = distinct(x), [0, 2, 4]
    result = mg.measures.drop_increase(net, x, heatmap, targets, share=share)
    pixels = x[0, 0].numel()
    for index, target in enumerate(targets):
        value, picture = softmax_of(net, target), x[index].numpy()
        kept = max(1, round(share * pixels))
        shown = without(picture, np.zeros_like(picture), heatmap[index].numpy(), pixels - kept, least_first=True)
        before, after = value(picture), value(shown)
        np.testing.assert_allclose(result.drop[index], max(0, before - after) / before, **CLOSE)
        if kept < pixels:
            assert bool(result.increase[index]) == (after > before)
        np.testing.assert_allclose([result.before[index], result.after[index]], [before, after], **CLOSE)


def test_average_drop_beside_the_constant_map() -> None:
    net, x = tiny_net(), batch_for(batch=3)
    heatmap, targets = distinct(x), [0, 2, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = mg.measures.average_drop(net, x, heatmap, targets)
    constant = mg.explainer("constant", net)(x).heatmap
    for maps, found in ((heatmap, result), (constant, result.constant)):
        for index, target in enumerate(targets):
            value, mask = softmax_of(net, target), maps[index].double().numpy()
            mask = ((mask - mask.min()) / (mask.max() - mask.min())).astype(np.float32)
            before, after = value(x[index].numpy()), value(x[index].numpy() * mask)
            np.testing.assert_allclose(found.drop[index], max(0, before - after) / before, **CLOSE)
            assert bool(found.increase[index]) == (after > before)


def test_a_warning_where_the_constant_map_is_better() -> None:
    def brightness(x):
        return torch.stack([x.flatten(1).mean(1), torch.zeros(len(x))], 1)

    x = torch.rand(2, 3, 8, 8) + 1
    with pytest.warns(UserWarning, match="a constant map loses .* favours maps that hide nothing"):
        mg.measures.average_drop(brightness, x, distinct(x).square(), 0)


def test_gradcam_peers_average_drop() -> None:
    peer = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image", reason="needs grad-cam (extra 'peers')")
    targets_of = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    net, x = tiny_net(), batch_for(batch=3)
    masks = distinct(x).float()
    masks = (masks - masks.amin((1, 2), True)) / (masks.amax((1, 2), True) - masks.amin((1, 2), True))
    targets = [targets_of.ClassifierOutputSoftmaxTarget(category) for category in (0, 2, 4)]
    changes = peer.CamMultImageConfidenceChange()(x, masks.numpy(), targets, net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = mg.measures.average_drop(net, x, masks, [0, 2, 4])
    np.testing.assert_allclose(result.after - result.before, changes, **CLOSE)


def test_delta_of_a_measure() -> None:
    net, x = tiny_net(), batch_for(batch=4)
    heatmap = distinct(x)
    others = heatmap[mg.measures.other_images(4, k=3, seed=1)]
    for measure in (mg.measures.n_morf, mg.measures.afoc, mg.measures.deletion, mg.measures.combined):
        result = mg.measures.delta(measure, net, x, heatmap, others, target=2)
        own = measure(net, x, heatmap, target=2).value
        each = torch.stack([measure(net, x, others[:, k], target=2).value for k in range(3)])
        torch.testing.assert_close(result.value, own - each.mean(0))
        torch.testing.assert_close(result.others, each.T)


def test_a_generic_explanation_has_no_delta() -> None:
    net, x = tiny_net(), batch_for(batch=3)
    heatmap = mg.explainer("centre", net)(x).heatmap
    others = heatmap[mg.measures.other_images(3, k=2)]
    assert mg.measures.delta(mg.measures.n_lerf, net, x, heatmap, others).value.tolist() == [0, 0, 0]


def test_other_images_are_others() -> None:
    drawn = mg.measures.other_images(9, k=5, seed=4)
    assert drawn.shape == (9, 5)
    for number, row in enumerate(drawn.tolist()):
        assert number not in row
        assert len(set(row)) == 5
        assert set(row) <= set(range(9))
    assert torch.equal(drawn, mg.measures.other_images(9, k=5, seed=4))
    assert not torch.equal(drawn, mg.measures.other_images(9, k=5, seed=5))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda n, x, h: mg.measures.aopc(n, x, h, share=0), ValueError, "share: expected above 0 and up to 1, got 0"),
        (lambda n, x, h: mg.measures.aopc(n, x, h, share="all"), TypeError, "share: expected a number, got str"),
        (lambda n, x, h: mg.measures.afoc(n, x, h, order="first"), ValueError, "order: expected 'morf' or 'lerf'"),
        (lambda n, x, h: mg.measures.afoc(n, x, h, output="score"), ValueError, "output: expected one of probability"),
        (lambda n, x, h: mg.measures.aopc(n, x, h, steps=78), ValueError, r"steps: expected 1 \.\. 77, got 78"),
        (lambda n, x, h: mg.measures.drop_increase(n, x, h, share=1.1), ValueError, "share: expected above 0"),
        (lambda n, x, h: mg.measures.drop_increase(n, x, h[:1]), ValueError, r"heatmap: expected shape \[2, 24, 32\]"),
        (lambda n, x, h: mg.measures.average_drop(n, x, h * torch.nan), ValueError, "heatmap: expected finite values"),
        (lambda n, x, h: mg.measures.delta("aopc", n, x, h, h[:, None]), TypeError, "measure: expected a callable"),
        (
            lambda n, x, h: mg.measures.delta(mg.measures.aopc, n, x, h, h),
            ValueError,
            r"others: expected shape \[2, K, 24, 32\], got \[2, 24, 32\]",
        ),
        (
            lambda n, x, h: mg.measures.delta(mg.measures.aopc, n, x, h, h[:, None][:, :0]),
            ValueError,
            "others: expected heat maps of at least one other image",
        ),
        (lambda n, x, h: mg.measures.other_images(5), ValueError, "n: expected 6 or more, got 5"),
    ],
)
def test_bad_arguments(call, error, match) -> None:
    x = batch_for()
    with pytest.raises(error, match=match):
        call(tiny_net(), x, distinct(x))
