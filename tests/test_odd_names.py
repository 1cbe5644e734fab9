"""Names from elsewhere, of files, samples, classes, explainers: shown, never run, and no way out of a folder."""

from __future__ import annotations

import hashlib
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import midgrain as mg
from midgrain import html_page
from midgrain.cli import main
from midgrain.evaluate import Results, Sample
from midgrain.failures import FilterStatistics
from midgrain.files import encodable, write_whole
from models_for_tests import batch_for, tiny_net
from models_for_tests import one_thread as one_thread

NAMES = (
    *("<img src=x onerror=alert(1)>", '"><script>alert(1)</script>', "</script><!--", "]]>", "javascript:alert(1)"),
    *("../../up", "/absolute", "..", "C:\\x", "a/b", "new\nline", "\x00nul\x1b[31m", "é😀", "\u202ebackwards", "$_{x}"),
    *("&lt;b&gt;", "'quoted'", "{brace}", "%s%n", "x" * 5000, "caf\udce9", " ", "<td>"),
)
TEXTS = st.one_of(
    st.sampled_from(NAMES),
    st.text(st.characters(codec=None), max_size=30),
    st.lists(st.sampled_from(["<", ">", '"', "'", "&", "/", "script", "!--", "--", "\\", "td", "=", " "])).map("".join),
)


class Seen(HTMLParser):
    """The tags of a page, their attributes, and the text outside of the style."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@settings(max_examples=200)
@given(TEXTS.filter(bool), TEXTS, TEXTS)
def test_texts_make_no_tags(title, head, cell) -> None:
    def seen(*texts: str) -> Seen:
        table = html_page.make_table([texts[1]], [[html_page.text(texts[2])]], texts[0])
        figure = f'<img src="data:," alt="{html_page.text(texts[2])}">'
        return Seen(html_page.page(texts[0], [table, figure]))

    page, plain = seen(title, head, cell), seen("a", "b", "c")
    assert page.tags == plain.tags
    assert [name for name, _ in page.attributes] == [name for name, _ in plain.attributes]
    # A reader takes line ends and NUL for something else; all other characters are there.
    kept = page.text.replace("\r", "\n")
    for text in (title, head, cell):
        assert encodable(text).replace("\r", "\n") in kept


@given(TEXTS)
def test_what_is_encodable_stays(text) -> None:
    found = encodable(text)
    assert found.encode().decode() == encodable(found) == found
    try:
        text.encode()
    except UnicodeEncodeError:
        assert "\\ud" in found
    else:
        assert found == text


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_evaluations(tmp_path) -> None:
    x = batch_for(batch=len(NAMES))
    data = [Sample(name, each, 0) for name, each in zip(NAMES, x, strict=True)]
    data.append(Sample("<b>broken\udce9", torch.full((3, 24, 32), torch.nan)))
    explainers = {"<i>own</i>$": lambda x, target: x.mean(1), "vanilla": "vanilla"}
    out = tmp_path / "in" / "out"
    for _ in range(2):  # The second run finds every sample done.
        mg.evaluate(tiny_net(), data, explainers, ["deletion"], out, baselines=(), examples=len(NAMES))
    results = Results(out)
    assert results.frame()["id"].tolist()[::2] == [encodable(name) for name in NAMES]
    page = Seen(results.report().read_text(encoding="utf-8"))
    assert {"script", "i", "b", "iframe"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/") for name, value in page.attributes if name in ("src", "href"))
    assert "<img src=x onerror=alert(1)>" in page.text
    examples = {f"out/examples/{hashlib.sha256(encodable(n).encode()).hexdigest()[:16]}.json" for n in NAMES}
    found = files_under(tmp_path / "in")
    assert examples <= found
    assert {path.split("/")[1] for path in found} <= {
        *("errors", "rows", "examples", "configuration.json", "report.html", ".lock")
    }
    assert files_under(tmp_path) == {f"in/{path}" for path in found}


def test_failure_reports(tmp_path) -> None:
    x = batch_for(batch=len(NAMES))
    y = torch.arange(len(NAMES)) % 3
    stats = FilterStatistics.fit(tiny_net(), [(x, y, list(NAMES))])
    stats.save(tmp_path / "stats.npz")
    stats = FilterStatistics.load(tmp_path / "stats.npz")
    out = tmp_path / "in" / "out"
    for _ in range(2):
        report = mg.failures.report(
            *(tiny_net(), [(x, y, list(NAMES))], stats, out),
            classes=NAMES[:5],
            low=10,
            high=90,
            few="extreme",
            repair=False,
            images=lambda name: x[0],
        )
    assert report.samples()["id"].tolist() == [encodable(name) for name in NAMES]
    page = Seen((out / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert files_under(tmp_path) == {"stats.npz", *(f"in/{path}" for path in files_under(tmp_path / "in"))}


@pytest.mark.skipif(os.name != "posix", reason="names that other systems refuse")
def test_pictures(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    names = [b"caf\xe9.png", b"<img src=x onerror=alert(1)>.png", b"[bold]$_.png", b"-o.png", b"%s%n.png", b"..png.png"]
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            Image.new("RGB", (256, 256), (200, 30, 30)).save(file, "png")
    monkeypatch.setattr("sys.argv", ["midgrain", "explain", "in", "--method", "centre", "-o", "out", "--target", "3"])
    with pytest.raises(SystemExit) as done:
        main()
    said = capsys.readouterr()
    assert (done.value.code or 0, said.err) == (0, "")
    assert "[bold]$_.png" in said.out
    assert "caf\\udce9.png" in said.out
    expected = {os.fsdecode(name[:-4]) + ".centre.png" for name in names}
    assert files_under(tmp_path / "out") == expected
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_the_longest_name_that_a_file_can_have(tmp_path) -> None:
    path = tmp_path / ("n" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 4) + ".npz")
    write_whole(path, lambda file: file.write(b"content"))
    assert path.read_bytes() == b"content"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
