"""`midgrain.compat.captum` against captum, which runs live: the calls of its tutorials, another import line."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import midgrain as mg
from midgrain.compat import captum as ours
from models_for_tests import batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread

theirs = pytest.importorskip("captum.attr", reason="needs captum (extra 'peers')")

TOLERANCE = 1e-5
pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting backward hooks", "ignore:Input Tensor", "ignore:Required gradients", "ignore:You are providing"
)
OFFERED = [
    *("FeatureAblation", "GuidedBackprop", "GuidedGradCam", "InputXGradient", "IntegratedGradients", "KernelShap"),
    *("LayerGradCam", "Lime", "NoiseTunnel", "Occlusion", "Saliency"),
]

# The tutorial "Getting started with Captum", with the package's name left open.
GETTING_STARTED = """
from {package} import IntegratedGradients, NoiseTunnel

class ToyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin1 = nn.Linear(3, 3)
        self.relu = nn.ReLU()
        self.lin2 = nn.Linear(3, 2)
        self.lin1.weight = nn.Parameter(torch.arange(-4.0, 5.0).view(3, 3))
        self.lin1.bias = nn.Parameter(torch.zeros(1, 3))
        self.lin2.weight = nn.Parameter(torch.arange(-3.0, 3.0).view(2, 3))
        self.lin2.bias = nn.Parameter(torch.ones(1, 2))

    def forward(self, input):
        return self.lin2(self.relu(self.lin1(input)))

model = ToyModel()
model.eval()
torch.manual_seed(123)
input = torch.rand(2, 3)
baseline = torch.zeros(2, 3)

ig = IntegratedGradients(model)
attributions, delta = ig.attribute(input, baseline, target=0, return_convergence_delta=True)
nt = NoiseTunnel(ig)
noisy, noisy_delta = nt.attribute(input, nt_type='smoothgrad', stdevs=0.02, nt_samples=4,
                                  baselines=baseline, target=0, return_convergence_delta=True)
"""
# The calls of "Model interpretation for pretrained ResNet model" and of "Getting started with Captum Insights: CIFAR".
RESNET = """
from {package} import IntegratedGradients, NoiseTunnel, Occlusion, Saliency
from {package} import GuidedGradCam, LayerGradCam, LayerAttribution

integrated_gradients = IntegratedGradients(model)
attributions_ig = integrated_gradients.attribute(input, target=pred_label_idx, n_steps=20)
noise_tunnel = NoiseTunnel(integrated_gradients)
torch.manual_seed(0)
attributions_ig_nt = noise_tunnel.attribute(input, nt_samples=3, nt_type='smoothgrad_sq',
                                            target=pred_label_idx, n_steps=5)
occlusion = Occlusion(model)
attributions_occ = occlusion.attribute(input, strides=(3, 8, 8), target=pred_label_idx,
                                       sliding_window_shapes=(3, 15, 15), baselines=0)
