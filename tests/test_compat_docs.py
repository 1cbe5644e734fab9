"""What docs/compat.md says exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data

from midgrain import compat
from midgrain.compat import absent
from models_for_tests import one_thread as one_thread

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "compat.md").read_text(encoding="utf-8")
# Side by side, the library's own example and midgrain's.
PAIRS = [
    re.findall(r"^```python\n(.*?)^```$", block, re.MULTILINE | re.DOTALL)
    for block in re.findall(r"^<div class=\"grid\" markdown>\n(.*?)^</div>$", TEXT, re.MULTILINE | re.DOTALL)
]
SETUP = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)[0]
# test_docs.py runs these.
RUN = [after for _, after in PAIRS if "quantus" not in after]
MISSING = [absent.GRADCAM, absent.GRADCAM_UTILS, absent.CAPTUM, absent.TORCHCAM, absent.LIME, absent.SKIMAGE]
FAULTS = [line for line in TEXT.splitlines() if line.startswith("|") and "test_" in line]


@pytest.mark.parametrize("line", FAULTS, ids=range(len(FAULTS)))
def test_every_fault_has_its_test(line) -> None:
    named = re.findall(r"`(test_\w+\.py)`: ((?:`test_\w+`(?:, )?)+)", line)
    assert named
    for file, tests in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        for test in re.findall(r"`(test_\w+)`", tests):
            assert f"def {test}(" in source, f"{file} has no {test}"


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) > 25


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the page's first example makes, of a small picture."""
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    made: dict[str, Any] = {"photo": Image.fromarray(data.chelsea())}
    exec(SETUP, made)
    return made


def test_every_library_has_its_example() -> None:
    assert [re.findall(r"import (\w+)|$", after)[0] for _, after in PAIRS] == [
        *("GradCAM", "IntegratedGradients", "LayerCAM", "lime_image", "quantus", "slic")
    ]


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_only_imports_differ(number) -> None:
    before, after = (code.splitlines() for code in PAIRS[number])
    assert len(before) == len(after)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    imports = [new for old, new in changed if old.startswith("from ") and new.startswith("from midgrain.compat.")]
    others = [new.strip() for _, new in changed if new not in imports]
    assert imports
    # Quantus calls methods by names of captum's.
    assert others == (['"method": "vanilla",'] if "quantus" in after[0] else [])


@pytest.mark.filterwarnings("ignore")  # Those of the libraries.
@pytest.mark.parametrize(
    "code", [*(before for before, _ in PAIRS), *(after for _, after in PAIRS if "quantus" in after)]
)
def test_the_libraries_own_examples_run(code, names) -> None:
    for package in sorted(set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE)) - {"midgrain"}):
        pytest.importorskip(package, reason="needs the extra 'peers'")
    exec(code, dict(names))


@pytest.mark.parametrize("missing", MISSING, ids=lambda missing: next(iter(missing)))
def test_what_is_not_offered_is_listed(missing) -> None:
    for name, instead in missing.items():
        assert any(f"`{name}`" in line and line.endswith(f"| {instead} |") for line in TEXT.splitlines()), name


def test_nothing_is_listed_that_is_offered() -> None:
    tables = re.findall(r"^\| not offered \| instead \|\n\| --- \| --- \|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert len(tables) == len(MISSING)
    for rows, missing in zip(tables, MISSING, strict=True):
        listed = [name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
        assert sorted(listed) == sorted(missing)


def test_every_part_is_there_on_demand() -> None:
    assert set(compat.__all__) <= set(dir(compat))
    for name in compat.__all__:
        if name != "lightning":
            assert getattr(compat, name).__all__
    with pytest.raises(AttributeError, match="no attribute 'tensorflow'"):
        compat.tensorflow  # noqa: B018
