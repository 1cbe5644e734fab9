"""What is declared of the papers' tables."""

from __future__ import annotations

import pytest

import midgrain as mg
from midgrain.evaluate import LAYOUTS, MEASURES, TABLES, options_of
from midgrain.evaluate.papers.declaration import Figure, printed
from midgrain.failures import FILTER_MEASURES
from midgrain.registry import method_options
from models_for_tests import batch_for, one_thread  # noqa: F401
from reproduce_for_tests import small_net


@pytest.mark.parametrize("name", TABLES)
def test_a_declaration_fits_midgrain(name) -> None:
    table = TABLES[name]
    assert table.name == name
    assert table.layout in LAYOUTS or table.kind == "timing"
    assert {network.name for network in table.networks} == set(table.figures)
    for network in table.networks:
        assert network.model or network.weights
        for by_label in table.figures[network.name].values():
            assert set(by_label) <= set(table.measures)
    for method in table.methods.values():
        for network in table.networks:
            options, passes = method.on(network.name)
            assert passes >= 0
            if table.kind == "filters":
                assert method.explainer in FILTER_MEASURES
            elif isinstance(method.explainer, str):
                assert set(options) <= method_options(method.explainer)
    for measure in table.measures.values():
        if table.kind == "explanations":
            assert measure.name in MEASURES
            assert set(measure.options) <= options_of(measure.name)
            assert not measure.subset or measure.subset in LAYOUTS[table.layout].subsets


def test_every_figure_is_a_share_a_percentage_or_seconds() -> None:
    for table in TABLES.values():
        for by_method in table.figures.values():
            for by_label in by_method.values():
                for label, figure in by_label.items():
                    percent = table.measures[label].factor == 100.0
                    assert abs(figure.value) <= (100.0 if percent or table.kind == "timing" else 1.0)


def test_the_orderings_that_the_papers_report() -> None:
    deletion = {name: each["deletion"].value for name, each in TABLES["swag-deletion"].figures["VGG16"].items()}
    assert deletion["SWAG G"] < deletion["SWAG I+G"] < deletion["SWAG I"] < deletion["Grad-CAM"]
    pointing = {name: each["difficult"].value for name, each in TABLES["pointing"].figures["ResNet50"].items()}
    assert max(pointing, key=pointing.__getitem__) == "Jitter-CAM"
    filters = {name: each["removal"].value for name, each in TABLES["filters"].figures["ResNet18"].items()}
    assert min(filters, key=filters.__getitem__) == "Grad-AMap"
    for network in TABLES["jitter-faithfulness"].figures.values():
        assert network["Constant"]["average drop"].value < network["Grad-CAM"]["average drop"].value
    sise = {name: each["Drop"].value for name, each in TABLES["sise"].figures["ResNet-50"].items()}
    assert min(sise, key=sise.__getitem__) == "SISE"
    clips = TABLES["swagv"].figures
    assert "Saliency Tubes" not in clips["C3D"]
    assert clips["R(2+1)D"]["Saliency Tubes"]["insertion"] == Figure(0.447, "0.447")


def test_printed_tables() -> None:
    columns = [("A", "one"), ("B", "one"), ("B", "two")]
    found = printed("\nA method  0.1 -  ~-20\nOther 12..14 .5 1\n", columns)
    assert found == {
        "A": {"A method": {"one": Figure(0.1, "0.1")}, "Other": {"one": Figure(13.0, "12..14")}},
        "B": {"A method": {"two": Figure(-20.0, "~-20")}, "Other": {"one": Figure(0.5, ".5"), "two": Figure(1, "1")}},
    }


@pytest.mark.parametrize("text", ["0.1 0.2", "A 0.1", "A 0.1 x"])
def test_printed_tables_that_are_none(text) -> None:
    with pytest.raises(ValueError, match="text: expected a n"):
        printed(text, [("A", "one"), ("B", "one")])


def test_the_cost_in_passes() -> None:
    table = TABLES["swag-deletion"]
    assert table.passes("VGG16", ["Grad-CAM"]) == 2 + 29
    assert table.passes("ResNet50", ["RISE"]) - table.passes("VGG16", ["RISE"]) == 4000
    x = batch_for(batch=1, size=(40, 48))
    net = small_net(5)
    for name in ("LIME", "RISE"):
        method = table.methods[name]
        options, passes = method.on("VGG16")
        explanation = mg.explainer(method.explainer, net, **{**options, "n_samples": options["n_samples"] // 100})(x)
        # One more for the class.
        assert int(explanation.details["passes"][0]) - passes // 100 in (0, 1)