saliency = Saliency(model)
grads = saliency.attribute(input, target=pred_label_idx.item())
layer_gc = LayerGradCam(model, model[4])
attr = layer_gc.attribute(input, target=pred_label_idx)
upsampled_attr = LayerAttribution.interpolate(attr, (24, 32))
guided = GuidedGradCam(model, model[4]).attribute(input, target=pred_label_idx)
"""


def net(dims: int = 2) -> nn.Module:
    """`tiny_net` without in-place operations and with nn.ReLU only, which captum needs."""
    model = tiny_net(dims)
    for number, module in enumerate(model):
        if isinstance(module, nn.ReLU | nn.ReLU6):
            model[number] = nn.ReLU()
    return model


def run(script: str, package: str, **names):
    exec(script.format(package=package), {"torch": torch, "nn": nn} | names, names)
    return names


def assert_same(here, there, tolerance: float = TOLERANCE) -> None:
    assert here.shape == there.shape
    assert here.dtype == there.dtype
    assert there.abs().max() > 0
    assert relative_deviation(here.detach(), there.detach()) <= tolerance


def test_getting_started() -> None:
    before, after = (run(GETTING_STARTED, package) for package in ("captum.attr", "midgrain.compat.captum"))
    for name in ("attributions", "noisy"):
        assert_same(after[name], before[name])
    for name in ("delta", "noisy_delta"):
        assert after[name].shape == before[name].shape
        assert torch.allclose(after[name], before[name].to(after[name].dtype), atol=1e-5)


def test_the_resnet_tutorial() -> None:
    model, x = net(), batch_for(batch=1)
    names = {"model": model, "input": x, "pred_label_idx": model(x).argmax(1)}
    before, after = (run(RESNET, package, **names) for package in ("captum.attr", "midgrain.compat.captum"))
    for name in ("attributions_ig", "attributions_ig_nt", "attributions_occ", "grads", "attr", "upsampled_attr"):
        assert_same(after[name], before[name], 1e-4 if name == "attributions_occ" else TOLERANCE)
    assert_same(after["guided"], before["guided"])


@pytest.mark.parametrize("name", OFFERED)
def test_signatures(name) -> None:
    """Every parameter of theirs is there, in its place, with its default."""
    for method in ("__init__", "attribute"):
        here, there = (inspect.signature(getattr(getattr(each, name), method)).parameters for each in (ours, theirs))
        expected = [parameter for parameter in there if not (parameter == "kwargs" and name == "FeatureAblation")]
        assert list(here) == expected
        assert [here[parameter].default for parameter in expected] == [
            there[parameter].default for parameter in expected
        ]


@pytest.mark.parametrize("target", [1, [3, 0, 4], torch.tensor([3, 0, 4]), torch.tensor(2), (3,), [(3,), (0,), (4,)]])
@pytest.mark.parametrize("name", ["Saliency", "InputXGradient", "GuidedBackprop", "IntegratedGradients"])
def test_gradients_and_targets(name, target) -> None:
    model, x = net(), batch_for(batch=3)
    here, there = (getattr(each, name)(model).attribute(x, target=target) for each in (ours, theirs))
    assert_same(here, there)


def test_signs() -> None:
    model, x = net(), batch_for(batch=3)
    here, there = (each.Saliency(model).attribute(x, target=1, abs=False) for each in (ours, theirs))
    assert here.min() < 0
    assert_same(here, there)


@pytest.mark.parametrize("inside", [True, False])
def test_tuples(inside) -> None:
    model, x = net(), batch_for(batch=2)
    given = (x,) if inside else x
    for name in ("Saliency", "InputXGradient", "GuidedBackprop", "IntegratedGradients"):
        found = getattr(ours, name)(model).attribute(given, target=1)
        assert isinstance(found, tuple) is inside
    assert isinstance(ours.Occlusion(model).attribute(given, ((3, 8, 8),), ((3, 8, 8),), target=1), tuple) is inside
    found = ours.IntegratedGradients(model).attribute(given, (0.5,), 1, n_steps=4, return_convergence_delta=True)
    assert isinstance(found[0], tuple) is inside
    assert found[1].shape == (2,)
    with pytest.raises(ValueError, match="inputs: expected one tensor, got a tuple of 2"):
        ours.Saliency(model).attribute((x, x), target=1)


@pytest.mark.parametrize("method", ["gausslegendre", "riemann_middle"])
@pytest.mark.parametrize("baselines", [None, 0.3, "tensor", "one"])
def test_integrated_gradients(method, baselines) -> None:
    model, x = net(), batch_for(batch=3)
    baselines = {"tensor": x.flip(0), "one": x[:1] / 2}.get(baselines, baselines)
    options = {"target": [3, 0, 4], "n_steps": 7, "method": method, "return_convergence_delta": True}
    here, there = (each.IntegratedGradients(model).attribute(x, baselines, **options) for each in (ours, theirs))
    assert_same(here[0], there[0])
    assert here[1].dtype == there[1].dtype
    assert torch.allclose(*[delta for _, delta in (here, there)], atol=1e-5)
    small = ours.IntegratedGradients(model).attribute(x, baselines, internal_batch_size=2, **options)
    assert_same(small[0], here[0])


def test_without_the_factor_of_the_inputs() -> None:
    model, x = net(), batch_for(batch=3)
    here, there = (each.IntegratedGradients(model, False).attribute(x, target=1, n_steps=5) for each in (ours, theirs))
    assert_same(here, there)
    with pytest.raises(ValueError, match="return_convergence_delta"):
        ours.IntegratedGradients(model, False).attribute(x, target=1, return_convergence_delta=True)


def test_trapezoids_add_up() -> None:
    """Captum's weights of `riemann_trapezoid` add up to (n - 1) / n: a linear model's attributions are too small."""
    model, x = seeded(lambda: nn.Linear(6, 2)), batch_for(batch=1).flatten(1)[:, :6]
    exact = x * model.weight[1].detach()
    options = {"target": 1, "n_steps": 5, "method": "riemann_trapezoid"}
    assert_same(ours.IntegratedGradients(model).attribute(x, **options), exact)
    found = theirs.IntegratedGradients(model).attribute(x, **options)
    if relative_deviation(found, exact) < 0.1:
        pytest.skip("captum has this fault no more; its half of the test may go")
    assert_same(found, 0.8 * exact)


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("at_once", [None, 2])
def test_noise_tunnel(kind, at_once) -> None:
    """The same random numbers in the same order."""
    model, x = net(), batch_for(batch=2)
    made = []
    for each in (ours, theirs):
        torch.manual_seed(3)
        tunnel = each.NoiseTunnel(each.Saliency(model))
        options = {"nt_samples": 5, "nt_samples_batch_size": at_once, "stdevs": 0.2}
        made.append(tunnel.attribute(x, nt_type=kind, target=[1, 3], abs=False, **options))
    assert_same(*made, 1e-4)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
def test_layer_grad_cam(relu, summed, dims) -> None:
    model, x = net(dims), batch_for(dims, batch=3)
    options = {"target": [3, 0, 4], "relu_attributions": relu, "attr_dim_summation": summed}
    here, there = (each.LayerGradCam(model, model[4]).attribute(x, **options) for each in (ours, theirs))
    assert_same(here, there)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_guided_grad_cam(mode) -> None:
    model, x = net(), batch_for(batch=3)
    options = {"target": [3, 0, 4], "interpolate_mode": mode}
    here, there = (each.GuidedGradCam(model, model[4]).attribute(x, **options) for each in (ours, theirs))
    assert_same(here, there)


@pytest.mark.parametrize(
    ("window", "strides", "baselines"),
    [
        ((3, 9, 7), (3, 4, 5), 0),
        ((1, 8, 8), (1, 8, 8), 0.4),
        ((2, 24, 10), (1, 1, 9), "tensor"),
        ((3, 20, 20), 3, None),
    ],
)
def test_occlusion(window, strides, baselines) -> None:
    model, x = net(), batch_for(batch=2)
    baselines = x.flip(0) if baselines == "tensor" else baselines
    made = []
    for each, at_once in ((ours, 5), (ours, 1), (theirs, 4)):
        options = {"strides": strides, "baselines": baselines, "target": [3, 0], "perturbations_per_eval": at_once}
        made.append(each.Occlusion(model).attribute(x, window, **options))
    assert_same(made[0], made[2], 1e-4)
    assert_same(made[1], made[2], 1e-4)


@pytest.mark.parametrize("mask", ["superpixels", "channels", "gaps", "samples"])
def test_feature_ablation(mask) -> None:
    model, x = net(), batch_for(batch=2)
    y, column = torch.meshgrid(torch.arange(24) // 6, torch.arange(32) // 8, indexing="ij")
    mask = {
        "superpixels": (4 * y + column)[None, None],
        "channels": torch.arange(3).reshape(1, 3, 1, 1) * 4 + y,
        "gaps": 7 * (4 * y + column)[None, None],
        "samples": torch.stack([4 * y + column, column])[:, None],
    }[mask]
    options = {"target": [3, 0], "baselines": 0.2, "perturbations_per_eval": 3}
    here = ours.FeatureAblation(model).attribute(x, feature_mask=mask, **options)
    there = theirs.FeatureAblation(model).attribute(x, feature_mask=mask, **(options | {"perturbations_per_eval": 1}))
    assert_same(here, there, 1e-4)


def test_every_value_a_feature() -> None:
    model, x = seeded(lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))), torch.randn(4, 6)
    here, there = (each.FeatureAblation(model).attribute(x, target=2) for each in (ours, theirs))
    assert_same(here, there)


def test_kernel_shap() -> None:
    """Shapley values; captum samples, so that it comes near with many samples, and ours are exact."""
    model, x = net(), batch_for(batch=2)
    mask = ((torch.arange(24) // 12)[:, None] * 3 + (torch.arange(32) // 11))[None, None]
    torch.manual_seed(0)
    options = {"target": [3, 0], "feature_mask": mask, "perturbations_per_eval": 32}
    there = theirs.KernelShap(model).attribute(x, n_samples=400, **options)
    here = ours.KernelShap(model).attribute(x, n_samples=64, **options)
    assert_same(here, there, 0.02)
    scores = ours.KernelShap(model).attribute(x, n_samples=64, return_input_shape=False, **options)
    assert scores.shape == (2, 6)
    gain = model(x)[[0, 1], [3, 0]] - model(0 * x)[[0, 1], [3, 0]]
    assert torch.allclose(scores.sum(1), gain, atol=1e-5)
    exact = mg.explainer("kernel-shap", model, superpixels=mask[0, 0], n_samples=64, output="logit")(x, [3, 0])
    assert torch.allclose(exact.scores, scores)


def test_lime() -> None:
    """The definition of LIME's authors, not captum's."""
    model, x = net(), batch_for(batch=2)
    mask = ours.feature_mask(x, n_segments=6)
    options = {"target": [3, 0], "feature_mask": mask, "n_samples": 60, "perturbations_per_eval": 16}
    scores = ours.Lime(model).attribute(x, return_input_shape=False, **options)
    expected = mg.explainer("lime", model, superpixels=mask[:, 0], n_samples=60, output="logit")(x, [3, 0])
    assert torch.allclose(scores, expected.scores, atol=1e-6, equal_nan=True)
    painted = ours.Lime(model).attribute((x,), **options)
    assert painted[0].shape == x.shape
    assert torch.equal(painted[0][0, 2], expected.heatmap[0])
    with pytest.raises(ValueError, match="similarity_func: expected it not to be given"):
        ours.Lime(model, similarity_func=len)


@pytest.mark.parametrize("superpixels", ["image", "felzenszwalb"])
def test_feature_masks_inside_captum(superpixels) -> None:
    """Superpixels for captum's own methods."""
    model, x = net(), batch_for(batch=2)
    mask = ours.feature_mask((x,), n_segments=8, superpixels=superpixels)
    assert mask.shape == (2, 1, 24, 32)
    assert mask.dtype == torch.int64
    for sample in mask:
        assert torch.equal(sample.unique(), torch.arange(int(sample.max()) + 1))
    for name in ("Lime", "KernelShap", "FeatureAblation"):
        options = {"n_samples": 12} if name != "FeatureAblation" else {}
        found = getattr(theirs, name)(model).attribute(x, target=1, feature_mask=mask, **options)
        for values, labels in zip(found, mask, strict=True):
            for number in labels.unique():
                assert len(values[labels.expand_as(values) == number].unique()) == 1
    clip = batch_for(3, batch=1)
    assert ours.feature_mask(clip, n_segments=4).shape == (1, 1, *clip.shape[2:])


