"""`midgrain failures` as a user meets it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluate_for_tests import write_pictures
from midgrain.cli.failures_data import LabelledPictures
from midgrain.failures import FailureReport, FilterStatistics
from models_for_tests import one_thread, tiny_net  # noqa: F401

NETWORK = ("--model", "test_failures_cli:network", "--size", "32")
NEAR = ("--low", "20", "--high", "80")


def network():
    return tiny_net()


def other_network():
    return tiny_net(classes=4)


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    """Runs the command in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    return functools.partial(command, "failures")


def write_data(folder: Path, per_class: int, seed: int = 0) -> None:
    """Class folders 0 .. 4 of smooth noise."""
    random = np.random.default_rng(seed)
    for class_ in range(5):
        (folder / str(class_)).mkdir(parents=True)
        for index in range(per_class):
            coarse = random.integers(0, 256, (5, 6, 3), np.uint8)
            Image.fromarray(coarse).resize((48, 40)).save(folder / str(class_) / f"{seed}-{index}.png")


@pytest.fixture
def fitted(run, tmp_path):
    """Training and validation data, and statistics."""
    write_data(tmp_path / "train", 6)
    write_data(tmp_path / "val", 2, seed=1)
    code, out, err = run("fit", "train", "-o", "stats.npz", *NETWORK, "--batch-size", "7")
    assert (code, err) == (0, "")
    assert "30 images of 5 of 5 classes, 8 filters of 3 -> stats.npz" in out
    assert "5 of these classes have fewer than 1000 images" in out
    assert "nearer ones (--low 16.67 --high 83.33) or --few extreme" in out
    return run


def predicted(path: Path) -> int:
    from midgrain.cli.options import load_network
    from midgrain.pictures import open_picture

    loaded = load_network("test_failures_cli:network", "cpu", 32, None, None)
    with torch.no_grad():
        return int(loaded.model(loaded.preprocess(open_picture(path))).argmax())


def test_fit_speaks_json_and_leaves_broken_pictures_out(fitted, tmp_path) -> None:
    stats = FilterStatistics.load("stats.npz")
    assert stats.count.tolist() == [6] * 5
    assert {name for name, _ in stats.top_images(3, 0)} <= {f"3/0-{n}.png" for n in range(6)}
    mean = stats.mean
    code, out, _ = fitted("fit", "train", "-o", "stats.npz", *NETWORK, "--batch-size", "7", "--json")
    assert code == 0
    assert json.loads(out)["fewest_images"] == 6
    assert torch.equal(FilterStatistics.load("stats.npz").mean, mean)
    # A name that statistics of other data have is no reason to keep those.
    code, out, _ = fitted("fit", "val", "-o", "stats.npz", *NETWORK, "--json")
    assert json.loads(out)["fewest_images"] == 2
    assert FilterStatistics.load("stats.npz").count.tolist() == [2] * 5
    assert [path.name for path in Path().glob("*.npz")] == ["stats.npz"]
    (tmp_path / "train" / "4" / "9.png").write_text("broken")
    code, _, err = fitted("fit", "train", "-o", "new.npz", *NETWORK)
    assert code == 0
    assert err.startswith("midgrain: 1 picture(s) left out, the first 4/9.png: picture: ")


def test_a_fit_that_was_stopped_goes_on(run, tmp_path, monkeypatch) -> None:
    write_data(tmp_path / "train", 4)
    whole = ("fit", "train", *NETWORK, "--batch-size", "6")
    assert run(*whole, "-o", "whole.npz")[0] == 0
    read = LabelledPictures._read
    seen = []

    def stopping(self, entry):
        if len(seen) == 13:
            raise KeyboardInterrupt
        seen.append(entry.id)
        return read(self, entry)

    monkeypatch.setattr(LabelledPictures, "_read", stopping)
    assert run(*whole, "-o", "part.npz")[0] == 130
    assert [path.name for path in Path().glob("part*")] == ["part.unfinished.npz"]
    monkeypatch.setattr(LabelledPictures, "_read", read)
    code, out, _ = run(*whole, "-o", "part.npz")
    assert code == 0
    assert "20 images of 5" in out
    first, second = FilterStatistics.load("whole.npz"), FilterStatistics.load("part.npz")
    assert torch.equal(first.mean, second.mean)
    assert first.top_images(2, 1) == second.top_images(2, 1)


