"""The summary's tables are the measures' own statistics; the report needs nothing else and escapes what it is given."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch

import midgrain as mg
from evaluate_for_tests import EXPLAINERS, samples
from midgrain.evaluate import Results, Sample
from midgrain.evaluate.summary import summarise
from models_for_tests import one_thread, tiny_net  # noqa: F401

EVIL = '<script src="https://evil.example/x.js">&"\'</script>'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Reads a page: tags, attributes and text; open and closed tags must match."""

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    data = [*samples(5), Sample(EVIL, torch.full((3, 24, 32), torch.nan))]
    data[0] = Sample(EVIL + "2", data[0].input, 0, data[0].mask)
    explainers = {name: name for name in EXPLAINERS} | {"$_{" + EVIL: lambda x, target: x.mean(1)}
    wanted = ["combined", "average_drop", "energy_pointing_game", "weak_localisation", "sic"]
    return mg.evaluate(tiny_net(), data, explainers, wanted, tmp_path_factory.mktemp("run") / "out", examples=2)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_the_page_offline(results, tmp_path) -> None:
    """Every picture is decoded and the tables are there; the network is cut off by a proxy that is not."""
    page = tmp_path / "page.html"
    shown = "document.images.length && [...document.images].every(i => i.complete && i.naturalWidth)"
    told = f"<script>onload = () => document.title = ({shown}) ? 'all shown' : 'something missing'</script>"
    page.write_text(results.report().read_text(encoding="utf-8").replace("</body>", told + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--proxy-server=127.0.0.1:9", "--dump-dom"]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>all shown</title>" in seen
    assert seen.count("<tr") > len(EXPLAINERS)


def test_the_page_needs_nothing_else(results) -> None:
    path = results.report()
    assert path == results.folder / "report.html"
    content = path.read_text(encoding="utf-8")
    page = Page(content)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "a"} & set(page.tags)
    assert page.links
    assert all(link.startswith(("data:image/svg+xml;base64,", "data:image/jpeg;base64,")) for link in page.links)
    assert not re.search(r"@import|url\(|javascript:|\son\w+=", re.sub(r'"data:[^"]*"', '""', content))
    for link in page.links:
        picture = base64.b64decode(link.partition(",")[2], validate=True)
        assert picture.startswith((b"<?xml", b"\xff\xd8"))
        if picture.startswith(b"<?xml"):
            for element in ElementTree.fromstring(picture).iter():
                assert not element.tag.endswith(("}script", "}image", "}foreignObject"))
                for name, value in element.attrib.items():
                    assert not re.search(r"(href|src)$", name) or value.startswith("#")
                    assert "://" not in value
    assert page.tags.count("html") == page.tags.count("body") == 1


def test_names_are_shown_and_not_run(results) -> None:
    page = Page(results.report().read_text(encoding="utf-8"))
    assert EVIL in page.text
    assert "$_{" + EVIL in page.text
    assert "swag-i" in page.text
    assert "a constant map, which says nothing, loses" in page.text
    assert page.text.count("input: expected finite values") == 1


def test_the_page_is_the_same_again(results, tmp_path) -> None:
    first = results.report(tmp_path / "a.html").read_bytes()
    assert Results(results.folder).report(tmp_path / "b.html").read_bytes() == first


def test_many_explainers_stay_readable(tmp_path) -> None:
    """Small matrices with every win in percent, and curves of the best and the baselines only."""
    explainers = {f"by {n}": lambda x, target, n=n: (x * (n + 1)).sin().mean(1) for n in range(14)}
    results = mg.evaluate(tiny_net(), samples(6), explainers, {"deletion": {"steps": 4}}, tmp_path / "many", examples=0)
    content = results.report().read_text(encoding="utf-8")
    page = Page(content)
    assert page.tags.count("details") == 1
    assert "Mean curves: deletion, the best 8 and the baselines" in page.text
    wins = results.summary().wins["deletion"]
    table = content.partition("<details")[2].partition("</details>")[0]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in table.split("<tr>")[2:]]
    assert [row[0] for row in rows] == results.explainers
    for name, row in zip(results.explainers, rows, strict=True):
        expected = ["" if np.isnan(value) else f"{100 * value:.0f}" for value in wins.loc[name]]
        assert row[1:] == expected
    assert len(content) < 400_000


def test_some_measures_only(results, tmp_path) -> None:
    whole = results.report(tmp_path / "whole.html").read_text(encoding="utf-8")
    part = results.report(tmp_path / "part.html", measures=["combined", "weak_localisation"]).read_text(
        encoding="utf-8"
    )
    every = list(results.summary().wins)
    assert {"combined", "weak_localisation"} < set(every)
    for content, titles in ((whole, every), (part, ["combined", "weak_localisation"])):
        assert re.findall(r"<h3>([a-z_.]+)</h3>", content) == titles
    assert len(part) < len(whole)
    assert "Mean curves: combined.deletion" in Page(part).text
    assert "Cost and quality: average_drop" not in Page(part).text
    with pytest.raises(ValueError, match=r"measures: expected some of combined, .*, got 'iou'"):
        results.report(tmp_path / "none.html", measures=["iou"])
    with pytest.raises(TypeError, match="measures: expected names"):
        results.report(tmp_path / "none.html", measures="combined")


