"""Measures, evaluations, failures, streams and other packages' interfaces on a pretended CUDA device.

They give what they give on the CPU. What such a device is, and what it cannot show, pretended_cuda.py says.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import midgrain as mg
from evaluate_for_tests import samples
from midgrain.failures import FilterStatistics, ThroughFilter
from midgrain.models import LoadedModel
from midgrain.pictures import Preprocess
from midgrain.video import (
    ClipWindows,
    Frame,
    ImageStream,
    LinkedFrames,
    NetworkWindows,
    Settings,
    TwoStream,
    TwoStreamWindows,
    explain_frames,
    explain_stream,
)
from models_for_tests import batch_for, one_thread, seeded, tiny_net  # noqa: F401
from pretended_checks import assert_same
from pretended_cuda import CUDA, pretended_cuda

KERNELS = pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "no kernels"])
PREPROCESS = Preprocess(30, 24, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
HERE = torch.device("cpu")


def stays(tensor):
    return tensor


def moves(tensor):
    return tensor.cuda()


class Things:
    """A network, inputs and maps, put somewhere."""

    def __init__(self, on=stays, dims: int = 2):
        self.on, self.x = on, on(batch_for(dims))
        self.net = tiny_net(dims).to(self.x.device)
        self.heat = on(batch_for(dims, channels=1, seed=4)[:, 0].abs())
        self.other = on(batch_for(dims, channels=1, seed=5)[:, 0].abs())
        size = self.heat.shape[1:]
        self.segments = on(
            (torch.arange(self.heat[0].numel()).reshape(size) // 96).to(torch.int32).repeat(2, *[1] * dims)
        )
        self.scores = on(seeded(lambda: torch.rand(2, int(self.segments.max()) + 1)))
        self.mask = on(batch_for(dims, channels=1, seed=6)[:, 0] > 0)
        box = [3, 2, 8, 9]
        self.boxes = on(torch.tensor([box, box] if dims == 2 else [[box] * 4] * 2))
        self.target = on(torch.tensor([1, 3]))


m = mg.measures
CURVES = ("deletion", "insertion", "combined", "afoc", "aopc", "n_morf", "n_lerf", "drop_increase", "average_drop")
# Name -> the measure of some things.
MEASURES = {
    **{name: lambda t, name=name: getattr(m, name)(t.net, t.x, t.heat) for name in CURVES},
    **{
        f"{name}, {baseline}": lambda t, name=name, b=baseline: getattr(m, name)(t.net, t.x, t.heat, 1, baseline=b)
        for name, baseline in [
            ("deletion", "blur"),
            ("insertion", "noise"),
            ("n_morf", "mean"),
            ("average_drop", "blur"),
        ]
    },
    "baseline on the device": lambda t: m.deletion(
        t.net, t.x, t.heat, baseline=t.on(torch.zeros(t.x.shape[1:])), ties="random"
    ),
    "baseline on the CPU": lambda t: m.deletion(
        t.net, t.x, t.heat, baseline=torch.zeros(3, *[1] * (t.x.ndim - 2)), batch_size=1
    ),
    "callable target": lambda t: m.deletion(t.net, t.x, t.heat, lambda outputs: outputs[:, 1].sigmoid(), 4),
    "target on the CPU": lambda t: m.aopc(t.net, t.x, t.heat, torch.tensor([1, 3]), 8, order="lerf"),
    "map on the CPU": lambda t: m.deletion(t.net, t.x, t.heat.cpu()),
    "sic": lambda t: m.sic(t.net, t.x, t.heat, thresholds=(0.1, 0.5), least_probability=0.0),
    "aic": lambda t: m.aic(
        t.net, t.x, t.heat, t.target, thresholds=(0.1, 0.5), least_probability=0.0, monotonous=False
    ),
    "superpixel_removal": lambda t: m.superpixel_removal(t.net, t.x, t.segments, t.scores),
    "superpixel_removal, worst": lambda t: m.superpixel_removal(
        t.net, t.x, t.segments, t.scores, t.target, order="worst", baseline="noise"
    ),
    "lime_agreement": lambda t: m.lime_agreement(t.net, t.x, t.segments, t.scores, n_samples=20),
    "top_k_agreement": lambda t: m.top_k_agreement(t.scores, t.scores.flip(1), 3),
    "delta": lambda t: m.delta(m.n_morf, t.net, t.x, t.heat, t.other[:, None].expand(-1, 2, *t.heat.shape[1:])),
    "pointing_game": lambda t: m.pointing_game(t.heat, t.mask, 1),
    "energy_pointing_game": lambda t: m.energy_pointing_game(t.heat, t.mask),
    "mask_iou": lambda t: m.mask_iou(t.heat, t.mask),
    "bbox_score": lambda t: m.bbox_score(t.heat, t.mask),
    "model_contrast": lambda t: m.model_contrast(t.heat, t.other, t.mask),
    "is_difficult": lambda t: m.is_difficult(t.mask, t.on(torch.tensor([True, False]))),
    "weak_localisation": lambda t: m.weak_localisation(t.heat, t.boxes),
    "weak_localisation, lists": lambda t: m.weak_localisation(t.heat, [t.boxes[:1], t.boxes], "mean"),
    "localisation_error": lambda t: m.localisation_error(m.weak_localisation(t.heat, t.boxes).iou),
    "flicker": lambda t: m.flicker(t.heat),
    "flicker, flow": lambda t: m.flicker(t.heat, t.on(torch.ones(2, 3, 12, 16, 2)), t.on(torch.ones(2, 3, 12, 16) > 0)),
    "region_consistency": lambda t: m.region_consistency(t.segments),
    "region_consistency, flow": lambda t: m.region_consistency(t.segments, t.on(torch.ones(2, 3, 12, 16, 2))),
    "roar": lambda t: m.roar(fitted_mean, *[(t.x, t.target % 2, t.heat)] * 2, shares=(0, 0.3), repeats=2),
    "filter_removal": lambda t: m.filter_removal(t.net, t.x, mg.failures.filter_scores(t.net, t.x), step=3),
    "filter_removal, callable": lambda t: m.filter_removal(
        t.net, t.x, functools.partial(mg.failures.filter_scores, t.net), t.target, order="least", batch_size=1
    ),
    "filter_removal_curves": lambda t: m.filter_removal_curves(
        t.net,
        [(t.x, t.target)],
        lambda x, y: mg.failures.filter_scores(t.net, x, y, ["grad-amap", "random"]),
        step=4,
    ),
    "bootstrap_interval": lambda t: m.bootstrap_interval(t.heat.flatten(1).mean(1), n_resamples=100),
    "wilcoxon_matrix": lambda t: m.wilcoxon_matrix(t.scores[:, :4]),
    "win_matrix": lambda t: m.win_matrix(t.scores[:, :4]),
    "measure_correlations": lambda t: m.measure_correlations(t.scores[:, :4]),
    "krippendorff_alpha": lambda t: m.krippendorff_alpha(t.scores[:, :4]),
}
CLIPS_ONLY = {name for name in MEASURES if name.startswith(("flicker", "region_consistency"))}
IMAGES_ONLY = {"sic", "aic", "is_difficult"}


def fitted_mean(x: Tensor, y: Tensor, seed: int):
    """The nearest of two classes' means."""
    means = torch.stack([x[y == label].mean(0) if (y == label).any() else 9 + x[0] for label in (0, 1)])
    return lambda inputs: -(inputs[:, None] - means).flatten(2).norm(dim=2)


