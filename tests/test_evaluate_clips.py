"""Videos as data sets: folders, CSV files and torchvision's; masks and boxes follow the frames that are seen."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets, transforms

import midgrain as mg
from clips_for_tests import STEP, numbered_frames, write_video
from midgrain.clips import ClipPreprocess, open_clip
from midgrain.evaluate import Sample, read_dataset
from midgrain.evaluate.samples import ClassNames, prepare
from midgrain.models import LoadedModel
from midgrain.pictures import Preprocess
from models_for_tests import one_thread, tiny_net  # noqa: F401

NAMES = ClassNames(["cat", "dog", "cow", "hen", "pig"])
#: Frames of 48 x 64 become 24 x 32, of which 24 x 24 are seen.
CLIPS = ClipPreprocess((24, 32), 24, (0.5,) * 3, (0.25,) * 3, frames=4, rate=10)
PICTURES = Preprocess(32, 24, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Forty frames, 25 in a second; of four taken at 10 in the middle the numbers are 15, 17, 20, 22."""
    return write_video(tmp_path_factory.mktemp("video") / "forty.mkv", numbered_frames(40))


def entries(dataset, classes=NAMES):
    return list(read_dataset(dataset, classes).entries)


def levels(x: torch.Tensor) -> list[int]:
    """The numbers of the frames in an input [1, 3, T, h, w]."""
    return ((x[0, 0, :, -1, -1] * 0.25 + 0.5) * 255 / STEP).round().int().tolist()


def test_a_folder_of_videos(tmp_path) -> None:
    for name in ("b.mp4", "a.MKV"):
        write_video(tmp_path / name, numbered_frames(12), codec="ffv1" if "MKV" in name else "libx264")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    dataset = read_dataset(tmp_path, NAMES)
    assert [entry.id for entry in dataset.entries] == ["a.MKV", "b.mp4"]
    assert (dataset.length, dataset.located) == (2, False)
    prepared = prepare(next(iter(dataset.entries)).read(), CLIPS, NAMES)
    assert prepared.x.shape == (1, 3, 4, 24, 24)
    assert (prepared.label, prepared.mask, prepared.boxes) == (None, None, None)
    assert torch.equal(prepared.x, CLIPS(open_clip(tmp_path / "a.MKV", 4, rate=10)))
    assert levels(prepared.x) == [0, 2, 5, 7]


def test_class_folders_of_videos_and_mixed_ones(tmp_path) -> None:
    for folder, n in (("dog", 2), ("0", 1)):
        (tmp_path / folder).mkdir()
        for index in range(n):
            write_video(tmp_path / folder / f"{index}.mkv", numbered_frames(3))
    assert [(entry.id, entry.read().target) for entry in entries(tmp_path)] == [
        ("0/0.mkv", "0"),
        ("dog/0.mkv", "dog"),
        ("dog/1.mkv", "dog"),
    ]
    write_video(tmp_path / "other.mkv", numbered_frames(3))
    with pytest.raises(
        ValueError, match=r"^dataset: expected videos or class folders, .* holds both \(other.mkv and 0/\)"
    ):
        entries(tmp_path)
    (tmp_path / "other.mkv").unlink()
    Image.new("RGB", (30, 30)).save(tmp_path / "dog" / "x.png")
    with pytest.raises(ValueError, match=r"^dataset: expected pictures or videos, .* \(dog/x.png and dog/0.mkv\)"):
        entries(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"^dataset: the folder '.*none' holds no pictures \(.*\) or videos \(.*\.mp4"):
        entries(tmp_path / "none")


