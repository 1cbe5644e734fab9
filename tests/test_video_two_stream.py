"""Two-stream networks: equal to their parts done by hand, and right where appearance and motion are known."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import midgrain as mg
from midgrain.clips import ClipPreprocess
from midgrain.pictures import Preprocess
from midgrain.video import Frame, Settings, TwoStream, TwoStreamWindows, optical_flow
from models_for_tests import batch_for, relative_deviation, seeded, tiny_net
from models_for_tests import one_thread as one_thread

T, SIDE = 5, 32
MEAN, STD = (0.4,) * 3, (0.25,) * 3


def flow_for(x: torch.Tensor, seed: int = 5) -> torch.Tensor:
    """Smooth random flow [B, T - 1, H, W, 2]."""
    fields = batch_for(3, len(x), channels=2, size=(x.shape[2] - 1, *x.shape[3:]), seed=seed)
    return 2 * fields.movedim(1, -1).contiguous()


def clips(batch: int = 2) -> torch.Tensor:
    return batch_for(3, batch, size=(T, 20, 24))


def textured(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A picture with something to follow, in 0 .. 255."""
    coarse = torch.from_numpy(random.random((1, 1, height // 4 + 2, width // 4 + 2)))
    return 255 * nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0, 0].clamp(0, 1).numpy()


@pytest.mark.parametrize("superpixels", ["image+gradient+flow", "flow", "image+flow", "gradient"])
def test_two_streams_are_their_parts_done_by_hand(superpixels) -> None:
    rgb_net, flow_net, x = tiny_net(3), tiny_net(2, channels=2 * (T - 1)), clips()
    flow = flow_for(x)
    e = TwoStream(rgb_net, flow_net, superpixels=superpixels, n_segments=25, flow_compactness=0.7, mean=MEAN, std=STD)(
        x, 3, flow=flow
    )
    with torch.no_grad():
        stack = torch.stack([flow[:, k, ..., axis] for k in range(T - 1) for axis in (0, 1)], 1) / 20
        probabilities = (rgb_net(x).softmax(1) + flow_net(stack).softmax(1)) / 2
    assert torch.allclose(e.probabilities, probabilities, atol=1e-6)
    appearance = mg.explainer("guided", rgb_net, mean=MEAN, std=STD)(x, 3).heatmap
    leaf = stack.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(flow_net(leaf)[:, 3].sum(), leaf)
    moving = [gradient[:, 2 * k : 2 * k + 2].abs().amax(1) for k in range(T - 1)]
    vanilla = TwoStream(
        rgb_net, flow_net, superpixels=superpixels, flow_scorer="vanilla", n_segments=25, flow_compactness=0.7,
        mean=MEAN, std=STD,
    )(x, 3, flow=flow)  # fmt: skip
    moving = torch.stack([*moving, moving[-1]], 1)
    pictures = (x * 0.25 + 0.4).clamp(0, 1)
    for i in range(2):
        features, weights, ranges = [], [], []
        if "image" in superpixels:
            features += list(mg.ops.rgb_to_lab(pictures[i : i + 1])[0])
            weights += [20.0] * 3
            ranges += mg.ops.LAB_RANGES
        if "gradient" in superpixels:
            for each in (appearance[i], moving[i]):
                features.append((each - each.min()) / (each.max() - each.min()) * 100)
            weights += [9.0] * 2
            ranges += [(0.0, 100.0)] * 2
        if "flow" in superpixels:
            for axis in (0, 1):
                moves = torch.cat([flow[i, ..., axis], flow[i, -1:, ..., axis]])
                features.append(moves)
                weights.append(0.7)
                ranges.append((float(moves.min()), float(moves.max())))
        labels, counts = mg.ops.slic(torch.stack(features)[None], weights, 25, ranges=ranges)
        assert torch.equal(vanilla.segments[i], labels[0])
        for explanation, maps in ((vanilla.rgb, appearance[i]), (vanilla.flow, moving[i])):
            assert int(explanation.counts[i]) == int(counts[0])
            for region in range(int(counts[0])):
                mean = maps[labels[0] == region].mean()
                assert torch.allclose(explanation.scores[i, region], mean, rtol=1e-4, atol=1e-7)
                assert (explanation.heatmap[i][labels[0] == region] == explanation.scores[i, region]).all()
    assert (e.rgb.method, e.flow.method) == ("two-stream-rgb", "two-stream-flow")
    assert e.flow.target.tolist() == e.rgb.target.tolist() == [3, 3]
    assert torch.equal(e.motion, flow)


def test_without_a_target_both_explain_the_class_of_the_averaged_probabilities() -> None:
    rgb_net, flow_net, x = tiny_net(3), seeded(lambda: tiny_net(2, channels=2 * (T - 1))), clips(6)
    with torch.no_grad():
        flow_net[-1].weight.normal_(generator=torch.Generator().manual_seed(2))
    flow = flow_for(x) * 20
    explain = TwoStream(rgb_net, flow_net, n_segments=20)
    e = explain(x, flow=flow)
    own = [explanation.outputs.argmax(1) for explanation in (e.rgb, e.flow)]
    fused = e.probabilities.argmax(1)
    assert not torch.equal(own[0], own[1])
    assert torch.equal(e.rgb.target, fused)
    assert torch.equal(e.flow.target, fused)
    given = explain(x, fused, flow=flow)
    for stream in ("rgb", "flow"):
        assert relative_deviation(getattr(e, stream).heatmap, getattr(given, stream).heatmap) < 1e-5
    apart = explain(x, 1, 2, flow=flow)
    assert (apart.rgb.target.tolist(), apart.flow.target.tolist()) == ([1] * 6, [2] * 6)


def test_networks_of_different_classes_each_explain_their_own() -> None:
    x = clips()
    e = TwoStream(tiny_net(3, classes=5), tiny_net(2, channels=2 * (T - 1), classes=3), n_segments=20)(
        x, flow=flow_for(x)
    )
    assert e.probabilities is None
    assert torch.equal(e.rgb.target, e.rgb.outputs.argmax(1))
    assert torch.equal(e.flow.target, e.flow.outputs.argmax(1))


def test_flow_networks_for_clips_and_frames_for_images() -> None:
    flow_net, image_net, x = tiny_net(3, channels=2), tiny_net(2), clips()
    flow = flow_for(x)
    e = TwoStream(
        image_net, flow_net, rgb_input="frames", flow_input="clip", flow_limit=None, scorer="vanilla", n_segments=20
    )(x, 1, flow=flow)
    volume = flow.movedim(-1, 1).contiguous()
    with torch.no_grad():
        assert torch.allclose(e.flow.outputs, flow_net(volume), atol=1e-6)
        frames = torch.stack([image_net(x[:, :, t]) for t in range(T)], 1)
        assert torch.allclose(e.rgb.outputs, frames.mean(1), atol=1e-6)
    maps = mg.explainer("vanilla", flow_net)(volume, 1).heatmap
    maps = torch.cat([maps, maps[:, -1:]], 1)
    pooled = mg.pool(maps[0], e.segments[0])
    assert torch.allclose(e.flow.scores[0, : len(pooled)], pooled, rtol=1e-4)
    single = torch.stack([mg.explainer("vanilla", image_net)(x[:, :, t], 1).heatmap for t in range(T)], 1) / T
    pooled = mg.pool(single[0], e.segments[0])
    assert torch.allclose(e.rgb.scores[0, : len(pooled)], pooled, rtol=1e-4)


def test_shorter_stacks_follow_each_other() -> None:
    net, x = tiny_net(2, channels=6), clips(1)
    flow = flow_for(x)  # Four flows: stacks 0 .. 2 and 1 .. 3.
    e = TwoStream(tiny_net(3), net, stack=3, scorer="vanilla", n_segments=20)(x, 1, flow=flow)
    stacked = (flow.movedim(-1, 2) / 20).flatten(1, 2)
    with torch.no_grad():
        outputs = (net(stacked[:, :6]) + net(stacked[:, 2:])) / 2
    assert torch.allclose(e.flow.outputs, outputs, atol=1e-6)
    with pytest.raises(ValueError, match="stack: expected up to 4 flows"):
        TwoStream(tiny_net(3), net, stack=5)(x, 1, flow=flow)


def test_fast_motion_is_cut_for_the_network_alone() -> None:
    x = clips(1)
    flow = flow_for(x)
    flow[0, 0, 0, 0, 0] = 500.0
    cut = flow.clamp(-20, 20)
    explain = TwoStream(tiny_net(3), tiny_net(2, channels=2 * (T - 1)), superpixels="image", n_segments=20)
    assert torch.equal(explain(x, 1, flow=flow).flow.heatmap, explain(x, 1, flow=cut).flow.heatmap)
    assert float(explain(x, 1, flow=flow).motion.max()) == 500.0


def moving_squares(
    count: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clips with a still coloured square and a moving grey one: red and to the right, or blue and to the left.

    Returns:
        Pictures in 0 .. 1 [n, 3, T, H, W], flow, classes, masks of the coloured and of the moving square [n, T, H, W].
    """
    random = np.random.default_rng(seed)
    classes = random.integers(2, size=count)
    x = np.empty((count, 3, T, SIDE, SIDE), np.float32)
    flow = np.zeros((count, T - 1, SIDE, SIDE, 2), np.float32)
    still, moving = (np.zeros((count, T, SIDE, SIDE), bool) for _ in range(2))
    for i, label in enumerate(classes):
        scene = np.repeat(textured(random, SIDE, SIDE)[None] / 255 * 0.5 + 0.2, 3, 0)
        up = bool(random.integers(2))
        row, mover = (2, 20) if up else (20, 2)
        place = int(random.integers(0, SIDE - 10))
        scene[:, row : row + 10, place : place + 10] = 0.1
        scene[2 if label else 0, row : row + 10, place : place + 10] = 0.9
        still[i, :, row : row + 10, place : place + 10] = True
        step = -1 if label else 1
        start = int(random.integers(T, SIDE - 10 - T))
        for t in range(T):
            left = start + step * t
            x[i, :, t] = scene
            x[i, :, t, mover : mover + 10, left : left + 10] = 0.5
            moving[i, t, mover : mover + 10, left : left + 10] = True
            if t < T - 1:
                flow[i, t, mover : mover + 10, left : left + 10, 0] = step
    return (
        torch.from_numpy(x),
        torch.from_numpy(flow),
        torch.from_numpy(classes),
        *map(torch.from_numpy, (still, moving)),
    )


def fitted(net: nn.Module, inputs: torch.Tensor, classes: torch.Tensor, steps: int) -> nn.Module:
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    random = torch.Generator().manual_seed(0)
    net.train()
    for _ in range(steps):
        rows = torch.randint(len(classes), (16,), generator=random)
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(inputs[rows]), classes[rows]).backward()
        optimiser.step()
    return net.eval()


def test_appearance_and_motion_are_told_apart() -> None:
    def build() -> tuple[nn.Module, nn.Module]:
        rgb = nn.Sequential(
            nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2)), nn.ReLU(), nn.Conv3d(8, 8, (1, 3, 3)), nn.ReLU(),
            nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip
        flow = nn.Sequential(
            nn.Conv2d(2 * (T - 1), 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1),
            nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip
        return rgb, flow

    rgb_net, flow_net = seeded(build)
    x, flow, classes, _, _ = moving_squares(128, 0)
    fitted(rgb_net, (x - 0.4) / 0.25, classes, 60)
    fitted(flow_net, flow.movedim(-1, 2).flatten(1, 2) / 20, classes, 60)
    x, flow, classes, still, moving = moving_squares(12, 1)
    e = TwoStream(rgb_net, flow_net, n_segments=80, mean=MEAN, std=STD)((x - 0.4) / 0.25, flow=flow)
    assert torch.equal(e.rgb.outputs.argmax(1), classes)
    assert torch.equal(e.flow.outputs.argmax(1), classes)
    energy = {
        (stream, name): float(mg.measures.energy_pointing_game(getattr(e, stream).heatmap, mask).mean())
        for stream in ("rgb", "flow")
        for name, mask in (("still", still), ("moving", moving))
    }
    # The coloured square decides the appearance, the moving one the motion; each covers a tenth of the picture.
    assert energy["rgb", "still"] > 2.5 * energy["rgb", "moving"]
    assert energy["flow", "moving"] > 2.5 * energy["flow", "still"]
    assert energy["rgb", "still"] > 0.3
    assert energy["flow", "moving"] > 0.3


def test_flow_separates_objects_of_one_colour_that_move_apart() -> None:
    random = torch.Generator().manual_seed(0)
    x = 0.02 * torch.randn(1, 3, 4, 48, 48, generator=random)
    flow = torch.zeros(1, 3, 48, 48, 2)
    column = torch.arange(48) + 6 * (torch.arange(48)[:, None] // 7 % 2)
    right = column > 25  # A jagged border.
    flow[:, :, ..., 0] = torch.where(right, 2.0, -2.0)
    nets = tiny_net(3), tiny_net(2, channels=6)

    def purity(superpixels: str) -> float:
        labels = TwoStream(*nets, superpixels=superpixels, n_segments=16)(x, 1, flow=flow).segments[0]
        sides = right.expand(4, -1, -1)
        kept = [max(int((sides & (labels == k)).sum()), int((~sides & (labels == k)).sum())) for k in labels.unique()]
        return sum(kept) / labels.numel()

    assert purity("image+flow") > 0.999
    assert purity("flow") > 0.999
    assert purity("image") < 0.95


def test_optical_flow_follows_what_moves() -> None:
    random = np.random.default_rng(0)
    scene = np.repeat(textured(random, 64, 96)[..., None], 3, -1).astype(np.uint8)
    for dx, dy in ((3, 0), (-2, 1), (0, 4)):
        frames = np.stack([np.roll(scene, (dy * t, dx * t), (0, 1)) for t in range(3)])
        flow = optical_flow(frames)
        assert flow.shape == (2, 64, 96, 2)
        assert np.abs(np.median(flow[:, 12:-12, 12:-12], (1, 2)) - (dx, dy)).max() < 0.25


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: optical_flow(np.zeros((1, 20, 20, 3), np.uint8)), ValueError, "two or more frames"),
        (lambda: optical_flow(np.zeros((2, 20, 20, 3))), TypeError, "frames: expected a uint8 array"),
        (lambda: optical_flow([0]), TypeError, "frames: expected a uint8 array"),
        (lambda: optical_flow(np.zeros((2, 8, 20, 3), np.uint8)), ValueError, "12 x 12 pixels or more"),
        (lambda: optical_flow(np.zeros((2, 20, 20, 3), np.uint8), "slow"), ValueError, "preset: expected one of"),
    ],
)
def test_bad_frames(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()


def test_without_opencv_it_is_told_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ModuleNotFoundError, match=r"flow: OpenCV is not installed; pip install 'midgrain\[flow\]'"):
        optical_flow(np.zeros((2, 20, 20, 3), np.uint8))


def explain_with(**options):
    return TwoStream(tiny_net(3), tiny_net(2, channels=2 * (T - 1)), **options)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: explain_with(rgb_input="frame"), ValueError, "rgb_input: expected clip or frames, got 'frame'"),
        (lambda x: explain_with(flow_input="both"), ValueError, "flow_input: expected stack or clip"),
        (lambda x: explain_with(stack=0), ValueError, "stack: expected 1 or more"),
        (lambda x: explain_with(flow=3), TypeError, "flow: expected a function of frames, got int"),
        (lambda x: explain_with(flow_limit=0), ValueError, "flow_limit: expected a positive"),
        (lambda x: explain_with(superpixels="image+motion"), ValueError, "superpixels: expected some of"),
        (lambda x: explain_with(superpixels="image+image"), ValueError, "superpixels: expected some of"),
        (lambda x: explain_with(superpixels=3), TypeError, "superpixels: expected a text"),
        (lambda x: explain_with(reduce="most"), ValueError, "reduce: expected one of"),
        (lambda x: explain_with(flow_scorer="gradcam"), ValueError, "flow_scorer: class activation maps of a network"),
        (lambda x: TwoStream(3, 4), TypeError, "model: expected"),
        (lambda x: explain_with()(x[:, :, 0]), ValueError, r"x: expected clips \[B, 3, T, H, W\]"),
        (lambda x: explain_with()(x[:, :, :1]), ValueError, "two frames or more"),
        (lambda x: explain_with()(x, 1, flow=flow_for(x)[:1]), ValueError, "flow: expected one for each of 2 clips"),
        (lambda x: explain_with()(x, 1, flow=flow_for(x)[:, :2]), ValueError, r"flow: expected shape \[4, 20, 24, 2\]"),
        (lambda x: explain_with()(x, 1, flow=flow_for(x).long()), TypeError, "flow: expected floats"),
        (lambda x: explain_with()(x, 1, flow=flow_for(x) * torch.nan), ValueError, "flow: expected finite"),
        (lambda x: explain_with()(x, 9, flow=flow_for(x)), ValueError, "target: expected classes in 0 .. 4, got 9"),
        (lambda x: explain_with(flow=lambda f: np.zeros((1, 2)))(x, 1), ValueError, "flow: expected shape"),
        (lambda x: explain_with(n_segments=10**6)(x, 1, flow=flow_for(x)), ValueError, "n_segments: expected 1"),
        (
            lambda x: TwoStreamWindows(explain_with(), Preprocess(24, 20, MEAN, STD))([], Settings()),
            ValueError,
            "frames: expected two frames or more",
        ),
        (lambda x: TwoStreamWindows(tiny_net(), Preprocess(24, 20, MEAN, STD)), TypeError, "explainer: expected"),
        (lambda x: TwoStreamWindows(explain_with(), None), TypeError, "preprocess: expected a ClipPreprocess"),
        (
            lambda x: TwoStreamWindows(explain_with(), Preprocess(24, 20, MEAN, STD), shown="none"),
            ValueError,
            "shown: expected one of rgb, flow, both",
        ),
    ],
)
def test_bad_input(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call(clips())


@pytest.mark.parametrize(
    "preprocess", [ClipPreprocess(28, 24, MEAN, STD, antialias=True), Preprocess(28, 24, MEAN, STD)]
)
def test_a_stream_equals_the_batch_form_and_makes_flow_once_a_frame(preprocess) -> None:
    random = np.random.default_rng(1)
    scene = np.stack([textured(random, 40, 80) for _ in range(3)], -1).astype(np.uint8)
    frames = [Frame(np.ascontiguousarray(scene[:, 2 * t : 2 * t + 52]), t, t / 25, 0.0) for t in range(9)]
    asked = []

    def flow(pictures):
        asked.append(len(pictures))
        return optical_flow(pictures)

    explainer = TwoStream(tiny_net(3), tiny_net(2, channels=2 * (T - 1)), flow=flow, n_segments=20, mean=MEAN, std=STD)
    windows = TwoStreamWindows(explainer, preprocess, ["ant", "bee"], shown="both")
    for start in range(4):
        asked.clear()
        some = frames[start : start + T]
        both = windows(some, Settings())
        assert asked == ([2] * (T - 1) if start == 0 else [2])
        pixels = np.stack([frame.pixels for frame in some])
        if isinstance(preprocess, ClipPreprocess):
            x = preprocess(pixels)
        else:
            x = torch.cat([preprocess(Image.fromarray(each)) for each in pixels]).movedim(0, 1)[None].contiguous()
        e = explainer(x)
        for name, stream in (("rgb", e.rgb), ("flow", e.flow)):
            shown = windows(some, Settings(method=f"two-stream-{name}"))
            assert np.array_equal(shown.heat, stream.heatmap[0].numpy())
            assert shown.method == f"two-stream-{name}"
        wanted = (e.rgb.normalised() + e.flow.normalised()) / 2
        assert np.array_equal(both.heat, wanted[0].numpy())
        assert np.array_equal(both.segments, e.segments[0].numpy())
        assert both.target.index == int(e.rgb.target[0]) == both.classes[0].index
        assert both.target.probability == pytest.approx(float(e.probabilities.max()), abs=1e-5)
        assert both.region == preprocess.region((52, 40))
    assert windows(some, Settings(target=1, n_segments=5)).target.label == "bee"
    assert windows(some, Settings(target=3)).target.label == "class 3"
    assert windows(some, Settings(n_segments=5)).segments.max() < both.segments.max()
    with pytest.raises(ValueError, match="method: expected one of two-stream-rgb"):
        windows(some, Settings(method="gradcam"))
    with pytest.raises(ValueError, match="frames of one size"):
        windows([frames[0], Frame(scene, 1, 0.0, 0.0)], Settings())