@pytest.mark.filterwarnings("ignore:average_drop. a constant map")
@pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
@pytest.mark.parametrize("name", MEASURES)
def test_measures(name, dims) -> None:
    if (name in CLIPS_ONLY and dims == 2) or (name in IMAGES_ONLY and dims == 3):
        pytest.skip("not for these")
    expected = MEASURES[name](Things(dims=dims))
    with pretended_cuda():
        found = MEASURES[name](Things(moves, dims))
        # What is found about a data set is on the CPU.
        assert_same(found, expected, device=None if name == "filter_removal_curves" or name == "roar" else CUDA)


def test_every_measure_of_a_network_is_tried() -> None:
    tried = " ".join(MEASURES)
    functions = {name for name in m.__all__ if name[0].islower()}
    assert {name for name in functions if name not in tried} == {"other_images"}


# Evaluations.


@KERNELS
@pytest.mark.parametrize("dims", [2, pytest.param(3, marks=pytest.mark.slow)], ids=["images", "clips"])
def test_evaluations(dims, kernels, tmp_path) -> None:
    wanted = {
        **{name: {"steps": 3} for name in ("deletion", "insertion", "combined")},
        **{name: {} for name in ("aopc", "superpixel_removal", "drop_increase", "average_drop", "lime_agreement")},
        **{name: {} for name in ("energy_pointing_game", "mask_iou", "bbox_score", "weak_localisation", "delta")},
        "lime_agreement": {"n_samples": 10},
        "delta": ("delta", {"measure": "n_morf", "k": 2}),
        "pointing_game": {"tolerance": 1},
    }
    wanted = {name: options for name, options in wanted.items() if name.split(".")[0] in mg.evaluate.MEASURES}
    methods, options = ["swag-ig"], {"examples": 1, "baselines": ["noise"]}
    expected = mg.evaluate(tiny_net(dims), samples(2, dims=dims), methods, wanted, tmp_path / "cpu", **options)
    with pretended_cuda(kernels=kernels):
        found = mg.evaluate(tiny_net(dims).cuda(), samples(2, dims=dims), methods, wanted, tmp_path / "cuda", **options)
        assert not len(found.errors()), found.errors()
        one, other = found.frame().drop(columns="seconds"), expected.frame().drop(columns="seconds")
        assert list(one.columns) == list(other.columns)
        assert_same(one.to_dict("list"), other.to_dict("list"), device=None)
        assert found.summary().samples == 2
        found.report()


