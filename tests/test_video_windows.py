"""Which frames are sampled, which windows they are explained in, and which heat each frame gets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import midgrain as mg
from clips_for_tests import numbered_frames, write_video
from midgrain.clips import ClipPreprocess, open_clip
from midgrain.clips.timing import Window
from midgrain.models import LoadedModel
from midgrain.pictures import Preprocess
from midgrain.video import ClipWindows, Frame, ImageStream, NetworkWindows, Settings, open_source
from midgrain.video.adapting import window_explainer
from midgrain.video.limits import ColourLimits
from midgrain.video.sampling import Sampler
from midgrain.video.sliding import MERGES, SlidingWindows
from models_for_tests import one_thread  # noqa: F401
from streams_for_tests import Told, frames_at


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv3d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


def loaded(frames: int = 4, rate: float | None = None) -> LoadedModel:
    preprocess = ClipPreprocess((24, 32), 20, (0.4,) * 3, (0.3,) * 3, frames=frames, rate=rate)
    return LoadedModel(network(), preprocess, ["a", "b", "c", "d", "e"], "tiny")


def sampled(seconds: list[float], rate: float | None, **options) -> list[int]:
    sampler = Sampler(rate, **options)
    taken = [frame.number for each in frames_at(seconds, 1, 1) for frame in sampler.push(each)]
    return taken + [frame.number for frame in sampler.end()]


@pytest.mark.parametrize(("source", "rate"), [(30, 15), (25, 15), (24, 15), (10, 15), (29.97, 7.5), (60, 15), (15, 15)])
def test_samples_are_those_of_open_clip(source, rate) -> None:
    seconds = np.arange(100) / source
    grid = int(seconds[-1] * rate)
    expected = Window(grid, float(rate), position="start").choose(seconds)
    found = sampled(seconds.tolist(), float(rate))
    assert found[:grid] == expected.tolist()
    assert len(found) == math.ceil(100 / source * rate - 1e-6)


@given(st.lists(st.floats(0.001, 0.5), min_size=1, max_size=40), st.sampled_from([2.0, 7.5, 15.0, 30.0]))
def test_at_every_moment_the_frame_that_is_shown_then(gaps, rate) -> None:
    seconds = np.concatenate([[0.0], np.cumsum(gaps)])
    found = sampled(seconds.tolist(), rate)
    moments = np.arange(len(found)) / rate
    shown = np.searchsorted(seconds, moments + 1e-6, side="right") - 1
    assert found == shown.tolist()
    assert moments[-1] <= seconds[-1] + gaps[-1]
    assert (len(found)) / rate >= seconds[-1] + gaps[-1] - 1e-5


def test_live_samples_do_not_wait_for_the_next_frame() -> None:
    sampler = Sampler(15.0, live=True)
    taken = [[frame.number for frame in sampler.push(each)] for each in frames_at(np.arange(7) / 30, 1, 1)]
    assert taken == [[0], [], [2], [], [4], [], [6]]
    assert sampled([0, 0.5, 60.0], 15.0, live=True, most=16).count(2) == 16
    assert sampled([100.0, 100.1], 15.0, live=True) == [0, 1]
    assert sampled([0.0, 3.0], None) == [0, 1]


def windows_of(n: int, window: int, stride: int) -> list[list[int]]:
    """Of samples 0 .. n - 1; the slow way."""
    if n < window:
        return [[*range(n), *[n - 1] * (window - n)]]
    found = [[*range(start, start + window)] for start in range(0, n - window + 1, stride)]
    held = {number for each in found for number in each}
    wanted = {number for number in range(n) if number % stride < window}
    if wanted - held:
        found.append([*range(n - window, n)])
    return found


def expected_heat(n: int, window: int, stride: int, merge: str) -> dict[int, tuple[float, int]]:
    """Per sample the heat and the window that its class is from."""
    per: dict[int, list[tuple[int, int]]] = {}
    windows = windows_of(n, window, stride)
    regular = max(0, (n - window) // stride + 1) if n >= window else 1
    for number, held in enumerate(windows):
        for part, sample in enumerate(held):
            repeated = part > 0 and held[part - 1] == sample
            if repeated or sample % stride >= window or (number >= regular and sample < regular * stride):
                continue
            per.setdefault(sample, []).append((number, part))
    found = {}
    for sample, seen in per.items():
        off = [abs(part - (window - 1) / 2) for _, part in seen]
        central = seen[int(np.argmin(off))]
        chosen = seen[-1] if merge == "latest" else central
        heats = [1000.0 * number + part for number, part in (seen if merge == "mean" else [chosen])]
        found[sample] = float(np.mean(heats)), chosen[0]
    return found


@given(
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 12),
    st.sampled_from(MERGES),
    st.integers(1, 3),
)
def test_every_frame_gets_the_heat_of_its_windows(n, window, stride, merge, batch) -> None:
    told = Told()
    sliding = SlidingWindows(
        lambda windows: [told(each, Settings()) for each in windows], window, stride, merge, ColourLimits(), batch
    )
    frames = frames_at(np.arange(n) / 25)
    done = [each for frame in frames for each in sliding.push(frame, [frame])] + sliding.end()
    assert [each.frame for each in done] == frames
    assert told.windows == windows_of(n, window, stride)
    expected = expected_heat(n, window, stride, merge)
    for each in done:
        nearest = min(expected, key=lambda sample: (abs(sample - each.frame.number), sample))
        heat, number = expected[nearest]
        np.testing.assert_allclose(each.heat, heat, rtol=1e-6)
        assert each.target.index == number


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_frames_between_samples_take_the_nearest(batch) -> None:
    told, sampler = Told(), Sampler(10.0)
    sliding = SlidingWindows(
        lambda windows: [told(each, Settings()) for each in windows], 2, 2, "latest", ColourLimits(), batch
    )
    done = []
    for frame in frames_at(np.arange(13) / 30):
        done += sliding.push(frame, sampler.push(frame))
    done += sliding.push(None, sampler.end()) + sliding.end()
    # Samples are frames 0, 3, 6, 9, 12; the last window holds 9 and 12.
    assert told.windows == [[0, 3], [6, 9], [9, 12]]
    assert [each.heat[0, 0] for each in done] == [
        *[0, 0, 1, 1, 1, 1000, 1000, 1000, 1001, 1001, 1001, 2001, 2001],
    ]


def test_no_window_spans_a_change_of_size() -> None:
    told = Told()
    sliding = SlidingWindows(lambda windows: [told(each, Settings()) for each in windows], 4, 2, "mean", ColourLimits())
    small, large = frames_at(np.arange(7) / 25), frames_at(np.arange(12) / 25, 24, 32)[7:]
    done = [each for frame in small + large for each in sliding.push(frame, [frame])] + sliding.end()
    assert told.windows == [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6], [7, 8, 9, 10], [8, 9, 10, 11]]
    assert [each.frame.number for each in done] == [*range(12)]
    assert [each.region[2] for each in done] == [16.0] * 7 + [32.0] * 5


def test_sizes_that_change_between_samples() -> None:
    told, sampler = Told(), Sampler(5.0)
    sliding = SlidingWindows(lambda windows: [told(each, Settings()) for each in windows], 3, 1, "mean", ColourLimits())
    small, large = frames_at(np.arange(20) / 25, 6, 8), frames_at(np.arange(20) / 25)
    mixed = [large[number] if 6 <= number < 9 or number == 13 else small[number] for number in range(20)]
    done = []
    for frame in mixed:
        done += sliding.push(frame, sampler.push(frame))
    done += sliding.push(None, sampler.end()) + sliding.end()
    assert [each.frame.number for each in done] == [*range(20)]
    assert all(each.region[2] == each.frame.pixels.shape[1] for each in done)


def test_scores_of_different_methods_are_not_averaged() -> None:
    told = Told()
    names = iter(["a", "a", "b", "b"])
    sliding = SlidingWindows(
        lambda windows: [told(each, Settings(method=next(names))) for each in windows], 4, 1, "mean", ColourLimits()
    )
    done = [each for frame in frames_at(np.arange(7)) for each in sliding.push(frame, [frame])] + sliding.end()
    assert [each.method for each in done] == [*"aabbbbb"]
    assert done[1].heat[0, 0] == pytest.approx((1 + 1000) / 2)
    # Frame 3 is in all four windows, in the middle of which the method changes.
    assert done[3].heat[0, 0] == pytest.approx((2000 + 1 + 3000 + 0) / 2)


def test_limits_follow_slowly_or_at_once() -> None:
    cold, hot = np.zeros((2, 2)), np.array([0.0, 10.0])
    slow = ColourLimits("running")
    assert slow.of(hot, 0.0, "m") == (0.0, 10.0)
    low, high = slow.of(cold, 1.0, "m")
    assert (low, high) == pytest.approx((0.0, 10.0 * np.exp(-1)))
    # Two steps of half the time lead as far as one.
    twice = ColourLimits("running")
    twice.of(hot, 0.0, "m")
    twice.of(cold, 0.5, "m")
    assert twice.of(cold, 1.0, "m")[1] == pytest.approx(high)
    assert slow.of(cold + 3, 1.1, "other method") == (3.0, 3.0)
    at_once = ColourLimits("window")
    at_once.of(hot, 0.0, "m")
    assert at_once.of(cold, 0.1, "m") == (0.0, 0.0)
    with pytest.raises(ValueError, match="limits: expected running or window, got 'none'"):
        ColourLimits("none")


def noisy(n: int, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


@pytest.mark.parametrize("rate", [None, 15.0])
def test_windows_are_open_clip_s_to_the_last_bit(tmp_path, rate) -> None:
    path = write_video(tmp_path / "clip.mkv", noisy(40), rate=30)
    window = loaded(8, rate).preprocess
    seen = []

    def explain(x, target):
        seen.append(x)
        return mg.explainer("vanilla", network())(x, target)

    mg.video.explain_stream(str(path), ClipWindows(explain, window), None, 8, 3)
    clips = [open_clip(path, 8, rate=rate, position="start")]
    if rate is None:
        clips = [open_clip(path, 8, position=start) for start in (*range(0, 31, 3), 32)]
    for x, clip in zip(seen, clips, strict=rate is None):
        assert torch.equal(x, window(clip))


def test_each_frame_is_preprocessed_once() -> None:
    counted = []

    class Counting(ClipPreprocess):
        def __call__(self, frames):
            counted.append(len(frames))
            return super().__call__(frames)

    preprocess = Counting((24, 32), 20, (0.4,) * 3, (0.3,) * 3)
    report = mg.video.explain_stream(noisy(12), mg.explainer("vanilla", network()), None, 4, 1, preprocess=preprocess)
    assert report.windows == 9
    assert counted == [1] * 12


@pytest.mark.parametrize("batch_size", [2, 4])
def test_batches_of_windows_say_the_same(batch_size) -> None:
    runs = []
    for size in (1, batch_size):
        shown: list = []
        mg.video.explain_stream(noisy(13), NetworkWindows(loaded()), shown, 4, 2, batch_size=size, draw=False)
        runs.append(shown)
    for one, many in zip(*runs, strict=True):
        assert one.frame.number == many.frame.number
        assert one.target.index == many.target.index
        np.testing.assert_array_equal(one.segments, many.segments)
        np.testing.assert_allclose(one.heat, many.heat, rtol=1e-4, atol=1e-9)


def test_another_stream_has_other_frames_of_the_same_numbers() -> None:
    frames, given = noisy(8), loaded()
    explain, again = NetworkWindows(given), []
    mg.video.explain_stream(frames[::-1].copy(), explain, None, 4, 4)
    mg.video.explain_stream(frames, explain, again, 4, 4, draw=False)
    fresh: list = []
    mg.video.explain_stream(frames, NetworkWindows(given), fresh, 4, 4, draw=False)
    for one, other in zip(again, fresh, strict=True):
        np.testing.assert_array_equal(one.heat, other.heat)


def test_the_heat_is_the_explainer_s() -> None:
    given, window = loaded(), loaded().preprocess
    frames = noisy(8)
    shown: list = []
    explainer = mg.SWAG(given.model, mean=window.mean, std=window.std)
    mg.video.explain_stream(frames, explainer, shown, 4, 4, preprocess=window, draw=False, labels=given.labels)
    for start in (0, 4):
        e = explainer(window(frames[start : start + 4]))
        for part in range(4):
            np.testing.assert_array_equal(shown[start + part].heat, e.heatmap[0, part].numpy())
            np.testing.assert_array_equal(shown[start + part].segments, e.segments[0, part].numpy())
        assert shown[start].target.label == given.labels[int(e.target)]
        assert shown[start].region == window.region((56, 40))
        assert shown[start].method == "swag-ig"
        assert [each.index for each in shown[start].classes] == e.outputs[0].argsort(descending=True).tolist()


@pytest.mark.parametrize("method", ["gradcam", "saliency-tubes", "jittercam", "guided", "swag-g", "gradcam++"])
def test_methods_for_clips(method) -> None:
    shown: list = []
    mg.video.explain_stream(noisy(8, 32, 32), NetworkWindows(loaded(8), method), shown, None, 8, draw=False)
    assert [each.method for each in shown] == [method] * 8
    assert all(each.heat.shape == (20, 20) and np.isfinite(each.heat).all() for each in shown)


def test_settings_change_method_class_and_superpixels() -> None:
    explain = NetworkWindows(loaded())
    frames = frames_at(np.arange(4) / 25, 40, 56)
    assert explain(frames, Settings()).method == "swag-ig"
    changed = explain(frames, Settings(method="gradcam", target=3, n_segments=7))
    assert (changed.method, changed.target.index, changed.segments) == ("gradcam", 3, None)
    few, many = (explain(frames, Settings(n_segments=n)).segments.max() for n in (4, 60))
    assert few < 12 < 30 < many
    # An explainer that was given keeps its other options.
    own = ClipWindows(mg.SWAG(network(), "gradient", scorer="vanilla"), loaded().preprocess)
    assert own(frames, Settings(n_segments=4)).method == "swag-g"
    assert own(frames, Settings(method="gradcam")).method == "gradcam"
    with pytest.raises(ValueError, match="name: expected one of"):
        explain(frames, Settings(method="no such"))
    with pytest.raises(ValueError, match="method: expected None for an explainer of one's own, got 'gradcam'"):
        ClipWindows(lambda x, target: None, loaded().preprocess)(frames, Settings(method="gradcam"))


def test_pictures_go_one_by_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    preprocess = Preprocess(24, 20, (0.4,) * 3, (0.3,) * 3)
    given = LoadedModel(net, preprocess, None, "tiny")
    frames, shown = noisy(5), []
    report = mg.video.explain_stream(frames, NetworkWindows(given), shown, None, draw=False)
    assert report.windows == 5
    explainer = mg.explainer("swag-ig", net, mean=preprocess.mean, std=preprocess.std)
    for number, each in enumerate(shown):
        e = explainer(preprocess.of_array(frames[number]))
        np.testing.assert_allclose(each.heat, e.heatmap[0].numpy(), rtol=1e-5, atol=1e-9)
        assert each.target.index == int(e.target)
    usual = window_explainer(mg.SWAG(net), 1)
    assert isinstance(usual.preprocess, Preprocess)
    assert usual([*frames_at([0.0], 40, 56)], Settings()).heat.shape == (1, 224, 224)


def test_how_explainers_are_told_apart() -> None:
    picture = LoadedModel(nn.Conv2d(3, 4, 3), Preprocess(24, 20, (0.4,) * 3, (0.3,) * 3), None, "tiny")
    assert isinstance(window_explainer(picture, 4), ImageStream)
    assert isinstance(window_explainer(picture, 4, target=lambda outputs: outputs.flatten(1).sum(1)), NetworkWindows)
    assert isinstance(window_explainer(loaded(), 4), NetworkWindows)
    assert isinstance(window_explainer(mg.SWAG(network()), 4), ClipWindows)
    told = Told()
    assert window_explainer(told, 4) is told

    def own(x, target):
        return mg.explainer("vanilla", network())(x, target)

    wrapped = window_explainer(own, 4, labels=["zero"])
    assert isinstance(wrapped, ClipWindows)
    assert wrapped.preprocess.crop == 112
    assert wrapped.rate is None
    for wrong, message in (
        ("gradcam", "explainer: expected an explainer, a loaded network or a callable, got str"),
        (network(), "explainer: expected an explainer, got a network"),
    ):
        with pytest.raises(TypeError, match=message):
            window_explainer(wrong, 4)
    with pytest.raises(TypeError, match="labels: expected None for a WindowExplainer"):
        window_explainer(told, 4, labels=["a"])


def test_a_callable_preprocessing_shows_whole_frames() -> None:
    def halves(frames):
        return torch.from_numpy(frames[:, ::2, ::2].copy()).movedim(-1, 0)[None].float() / 255

    window = ClipWindows(mg.explainer("vanilla", network()), halves)(frames_at(np.arange(3), 40, 56), Settings())
    assert window.heat.shape == (3, 20, 28)
    assert window.region == (0.0, 0.0, 56.0, 40.0)


def test_regions_are_what_the_network_sees() -> None:
    # A white square exactly in the region fills the network's input, whatever the sizes.
    for preprocess in (
        ClipPreprocess((24, 32), 20, (0.0,) * 3, (1.0,) * 3),
        ClipPreprocess(24, (20, 16), (0.0,) * 3, (1.0,) * 3),
    ):
        size = (96, 72)
        x0, y0, x1, y1 = preprocess.region(size)
        frame = np.zeros((1, size[1], size[0], 3), np.uint8)
        frame[:, round(y0) : round(y1), round(x0) : round(x1)] = 255
        assert preprocess.cropped(frame).min() == 255
        box = np.array([[x0, y0, x1, y1]])
        h, w = preprocess.cropped(frame).shape[1:3]
        np.testing.assert_allclose(preprocess.placed(box, size), [[0, 0, w, h]], atol=1e-9)
    picture = Preprocess(24, 20, (0.0,) * 3, (1.0,) * 3)
    np.testing.assert_allclose(picture.placed(np.array([picture.region((96, 72))]), (96, 72)), [[0, 0, 20, 20]])


@pytest.mark.parametrize("heat", [np.zeros((3, 2, 2), np.float32), np.zeros((4, 2), np.float32)])
def test_heat_of_a_wrong_shape_is_refused(heat) -> None:
    from midgrain.video import HeatWindow

    def explain(frames: list[Frame], settings: Settings) -> HeatWindow:
        return HeatWindow(tuple(frame.number for frame in frames), heat, (0.0, 0.0, 1.0, 1.0))

    with pytest.raises(ValueError, match=r"explainer: expected heat \[4, h, w\] for 4 frames"):
        mg.video.explain_stream(noisy(6), explain, None, 4)


def test_a_source_without_a_rate_is_not_sampled(tmp_path) -> None:
    explain = NetworkWindows(loaded(4, rate=15.0))
    assert mg.video.explain_stream(noisy(8), explain, None, None, 4).windows == 2
    assert mg.video.explain_stream(open_source(noisy(8), rate=30), explain, None, None, 4).windows == 1
    path = write_video(tmp_path / "clip.mp4", numbered_frames(8), codec="libx264", rate=30)
    assert mg.video.explain_stream(path, explain, None, None, 4).windows == 1