def test_examples_are_pictures_of_the_first_samples(results) -> None:
    examples = results.examples()
    assert [example["id"] for example in examples] == [EVIL + "2", "sample 1"]
    assert list(examples[0]["pictures"]) == ["input", *results.explainers]


def test_summary_is_what_the_statistics_say(results) -> None:
    summary, frame = results.summary(), results.frame()
    assert (summary.samples, summary.skipped) == (5, 1)
    assert list(summary.measures) == [
        "combined",
        "combined.deletion",
        "combined.insertion",
        "average_drop",
        "average_drop.increase",
        "energy_pointing_game",
        "weak_localisation",
        "sic",
    ]
    for name in ("combined", "energy_pointing_game", "weak_localisation"):
        higher = summary.measures[name] == "higher"
        wide = frame.pivot(index="id", columns="explainer", values=name)[results.explainers].to_numpy()
        np.testing.assert_array_equal(summary.wins[name], mg.measures.win_matrix(wide, higher))
        assert summary.alpha[name] == pytest.approx(mg.measures.krippendorff_alpha(wide), nan_ok=True)
        rows = summary.table[summary.table["measure"] == name]
        for place, explainer in enumerate(results.explainers):
            interval = mg.measures.bootstrap_interval(wide[:, place])
            row = rows[rows["explainer"] == explainer].iloc[0]
            assert (row["mean"], row["low"], row["high"]) == (interval.mean, interval.low, interval.high)
        means = rows["mean"].tolist()
        assert means == sorted(means, reverse=higher)
    correlations = []
    for explainer in results.explainers:
        rows = frame[frame["explainer"] == explainer]
        turned = np.stack([rows["combined.insertion"], -rows["average_drop"]], 1)
        correlations.append(mg.measures.measure_correlations(turned)[0, 1])
    assert summary.correlations.loc["combined.insertion", "average_drop"] == pytest.approx(np.mean(correlations))
    assert json.loads(json.dumps(summary.to_dict(), allow_nan=False))["samples"] == 5


def test_p_values_are_corrected() -> None:
    values = np.linspace(0.2, 0.8, 12)
    frame = pd.DataFrame(
        {
            "id": [f"{i}" for i in range(12)] * 3,
            "explainer": ["a"] * 12 + ["b"] * 12 + ["c"] * 12,
            "seconds": 1.0,
            "passes": pd.array([None] * 24 + [7] * 12, dtype="Int64"),
            "m": np.concatenate([values, values - 0.1, values + np.where(np.arange(12) % 2, 0.01, -0.011)]),
        }
    )
    summary = summarise(frame, ["a", "b", "c"], {"m": "higher"})
    table = frame.pivot(index="id", columns="explainer", values="m")[["a", "b", "c"]].to_numpy()
    np.testing.assert_array_equal(summary.p_values["m"], mg.measures.wilcoxon_matrix(table))
    assert summary.p_values["m"].loc["a", "b"] < 0.01 < 0.1 < summary.p_values["m"].loc["a", "c"]
    assert summary.costs["passes"].isna().tolist() == [True, True, False]


def test_intervals_of_many_are_those_of_the_bootstrap() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=3001)
    frame = pd.DataFrame({"id": [str(i) for i in range(len(values))], "explainer": "a", "seconds": 1.0, "passes": 1})
    many = summarise(frame.assign(m=values), ["a"], {"m": "higher"}).table.iloc[0]
    few = mg.measures.bootstrap_interval(values, n_resamples=1000)
    assert many["mean"] == pytest.approx(few.mean)
    assert (many["high"] - many["low"]) == pytest.approx(few.high - few.low, rel=0.1)


def test_one_sample_has_no_interval_and_a_page(tmp_path) -> None:
    results = mg.evaluate(tiny_net(), samples(1), ["vanilla"], ["deletion"], tmp_path, baselines=(), curves=False)
    row = results.summary().table.iloc[0]
    assert np.isfinite(row["mean"])
    assert np.isnan(row["low"])
    assert np.isnan(row["high"])
    Page(results.report().read_text(encoding="utf-8"))


def test_a_page_of_nothing(tmp_path) -> None:
    bad = [Sample("a", torch.full((3, 8, 8), torch.inf))]
    results = mg.evaluate(tiny_net(), bad, ["vanilla"], ["deletion"], tmp_path)
    summary = results.summary()
    assert (summary.samples, summary.skipped) == (0, 1)
    assert summary.table["mean"].isna().all()
    Page(results.report().read_text(encoding="utf-8"))