def test_samples_may_be_on_the_device(tmp_path) -> None:
    expected = mg.evaluate(tiny_net(), samples(2), ["guided"], ["deletion", "mask_iou"], tmp_path / "cpu", examples=0)
    with pretended_cuda():
        data = [dataclasses.replace(each, input=each.input.cuda(), mask=each.mask.cuda()) for each in samples(2)]
        found = mg.evaluate(
            tiny_net().cuda(), data, ["guided"], ["deletion", "mask_iou"], tmp_path / "cuda", examples=0
        )
        assert not len(found.errors()), found.errors()
        one, other = (each.frame()[["deletion", "mask_iou"]].to_dict("list") for each in (found, expected))
        assert_same(one, other)


# Failures.


def statistics(things: Things, batches=None) -> FilterStatistics:
    """On noise, with every class."""
    dims = things.x.ndim - 2
    x, y = batch_for(dims, 40, seed=5), torch.arange(40) % 5
    if batches == "here":
        x, y = things.on(x), things.on(y)
    return FilterStatistics.fit(things.net, list(zip(x.split(7), y.split(7), strict=True)))


LIMITS = {"low": 20, "high": 80, "few": "extreme"}
FAILURES = {
    "filter_scores": lambda t, s: mg.failures.filter_scores(t.net, t.x, t.target, [*mg.failures.FILTER_MEASURES]),
    "filter_scores, logits": lambda t, s: mg.failures.filter_scores(t.net, t.x, output="probability"),
    "surprise": lambda t, s: mg.failures.surprise(t.net, t.x, t.target, s, **LIMITS),
    "surprise, list": lambda t, s: mg.failures.surprise(t.net, t.x, [1, 3], s, **LIMITS),
    "filter_maps": lambda t, s: mg.failures.filter_maps(t.net, t.x, t.on(torch.tensor([1, 2])), s),
    "suppress": lambda t, s: mg.failures.suppress(t.net, t.x, t.target, n_segments=12, removals=(1, 3)),
    "suppress, filters": lambda t, s: mg.failures.suppress(
        t.net,
        t.x,
        [1, 3],
        t.on(torch.tensor([1, 2])),
        n_segments=(6, 12),
        removals=(1, 3),
        baseline="blur",
        guided=True,
    ),
    "through": lambda t, s: mg.SWAG(t.net, "image", ThroughFilter(t.on(torch.tensor([1, 2]))), n_segments=9)(
        t.x, t.target
    ),
    "through, CPU": lambda t, s: mg.SWAG(t.net, "image+gradient", ThroughFilter(torch.tensor([1, 2]), guided=True))(
        t.x, 1
    ),
    "explain": lambda t, s: mg.failures.explain(
        t.net, t.x, t.target, s, search_segments=12, removals=(1, 3), correct="explain", **LIMITS
    ),
}


