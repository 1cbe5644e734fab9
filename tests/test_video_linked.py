"""Image networks on clips and in streams: equal to their parts done by hand, and to each other bit for bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import midgrain as mg
from midgrain.clips import ClipPreprocess
from midgrain.models import LoadedModel
from midgrain.pictures import Preprocess
from midgrain.video import Frame, ImageStream, LinkedFrames, Settings
from models_for_tests import batch_for, seeded, tiny_net
from models_for_tests import one_thread as one_thread

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PREPROCESS = Preprocess(30, 24, MEAN, STD)
LOADED = LoadedModel(tiny_net(), PREPROCESS, None, "tiny")
SOURCES = {"linked-i": "image", "linked-ig": "image+gradient", "linked-g": "gradient"}


def clip_for(frames: int = 6, height: int = 40, width: int = 52, seed: int = 3) -> np.ndarray:
    """uint8 [T, H, W, 3]: a smooth random picture that drifts, with a brightness that changes."""

    def build() -> torch.Tensor:
        coarse = torch.rand(1, 3, 5, 7)
        return nn.functional.interpolate(coarse, (height, width + frames), mode="bicubic")[0].clamp(0, 1)

    picture = seeded(build, seed)
    drift = [picture[:, :, t : t + width] * (0.8 + 0.2 * np.cos(t)) for t in range(frames)]
    return (torch.stack(drift).movedim(1, -1) * 255).to(torch.uint8).numpy()


def frames_of(clip: np.ndarray, first: int = 0) -> list[Frame]:
    return [Frame(each, first + i, i / 25, 0.0) for i, each in enumerate(clip)]


def input_of(clip: np.ndarray) -> torch.Tensor:
    """[1, 3, T, 24, 24]."""
    return torch.cat([PREPROCESS(Image.fromarray(each)) for each in clip]).movedim(0, 1)[None].contiguous()


class Counted(nn.Module):
    """Counts the frames that a network sees."""

    def __init__(self, inside: nn.Module):
        super().__init__()
        self.inside, self.frames = inside, 0

    def forward(self, x):
        self.frames += len(x)
        return self.inside(x)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("scorer", ["guided", "vanilla", "gradcam"])
@pytest.mark.parametrize("target", [None, 2])
def test_linked_frames_are_their_parts_done_by_hand(name, scorer, target) -> None:
    model, x = tiny_net(), torch.cat([input_of(clip_for(seed=seed)) for seed in (3, 4)])
    e = LinkedFrames(model, SOURCES[name], scorer, 40, batch_size=1, mean=MEAN, std=STD)(x, target)
    assert e.method == name
    for b in range(2):
        with torch.no_grad():
            logits = torch.cat([model(frame[None]) for frame in x[b].movedim(1, 0)])
        wanted = int(logits.mean(0).argmax()) if target is None else target
        assert int(e.target[b]) == wanted
        assert torch.allclose(e.outputs[b], logits.mean(0), atol=1e-6)
        assert torch.allclose(e.details["frame_outputs"][b], logits, atol=1e-6)
        scorer_alone = mg.explainer(scorer, model, mean=MEAN, std=STD)
        maps = torch.cat([scorer_alone(frame[None], wanted).heatmap for frame in x[b].movedim(1, 0)])
        labels, counts = mg.ops.slic_pictures(
            None if name == "linked-g" else x[b : b + 1],
            40,
            gradient=None if name == "linked-i" else maps[None],
            compactness=20.0,
            gradient_compactness=9.0,
            mean=MEAN,
            std=STD,
        )
        assert int(e.counts[b]) == int(counts[0])
        assert torch.equal(e.segments[b], labels[0])
        for region in range(int(counts[0])):
            score = maps[labels[0] == region].double().mean()
            assert torch.allclose(e.scores[b, region].double(), score, rtol=1e-5, atol=1e-9)
            assert (e.heatmap[b][labels[0] == region] == e.scores[b, region]).all()
    assert e.image.shape == (2, 6, 24, 24, 3)


def test_the_clip_class_is_that_of_the_mean_logits_whatever_single_frames_say() -> None:
    class Brightness(nn.Module):
        def forward(self, x):
            mean = torch.relu(x).mean((1, 2, 3))
            return torch.stack([mean, 2 * mean - 1.0], 1)

    x = torch.zeros(1, 3, 3, 16, 16)
    for t, level in enumerate((0.2, 0.3, 6.0)):
        x[:, :, t] = level
    counted = Counted(Brightness())
    e = LinkedFrames(counted, "image", batch_size=1)(x)
    assert e.details["frame_outputs"][0].argmax(1).tolist() == [0, 0, 1]
    assert e.target.tolist() == [1]
    assert counted.frames == 6  # All were scored again, once the third one turned the class.
    alone = mg.explainer("guided", Brightness())(x[0].movedim(1, 0), 1).heatmap
    assert torch.allclose(e.heatmap[0], alone)


def test_frames_that_agree_cost_one_pass_each() -> None:
    counted = Counted(tiny_net())
    still = batch_for(2, 1)[:, :, None].expand(-1, -1, 5, -1, -1)
    LinkedFrames(counted)(still)
    assert counted.frames == 5


def test_targets_per_clip_and_callables() -> None:
    model, x = tiny_net(), torch.cat([input_of(clip_for(seed=seed)) for seed in (3, 4)])
    explain = LinkedFrames(model, n_segments=30, batch_size=2)
    together = explain(x, [1, 3])
    for b, target in enumerate((1, 3)):
        assert torch.equal(together.heatmap[b], explain(x[b : b + 1], target).heatmap[0])
    assert torch.equal(explain(x, torch.tensor([1, 3])).heatmap, together.heatmap)
    by_callable = explain(x, lambda outputs: outputs[:, 1])
    assert by_callable.target is None
    assert torch.equal(by_callable.heatmap, explain(x, 1).heatmap)


def test_the_default_normalisation_is_that_of_images() -> None:
    x = input_of(clip_for())
    default = LinkedFrames(tiny_net(), "image")(x)
    imagenet = LinkedFrames(tiny_net(), "image", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))(x)
    assert torch.equal(default.image, imagenet.image)
    assert torch.equal(default.segments, imagenet.segments)
    grey = batch_for(2, 4, channels=1).movedim(0, 1)[None]
    assert LinkedFrames(tiny_net(channels=1))(grey).segments.shape == (1, 4, 24, 32)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda e, x: e(x[:, :, 0]), ValueError, r"x: expected clips \[B, 3, T, H, W\]"),
        (lambda e, x: e(x, 5), ValueError, r"target: expected classes in 0 .. 4, got 5"),
        (lambda e, x: e(x, [0, 1]), ValueError, r"target: expected one class per clip \(\[1\]\), got shape \[2\]"),
        (lambda e, x: e(x, [0.5]), TypeError, "target: expected integers"),
        (lambda e, x: e(x, "cat"), TypeError, "target: expected a class, one per clip or a callable"),
        (lambda e, x: e(x.long()), TypeError, "x: expected floats"),
        (lambda e, x: LinkedFrames(e.model, batch_size=0), ValueError, "batch_size: expected 1 or more"),
        (lambda e, x: LinkedFrames(e.model, reduce="most"), ValueError, "reduce: expected one of"),
        (lambda e, x: LinkedFrames(e.model)(x.repeat(1, 2, 1, 1, 1)), ValueError, "1 or 3 channels"),
        (lambda e, x: LinkedFrames(lambda x: (x, x))(x), TypeError, "model: expected it to return a tensor"),
    ],
)
def test_bad_input(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call(LinkedFrames(tiny_net()), input_of(clip_for()))


@pytest.mark.parametrize("method", ["swag-i", "swag-ig", "swag-g"])
def test_a_stream_equals_the_batch_form_bit_for_bit(method) -> None:
    clip = clip_for(12)
    stream = ImageStream(LOADED, method, n_segments=30)
    source = {"swag-i": "image", "swag-ig": "image+gradient", "swag-g": "gradient"}[method]
    batch = LinkedFrames(LOADED.model, source, n_segments=30, batch_size=1, mean=MEAN, std=STD)
    for start in range(8):
        window = stream(frames_of(clip)[start : start + 5], Settings())
        e = batch(input_of(clip[start : start + 5]))
        assert np.array_equal(window.heat, e.heatmap[0].numpy())
        assert np.array_equal(window.segments, e.segments[0].numpy())
        assert window.target.index == int(e.target[0])
        assert window.classes[0].index == int(e.target[0])
        assert window.numbers == tuple(range(start, start + 5))
        assert window.method == method


def test_a_new_frame_costs_one_pass_whatever_is_changed_but_the_class() -> None:
    counted = Counted(tiny_net())
    stream = ImageStream(LoadedModel(counted, PREPROCESS, None, "tiny"))
    frames = frames_of(clip_for(12))
    stream(frames[:5], Settings(target=1))
    assert counted.frames == 5
    stream(frames[1:6], Settings(target=1))
    assert counted.frames == 6
    stream(frames[2:7], Settings(target=1, n_segments=11, alpha=0.1))
    stream(frames[2:7], Settings(target=1, method="swag-g"))
    assert counted.frames == 7
    stream(frames[2:7], Settings(target=2))
    stream(frames[2:7], Settings(target=1))
    assert counted.frames == 12
    stream(frames[3:8], Settings(target=1, method="vanilla"))
    assert counted.frames == 17


def test_changes_in_mid_stream_give_what_a_new_stream_gives() -> None:
    frames = frames_of(clip_for(14))
    stream = ImageStream(LOADED)
    settings = [
        Settings(),
        Settings(target=3),
        Settings(target=3, n_segments=9),
        Settings(method="gradcam", n_segments=9),
        Settings(method="swag-i", target=0),
        Settings(method="vanilla"),
        Settings(),
    ]
    for start, each in enumerate(settings):
        window = stream(frames[start : start + 5], each)
        fresh = ImageStream(LOADED)(frames[start : start + 5], each)
        assert np.array_equal(window.heat, fresh.heat)
        assert (window.segments is None) == (fresh.segments is None)
        assert window.segments is None or np.array_equal(window.segments, fresh.segments)
        assert window.target == fresh.target
        assert window.method == (each.method or "swag-ig")
        if each.n_segments and window.segments is not None:
            assert window.segments.max() + 1 <= 2 * each.n_segments


@pytest.mark.parametrize("method", ["gradcam", "swag-ig", "noise", "occlusion"])
def test_frame_by_frame_is_the_explainer_on_each_frame(method) -> None:
    clip = clip_for(4)
    window = ImageStream(LOADED, method, linked=False)(frames_of(clip), Settings(target=1))
    explain = mg.explainer(method, LOADED.model, mean=MEAN, std=STD)
    for t, frame in enumerate(input_of(clip)[0].movedim(1, 0)):
        alone = explain(frame[None], 1)
        assert np.array_equal(window.heat[t], alone.heatmap[0].numpy())
        assert (window.segments is None) == (alone.segments is None)
        assert alone.segments is None or np.array_equal(window.segments[t], alone.segments[0].numpy())


def test_a_repeated_frame_and_a_number_that_comes_again() -> None:
    counted = Counted(tiny_net())
    stream = ImageStream(LoadedModel(counted, PREPROCESS, None, "tiny"), n_segments=20)
    first, other = frames_of(clip_for(3)), frames_of(clip_for(3, seed=8))
    window = stream([*first, first[-1], first[-1]], Settings(target=1))
    assert counted.frames == 3
    assert window.numbers == (0, 1, 2, 2, 2)
    again = stream(other, Settings(target=1))  # A source that began anew.
    assert np.array_equal(again.heat, ImageStream(LOADED, n_segments=20)(other, Settings(target=1)).heat)


def test_frames_of_another_size_begin_another_window() -> None:
    stream = ImageStream(LOADED, n_segments=20)
    wide, tall = frames_of(clip_for(3)), frames_of(clip_for(3, 70, 35), 3)
    assert stream(wide, Settings()).region == pytest.approx((32 / 3, 4.0, 128 / 3, 36.0))
    assert stream(tall, Settings()).region == pytest.approx((3.5, 21.0, 31.5, 49.0))
    with pytest.raises(ValueError, match=r"frames: expected frames of one size, got \[40, 52, 3\] and \[70, 35, 3\]"):
        stream([*wide, *tall], Settings())


def test_the_region_is_what_the_network_sees() -> None:
    picture = np.zeros((40, 52, 3), np.uint8)
    x0, y0, x1, y1 = PREPROCESS.region((52, 40))
    picture[int(y0) : int(y1), int(x0) : int(x1)] = 255
    seen = np.asarray(PREPROCESS.cropped(Image.fromarray(picture)))
    assert seen[2:-2, 2:-2].min() == 255  # Resizing blurs the edges.
    around = np.full((40, 52, 3), 255, np.uint8)
    around[int(y0) : int(y1), int(x0) : int(x1)] = 0
    assert np.asarray(PREPROCESS.cropped(Image.fromarray(around)))[2:-2, 2:-2].max() == 0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: ImageStream(tiny_net()), TypeError, "loaded: expected a LoadedModel, got Sequential"),
        (
            lambda: ImageStream(LoadedModel(tiny_net(3), ClipPreprocess(30, 24, MEAN, STD), None, "clips")),
            ValueError,
            "loaded: expected a network for images, got one for clips",
        ),
        (lambda: ImageStream(LOADED, "swagg"), ValueError, "method: expected one of"),
        (lambda: ImageStream(LOADED, "gradcam", n_segments=3), TypeError, "n_segments"),
        (lambda: ImageStream(LOADED)([], Settings()), ValueError, "frames: expected at least one frame, got none"),
        (
            lambda: ImageStream(LOADED)(frames_of(clip_for(2)), Settings(target=7)),
            ValueError,
            "expected classes in 0 .. 4",
        ),
        (
            lambda: ImageStream(LOADED)(frames_of(clip_for(2)), Settings(method="x")),
            ValueError,
            "method: expected one of",
        ),
        (
            lambda: ImageStream(LOADED)(frames_of(clip_for(2)), Settings(n_segments=10**6)),
            ValueError,
            "n_segments: expected 1 .. 1152",
        ),
    ],
)
def test_bad_streams(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_class_that_comes_back_is_not_scored_again() -> None:
    class Brightness(nn.Module):
        def forward(self, x):
            mean = torch.relu(x).mean((1, 2, 3))
            return torch.stack([mean, 2 * mean - 0.5], 1)

    counted = Counted(Brightness())
    stream = ImageStream(LoadedModel(counted, Preprocess(24, 24, (0.0,) * 3, (1.0,) * 3), None, "bright"))
    levels = [0, 0, 0, 255, 255, 255, 0, 0, 0, 0]
    frames = frames_of(np.stack([np.full((24, 24, 3), level, np.uint8) for level in levels]))
    targets = [stream(frames[start : start + 4], Settings()).target.index for start in range(7)]
    assert targets == [0, 0, 1, 1, 0, 0, 0]
    # Each frame at most once for either class.
    assert counted.frames <= 2 * len(frames)


def test_frames_may_be_preprocessed_before_and_elsewhere() -> None:
    frames = frames_of(clip_for(6))
    stream, plain = ImageStream(LOADED), ImageStream(LOADED)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(stream.prepare, frames))
    stream.prepare(Frame(frames[2].pixels[::-1].copy(), 2, 0.0, 0.0))  # Another one of this number is not taken for it.
    for start in (0, 2):
        some = frames[start : start + 4]
        assert np.array_equal(stream(some, Settings()).heat, plain(some, Settings()).heat)