class TwoArguments(nn.Module):
    """A model with a switch and a tensor besides its input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x, factor, offset):
        return factor * self.net(x) + offset


def test_additional_arguments() -> None:
    model, x = TwoArguments().eval(), batch_for(batch=3)
    arguments = (2.0, torch.randn(1, 5))
    for name in ("Saliency", "InputXGradient", "IntegratedGradients"):
        # captum repeats tensors as often as the input, also those that are not of its samples.
        alike = arguments if name != "IntegratedGradients" else (2.0, 0.5)
        options = {"target": 1, "additional_forward_args": alike}
        here, there = (getattr(each, name)(model).attribute(x, **options) for each in (ours, theirs))
        assert_same(here, there)
    options = {"target": 1, "additional_forward_args": arguments}
    here, there = (each.LayerGradCam(model, model.net[4]).attribute(x, **options) for each in (ours, theirs))
    assert_same(here, there)
    per_sample = (2.0, torch.randn(3, 5))
    here, there = (
        each.Saliency(model).attribute(x, target=1, additional_forward_args=per_sample) for each in (ours, theirs)
    )
    assert_same(here, there)
    with pytest.raises(ValueError, match="additional_forward_args: expected no tensors of a value per sample"):
        ours.FeatureAblation(model).attribute(
            x,
            target=1,
            additional_forward_args=per_sample,
            feature_mask=ours.feature_mask(x, 4),
            perturbations_per_eval=2,
        )


def test_models_of_one_score() -> None:
    """A target is needed where, and only where, there is a choice."""
    model, x = net(), batch_for(batch=3)
    for forward in (lambda x: model(x)[:, 1], lambda x: model(x)[:, 1:2]):
        for name in ("Saliency", "IntegratedGradients"):
            here, there = (getattr(each, name)(forward).attribute(x) for each in (ours, theirs))
            assert_same(here, there)
    with pytest.raises(ValueError, match=r"target: expected one for a model that returns more .* got outputs \[3, 5\]"):
        ours.Saliency(model).attribute(x)


def test_segmentation_models() -> None:
    """An index into each sample's output."""
    model = seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    ).eval()
    x = batch_for(batch=2)
    for target in ((1, 5, 7), [(1, 5, 7), (0, 3, 3)]):
        here, there = (each.InputXGradient(model).attribute(x, target=target) for each in (ours, theirs))
        assert_same(here, there)
    with pytest.raises(ValueError, match=r"target: expected one per sample \(2\), got 1"):
        ours.Saliency(model).attribute(x, target=[(1, 5, 7)])