@KERNELS
@pytest.mark.parametrize("name", FAILURES)
def test_failures(name, kernels) -> None:
    things = Things()
    expected = FAILURES[name](things, statistics(things))
    with pretended_cuda(kernels=kernels):
        things = Things(moves)
        assert_same(FAILURES[name](things, statistics(things)), expected)


@pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
def test_filter_statistics(dims, tmp_path) -> None:
    expected = statistics(Things(dims=dims))
    with pretended_cuda():
        for batches in (None, "here"):
            found = statistics(Things(moves, dims), batches)
            assert torch.equal(found.mean, expected.mean)
            assert torch.equal(found.percentile(20, 1), expected.percentile(20, 1))
            assert found.top_images(0, 2) == expected.top_images(0, 2)
        found.save(tmp_path / "kept")


def test_failure_reports(tmp_path) -> None:
    options = {"n_segments": 9, "search_segments": 12, "removals": (1, 3), **LIMITS}

    def reported(things, folder):
        batches = [(things.x, things.target, ["one", "two"])]
        return mg.failures.report(things.net, batches, statistics(things), folder, **options).samples()

    expected = reported(Things(), tmp_path / "cpu")
    with pretended_cuda():
        found = reported(Things(moves), tmp_path / "cuda")
    assert_same(found.to_dict("list"), expected.to_dict("list"))


def test_data_without_surprises() -> None:
    def cleaned(things):
        data = torch.utils.data.TensorDataset(batch_for(batch=6, seed=8), torch.arange(6) % 5)
        made = mg.failures.without_surprises(data, things.net, statistics(things), n_segments=9, **LIMITS)
        return [made[number][0] for number in range(6)]

    expected = cleaned(Things())
    with pretended_cuda():
        assert_same(cleaned(Things(moves)), expected, device=HERE)


# Streams and clips.


def clip(frames: int = 6) -> np.ndarray:
    picture = seeded(lambda: torch.rand(1, 3, 5, 7), 3)
    big = nn.functional.interpolate(picture, (40, 52 + frames), mode="bicubic")[0].clamp(0, 1)
    drift = [big[:, :, t : t + 52] * (0.8 + 0.2 * np.cos(t)) for t in range(frames)]
    return (torch.stack(drift).movedim(1, -1) * 255).to(torch.uint8).numpy()


def loaded(on=stays) -> LoadedModel:
    return LoadedModel(tiny_net().to(on(torch.zeros(1)).device), PREPROCESS, None, "tiny")


def shown(explained) -> list:
    return [(each.heat, each.segments, each.limits, each.classes, each.target) for each in explained]


