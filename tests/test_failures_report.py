"""The failure report: rows equal direct calls, killed reports go on, sums are counted by hand, the page is safe."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

import midgrain as mg
from cam_nets import curved_net
from midgrain.failures import FailureReport, FilterStatistics
from midgrain.failures import reporting as module
from midgrain.failures.report_pictures import failure_figure, outlined, removed, still
from midgrain.failures.report_plan import ends
from midgrain.failures.report_summary import summarise_failures
from midgrain.normalisation import Normalisation
from models_for_tests import batch_for, one_thread  # noqa: F401
from test_evaluate_report import CHROMIUM, EVIL, Page

DIMS = pytest.mark.parametrize("dims", [2, 3], ids=["images", "clips"])
N = 17
OPTIONS = {
    "low": 20, "high": 80, "n_segments": 6, "search_segments": (6, 12), "removals": (1, 3), "limit": 5, "drawn": 3,
}  # fmt: skip


class Setting:
    """A network, its statistics, and samples of which about half are predicted wrongly."""

    def __init__(self, dims: int = 2):
        self.net = curved_net(dims)
        self.training = batch_for(dims, 60, dtype=torch.float64, seed=5)
        y = torch.arange(60) % 5
        self.stats = FilterStatistics.fit(self.net, list(zip(self.training.split(7), y.split(7), strict=True)), keep=4)
        self.x = 3 * batch_for(dims, N, dtype=torch.float64, seed=9)
        with torch.no_grad():
            self.logits = self.net(self.x)
        self.y = self.logits.topk(2, 1).indices[torch.arange(N), torch.arange(N) % 2]
        self.ids = [f"picture {n}" for n in range(N)]

    def loader(self, size: int = 6):
        rows = torch.arange(N).split(size)
        return [(self.x[r], self.y[r], [self.ids[n] for n in r.tolist()]) for r in rows]

    def report(self, out, **options):
        return mg.failures.report(self.net, self.loader(), self.stats, out, **OPTIONS | options)


@pytest.fixture(scope="module")
def images():
    return Setting()


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    return images.report(tmp_path_factory.mktemp("report") / "out", images=images.training)


@DIMS
def test_rows_are_those_of_direct_calls(dims, tmp_path) -> None:
    setting = Setting(dims)
    before = [p.clone() for p in setting.net.parameters()]
    found = setting.report(tmp_path / "out", images=setting.training)
    assert all(torch.equal(a, b) for a, b in zip(before, setting.net.parameters(), strict=True))
    table, chances = found.samples(), setting.logits.softmax(1)
    assert table["id"].tolist() == setting.ids
    for i, row in enumerate(table.to_dict("records")):
        true, predicted = int(setting.y[i]), int(setting.logits[i].argmax())
        assert (row["true_class"], row["predicted"]) == (true, predicted)
        assert row["logit"] == pytest.approx(float(setting.logits[i, true]), abs=1e-5)
        assert row["probability"] == pytest.approx(float(chances[i, true]), abs=1e-6)
        assert row["predicted_probability"] == pytest.approx(float(chances[i, predicted]), abs=1e-6)
        one = mg.failures.surprise(setting.net, setting.x[i : i + 1], true, setting.stats, low=20, high=80)
        assert row["beta"] == pytest.approx(float(one.beta), rel=1e-4, abs=1e-12)
        assert (row["n_surprising"], row["n_expected"]) == (int(one.surprising.sum()), int(one.expected.sum()))
    wrong = table[table["true_class"] != table["predicted"]].sort_values("beta")["id"].tolist()
    assert 5 < len(wrong) < N
    assert set(found.failures()["id"]) == {*wrong[:3], *wrong[-2:]}
    for row in found.failures().to_dict("records"):
        i = setting.ids.index(row["id"])
        (failure,) = mg.failures.explain(
            setting.net, setting.x[i : i + 1], int(setting.y[i]), setting.stats,
            **{name: value for name, value in OPTIONS.items() if name not in ("limit", "drawn")},
        )  # fmt: skip
        for name, findings in (("surprising", failure.surprising), ("expected", failure.expected)):
            assert list(row[name]) == [each.filter for each in findings]
            assert list(row[f"{name}_deviations"]) == pytest.approx([each.deviation for each in findings], rel=1e-4)
        for name, repair in (("repair", failure.repair), ("unfiltered", failure.unfiltered_repair)):
            if repair is None:
                assert row[f"{name}_fixed"] is None
            else:
                assert bool(row[f"{name}_fixed"]) == bool(repair.fixed)
                assert list(row[f"{name}_grid"]) == repair.grid.flatten().int().tolist()
    drawn = found.examples()
    assert {*wrong[:2], wrong[-1]} <= set(drawn)
    companions = set(drawn) - set(wrong)
    right = table[table["true_class"] == table["predicted"]]
    for name in companions:
        (row,) = right[right["id"] == name].to_dict("records")
        assert row["beta"] == right.loc[right["true_class"] == row["true_class"], "beta"].max()
    Page((found.folder / "report.html").read_text(encoding="utf-8"))


def test_it_works_without_gradients_and_in_any_batches(images, whole, tmp_path) -> None:
    images.net.train()
    with torch.inference_mode():
        found = images.report(tmp_path / "inference", images=images.training)
    assert images.net.training
    images.net.eval()
    with torch.no_grad():
        single = mg.failures.report(images.net, images.loader(1), images.stats, tmp_path / "single", **OPTIONS)
    assert found.summary() == single.summary() == whole.summary()


class Killed(Exception):  # noqa: N818
    """What ends a report."""


def test_a_killed_report_goes_on(images, whole, tmp_path, monkeypatch) -> None:
    measured = []
    surprise = module.surprise

    def counting(model, x, labels, *arguments, **options):
        if len(measured) >= 6 and not revived:
            raise Killed
        measured.extend(labels.tolist())
        return surprise(model, x, labels, *arguments, **options)

    explained = []
    explain = module.explain

    def dying(*arguments, **options):
        if len(explained) == 2:
            raise Killed
        explained.append(1)
        return explain(*arguments, **options)

    revived = False
    monkeypatch.setattr(module, "surprise", counting)
    with pytest.raises(Killed):
        images.report(tmp_path, images=images.training)
    assert len(FailureReport(tmp_path).samples()) == 6
    revived = True
    monkeypatch.setattr(module, "explain", dying)
    with pytest.raises(Killed):
        images.report(tmp_path, images=images.training)
    assert len(measured) == N  # Nothing twice.
    assert len(FailureReport(tmp_path).failures()) == 2
    monkeypatch.setattr(module, "explain", explain)
    found = images.report(tmp_path, images=images.training)
    assert len(measured) == N
    assert found.samples().equals(whole.samples())
    assert found.failures().to_dict("records").__repr__() == whole.failures().to_dict("records").__repr__()
    assert found.summary() == whole.summary()
    for name, rows in whole.examples().items():
        assert found.examples()[name] == rows
    # Another call has nothing to do, and a higher limit explains the rest.
    monkeypatch.setattr(module, "explain", lambda *arguments, **options: pytest.fail("nothing was left"))
    assert images.report(tmp_path).summary() == whole.summary()
    monkeypatch.setattr(module, "explain", explain)
    more = images.report(tmp_path, limit=None)
    assert len(more.failures()) == more.summary()["errors"] > 5


def test_repairs_through_what_speaks_against_the_class(images, tmp_path) -> None:
    found = images.report(tmp_path, through="against", drawn=0)
    assert "through the filter most against the class" in (tmp_path / "report.html").read_text()
    assert len(found.failures()) == 5
    for row in found.failures().to_dict("records"):
        i = images.ids.index(row["id"])
        x, y = images.x[i : i + 1], int(images.y[i])
        scores = mg.failures.filter_scores(images.net, x, y)[0].double()
        mean, std = images.stats.mean[y], images.stats.std[y]
        values = [
            0.0 if a == m else (a - m) / s if s else math.copysign(math.inf, a - m)
            for a, m, s in zip(scores.tolist(), mean.tolist(), std.tolist(), strict=True)
        ]
        assert min(values) < 0
        repair = mg.failures.suppress(
            images.net, x, y, values.index(min(values)), n_segments=(6, 12), removals=(1, 3)
        )  # fmt: skip
        assert list(row["repair_grid"]) == repair.grid.flatten().int().tolist()


def test_what_is_chosen_is_at_both_ends() -> None:
    rows = [{"n": n} for n in range(6)]
    assert [row["n"] for row in ends(rows, 3)] == [0, 1, 5]
    assert [row["n"] for row in ends(rows, 1)] == [0]
    assert ends(rows, 0) == []
    assert ends(rows, 6) == ends(rows, 99) == ends(rows, None) == rows


def ranks(values):
    """Of each value the mean place among all, equal ones share theirs."""
    return [(sum(v < w for v in values) + (sum(v == w for v in values) - 1) / 2) for w in values]


def test_the_summary_is_counted_by_hand() -> None:
    random = np.random.default_rng(4)
    count = 40
    samples = {
        "true_class": random.integers(0, 4, count).tolist(),
        "predicted": random.integers(0, 4, count).tolist(),
        "beta": random.normal(size=count).round(1).tolist(),
        "logit": random.normal(size=count).round(1).tolist(),
        "probability": random.random(count).round(1).tolist(),
        "n_surprising": random.integers(0, 3, count).tolist(),
        "n_expected": random.integers(0, 2, count).tolist(),
    }
    failures = {
        "repair_fixed": [True, None, False, True],
        "repair_grid": [[1, 0, 0, 0], None, [0, 0, 0, 0], [1, 1, 0, 1]],
        "unfiltered_fixed": [True, False, False, False],
        "unfiltered_grid": [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    }
    found = summarise_failures(samples, failures, (10, 20), (1, 2))
    wrong = [n for n in range(count) if samples["true_class"][n] != samples["predicted"][n]]
    right = [n for n in range(count) if n not in wrong]
    assert (found["samples"], found["errors"]) == (count, len(wrong))
    assert found["accuracy"] == pytest.approx(len(right) / count)
    for name, column, limit in (("surprised", "n_surprising", 0.5), ("missed", "n_expected", 0.5)):
        for kind, rows in (("errors", wrong), ("correct", right)):
            assert found[name][kind] == pytest.approx(sum(samples[column][n] > limit for n in rows) / len(rows))
    for kind, rows in (("errors", wrong), ("correct", right)):
        assert found["negative_beta"][kind] == pytest.approx(sum(samples["beta"][n] < 0 for n in rows) / len(rows))
    for name in ("logit", "probability"):
        correlations = []
        for class_ in range(4):
            rows = [n for n in range(count) if samples["true_class"][n] == class_]
            a, b = (np.array(ranks([samples[column][n] for n in rows])) for column in ("beta", name))
            a, b = a - a.mean(), b - b.mean()
            correlations.append((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))
        assert found["spearman"][name] == {"mean": pytest.approx(np.mean(correlations)), "classes": 4}
    repairs = found["repairs"]
    assert (repairs["searched"], repairs["with_filter"]) == (4, 3)
    assert repairs["filtered"] == {"fixed": 2, "share": 0.5, "grid": [[2, 1], [0, 1]]}
    assert repairs["unfiltered"] == {"fixed": 1, "share": 0.25, "grid": [[0, 0], [1, 0]]}


def test_nothing_that_can_be_said_is_none() -> None:
    samples = {name: [] for name in ("true_class", "predicted", "beta", "logit", "probability")}
    found = summarise_failures(
        {**samples, "n_surprising": [], "n_expected": []}, {"unfiltered_fixed": [], "repair_fixed": []}, (1,), (1,)
    )
    assert found["accuracy"] is None
    assert found["spearman"]["logit"] == {"mean": None, "classes": 0}
    assert found["repairs"] is None


def test_files_are_what_the_report_says(whole) -> None:
    said = json.loads((whole.folder / "summary.json").read_text())
    assert said == whole.summary()
    assert said["repairs"]["searched"] == 5
    assert not list(whole.folder.glob("journal-*"))
    assert repr(whole).startswith("FailureReport(")
    again = FailureReport(whole.folder)
    before = (whole.folder / "report.html").read_bytes()
    again.write()
    assert (whole.folder / "report.html").read_bytes() == before


def test_the_page_needs_nothing_else_and_runs_nothing(images, tmp_path) -> None:
    setting = Setting()
    setting.ids[0] = EVIL
    found = setting.report(
        tmp_path, classes=[EVIL + str(n) for n in range(5)], limit=None, drawn=30, images=setting.training
    )
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(content)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "a"} & set(page.tags)
    assert f"{EVIL}{int(setting.y[0])}" in page.text
    assert all(link.startswith(("data:image/svg+xml;base64,", "data:image/jpeg;base64,")) for link in page.links)
    assert not re.search(r"@import|url\(|javascript:|\son\w+=", re.sub(r'"data:[^"]*"', '""', content))
    for link in page.links:
        assert base64.b64decode(link.partition(",")[2], validate=True).startswith((b"<?xml", b"\xff\xd8"))
    errors = found.summary()["errors"]
    shown = [name for name in setting.ids if f"{name}: " in page.text]
    assert len(shown) >= errors
    for said in ("surprised by filter", "missed filter", "masked", "Errors with the lowest beta", "highest beta"):
        assert said in page.text


def test_a_report_without_errors(images, tmp_path) -> None:
    right = images.logits.argmax(1) == images.y
    loader = [(images.x[right], images.y[right])]
    found = mg.failures.report(images.net, loader, images.stats, tmp_path, **OPTIONS)
    assert found.summary()["errors"] == 0
    assert found.summary()["negative_beta"]["errors"] is None
    assert found.samples()["id"].tolist()[:2] == ["000000", "000001"]
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_the_page_offline(whole, tmp_path) -> None:
    page = tmp_path / "page.html"
    shown = "document.images.length && [...document.images].every(i => i.complete && i.naturalWidth)"
    told = f"<script>onload = () => document.title = ({shown}) ? 'all shown' : 'something missing'</script>"
    content = (whole.folder / "report.html").read_text(encoding="utf-8")
    page.write_text(content.replace("</body>", told + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--proxy-server=127.0.0.1:9", "--dump-dom"]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>all shown</title>" in seen
    assert seen.count("<img") > 10


def test_drawings() -> None:
    pixels = np.full((40, 50, 3), 7, np.uint8)
    region = np.zeros((40, 50), bool)
    region[10:20, 10:30] = True
    drawn = outlined(pixels, region)
    assert (drawn[10, 10:30] == (255, 214, 0)).all()
    assert (drawn[11:19, 11:29] == 7).all()
    assert (drawn[~region] == 7).all()
    gone = removed(pixels, region)
    assert (gone[region] == 128).all()
    assert (gone[~region] == 7).all()
    clip, mask = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(3, 3), np.zeros((4, 1, 1))
    assert still(clip)[0][0, 0, 0] == 2
    mask[3] = 0.5
    assert still(clip, mask)[0][0, 0, 0] == 3


@DIMS
def test_one_picture_of_a_failure(dims) -> None:
    setting = Setting(dims)
    wrong = int((setting.logits.argmax(1) != setting.y).nonzero()[0, 0])
    x = setting.x[wrong : wrong + 1]
    (failure,) = mg.failures.explain(
        setting.net, x, int(setting.y[wrong]), setting.stats, images=setting.training, repair=False, low=20, high=80
    )
    drawn = failure_figure(x[0], failure, Normalisation())
    height, width = x.shape[-2:]
    tiles = 1 + 4 * bool(failure.surprising) + 3 * bool(failure.expected)
    assert drawn.shape == (height, tiles * width + (tiles - 1) * 4, 3)
    assert tiles > 1


class Nothing:
    """Neither a data set nor a function."""


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"loader": iter([])}, TypeError, "loader: expected one that can be read twice, like a DataLoader or a list"),
        ({"loader": 3}, TypeError, "loader: expected an iterable"),
        ({"loader": []}, ValueError, "loader: expected at least one batch"),
        ({"stats": 3}, TypeError, "stats: expected FilterStatistics, got int"),
        ({"limit": -1}, ValueError, "limit: expected 0 or more"),
        ({"drawn": 1.5}, TypeError, "drawn: expected"),
        ({"images": Nothing()}, TypeError, "images: expected a data set or a callable"),
        ({"classes": ["a"]}, ValueError, "classes: expected the names of 5 classes"),
        ({"classes": "abcde"}, ValueError, "classes: expected the names"),
        ({"low": 0.1}, ValueError, "q: percentile 0.1 needs 1000 images of a class; there are 12 of class"),
        ({"removals": (3, 1)}, ValueError, "removals: expected numbers in ascending order"),
        ({"through": "all"}, ValueError, "through: expected one of surprising, against, got 'all'"),
        ({"few": "nan"}, ValueError, "few: expected 'error' or 'extreme'"),
        ({"progress": 1}, TypeError, "progress: expected"),
    ],
)
def test_bad_input(images, tmp_path, change, error, said) -> None:
    arguments = {"loader": images.loader(), "stats": images.stats, **OPTIONS} | change
    loader, stats = arguments.pop("loader"), arguments.pop("stats")
    with pytest.raises(error, match=said):
        mg.failures.report(images.net, loader, stats, tmp_path / "out", **arguments)


def test_other_samples_networks_and_folders_are_refused(images, whole, tmp_path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(whole.folder, folder)
    loader = images.loader()
    changed = [(loader[0][0] + 1, *loader[0][1:]), *loader[1:]]

    def report(batches, out=folder, net=images.net, **options):
        return mg.failures.report(net, batches, images.stats, out, **OPTIONS | options)

    for batches, said in (
        (changed, "loader: sample 'picture 0' is another one than when the report"),
        (loader[1:], r"loader: 6 sample\(s\) of the report in .* are missing, 'picture 0' for one"),
        ([*loader, loader[0]], "loader: expected every id once, got 'picture 0' twice"),
    ):
        with pytest.raises(ValueError, match=said):
            report(batches)
    with pytest.raises(ValueError, match=r"out: .* holds results of another configuration: high was 80 and is 90"):
        report(loader, high=90)
    with pytest.raises(ValueError, match="stats: these statistics are of another network"):
        report(loader, net=torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3)))
    x, y, ids = loader[0]
    with pytest.raises(ValueError, match=r"expected classes in 0 \.\. 4, got 7"):
        report([(x, y * 0 + 7, ids)], tmp_path / "unseen")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(ValueError, match="out: expected a new folder or one of a failure report"):
        report(loader, tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="out: there is no failure report in"):
        FailureReport(tmp_path / "nowhere")


def test_nan_is_told(images, tmp_path) -> None:
    class Broken(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            outputs = self.net(x)
            strange = x.flatten(1).sum(1) > 1e6
            return torch.cat([outputs[:, :4], torch.where(strange, torch.inf, outputs[:, 4])[:, None]], 1)

    net = Broken(images.net)
    y = torch.arange(60) % 5
    stats = FilterStatistics.fit(net, [(images.training, y)])
    bad = images.x[:2].clone()
    bad[1] += 1e6
    with pytest.raises(ValueError, match="sample 'b' are NaN or infinite"):
        mg.failures.report(net, [(bad, [0, 1], ["a", "b"])], stats, tmp_path, low=20, high=80)
