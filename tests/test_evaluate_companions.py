"""Measures that put something beside each explanation: other samples' maps, a second network, LIME."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

import midgrain as mg
from evaluate_for_tests import samples
from midgrain.evaluate import Sample, evaluate_sample, plan_run
from midgrain.evaluate.companions import POOL, OtherSamples
from midgrain.evaluate.datasets import Entry
from midgrain.randomness import seeded_by_text
from models_for_tests import one_thread, tiny_net  # noqa: F401

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
DELTAS = {
    "delta_n_morf": {"k": 2, "steps": 6},
    "delta_aopc": {"k": 2, "order": "lerf"},
    "delta_insertion": {"k": 3, "steps": 4},
}


@pytest.fixture(scope="module", params=[2, 3], ids=["images", "clips"])
def run(request, tmp_path_factory):
    net, data = tiny_net(request.param), samples(5, dims=request.param)
    results = mg.evaluate(net, data, ["vanilla"], DELTAS, tmp_path_factory.mktemp("run"), baselines=["noise"], seed=3)
    assert results.errors().empty
    return net, data, results


def others_of(data, own, k, seed=3):
    """Which samples stand beside one: all of a small data set are in the pool, in their order."""
    rest = [sample for sample in data if sample.id != own]
    return [rest[i] for i in torch.randperm(len(rest), generator=seeded_by_text(own, seed)).tolist()][:k]


@pytest.mark.parametrize("explainer", ["vanilla", "noise"])
def test_deltas_are_those_of_direct_calls(explainer, run) -> None:
    net, data, results = run
    explain = mg.explainer(explainer, net, **({"seed": 3} if explainer == "noise" else {}))
    frame = results.frame().set_index(["id", "explainer"])
    functions = {"delta_n_morf": mg.measures.n_morf, "delta_aopc": mg.measures.aopc}
    functions["delta_insertion"] = mg.measures.insertion
    for sample in data:
        x = sample.input[None]
        own = explain(x, sample.target).heatmap
        for name, options in DELTAS.items():
            options = dict(options)
            beside = others_of(data, sample.id, options.pop("k"))
            maps = torch.stack([explain(each.input[None], each.target).heatmap[0] for each in beside])[None]
            expected = mg.measures.delta(functions[name], net, x, own, maps, sample.target, **options)
            row = frame.loc[(sample.id, explainer)]
            assert row[name] == pytest.approx(float(expected.value), abs=1e-6)
            assert row[f"{name}.own"] == pytest.approx(float(expected.own), abs=1e-6)
            assert row[f"{name}.others"] == pytest.approx(float(expected.others.mean()), abs=1e-6)
    assert results.measures == {"delta_n_morf": "lower", "delta_aopc": "lower", "delta_insertion": "higher"}


def test_deltas_do_not_depend_on_who_came_before(run, tmp_path) -> None:
    net, data, results = run
    plan = plan_run(net, data, ["vanilla"], DELTAS, baselines=["noise"], seed=3)
    entries = list(plan.data.entries)
    backwards = {entry.id: evaluate_sample(entry, plan.plan).rows for entry in reversed(entries)}
    elsewhere = pickle.loads(pickle.dumps(plan.plan))
    assert elsewhere.others._kept == {}
    alone = evaluate_sample(entries[2], elsewhere).rows
    frame = results.frame().set_index(["id", "explainer"])
    for rows in [*backwards.values(), alone]:
        for row in rows:
            kept = frame.loc[(row["id"], row["explainer"])]
            for name in DELTAS:
                assert kept[name] == row[name]


def test_the_pool_is_bounded_and_fixed() -> None:
    made = []

    def explain(entry):
        made.append(entry.id)
        return torch.zeros(2, 2)

    entries = [Entry(f"{i}", lambda: None) for i in range(100)]
    others = OtherSamples(entries, seed=1)
    for entry in entries:
        assert len(others.maps("a", entry.id, 5, explain)) == 5
    assert len(made) == len(set(made)) <= POOL == len(others.pool)
    assert [e.id for e in OtherSamples(entries, 1).pool] == [e.id for e in others.pool]
    assert [e.id for e in OtherSamples(entries, 2).pool] != [e.id for e in others.pool]
    drawn = {tuple(torch.randperm(20, generator=seeded_by_text(f"{i}", 1)).tolist()[:5]) for i in range(50)}
    assert len(drawn) > 40


def test_broken_others_are_passed_over(tmp_path) -> None:
    net, data = tiny_net(), samples(5)
    data[1] = replace(data[1], input=torch.full_like(data[1].input, torch.nan))
    results = mg.evaluate(net, data, ["vanilla"], {"delta_n_morf": {"k": 3, "steps": 3}}, tmp_path, baselines=())
    assert results.errors()["id"].tolist() == [data[1].id]
    assert results.frame()["delta_n_morf"].notna().all()
    few = mg.evaluate(net, data, ["vanilla"], {"delta_n_morf": {"k": 4, "steps": 3}}, tmp_path / "few", baselines=())
    said = few.errors().set_index("stage")["error"]["vanilla: delta_n_morf"]
    assert said.str.contains("k: expected heat maps of 4 other samples, got 3").all()
    assert len(said) == 4
    assert few.frame()["delta_n_morf"].isna().all()


def test_others_of_another_size_are_resized(tmp_path) -> None:
    net = tiny_net()
    data = samples(3)
    data[1] = Sample("small", data[1].input[:, ::2, ::2], 1)
    found = mg.evaluate(net, data, ["vanilla"], {"delta_deletion": {"k": 2, "steps": 3}}, tmp_path, baselines=())
    assert found.errors().empty
    assert found.frame()["delta_deletion"].notna().all()


@pytest.mark.parametrize(
    ("measures", "data", "said"),
    [
        ({"delta_aopc": {"k": 0}}, samples(3), "k: expected 1 .. 19"),
        ({"delta_aopc": {"k": 20}}, samples(3), "k: expected 1 .. 19"),
        ({"delta_aopc": {}}, samples(5), "measures: delta_aopc needs more than k = 5 samples, got 5"),
        ({"delta_aopc": {}}, iter(samples(9)), "measures: delta_aopc needs other samples beside each"),
        ({"model_contrast": {}}, samples(3), "measures: model_contrast needs an option scene_model"),
        ({"model_contrast": {"scene_model": 3}}, samples(3), "measures: model_contrast needs an option scene_model"),
        ({"top_k_agreement": {"k": 3}}, samples(3), "measures: top_k_agreement has no option k"),
    ],
)
def test_bad_input(measures, data, said, tmp_path) -> None:
    with pytest.raises(ValueError, match=said):
        mg.evaluate(tiny_net(), data, ["vanilla"], measures, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_second_network(tmp_path) -> None:
    objects, scenes, data = tiny_net(), tiny_net(classes=3), samples(3)
    explainers = {"vanilla": "vanilla", "own": lambda x, target: x.sum(1)}
    measures = {"model_contrast": {"scene_model": scenes}, "raw": ("model_contrast", {"scene_model": scenes})}
    measures["raw"][1]["normalise"] = False
    results = mg.evaluate(objects, data, explainers, measures, tmp_path, baselines=())
    frame = results.frame().set_index(["id", "explainer"])
    for sample in data:
        first = mg.explainer("vanilla", objects)(sample.input[None], sample.target).heatmap
        second = mg.explainer("vanilla", scenes)(sample.input[None]).heatmap
        for name, normalise in (("model_contrast", True), ("raw", False)):
            expected = mg.measures.model_contrast(first, second, sample.mask[None], normalise)
            assert float(expected) != 0.0
            assert frame.loc[(sample.id, "vanilla")][name] == pytest.approx(float(expected), abs=1e-6)
    assert set(results.errors()["stage"]) == {"own: model_contrast", "own: raw"}
    assert results.errors()["error"].str.contains("expected an explainer given by name").all()
    other = {"model_contrast": {"scene_model": objects}, "raw": measures["raw"]}
    with pytest.raises(ValueError, match="another configuration"):
        mg.evaluate(objects, data, explainers, other, tmp_path, baselines=())


@DIMS
def test_agreement_with_lime(dims, tmp_path) -> None:
    net, data = tiny_net(dims), samples(2, dims=dims)
    results = mg.evaluate(
        net,
        data,
        {"swag": ("swag-i", {"n_segments": 8}), "vanilla": "vanilla"},
        {"top_k_agreement": {"n_samples": 40}},
        tmp_path,
        baselines=(),
    )
    frame = results.frame().set_index(["id", "explainer"])
    assert results.errors().empty
    assert frame.xs("vanilla", level=1)["top_k_agreement"].isna().all()
    for sample in data:
        x = sample.input[None]
        e = mg.explainer("swag-i", net, n_segments=8)(x, sample.target)
        lime = mg.explainer("lime", net, superpixels=e.segments, n_samples=40)(x, sample.target)
        top = mg.measures.top_k_agreement(e.scores, lime.scores)[0].tolist()
        row = frame.loc[(sample.id, "swag")]
        assert [row["top_k_agreement"], row["top_k_agreement.top5"]] == top