STREAMS = {
    **{
        f"images, {method}": lambda on, method=method: shown(
            explain_frames(clip(), ImageStream(loaded(on), method), 3, 1)
        )
        for method in ("swag-ig", "gradcam", "guided", "swag-i")
    },
    "images, one by one": lambda on: shown(explain_frames(clip(), ImageStream(loaded(on), linked=False), None)),
    "images, batches": lambda on: shown(explain_frames(clip(), ImageStream(loaded(on), batch_size=2), 4, 2)),
    "clips": lambda on: shown(
        explain_frames(clip(), mg.explainer("swag-ig", tiny_net(3).to(on(torch.zeros(1)).device)), 4, 2)
    ),
    "windows": lambda on: NetworkWindows(loaded(on), "gradcam")([Frame(clip()[0], 0, 0.0, 0.0)], Settings()),
    "clip windows": lambda on: ClipWindows(mg.explainer("guided", tiny_net(3).to(on(torch.zeros(1)).device)))(
        [Frame(each, i, i / 25, 0.0) for i, each in enumerate(clip(4))], Settings()
    ),
}


@KERNELS
@pytest.mark.parametrize("name", STREAMS)
def test_streams(name, kernels) -> None:
    expected = STREAMS[name](stays)
    with pretended_cuda(kernels=kernels):
        found = STREAMS[name](moves)
        assert_same(found, expected, device=None, tolerance=1e-4)


def test_a_stream_with_its_threads() -> None:
    def drawn(on):
        pixels = []
        explain_stream(clip(), ImageStream(loaded(on)), lambda frame: pixels.append(frame.pixels), 3, 1)
        return pixels

    expected = drawn(stays)
    with pretended_cuda():
        found = drawn(moves)
    assert len(found) == len(expected) == 6
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(found, expected, strict=True))


@KERNELS
@pytest.mark.parametrize("superpixels", ["image", "image+gradient", "gradient"])
def test_linked_frames(superpixels, kernels) -> None:
    x = batch_for(3)
    expected = LinkedFrames(tiny_net(), superpixels, n_segments=30)(x)
    with pretended_cuda(kernels=kernels):
        assert_same(LinkedFrames(tiny_net().cuda(), superpixels, n_segments=30)(x.cuda()), expected)


@KERNELS
@pytest.mark.parametrize("superpixels", ["image+gradient+flow", "flow", "gradient"])
def test_two_streams(superpixels, kernels) -> None:
    x = batch_for(3)
    flow = batch_for(3, channels=2, size=(3, 12, 16), seed=7).movedim(1, -1).contiguous()

    def explained(on, own_flow):
        nets = (net.to(on(x).device) for net in (tiny_net(3), tiny_net(2, channels=6)))
        return TwoStream(*nets, superpixels=superpixels, n_segments=20)(on(x), 2, flow=own_flow)

    expected = explained(stays, flow)
    with pretended_cuda(kernels=kernels):
        assert_same(explained(moves, flow.cuda()), expected)
        assert_same(explained(moves, flow), expected)


def test_two_streams_find_the_flow() -> None:
    pytest.importorskip("cv2")
    x = batch_for(3, size=(4, 32, 32))

    def explained(on):
        nets = (net.to(on(x).device) for net in (tiny_net(3), tiny_net(2, channels=6)))
        return TwoStream(*nets, n_segments=20)(on(x), 2)

    expected = explained(stays)
    with pretended_cuda():
        assert_same(explained(moves), expected)
        assert TwoStreamWindows


# Other packages' interfaces.