def test_functional_relus() -> None:
    """Captum's guided backpropagation hooks nn.ReLU modules; functions are plain gradients to it."""

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3)

        def forward(self, x):
            return F.relu(self.second(F.relu(self.first(x)))).mean((2, 3))

    model, x = seeded(Functional).eval(), batch_for(batch=2)
    here = ours.GuidedBackprop(model).attribute(x, target=1)
    modules = nn.Sequential(model.first, nn.ReLU(), model.second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert_same(here, theirs.GuidedBackprop(modules).attribute(x, target=1))
    if relative_deviation(theirs.GuidedBackprop(model).attribute(x, target=1), here) < 0.01:
        pytest.skip("captum has this fault no more; its half of the test may go")


def test_the_model_is_as_it_was() -> None:
    model, x = net().train().requires_grad_(False), batch_for(batch=2)
    before = model.state_dict()
    with torch.no_grad():
        ours.IntegratedGradients(model).attribute(x, target=1, n_steps=3)
        ours.GuidedGradCam(model, model[4]).attribute(x, target=1)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bad_input() -> None:
    model, x = net(), batch_for(batch=2)
    with pytest.raises(TypeError, match="inputs: expected a tensor of floats"):
        ours.Saliency(model).attribute(x.long(), target=1)
    with pytest.raises(ValueError, match="inputs: expected finite values"):
        ours.Saliency(model).attribute(x / 0, target=1)
    with pytest.raises(ValueError, match="inputs: expected"):
        ours.LayerGradCam(model, model[4]).attribute(x[0], target=1)
    with pytest.raises(TypeError, match="model: expected"):
        ours.Saliency(3)
    with pytest.raises(ValueError, match="method: expected one of"):
        ours.IntegratedGradients(model).attribute(x, target=1, method="riemann_left")
    with pytest.raises(ValueError, match="baselines: expected one, got a tuple of 2"):
        ours.IntegratedGradients(model).attribute(x, (0, 1), target=1)
    with pytest.raises(ValueError, match="nt_type: expected one of"):
        ours.NoiseTunnel(ours.Saliency(model)).attribute(x, "smooth", target=1)
    with pytest.raises(TypeError, match="attribution_method: expected one of midgrain"):
        ours.NoiseTunnel(theirs.Saliency(model))
    with pytest.raises(ValueError, match="draw_baseline_from_distrib"):
        ours.NoiseTunnel(ours.Saliency(model)).attribute(x, draw_baseline_from_distrib=True, target=1)
    with pytest.raises(ValueError, match="attribute_to_layer_input: expected it not to be given"):
        ours.LayerGradCam(model, model[4]).attribute(x, target=1, attribute_to_layer_input=True)
    with pytest.raises(ValueError, match="sliding_window_shapes: expected one number per axis"):
        ours.Occlusion(model).attribute(x, (3, 3), target=1)
    with pytest.raises(ValueError, match="sliding_window_shapes: expected at most"):
        ours.Occlusion(model).attribute(x, (3, 50, 3), target=1)
    with pytest.raises(ValueError, match="strides: expected at most the window's"):
        ours.Occlusion(model).attribute(x, (3, 4, 4), (3, 5, 4), target=1)
    with pytest.raises(ValueError, match="feature_mask: expected one; midgrain"):
        ours.KernelShap(model).attribute(x, target=1)
    with pytest.raises(ValueError, match="the same superpixels in all channels"):
        ours.KernelShap(model).attribute(x, target=1, feature_mask=torch.arange(3).reshape(1, 3, 1, 1))
    with pytest.raises(TypeError, match="feature_mask: expected a tensor of integers"):
        ours.FeatureAblation(model).attribute(x, target=1, feature_mask=x)
    with pytest.raises(ValueError, match="feature_mask: expected a shape that broadcasts"):
        ours.FeatureAblation(model).attribute(x, target=1, feature_mask=torch.zeros(2, 3, 5, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="superpixels: expected those of the picture"):
        ours.feature_mask(x, superpixels="gradient")
    with pytest.raises(ValueError, match="inputs: expected 1 or 3 channels"):
        ours.feature_mask(torch.rand(1, 2, 8, 8))
