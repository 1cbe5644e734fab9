"""Class activation maps against their written definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import midgrain as mg
from cam_nets import CLASSES, curved_net, cut, seen_at
from midgrain.cams import CAMS, make_cam
from midgrain.cams.activation import EigenCAM
from midgrain.cams.gradient import GradCAMPlusPlus, XGradCAM
from models_for_tests import CONV, NORM, SPATIAL, batch_for, check_maps, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import cams as oracle

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
GRADIENTS = (*oracle.WEIGHTS, *oracle.ELEMENTWISE)
TARGETS = [3, 0, 1]


def explained(name, net, x, target=TARGETS, **options):
    return mg.explainer(name, net, **options)(x, target)


# By definition.


@DIMS
@pytest.mark.parametrize("layer", ["4", "5"])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("temporal", ["clip", "frame"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_maps_of_gradients(name, temporal, relu, layer, dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    activations, gradients = seen_at(net, layer, x, TARGETS)
    expected = [oracle.gradient_cam(name, a, g, temporal, relu) for a, g in zip(activations, gradients, strict=True)]
    made = explained(name, net, x, layer=layer, temporal=temporal, relu=relu)
    check_maps(made.cam, expected)
    check_maps(made.heatmap, [oracle.resize(each, SPATIAL[dims]) for each in expected])
    assert made.target.tolist() == TARGETS


@DIMS
@pytest.mark.parametrize("layer", ["4", "5"])
def test_maps_of_activations(layer, dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    activations, _ = seen_at(net, layer, x, TARGETS)
    check_maps(explained("relu-activation", net, x, layer=layer).cam, [oracle.relu_activation(a) for a in activations])
    check_maps(explained("eigencam", net, x, layer=layer).cam, [oracle.eigencam(a) for a in activations])


def test_frames_are_weighed_on_their_own_in_clips_only() -> None:
    net, x = curved_net(2), batch_for(2, 3, dtype=torch.float64)
    assert torch.equal(
        explained("gradcam", net, x, layer="4").heatmap,
        explained("gradcam", net, x, layer="4", temporal="frame").heatmap,
    )
    net, x = curved_net(3), batch_for(3, 3, dtype=torch.float64, size=(8, 12, 16))
    ways = [explained("gradcam", net, x, layer="4", temporal=temporal).heatmap for temporal in ("clip", "frame")]
    assert relative_deviation(*ways) > 0.05


@DIMS
@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "eigencam", "layercam"])
def test_several_layers_are_rescaled_and_averaged(name, dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    alone = [explained(name, net, x, layer=layer).cam.double().numpy() for layer in ("2", "4", "5")]
    expected = [oracle.fused(maps, SPATIAL[dims]) for maps in zip(*alone, strict=True)]
    made = explained(name, net, x, layer=["2", "4", net[5]])
    check_maps(made.heatmap, expected)
    assert made.cam is None
    one = explained(name, net, x, layer=["4"])
    assert torch.equal(one.heatmap, explained(name, net, x, layer="4").heatmap)


@DIMS
@pytest.mark.parametrize("name", GRADIENTS)
def test_mixed_targets_in_a_batch_equal_one_by_one(name, dims) -> None:
    net, x = curved_net(dims), batch_for(dims, 3, dtype=torch.float64)
    together = explained(name, net, x, relu=False).heatmap
    for i, target in enumerate(TARGETS):
        alone = explained(name, net, x[i : i + 1], target, relu=False).heatmap
        assert alone.any()
        assert relative_deviation(together[i : i + 1], alone) < 1e-5


# Where definitions divide by zero.


@pytest.mark.parametrize(
    ("activations", "gradients"),
    [
        ([[1.0, 0.0]], [[0.5, 0.0]]),
        ([[0.5, 0.5]], [[-2.0, 1.0]]),
        ([[-1.0, 0.0]], [[2.0, 1.0]]),
        ([[0.0, 0.0]], [[0.3, -0.3]]),
        ([[1.0, -1.0]], [[0.3, -0.2]]),
        ([[0.0, 0.0]], [[0.0, 0.0]]),
        ([[3.0, 1.0]], [[0.0, 0.0]]),
        ([[3.0, 1.0]], [[1e-30, 1e-25]]),
    ],
    ids=str,
)
def test_grad_cam_plus_plus_and_xgradcam_at_their_edges(activations, gradients) -> None:
    for make, written in ((GradCAMPlusPlus, oracle.gradcam_plus_plus), (XGradCAM, oracle.xgradcam)):
        a, g = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (activations, gradients))
        found = make().weights(a, g, (-2, -1)).item()
        expected = written(np.array(activations, np.longdouble), np.array(gradients, np.longdouble))
        assert found == pytest.approx(float(expected), rel=1e-6, abs=0)


def test_grad_cam_plus_plus_of_random_numbers_is_the_written_formula() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-12, 1e-3, 1.0, 1e3):
        a, g = rng.normal(size=(2, 40, 6)), scale * rng.normal(size=(2, 40, 6))
        found = GradCAMPlusPlus().weights(torch.tensor(a), torch.tensor(g), (-1,))[..., 0]
        expected = [
            [oracle.gradcam_plus_plus(*pair) for pair in zip(*row, strict=True)] for row in zip(a, g, strict=True)
        ]
        assert np.allclose(found.numpy(), expected, rtol=1e-9, atol=0)


def test_grad_cam_plus_plus_where_the_products_overflow() -> None:
    """The written share falls to 0 as sum(A) g grows, and so does the weight."""
    a, g = torch.full((1, 1, 1, 2), 3e38), torch.tensor([[[[2.0, 0.0]]]])
    assert GradCAMPlusPlus().weights(a, g, (-2, -1)).item() == 0.0
    a = torch.full((1, 1, 1, 2), 1e30)
    assert GradCAMPlusPlus().weights(a, 1e30 * g, (-2, -1)).item() == 0.0


FORMULAS = (*GRADIENTS, "eigencam", "relu-activation", "ablationcam", "scorecam")


@DIMS
@pytest.mark.parametrize("name", [*FORMULAS, "guided-gradcam", "guided-act-gradcam"])
@pytest.mark.parametrize("what", ["activations", "gradients", "both"])
def test_all_zero_activations_and_gradients_give_a_blank_map(what, name, dims) -> None:
    net, x = curved_net(dims, dtype=torch.float32), batch_for(dims)
    with torch.no_grad():
        if what != "gradients":
            net[4].weight.zero_()
            net[4].bias.fill_(-1.0)  # The ReLU that follows is off everywhere.
        if what != "activations":
            net[8].weight.zero_()
    made = explained(name, net, x, [1, 2], layer="5")
    blind = name in ("eigencam", "relu-activation", "scorecam")
    if blind and what == "gradients":
        assert made.heatmap.isfinite().all()
    else:
        assert not made.heatmap.any()
    assert not explained(name, net, x, [1, 2], layer=["5", "2"]).heatmap.isnan().any()


# Eigen-CAM.


def eigen(activations):
    return EigenCAM().formula(torch.tensor(np.asarray(activations), dtype=torch.float32), None).double()


@pytest.mark.parametrize("shape", [(40, 3, 4), (5, 6, 7), (12, 3, 4), (30, 2, 3, 4), (4, 3, 5, 4)])
def test_eigencam_is_the_first_principal_component(shape) -> None:
    activations = np.random.default_rng(1).normal(size=(3, *shape))
    check_maps(eigen(activations), [oracle.eigencam(one) for one in activations])


def test_eigencam_goes_with_the_activations_and_knows_no_offset_order_or_rotation() -> None:
    rng = np.random.default_rng(2)
    blob = np.exp(-((np.mgrid[:8, :9] - 4.0) ** 2).sum(0) / 6.0)
    activations = rng.uniform(0.5, 1.0, (16, 1, 1)) * blob + 0.05 * rng.normal(size=(16, 8, 9))
    base = eigen(activations[None])
    assert np.corrcoef(base.flatten(), blob.flatten())[0, 1] > 0.98
    offsets = rng.normal(size=(16, 1, 1))
    assert relative_deviation(eigen((activations + offsets)[None]), base) < 1e-5
    assert relative_deviation(eigen(activations[None, ::-1].copy()), base) < 1e-5
    assert relative_deviation(eigen(3 * activations[None]), 3 * base) < 1e-5
    assert relative_deviation(eigen(-activations[None]), -base) < 1e-5
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    turned = eigen(np.tensordot(rotation, activations, 1)[None])
    assert min(relative_deviation(turned, base), relative_deviation(-turned, base)) < 1e-5


def test_eigencam_of_an_early_layer_is_as_cheap_as_it_has_channels() -> None:
    """12544 positions: their products would be 1.2 GB in double precision."""
    made = explained("eigencam", tiny_net(), batch_for(2, 1, size=(112, 112)), None, layer="2")
    assert made.cam.shape == (1, 112, 112)
    assert made.cam.isfinite().all()


# Saliency Tubes.


class Tubes(nn.Module):
    """r3d in small: a residual block, a batch norm, a mean, one linear layer."""

    def __init__(self, dims=3, linears=1):
        super().__init__()
        self.stem = nn.Sequential(CONV[dims](3, 6, 3, stride=2, padding=1), NORM[dims](6), nn.ReLU(inplace=True))
        self.block = nn.Sequential(CONV[dims](6, 6, 3, padding=1), NORM[dims](6))
        self.last = nn.ReLU(inplace=True)
        self.fc = nn.Sequential(*[nn.Linear(6, 6) for _ in range(linears - 1)], nn.Linear(6, CLASSES))
        if linears == 0:
            self.fc = nn.Identity()

    def features(self, x):
        hidden = self.stem(x)
        return self.last(self.block(hidden) + hidden)

    def forward(self, x):
        return self.fc(self.features(x).flatten(2).mean(2))


@DIMS
def test_saliency_tubes_weigh_channels_by_the_linear_layer(dims) -> None:
    net, x = seeded(lambda: Tubes(dims)).eval(), batch_for(dims, 3)
    with torch.no_grad():
        activations = net.features(x).numpy()
    weights = net.fc[0].weight.detach().numpy()
    expected = [oracle.weighted(weights[c], a, relu=False) for c, a in zip(TARGETS, activations, strict=True)]
    made = explained("saliency-tubes", net, x)
    check_maps(made.cam, expected)
    check_maps(made.heatmap, [oracle.resize(each, SPATIAL[dims]) for each in expected])
    assert (made.cam < 0).any()
    # After a mean and a linear layer, the gradients are these weights.
    assert relative_deviation(explained("gradcam", net, x, relu=False).cam * made.cam[0].numel(), made.cam) < 1e-5


@pytest.mark.parametrize(
    ("net", "target", "options", "match"),
    [
        (lambda: Tubes(linears=2), 1, {}, "model: 'saliency-tubes' .* one linear layer, this one has 2; use 'gradcam'"),
        (lambda: Tubes(linears=0), 1, {}, "this one has 0; use 'gradcam'"),
        (Tubes, lambda out: out[:, 1], {}, "target: 'saliency-tubes' needs classes, got a callable"),
        (lambda: tiny_net(3), 1, {}, "from the 8 channels of the layer to the classes, got 64 inputs and 5 outputs"),
        (Tubes, 1, {"layer": ["stem", "last"]}, "layer: expected one layer for 'saliency-tubes'"),
    ],
    ids=["two linear", "no linear", "callable", "flattened", "layers"],
)
def test_saliency_tubes_elsewhere(net, target, options, match) -> None:
    with pytest.raises(ValueError, match=match):
        mg.explainer("saliency-tubes", seeded(net).eval(), **options)(batch_for(3), target)


# Half precision.


@DIMS
@pytest.mark.parametrize("how", ["bfloat16", "float16", "autocast bfloat16", "autocast float16"])
@pytest.mark.parametrize(
    "name", [*GRADIENTS, "eigencam", "relu-activation", "ablationcam", "scorecam", "guided-gradcam"]
)
def test_half_precision_is_near(name, how, dims) -> None:
    net, x = curved_net(dims, dtype=torch.float32), batch_for(dims)
    options = {"layer": "5"} | ({} if name in ("eigencam", "relu-activation") else {"relu": False})
    expected = explained(name, net, x, [1, 2], **options).heatmap
    dtype = torch.bfloat16 if "bfloat16" in how else torch.float16
    if how.startswith("autocast"):
        with torch.autocast("cpu", dtype):
            made = explained(name, net, x, [1, 2], **options).heatmap
    else:
        made = explained(name, net.to(dtype), x.to(dtype), [1, 2], **options).heatmap
    assert made.dtype == torch.float32
    assert relative_deviation(made, expected) < (0.15 if dtype == torch.bfloat16 else 0.02)


def test_half_precision_does_not_lose_small_gradients() -> None:
    """Averaged over many positions, gradients in float16 fall under the smallest number that it has."""
    net, x = tiny_net(), batch_for(2, 1, size=(128, 128))
    with torch.no_grad():
        net[8].weight.mul_(1e-3)
    expected = explained("gradcam", net, x, 1, relu=False).heatmap
    for name in ("gradcam", "ablationcam"):
        full = expected if name == "gradcam" else explained(name, net, x, 1, relu=False).heatmap
        made = explained(name, tiny_half(net), x.half(), 1, relu=False).heatmap
        assert relative_deviation(made, full) < 0.02


def tiny_half(net):
    twin = tiny_net()
    twin.load_state_dict(net.state_dict())
    return twin.half()


# Options.


@pytest.mark.parametrize(
    ("name", "options", "error", "match"),
    [
        ("gradcamm", {}, ValueError, "name: expected one of gradcam, .*, got 'gradcamm'"),
        ("gradcam", {"weights": 1}, TypeError, "'gradcam' has no option weights"),
        ("gradcam", {"temporal": "step"}, ValueError, "temporal: expected 'clip' or 'frame', got 'step'"),
        ("gradcam", {"relu": 1}, TypeError, "relu: expected a bool, got int"),
        ("gradcam", {"layer": 4}, TypeError, "layer: expected None, a module, its dotted name or several, got int"),
        ("gradcam", {"layer": []}, ValueError, "layer: expected at least one layer"),
        ("gradcam", {"reshape": abs}, ValueError, "reshape: it goes with a layer"),
        ("gradcam", {"layer": "4", "reshape": 1}, TypeError, "reshape: expected a callable, got int"),
        ("saliency-tubes", {"relu": True}, TypeError, "'saliency-tubes' has no option relu"),
        ("ablationcam", {"relu": None}, TypeError, "relu: expected a bool, got NoneType"),
        ("ablationcam", {"divide_by": "logit"}, ValueError, "divide_by: expected 'score' or 'magnitude', got 'logit'"),
        ("ablationcam", {"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ("ablationcam", {"batch_size": 2.0}, TypeError, "batch_size: expected an int, got float"),
        ("ablationcam", {"progress": "yes"}, TypeError, "progress: expected a bool, got str"),
        ("ablationcam", {"temporal": "clip"}, TypeError, "'ablationcam' has no option temporal"),
        ("scorecam", {"weights": "logits"}, ValueError, "weights: expected 'softmax' or 'channel-softmax'"),
        ("scorecam", {"n_channels": 0}, ValueError, "n_channels: expected 1 or more, got 0"),
        ("scorecam", {"n_channels": True}, TypeError, "n_channels: expected an int, got bool"),
        ("scorecam", {"batch_size": -1}, ValueError, "batch_size: expected 1 or more, got -1"),
        ("scorecam", {"progress": 1}, TypeError, "progress: expected a bool, got int"),
        ("guided-gradcam", {"temporal": "step"}, ValueError, "temporal: expected 'clip' or 'frame', got 'step'"),
        ("guided-act-gradcam", {"progress": True}, TypeError, "'guided-act-gradcam' has no option progress"),
    ],
)
def test_bad_options(name, options, error, match) -> None:
    with pytest.raises(error, match=match):
        make_cam(name, **options)
    if name in CAMS:
        with pytest.raises(error, match=match):
            mg.explainer(name, tiny_net(), **options)


def test_the_nets_of_these_tests_have_both_signs_where_they_should() -> None:
    net, x = curved_net(), batch_for(dtype=torch.float64)
    before, after = (cut(net, layer)[0](x.clone()) for layer in ("4", "5"))
    assert (before < 0).any()
    assert (after >= 0).all()
    assert after.flatten(2).any(2).sum() > len(x)