def gradcams(t: Things):
    from midgrain.compat import gradcam

    targets = [gradcam.ClassifierOutputTarget(1), gradcam.ClassifierOutputSoftmaxTarget(3)]
    names = ["GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "GradCAMElementWise", "EigenCAM"]
    names += ["EigenGradCAM", "AblationCAM", "ScoreCAM", "RandomCAM", "FullGrad"]
    found = {}
    for name in names:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - RandomCAM uses it.
        with getattr(gradcam, name)(model=t.net, target_layers=[t.net[3]]) as cam:
            found[name] = cam(input_tensor=t.x, targets=targets), cam(input_tensor=t.x), cam.outputs
            if name == "GradCAM":
                found["smooth"] = cam(input_tensor=t.x, targets=targets, aug_smooth=True, eigen_smooth=True)
    made = gradcam.GuidedBackpropReLUModel(model=t.net, device=t.x.device)
    found["guided"] = made(t.x[:1], target_category=2), made(t.x[:1].cpu())
    return found


def torchcams(t: Things):
    from midgrain.compat import torchcam

    found = {}
    for name in ("GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM", "HiResCAM", "ScoreCAM", "AblationCAM", "JitterCAM"):
        with getattr(torchcam, name)(t.net, "3") as extractor:
            out = t.net(t.x)
            found[name] = extractor([1, 3], out), extractor.fuse_cams(extractor(t.target.tolist(), t.net(t.x)))
    return found


def captums(t: Things):
    from midgrain.compat import captum

    segments = t.segments[:1, None].long()
    torch.manual_seed(0)
    gradients = captum.IntegratedGradients(t.net)
    return {
        "saliency": captum.Saliency(t.net).attribute(t.x, target=t.target),
        "product": captum.InputXGradient(t.net).attribute(t.x, target=1),
        "integrated": gradients.attribute(t.x, target=1, n_steps=4, return_convergence_delta=True),
        "baseline": gradients.attribute(t.x, t.on(torch.ones(1, 3, 24, 32)), target=1, n_steps=4),
        "guided": captum.GuidedBackprop(t.net).attribute(t.x, target=t.target),
        "guided cam": captum.GuidedGradCam(t.net, t.net[3]).attribute(t.x, target=1),
        "cam": captum.LayerAttribution.interpolate(
            captum.LayerGradCam(t.net, t.net[3]).attribute(t.x, target=1), (24, 32)
        ),
        "occlusion": captum.Occlusion(t.net).attribute(t.x, (3, 8, 8), strides=(3, 8, 8), target=1),
        "ablation": captum.FeatureAblation(t.net).attribute(t.x, target=1, feature_mask=segments),
        "lime": captum.Lime(t.net).attribute(t.x[:1], target=1, feature_mask=segments, n_samples=12),
        "shap": captum.KernelShap(t.net).attribute(t.x[:1], target=1, feature_mask=segments, n_samples=12),
    }


def limes(t: Things):
    from midgrain.compat.lime import lime_image

    def classify(pictures):
        x = torch.from_numpy(np.ascontiguousarray(pictures)).float().movedim(-1, 1).to(t.x.device)
        return t.net(x).softmax(1).detach().cpu().numpy()

    picture = t.x[0].movedim(0, -1).cpu().numpy().astype(np.float64)
    explainer = lime_image.LimeImageExplainer(random_state=0)
    segments = t.segments[0].cpu().numpy()
    explained = explainer.explain_instance(picture, classify, num_samples=20, segmentation_fn=lambda _: segments)
    return explained.local_exp[explained.top_labels[0]]


def quantus(t: Things):
    from midgrain.compat.quantus import explain_func

    inputs, targets = t.x.cpu().numpy(), t.target.cpu().numpy()
    return [explain_func(t.net, inputs, targets, method=name) for name in ("gradcam", "swag-ig", "vanilla")]


def pipelines(t: Things):
    from midgrain.compat.pipeline import ExplanationPipeline, ExplanationTransformer

    model = LoadedModel(t.net, PREPROCESS, list("abcde"), "tiny")
    pictures = [Image.fromarray(each) for each in clip(2)]
    found = ExplanationPipeline(model, "gradcam", layer="3")(pictures, top_k=2)
    maps = ExplanationTransformer(t.net, "vanilla").fit(t.x.cpu().numpy()).transform(t.x.cpu().numpy())
    return [[(each["index"], each["score"], each["heatmap"]) for each in one] for one in found], maps


WRAPPERS = {each.__name__: each for each in (gradcams, torchcams, captums, limes, quantus, pipelines)}


@pytest.mark.parametrize("name", WRAPPERS)
def test_other_interfaces(name) -> None:
    expected = WRAPPERS[name](Things())
    with pretended_cuda():
        found = WRAPPERS[name](Things(moves))
        assert_same(found, expected, device=CUDA if name in ("torchcams", "captums") else None, tolerance=1e-4)