def test_a_csv_file(video, tmp_path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, frame in enumerate(numbered_frames(12)):
        Image.fromarray(frame).save(frames / f"{number}.png")
    lines = [
        "path,id,label,start,end,source_rate,boxes",
        f"{video},whole,dog,,,,",
        f"{video},part,1,0.4,0.8,,8 8 40 40; 20 0 30 48",
        f'{video},listed,hen,,,,"{{""15"": [[8, 8, 40, 40]], ""20"": [16, 8, 48, 40]}}"',
        "frames,frames,cow,0.2,,5,",
        f"{video},bad,dog,soon,,,",
        f"{video},late,dog,99,,,",
    ]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    found = {entry.id: entry for entry in entries(tmp_path / "data.csv")}
    whole = prepare(found["whole"].read(), CLIPS, NAMES)
    assert (levels(whole.x), whole.label) == ([15, 17, 20, 22], 1)
    part = prepare(found["part"].read(), CLIPS, NAMES)
    assert levels(part.x) == [10, 12, 15, 17]
    assert part.boxes.shape == (2, 4, 4)
    # Half the size, and four columns are cut off.
    assert part.boxes[:, 2].tolist() == [[0, 4, 16, 20], [6, 0, 11, 24]]
    assert part.mask.shape == (1, 4, 24, 24)
    assert part.mask[0, 3].sum() == 16 * 16 + 5 * 24 - 5 * 16
    listed = prepare(found["listed"].read(), CLIPS, NAMES)
    assert listed.boxes[0, [0, 2]].tolist() == [[0, 4, 16, 20], [4, 4, 20, 20]]
    assert listed.boxes[0, [1, 3]].isnan().all()
    assert listed.mask[0].any(2).any(1).tolist() == [True, False, True, False]
    assert levels(prepare(found["frames"].read(), CLIPS, NAMES).x) == [5, 6, 6, 7]
    with pytest.raises(ValueError, match=r"^start: expected a number, got 'soon'"):
        found["bad"].read()
    with pytest.raises(ValueError, match=r"^start: expected seconds before the end \(1.600\), got 99"):
        prepare(found["late"].read(), CLIPS, NAMES)


def test_masks_follow_the_frames_and_the_crop(video, tmp_path) -> None:
    mask = np.zeros((40, 48, 64), bool)
    for number in range(40):
        mask[number, :, number : number + 20] = number % 2
    prepared = prepare(Sample("x", video, mask=mask), CLIPS, NAMES)
    expected = CLIPS.stencil(mask[[15, 17, 20, 22]])
    assert np.array_equal(prepared.mask[0].numpy(), expected)
    assert expected.any((1, 2)).tolist() == [True, True, False, False]
    # Boxes around them, where there are any.
    assert prepared.boxes.shape == (1, 4, 4)
    columns = np.flatnonzero(expected[1].any(0))
    assert prepared.boxes[0, 1].tolist() == [columns[0], 0, columns[-1] + 1, 24]
    assert prepared.boxes[0, 2:].isnan().all()
    folder = tmp_path / "masks"
    folder.mkdir()
    for number, each in enumerate(mask):
        Image.fromarray(each.astype(np.uint8)).save(folder / f"m{number}.png")
    from_files = prepare(Sample("x", video, mask=folder), CLIPS, NAMES)
    assert torch.equal(from_files.mask, prepared.mask)
    Image.fromarray(mask[15].astype(np.uint8)).save(tmp_path / "one.png")
    for single in (tmp_path / "one.png", mask[15], torch.from_numpy(mask[15])):
        same = prepare(Sample("x", video, mask=single), CLIPS, NAMES).mask[0]
        assert all(np.array_equal(each, expected[0]) for each in same.numpy())
    Image.fromarray(mask[15, :20].astype(np.uint8)).save(folder / "m15.png")
    with pytest.raises(ValueError, match=r"^mask: expected \(48, 64\) pixels in 'm15.png', got \(20, 64\)"):
        prepare(Sample("x", video, mask=folder), CLIPS, NAMES)
    (folder / "m3.png").unlink()
    with pytest.raises(ValueError, match=r"^mask: expected a picture for each of 40 frames, got 39"):
        prepare(Sample("x", video, mask=folder), CLIPS, NAMES)


def test_boxes_of_every_frame(video) -> None:
    boxes = np.stack([[n, 4, n + 24, 44] for n in range(40)]).astype(float)
    boxes[20] = np.nan
    found = prepare(Sample("x", video, boxes=boxes[None]), CLIPS, NAMES).boxes
    expected = [[max(0, n / 2 - 4), 2, n / 2 + 12 - 4, 22] for n in (15, 17, 22)]
    assert found[0, [0, 1, 3]].tolist() == expected
    assert found[0, 2].isnan().all()
    two = np.stack([boxes, np.full_like(boxes, np.nan)])
    two[1, 3] = [0, 0, 8, 8]  # Not among the frames that are seen.
    assert len(prepare(Sample("x", video, boxes=two), CLIPS, NAMES).boxes) == 1


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"boxes": [[0, 0, 90, 10]]}, r"boxes: expected x0, y0, x1, y1 inside 64 x 48 pixels"),
        ({"boxes": {"40": [0, 0, 9, 9]}}, r"boxes: expected numbers of frames in 0 .. 39, got '40'"),
        ({"boxes": {"-1": [0, 0, 9, 9]}}, r"boxes: expected numbers of frames in 0 .. 39, got '-1'"),
        ({"boxes": {"3": [0, 0, 9, 9]}}, "boxes: none of the frames that the network sees has one"),
        ({"boxes": {}}, "boxes: none of the frames that the network sees has one"),
        ({"boxes": np.zeros((1, 7, 4))}, r"boxes: expected shape \[n, 40, 4\], got \[1, 7, 4\]"),
        ({"boxes": np.full((1, 40, 4), np.nan)}, "boxes: expected a box in at least one frame for each object"),
        ({"boxes": [[0, 0, 4, 48]]}, "boxes: none of them is in what the network sees"),
        ({"mask": np.ones((3, 48, 64))}, "mask: expected one for each of 40 frames, got 3"),
        ({"mask": np.ones((40, 64))}, r"mask: expected shape \[48, 64\]"),
        ({"mask": np.zeros((48, 64))}, "mask: expected an object, got background only"),
        ({"source_rate": 5}, "source_rate: expected None for a file"),
        ({"start": 0.5, "end": 0.2}, "end: expected seconds after start"),
    ],
)
def test_what_does_not_fit_a_video(known, said, video) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        prepare(Sample("x", video, **known), CLIPS, NAMES)


