"""What is said of the release in several places is the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import midgrain

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_stands_in_one_place() -> None:
    version = PROJECT["version"]
    assert midgrain.__version__ == version
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(version)}$", citation, re.MULTILINE)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^## (\S+)", changes, re.MULTILINE)
    assert first is not None
    assert first[1] == version
    found = [path.name for path in (ROOT / "python").rglob("*.py") if version in path.read_text(encoding="utf-8")]
    assert found == []


def test_every_extra_is_explained() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("Extras:") :]
    for extra in PROJECT["optional-dependencies"]:
        assert f"`{extra}`" in section
