"""`midgrain evaluate` as a user meets it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from evaluate_for_tests import picture_net, write_pictures
from midgrain.cli.options import options_of_measures
from midgrain.evaluate import Results, options_of
from models_for_tests import one_thread  # noqa: F401

NETWORK = ("--model", "test_evaluate_cli:network", "--size", "32")
METHODS = ("--methods", "vanilla,swag-i", "--no-baselines", "--examples", "1")


def network():
    return picture_net()


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    """Runs the command in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return functools.partial(command, "evaluate")


def test_a_folder_twice(run, tmp_path) -> None:
    write_pictures(tmp_path / "in", 3)
    (tmp_path / "in" / "9.jpg").write_text("broken")
    arguments = (
        "in",
        *NETWORK,
        *METHODS,
        "--measures",
        "deletion",
        "--measure",
        "n_morf",
        "--measure-option",
        "steps=4",
    )
    code, out, err = run(*arguments, "--limit", "2")
    assert (code, err) == (0, "")
    assert "2 samples, 0 left out -> run/report.html" in out
    code, out, err = run(*arguments)
    assert code == 0
    assert all(word in out for word in ("vanilla", "swag-i", "deletion", "n_morf", "(lower)", "seconds"))
    assert "3 samples, 1 left out" in out
    assert err.startswith("midgrain: 1 error(s), the first at 9.jpg, read: picture: ")
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    results = Results("run")
    before = results.frame()
    assert len(before) == 6
    assert results.configuration["configuration"]["measures"]["deletion"]["options"] == {"seed": 0, "steps": 4}
    code, out, _ = run(*arguments, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["samples"] == 3
    assert {row["explainer"] for row in found["table"]} == {"vanilla", "swag-i"}
    assert found["errors"][0]["id"] == "9.jpg"
    assert Results("run").frame().equals(before)


def test_class_folders_and_options_of_methods(run, tmp_path) -> None:
    write_pictures(tmp_path / "in" / "4", 1)
    code, _, err = run(
        "in", *NETWORK, "--methods", "swag-i", "--measures", "deletion", "--n-segments", "9", "-o", "out/here",
        "-O", "compactness=5", "--seed", "7",
    )  # fmt: skip
    assert (code, err) == (0, "")
    frame = Results("out/here").frame()
    assert frame["label"].tolist() == [4] * 4
    assert set(frame["explainer"]) == {"swag-i", "noise", "centre", "random-point"}
    kept = json.loads(Path("out/here/configuration.json").read_text())["configuration"]["explainers"]
    assert kept["noise"]["options"]["seed"] == 7
    assert (kept["swag-i"]["options"]["n_segments"], kept["swag-i"]["options"]["compactness"]) == (9, 5)


def test_a_second_network(run, tmp_path) -> None:
    write_pictures(tmp_path / "in", 2)
    Path("boxes.csv").write_text("path,boxes\nin/0.png,8 8 20 20\nin/1.png,8 8 20 20\n")
    arguments = ("boxes.csv", *NETWORK, "--methods", "vanilla", "--no-baselines", "--measures", "model_contrast")
    code, _, err = run(*arguments, "--measure-option", "scene_model=test_evaluate_cli:network")
    assert (code, err) == (0, "")
    assert Results("run").frame()["model_contrast"].tolist() == [0.0, 0.0]
    code, _, err = run(*arguments, "-o", "other")
    assert code == 2
    assert err.startswith("midgrain: measures: model_contrast needs an option scene_model")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none",), "data: there is no file or folder 'none'"),
        (("in", "--methods", "gradcm"), "method: expected one of"),
        (("in", "--measures", "deletion,iou"), "measures: expected one of"),
        (
            ("in", "--measures", "deletion", "--measure-option", "step=3"),
            "measure-option: 'step' is no option of deletion",
        ),
        (("in", "--measures", "deletion", "--measure-option", "steps"), "option: expected NAME=VALUE"),
        (("in", "--measures", "mask_iou"), "measures: mask_iou need(s) masks or boxes"),
        (("in", "--methods", "vanilla", "-O", "n=3"), "option: 'n' is no option of vanilla"),
        (("in", "--limit", "0"), "limit: expected 1 or more, got 0"),
        (("in", "--target", "best"), "target: expected 'given' or 'predicted'"),
        (("in", "--model", "nonsense"), "model: expected"),
        (("in/0.png",), "dataset: expected a folder or a .csv file"),
        (("broken", "--methods", "vanilla"), "data: no sample could be evaluated; the first, 0.jpg: picture: "),
        (("in", "-o", "in"), "out: expected a new folder or one of an evaluation"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, run, tmp_path) -> None:
    write_pictures(tmp_path / "in", 1)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.jpg").write_text("")
    network_ = () if "--model" in arguments else NETWORK
    code, out, err = run(*arguments, *network_)
    assert code == 2
    assert out == ""
    assert err.startswith(f"midgrain: {said}")
    assert err.count("\n") == 1


def test_options_go_to_the_measures_that_have_them() -> None:
    known = {name: options_of(name) for name in ("deletion", "mask_iou", "drop_increase")}
    assert options_of_measures(["steps=3", "share=0.3", "baseline=blur"], known) == {
        "deletion": {"steps": 3, "baseline": "blur"},
        "mask_iou": {"share": 0.3},
        "drop_increase": {"share": 0.3, "baseline": "blur"},
    }
    with pytest.raises(ValueError, match="'mask' is no option"):
        options_of_measures(["mask=3"], known)
