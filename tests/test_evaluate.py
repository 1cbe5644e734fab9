"""Evaluations: rows equal direct calls, killed runs go on, other configurations and broken samples are noted."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import midgrain as mg
from evaluate_for_tests import EXPLAINERS, MEASURES, SlowNet, evaluate_slowly, samples
from midgrain.evaluate import BASELINES, Results, Sample, evaluate_sample, plan_run
from midgrain.evaluate import evaluate as evaluate_function
from midgrain.evaluate.store import Store
from midgrain.evaluate.work import Record
from midgrain.identity import described, differences, fingerprint
from models_for_tests import one_thread, tiny_net  # noqa: F401

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return tiny_net()


def stripped(frame: pd.DataFrame) -> pd.DataFrame:
    """Without what no two runs share."""
    return frame.drop(columns="seconds").sort_values(["id", "explainer"]).reset_index(drop=True)


def test_the_package_is_the_function() -> None:
    assert callable(mg.evaluate)
    assert mg.evaluate.evaluate is evaluate_function
    assert inspect.signature(mg.evaluate) == inspect.signature(evaluate_function)


def test_rows_are_what_direct_calls_give(net, tmp_path) -> None:
    data = samples(3)
    wanted = {
        "deletion": {"steps": 6},
        "insertion": {"steps": 6},
        "combined": {"steps": 6},
        "blurred": ("deletion", {"baseline": "blur", "steps": 4}),
        "aopc": {"order": "lerf"},
        "n_morf": {"steps": 8},
        "superpixel_removal": {},
        "drop_increase": {},
        "average_drop": {},
        "pointing_game": {"tolerance": 1},
        "energy_pointing_game": {},
        "mask_iou": {},
        "bbox_score": {},
        "weak_localisation": {},
    }
    results = mg.evaluate(net, data, ["vanilla", "swag-i"], wanted, tmp_path / "run", seed=3)
    frame = results.frame()
    assert not len(results.errors())
    assert len(frame) == 3 * (2 + len(BASELINES) + 1)
    assert results.columns["aopc"] == "lower"
    for name in ("vanilla", "swag-i", "noise", "centre"):
        options = {"seed": 3} if name == "noise" else {}
        explainer = mg.explainer(name, net, **options)
        for sample in data:
            ((_, row),) = frame[(frame["id"] == sample.id) & (frame["explainer"] == name)].iterrows()
            x, mask = sample.input[None], sample.mask[None]
            e = explainer(x, sample.target)
            with torch.no_grad():
                probabilities = net(x).softmax(1)[0]
            assert (row["label"], row["target"]) == (sample.target, sample.target)
            assert row["predicted"] == int(probabilities.argmax())
            assert row["probability"] == pytest.approx(float(probabilities[sample.target]))
            m = mg.measures
            both = m.combined(net, x, e.heatmap, sample.target, steps=6)
            expected = {
                "deletion": both.deletion.auc,
                "insertion": both.insertion.auc,
                "combined": both.score,
                "blurred": m.deletion(net, x, e.heatmap, sample.target, steps=4, baseline="blur").auc,
                "aopc": m.aopc(net, x, e.heatmap, sample.target, order="lerf").value,
                "n_morf": m.n_morf(net, x, e.heatmap, sample.target, steps=8).value,
                "n_morf.changed": m.n_morf(net, x, e.heatmap, sample.target, steps=8).changed,
                "drop_increase": m.drop_increase(net, x, e.heatmap, sample.target).drop,
                "drop_increase.increase": m.drop_increase(net, x, e.heatmap, sample.target).increase,
                "pointing_game": m.pointing_game(e.heatmap, mask, 1),
                "mask_iou": m.mask_iou(e.heatmap, mask),
                "bbox_score": m.bbox_score(e.heatmap, mask),
            }
            heat = e.heatmap - e.heatmap.min() if name == "centre" else e.heatmap
            expected["energy_pointing_game"] = m.energy_pointing_game(heat, mask)
            if name == "swag-i":
                expected["superpixel_removal"] = m.superpixel_removal(net, x, e.segments, e.scores, sample.target).value
            else:
                assert np.isnan(row["superpixel_removal"])
            for column, value in expected.items():
                assert row[column] == pytest.approx(float(value), abs=1e-6), (name, column)
            assert np.allclose(row["deletion.curve"], both.deletion.curve[0], atol=1e-6)
            rows, columns = mask[0].any(1).nonzero()[:, 0], mask[0].any(0).nonzero()[:, 0]
            box = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]])
            assert np.allclose(row["weak_localisation.iou"], m.weak_localisation(e.heatmap, box).iou[0], atol=1e-6)
    # Where the same curves are asked for one by one and together they are run and kept once.
    assert "combined.deletion" not in frame.columns
    assert not [column for column in frame.columns if column.startswith("combined.")]
    for name, rows in frame.groupby("explainer"):
        iou = torch.tensor(np.stack(rows["weak_localisation.iou"]))
        assert rows["weak_localisation"].mean() == pytest.approx(mg.measures.localisation_error(iou)), name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        constant = mg.measures.average_drop(net, data[0].input[None], torch.rand(1, 24, 32), 0).constant.drop
    assert frame.loc[frame["id"] == data[0].id, "average_drop.constant"].tolist() == pytest.approx(
        [float(constant)] * 6
    )


def test_curves_that_two_measures_share_are_run_once(net, tmp_path) -> None:
    passed = 0

    def counted(x):
        nonlocal passed
        passed += len(x)
        return net(x)

    counts = []
    for number, wanted in enumerate((["combined"], ["deletion", "insertion", "combined"], ["deletion"])):
        passed = 0
        mg.evaluate(counted, samples(1), {"flat": lambda x, t: x.sum(1)}, wanted, tmp_path / str(number), baselines=())
        counts.append(passed)
    assert counts[0] == counts[1] > counts[2]
    together = Results(tmp_path / "0").frame()
    assert {"combined", "combined.deletion", "combined.insertion", "combined.deletion.curve"} <= set(together.columns)
    for part in ("deletion", "insertion"):
        assert together[f"combined.{part}"][0] == Results(tmp_path / "1").frame()[part][0]


def test_clips_are_judged_where_the_object_is_seen(tmp_path) -> None:
    model, (sample, *_) = tiny_net(3), samples(1, dims=3)
    sample.mask[1] = False
    measures = ["energy_pointing_game", "weak_localisation", "deletion"]
    results = mg.evaluate(model, [sample], ["vanilla"], measures, tmp_path, baselines=())
    heatmap = mg.explainer("vanilla", model)(sample.input[None], 0).heatmap
    seen = [0, 2, 3]
    expected = mg.measures.energy_pointing_game(heatmap[:, seen], sample.mask[None][:, seen]).mean()
    assert results.frame()["energy_pointing_game"][0] == pytest.approx(float(expected))
    boxes = torch.tensor([[[3.0, 2, 12, 9]] * 4])
    boxes[0, 1] = torch.nan
    expected = mg.measures.weak_localisation(heatmap, boxes).iou[0]
    assert np.allclose(results.frame()["weak_localisation.iou"][0], expected)
    assert len(results.examples()) == 1


def test_explainers_of_all_kinds(net, tmp_path) -> None:
    def flat(x: torch.Tensor, target: int) -> torch.Tensor:
        return x.mean(1)

    wanted = {"few": ("swag-i", {"n_segments": 5}), "many": ("swag-i", {"n_segments": 60}), "own": flat}
    wanted |= {"object": mg.SWAG(net, n_segments=5, superpixels="image"), "numpy": lambda x, target: x.mean(1).numpy()}
    frame = mg.evaluate(net, samples(2), wanted, ["deletion"], tmp_path, baselines=["centre"]).frame()
    by_name = {name: rows["deletion"].tolist() for name, rows in frame.groupby("explainer")}
    assert set(by_name) == {*wanted, "centre"}
    assert by_name["few"] == by_name["object"] != by_name["many"]
    assert by_name["own"] == by_name["numpy"]


def test_targets(net, tmp_path) -> None:
    data = samples(3)
    given = mg.evaluate(net, data, ["vanilla"], ["deletion"], tmp_path / "a", baselines=()).frame()
    predicted = mg.evaluate(
        net, data, ["vanilla"], ["deletion"], tmp_path / "b", target="predicted", baselines=()
    ).frame()
    assert given["target"].tolist() == [0, 1, 2]
    assert predicted["target"].tolist() == predicted["predicted"].tolist() == given["predicted"].tolist()
    unlabelled = mg.evaluate(
        net, [s.input for s in data], ["vanilla"], ["deletion"], tmp_path / "c", baselines=()
    ).frame()
    assert unlabelled["label"].isna().all()
    assert unlabelled["deletion"].tolist() == predicted["deletion"].tolist()


def test_forward_passes_of_a_method_that_says_them(net, tmp_path) -> None:
    def explains(x, target):
        return mg.Explanation(x.mean(1), details={"passes": torch.tensor([17])})

    frame = mg.evaluate(net, samples(1), {"own": explains, "vanilla": "vanilla"}, ["deletion"], tmp_path).frame()
    passes = dict(zip(frame["explainer"], frame["passes"], strict=True))
    assert passes["own"] == 17
    assert passes["vanilla"] is pd.NA


@pytest.mark.parametrize("run", [1, 2])
def test_a_killed_run_goes_on(run, tmp_path) -> None:
    """SIGKILL at some moment after `run` samples; nothing is repeated, nothing lost."""
    n, out = 6, tmp_path / "killed"
    command = [sys.executable, str(TESTS / "evaluate_for_tests.py"), str(out), str(n), "0.03"]
    process = subprocess.Popen(command, cwd=TESTS, env={**os.environ, "OMP_NUM_THREADS": "1"})
    journal = out / "journal-00000.jsonl"
    end = time.monotonic() + 300
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= run):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = Results(out).frame()
    assert run <= before["id"].nunique() < n
    evaluate_slowly(str(out), n, 0.0)
    evaluate_slowly(str(tmp_path / "whole"), n, 0.0)
    after, whole = Results(out).frame(), Results(tmp_path / "whole").frame()
    pd.testing.assert_frame_equal(stripped(after), stripped(whole))
    assert len(after) == 2 * n
    pd.testing.assert_frame_equal(after.head(len(before)), before)  # its seconds too: they were not made again
    assert not list(out.glob("journal-*"))


def write(store: Store, *ids: str, compact: bool = True) -> None:
    configuration = {"configuration": {"a": 1}, "columns": {"numbers": {"m": "lower"}, "curves": ["m.curve"]}}
    with contextlib.ExitStack() as stack:
        done = stack.enter_context(store.writing(configuration))
        if not compact:
            stack.callback(kill, store)
        for name in ids:
            if name not in done:
                row = {"id": name, "explainer": "e", "target": 1, "m": 0.1, "m.curve": [1.0, float("nan")]}
                store.add(Record(name, [row], [{"id": name, "stage": "s", "error": "é"}]))


def kill(store: Store) -> None:
    """Nothing is tidied up."""
    store._journal.close()
    store._journal = None


def ids(store: Store) -> list[list[str]]:
    return [store.table(kind)["id"].to_pylist() for kind in ("rows", "errors")]


def test_a_store_that_is_killed_while_it_makes_a_part(tmp_path) -> None:
    write(Store(tmp_path), "a", "b")
    assert (tmp_path / "rows" / "part-00000.parquet").exists()
    write(Store(tmp_path), "b", "c", compact=False)
    (journal,) = tmp_path.glob("journal-*")
    assert journal.name == "journal-00001.jsonl"
    assert ids(Store(tmp_path)) == [["a", "b", "c"]] * 2
    # The errors' part is there, the rows' is half made, the journal still stands.
    for kind in ("errors", "rows"):
        part = tmp_path / kind / "part-00001.parquet"
        part.write_bytes((tmp_path / kind / "part-00000.parquet").read_bytes() if kind == "errors" else b"PAR1 half")
    with journal.open("ab") as file:
        file.write(b'{"id": "d", "rows": [{"id": "d", "expl')  # Killed while it wrote a line.
    assert ids(Store(tmp_path)) == [["a", "b", "c"]] * 2
    write(Store(tmp_path), "c", "d")
    assert ids(Store(tmp_path)) == [["a", "b", "c", "d"]] * 2
    assert not list(tmp_path.glob("journal-*"))
    assert np.isnan(Store(tmp_path).table("rows")["m.curve"].to_pylist()[3][1])


def test_only_one_process_writes(tmp_path) -> None:
    configuration = {"configuration": {}, "columns": {"numbers": {}, "curves": []}}
    with Store(tmp_path).writing(configuration), pytest.raises(ValueError, match=r"^out: another evaluation"):
        Store(tmp_path).writing(configuration).__enter__()


def test_a_finished_run_is_not_repeated(net, tmp_path) -> None:
    calls = []

    def explains(x, target):
        calls.append(target)
        return x.mean(1)

    def run(**options):
        return mg.evaluate(net, samples(3), {"own": explains}, ["deletion"], tmp_path, baselines=(), **options)

    assert run(limit=1).frame()["id"].tolist() == ["sample 0"]
    assert len(run().frame()) == 3
    assert len(calls) == 3
    first = run().frame()
    assert len(calls) == 3
    assert first["seconds"].tolist() == run(examples=0, progress=True).frame()["seconds"].tolist()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"explainers": ["swag-i"]}, "explainers.vanilla is gone"),
        ({"explainers": {"vanilla": ("vanilla", {}), "swag-i": ("swag-i", {"n_segments": 9})}}, "n_segments is new"),
        ({"measures": {"deletion": {"steps": 6}, "pointing_game": {"tolerance": 2}}}, "steps was 5 and is 6"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"target": "predicted"}, "target was given and is predicted"),
        ({"curves": False}, "curves was True and is False"),
        ({"model": tiny_net(classes=6)}, "model was"),
        ({"baselines": ()}, "explainers.noise is gone"),
        ({"mean": (0.5,), "std": (0.5,)}, "mean was None"),
    ],
)
def test_another_configuration_is_refused(changed, said, net, tmp_path) -> None:
    usual = {"model": net, "dataset": samples(1), "explainers": EXPLAINERS, "measures": MEASURES, "out": tmp_path}
    mg.evaluate(**usual)
    before = stripped(Results(tmp_path).frame())
    with pytest.raises(ValueError, match=r"^out: .* holds results of another configuration: ") as error:
        mg.evaluate(**{**usual, **changed})
    assert said in str(error.value)
    pd.testing.assert_frame_equal(stripped(Results(tmp_path).frame()), before)


def test_one_changed_weight_is_another_network(net) -> None:
    other = tiny_net()
    assert fingerprint(net) == fingerprint(other)
    with torch.no_grad():
        other[0].weight[0, 0, 0, 0] += 1e-6
    assert fingerprint(net) != fingerprint(other)
    assert fingerprint(SlowNet(0.0)) == fingerprint(SlowNet(1.0))


def test_descriptions_are_json_and_tell_options_apart(net) -> None:
    few, many = (json.dumps(described(mg.SWAG(net, n_segments=n))) for n in (5, 6))
    assert few != many
    assert few == json.dumps(described(mg.SWAG(net, n_segments=5)))
    value = {"a": (1, 2.5, None), "b": torch.ones(2), "c": np.float32(2), "d": {3, 4}, "e": Path("x"), "f": len}
    assert json.loads(json.dumps(described(value)))["f"] == "builtins.len"
    assert differences({"a": {"b": 1}}, {"a": {"b": 2, "c": 0}}) == ["a.b was 1 and is 2", "a.c is new"]
    assert differences({"a": float("nan")}, {"a": float("nan")}) == []


def test_broken_samples_are_noted_and_skipped(net, tmp_path) -> None:
    good = samples(4)
    x = good[0].input
    broken = [
        Sample("nan", torch.full_like(x, torch.nan), 0),
        Sample("bytes", x.to(torch.uint8), 0),
        Sample("flat", x[0, 0], 0),
        Sample("outside", x, 0, boxes=[[0, 0, 33, 5]]),
        Sample("upside down", x, 0, boxes=[[5, 5, 4, 9]]),
        Sample("nothing", x, 0, mask=torch.zeros(24, 32)),
        Sample("other size", x, 0, mask=torch.ones(24, 31)),
        Sample("class", x, 5),
        Sample("name", x, "cat"),
        Sample("file", "no/such/file.png", 0),
        ("pair", "of", "three"),
    ]
    data = [broken[0], good[0], *broken[1:], *good[1:]]
    results = mg.evaluate(net, data, ["vanilla"], MEASURES, tmp_path, baselines=())
    errors = results.errors()
    assert results.frame()["id"].tolist() == [sample.id for sample in good]
    assert errors["id"].tolist() == [*(sample.id for sample in broken[:-1]), "000011"]
    assert errors["error"].str.match(r"^\w+: ").all(), errors["error"].tolist()
    assert results.summary().samples == 4
    assert results.summary().skipped == len(broken)
    assert dict(zip(errors["id"], errors["stage"], strict=True))["class"] == "model"
    # They are not tried again, and a sample without what a measure needs keeps its other values.
    again = mg.evaluate(net, data, ["vanilla"], MEASURES, tmp_path, baselines=())
    assert len(again.errors()) == len(broken)


def test_a_sample_without_a_mask_keeps_its_other_values(net, tmp_path) -> None:
    data = [samples(1)[0], Sample("bare", samples(2)[1].input, 1)]
    results = mg.evaluate(net, data, ["vanilla"], MEASURES, tmp_path, baselines=())
    frame, errors = results.frame().set_index("id"), results.errors()
    assert np.isfinite(frame.loc["bare", "deletion"])
    assert np.isnan(frame.loc["bare", "pointing_game"])
    assert errors.to_dict("records") == [
        {
            "id": "bare",
            "stage": "vanilla: pointing_game",
            "error": "pointing_game: needs a mask or boxes of the object, and this sample has none",
        }
    ]


def test_an_explainer_that_fails_now_and_then(net, tmp_path) -> None:
    def moody(x, target):
        if target == 1:
            raise RuntimeError("out of\nmemory")
        return x.mean(1)

    results = mg.evaluate(net, samples(3), {"moody": moody, "vanilla": "vanilla"}, ["deletion"], tmp_path, baselines=())
    assert results.errors().to_dict("records") == [
        {"id": "sample 1", "stage": "moody", "error": "RuntimeError: out of memory"}
    ]
    assert len(results.frame()) == 5
    table = results.summary().table.set_index("explainer")
    assert table.loc["moody", "n"] == 2


@pytest.mark.parametrize(
    ("explains", "said"),
    [
        (lambda x, target: x.mean(1)[..., 1:], "expected a heat map of shape [1, 24, 32], got [1, 24, 31]"),
        (lambda x, target: x.mean(1) * float("nan"), "expected finite scores"),
        (lambda x, target: "map", "expected an Explanation or a heat map"),
    ],
)
def test_what_never_works_ends_the_run(explains, said, net, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"^own: failed on each of the first 5 samples: own: ") as error:
        mg.evaluate(net, samples(7), {"own": explains}, ["deletion"], tmp_path)
    assert said in str(error.value)
    # They are not done, so that a better explainer gets them again.
    assert not len(Results(tmp_path).frame())
    frame = mg.evaluate(net, samples(7), {"own": lambda x, target: x.mean(1)}, ["deletion"], tmp_path).frame()
    assert len(frame) == 7 * 4


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"model": 3}, TypeError, "model: "),
        ({"dataset": 3}, TypeError, "dataset: "),
        ({"dataset": []}, ValueError, "dataset: expected at least one"),
        ({"dataset": torch.rand(2, 3, 8, 8)}, TypeError, "dataset: expected several"),
        ({"dataset": "no such folder"}, FileNotFoundError, "dataset: there is no"),
        ({"dataset": [Sample("a", torch.rand(3, 4, 4))] * 2}, ValueError, "dataset: expected every id once, got 'a'"),
        ({"dataset": torch.utils.data.DataLoader([1])}, TypeError, "dataset: expected single samples"),
        ({"explainers": ["gradcm"]}, ValueError, "explainers: expected one of"),
        ({"explainers": {"a": ("swag-i", {"n_segment": 3})}}, ValueError, "explainers: swag-i has no option n_segment"),
        ({"explainers": {"a": ("swag-i", {"n_segments": -3})}}, ValueError, "n_segments: "),
        ({"explainers": []}, ValueError, "explainers: expected at least one"),
        ({"explainers": ["vanilla", "vanilla"]}, ValueError, "explainers: expected each name once"),
        ({"explainers": 3}, TypeError, "explainers: "),
        ({"explainers": {"a": 3}}, TypeError, "explainers: expected a name"),
        ({"measures": ["iou"]}, ValueError, "measures: expected one of deletion"),
        ({"measures": {"deletion": {"step": 3}}}, ValueError, "measures: deletion has no option step; it has"),
        ({"measures": {"deletion": {"model": 3}}}, ValueError, "measures: deletion has no option model"),
        ({"measures": []}, ValueError, "measures: expected at least one"),
        ({"measures": ["aic", "aic"]}, ValueError, "measures: expected each name once"),
        ({"measures": {"a.b": "deletion"}}, ValueError, "measures: expected names without dots"),
        ({"measures": {"seconds": "deletion"}}, ValueError, "measures: expected names without dots and no column's"),
        ({"measures": {"a": 3}}, TypeError, "measures: "),
        ({"measures": 3}, TypeError, "measures: "),
        ({"baselines": ["nois"]}, ValueError, "explainers: expected one of"),
        ({"baselines": "noise"}, TypeError, "baselines: "),
        ({"target": "best"}, ValueError, "target: "),
        ({"seed": -1}, ValueError, "seed: "),
        ({"limit": 0}, ValueError, "limit: "),
        ({"examples": 1.5}, TypeError, "examples: "),
        ({"curves": 1}, TypeError, "curves: "),
        ({"preprocess": 3}, TypeError, "preprocess: "),
        ({"mean": (0.5,)}, ValueError, "mean, std: "),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(options, kind, said, net, tmp_path) -> None:
    out = tmp_path / "out"
    usual = {"model": net, "dataset": samples(1), "explainers": ["vanilla"], "measures": ["deletion"], "out": out}
    with pytest.raises(kind) as error:
        mg.evaluate(**{**usual, **options})
    assert str(error.value).startswith(said)
    assert not out.exists()


def test_folders_that_are_no_results(net, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    for name, said in (("file", "is a file"), ("other", "holds other files")):
        with pytest.raises(ValueError, match=rf"^out: .*{said}"):
            mg.evaluate(net, samples(1), ["vanilla"], ["deletion"], tmp_path / name)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]
    with pytest.raises(FileNotFoundError, match=r"^out: there is no evaluation"):
        Results(tmp_path / "none")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "configuration.json").write_text("{")
    with pytest.raises(ValueError, match=r"^out: .* is no configuration"):
        Results(tmp_path / "bad")


def test_a_missing_package_is_named(net, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'midgrain\[evaluate\]'"):
        mg.evaluate(net, samples(1), ["vanilla"], ["deletion"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_work_on_a_sample_can_be_sent_elsewhere(net, tmp_path) -> None:
    """Sample and plan survive pickling, and the rows are those of a run here."""
    run = plan_run(net, samples(2), ["vanilla", "swag-i"], MEASURES)
    entry, plan = pickle.loads(pickle.dumps((run.data.entries[1], run.plan)))
    record = evaluate_sample(entry, plan)
    here = mg.evaluate(net, samples(2), ["vanilla", "swag-i"], MEASURES, tmp_path).frame()
    expected = here[here["id"] == "sample 1"].drop(columns="seconds")
    assert [row["explainer"] for row in record.rows] == expected["explainer"].tolist()
    for row, (_, wanted) in zip(record.rows, expected.iterrows(), strict=True):
        assert (row["deletion"], row["pointing_game"]) == (wanted["deletion"], wanted["pointing_game"])
    assert Record(**json.loads(json.dumps(vars(record)))) == record


def test_the_network_stays_as_it_was(tmp_path) -> None:
    net = tiny_net().train()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    with torch.inference_mode():
        mg.evaluate(net, samples(2), EXPLAINERS, MEASURES, tmp_path)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in net.parameters())