def test_report_of_class_folders_and_of_a_csv_file(fitted) -> None:
    arguments = ("report", "val", "--stats", "stats.npz", *NETWORK, *NEAR, "--train", "train")
    code, out, err = fitted(*arguments, "-o", "out", "--limit", "2")
    assert (code, err) == (0, "")
    assert "10 samples, " in out
    assert "-> out/report.html" in out
    found = FailureReport("out")
    assert len(found.samples()) == 10
    assert len(found.failures()) == 2
    for row in found.samples().to_dict("records"):
        assert row["predicted"] == predicted(Path("val") / row["id"])
        assert row["true_class"] == int(row["id"][0])
    page = Path("out/report.html").read_text()
    assert "masked" in page
    code, out, _ = fitted(*arguments, "-o", "out", "--all", "--json")
    said = json.loads(out)
    assert code == 0
    assert said["repairs"]["searched"] == said["errors"] > 2
    lines = [f"val/{c}/1-{n}.png,{c}" for c in range(5) for n in range(2)]
    Path("val.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    code, out, _ = fitted(
        "report", "val.csv", "--stats", "stats.npz", *NETWORK, *NEAR, "-o", "csv", "--no-repair", "--json"
    )
    assert code == 0
    again = json.loads(out)
    assert {name: again[name] for name in ("errors", "spearman")} == {
        name: said[name] for name in ("errors", "spearman")
    }
    assert again["repairs"] is None


def test_fix_draws_wrong_pictures_and_refuses_right_ones(fitted) -> None:
    files = sorted(Path("val").glob("*/*.png"))
    first = predicted(files[0])
    other = str((first + 1) % 5)
    options = ("--stats", "stats.npz", *NETWORK, *NEAR, "--train", "train", "-o", "fixed")
    code, out, err = fitted("fix", str(files[0]), "--class", other, *options)
    assert (code, err) == (0, "")
    assert f"class {other} taken for class {first}, beta" in out
    with Image.open(f"fixed/{files[0].stem}.failure.png") as drawn:
        assert drawn.height == 32
        assert drawn.width > 32
    code, out, _ = fitted("fix", str(files[0]), "--class", other, *options, "--json", "--through", "against")
    (row,) = json.loads(out)
    assert row["class"]["index"] == int(other)
    assert {"beta", "surprising", "missed", "repair", "unfiltered_repair", "output"} <= set(row)
    code, _, err = fitted("fix", str(files[0]), "--class", str(first), *options)
    assert code == 2
    assert err.startswith("midgrain: x: expected wrong predictions, got sample(s) [0] predicted rightly")
    same = [file for file in files if predicted(file) != int(other)][:2]
    right = next((file for file in files if predicted(file) == int(other)), None)
    given = [*same, *([] if right is None else [right]), Path("stats.npz")]
    code, out, err = fitted("fix", *map(str, given), "--class", other, *options)
    assert code == 2
    assert out.count("taken for") == 2
    assert f"{len(given) - 2} of {len(given)} pictures failed" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fit", "none"), "data: there is no file or folder 'none'"),
        (("fit", "in", "-o", "stats.txt"), "output: expected a .npz file"),
        (("fit", "in", *NETWORK), "data: expected a class for every picture, '0.png' has none"),
        (("fit", "in", *NETWORK, "--layer", "9"), ""),
        (("fit", "in", *NETWORK, "--measure", "best"), "measure: expected some of"),
        (("report", "in", "--stats", "none.npz"), "stats: there is no file 'none.npz'"),
        (("report", "in"), ""),
        (("fix", "none.png", "--class", "1", "--stats", "none.npz"), "picture: there is no file"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, arguments, said) -> None:
    write_pictures(tmp_path / "in", 2)
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith("midgrain: " + said)
    assert err.count("\n") == 1


def test_statistics_that_do_not_fit(fitted, tmp_path) -> None:
    usual = ("report", "val", "--stats", "stats.npz")
    for arguments, said in (
        ((*usual, *NETWORK), "q: percentile 0.1 needs 1000 images of a class; there are 6 of class 0"),
        (
            (*usual, "--model", "test_failures_cli:other_network", "--size", "32"),
            "stats: these statistics are of another",
        ),
        ((*usual, *NETWORK, *NEAR, "--train", "val"), "train: no picture"),
        ((*usual, *NETWORK, *NEAR, "--few", "nan"), "few: expected 'error' or 'extreme'"),
    ):
        code, _, err = fitted(*arguments, "-o", f"out-{len(said)}")
        assert code == 2
        assert err.startswith("midgrain: " + said)
    write_data(tmp_path / "seven", 1, seed=2)
    (tmp_path / "seven" / "4").rename(tmp_path / "seven" / "7")
    code, _, err = fitted("report", "seven", "--stats", "stats.npz", *NETWORK, *NEAR, "-o", "seven-out")
    assert code == 2
    assert "got 7" in err
    code, out, _ = fitted(*usual, *NETWORK, "--few", "extreme", "--no-repair", "-o", "extreme")
    assert code == 0
    assert "10 samples" in out