def test_frames_as_torchvision_gives_them(video) -> None:
    frames = numbered_frames(4)
    expected = CLIPS(frames)
    sound = torch.zeros(1, 0)
    items = [
        (torch.from_numpy(frames), sound, torch.tensor(2)),
        (torch.from_numpy(frames).permute(0, 3, 1, 2), sound, 3),
        (frames, 1),
        frames,
        (CLIPS(frames)[0], sound, 4),
        (open_clip(video, 4, position=0), 0),
    ]
    prepared = [prepare(entry.read(), CLIPS, NAMES) for entry in entries(items)]
    assert [each.label for each in prepared] == [2, 3, 1, None, 4, 0]
    assert all(torch.equal(each.x, expected) for each in prepared)
    for wrong in (np.zeros((3, 3, 5, 3), np.uint8), np.zeros((4, 5, 6, 4), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"^input: expected frames \[T, H, W, 3\] or \[T, 3, H, W\], got shape"):
            prepare(Sample("x", wrong), CLIPS, NAMES)
    with pytest.raises(ValueError, match=r"^start: expected start, end and source_rate for files only"):
        prepare(Sample("x", frames, start=1.0), CLIPS, NAMES)


class Kinetics:
    """Items as `torchvision.datasets.Kinetics.__getitem__` gives them."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int):
        if index == 1:
            raise RuntimeError("a broken file")
        return torch.from_numpy(numbered_frames(4)), torch.zeros(1, 10), index


def test_a_data_set_of_videos_from_end_to_end(tmp_path) -> None:
    """Evaluation crops, explains, measures, draws and writes; broken videos are noted."""
    results = mg.evaluate(
        tiny_net(3), Kinetics(), ["vanilla"], ["deletion"], tmp_path, preprocess=CLIPS, baselines=(), examples=2
    )
    assert results.frame()["label"].tolist() == [0, 2]
    assert results.errors()["error"].tolist() == ["RuntimeError: a broken file"]
    assert len(results.examples()) == 1
    assert results.report().exists()


def test_videos_from_end_to_end(tmp_path) -> None:
    data = tmp_path / "videos"
    data.mkdir()
    for name, n in (("a", 30), ("b", 40)):
        write_video(data / f"{name}.mkv", numbered_frames(n))
    (data / "c.mkv").write_text("broken")
    lines = ["path,label,boxes"] + [
        f"{name}.mkv,{label},8 8 40 40" for name, label in (("a", "dog"), ("b", 3), ("c", 1))
    ]
    (data / "data.csv").write_text("\n".join(lines))
    loaded = LoadedModel(tiny_net(3), CLIPS, ["cat", "dog", "cow", "hen", "pig"], "tiny")
    measures = ["weak_localisation", "pointing_game", "energy_pointing_game", "deletion"]
    results = mg.evaluate(loaded, data / "data.csv", ["gradcam", "swag-ig"], measures, tmp_path / "run", baselines=())
    frame = results.frame()
    assert frame["id"].tolist() == ["a.mkv", "a.mkv", "b.mkv", "b.mkv"]
    assert frame["label"].tolist() == [1, 1, 3, 3]
    assert np.isfinite(frame[measures].to_numpy(float)).all()
    assert [(row["id"], row["stage"]) for row in results.errors().to_dict("records")] == [("c.mkv", "read")]
    described = json.loads((tmp_path / "run" / "configuration.json").read_text())["configuration"]["preprocess"]
    assert (described["frames"], described["rate"], described["resize"]) == (4, 10, [24, 32])
    # The same by hand.
    x = CLIPS(open_clip(data / "b.mkv", 4, rate=10))
    heatmap = mg.explainer("gradcam", loaded.model, mean=CLIPS.mean, std=CLIPS.std)(x, 3).heatmap
    boxes = torch.tensor([[[0.0, 4.0, 16.0, 20.0]] * 4])
    iou = mg.measures.weak_localisation(heatmap, [boxes]).iou[0]
    stored = frame[(frame["id"] == "b.mkv") & (frame["explainer"] == "gradcam")]["weak_localisation.iou"].iloc[0]
    np.testing.assert_allclose(stored, iou.numpy(), rtol=1e-6)


def test_pictures_and_videos_do_not_mix(video, tmp_path) -> None:
    Image.new("RGB", (30, 30)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"^input: the network takes pictures, got the video '.*forty.mkv'"):
        prepare(Sample("x", video), PICTURES, NAMES)
    with pytest.raises(ValueError, match=r"^input: the network takes clips, got the picture '.*x.png'"):
        prepare(Sample("x", tmp_path / "x.png"), CLIPS, NAMES)
    with pytest.raises(ValueError, match=r"^input: the network takes clips, got the picture \(Image\)"):
        prepare(Sample("x", Image.new("RGB", (30, 30))), CLIPS, NAMES)
    with pytest.raises(ValueError, match=r"^preprocess: expected one for videos, got None"):
        prepare(Sample("x", video), None, NAMES)
    with pytest.raises(ValueError, match=r"^end: expected None for a picture, got 3"):
        prepare(Sample("x", tmp_path / "x.png", end=3.0), PICTURES, NAMES)


def test_another_preprocessing(video) -> None:
    def own(frames):
        return torch.from_numpy(frames[:, ::2, ::2]).movedim(-1, 0).float() / 255

    assert prepare(Sample("x", video), own, NAMES).x.shape == (1, 3, 16, 24, 32)
    own.frames, own.rate = 3, 5
    assert prepare(Sample("x", video), own, NAMES).x.shape == (1, 3, 3, 24, 32)
    with pytest.raises(
        ValueError, match=r"^preprocess: expected a midgrain.clips.ClipPreprocess for videos with masks"
    ):
        prepare(Sample("x", video, boxes=[0, 0, 9, 9]), own, NAMES)


def test_boxes_of_frames_without_the_object() -> None:
    """NaN says that a frame does not show it: such frames do not count."""
    heatmap = torch.rand(2, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[2.0, 2, 9, 9], [3, 3, 10, 10], [1, 1, 5, 5], [0, 0, 16, 12]]).expand(2, 4, 4).clone()
    boxes[1, [0, 2]] = torch.nan
    found = mg.measures.weak_localisation(heatmap, boxes)
    # Frames are scaled together, so the others must be there: by hand, from the boxes found.
    for sample, seen in ((0, [0, 1, 2, 3]), (1, [1, 3])):
        mine, true = found.boxes[sample, seen].double(), boxes[sample, seen][:, None].double()
        low, high = torch.maximum(mine[..., :2], true[..., :2]), torch.minimum(mine[..., 2:], true[..., 2:])
        both = (high - low).clamp_min(0).prod(-1)
        areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (mine, true)]
        expected = (both / (areas[0] + areas[1] - both)).mean(0)
        torch.testing.assert_close(found.iou[sample].double(), expected, rtol=1e-5, atol=1e-6)
    boxes[1] = torch.nan
    with pytest.raises(ValueError, match=r"^boxes: expected one in at least one frame for sample 1"):
        mg.measures.weak_localisation(heatmap, boxes)
    with pytest.raises(ValueError, match=r"^boxes: expected x0, y0, x1, y1 inside an image"):
        mg.measures.weak_localisation(heatmap[:, 0], boxes[:, 0])


def test_torchvisions_folder_reads_videos_through_a_loader(tmp_path) -> None:
    """`DatasetFolder` with a loader of ours: paths stay out of the way of its own classes."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "0.mkv", numbered_frames(8))
    folder = datasets.DatasetFolder(
        str(tmp_path), lambda path: open_clip(path, 4).frames, ("mkv",), transforms.Lambda(torch.from_numpy)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [prepare(entry.read(), CLIPS, NAMES) for entry in entries(folder)]
    assert [each.label for each in found] == [0, 1]
    assert levels(found[1].x) == [2, 3, 4, 5]
