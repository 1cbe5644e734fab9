"""The package is built in floors: a module imports its own floor and those below, never one above.

Imports are read from the source, so those inside functions count too. Those under `if TYPE_CHECKING` do not: they are
not run, and say only what a module is handed. That is why `plots`, which draws explanations but makes none, stands
below `explanation`, whose `plot()` calls it.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import midgrain

PACKAGE = Path(midgrain.__file__).parent

# Top to bottom. The name "midgrain" is the package's own __init__.py.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"midgrain"},
    {"evaluate", "video", "failures", "compat"},
    {"registry", "models"},
    {"measures"},
    {"regions", "masking"},
    {"cams"},
    {"explainer_base"},
    {"compiled"},
    {"explanation"},
    {"plots"},
    {"scorers"},
    {"network"},
    {"driver", "baseline"},
    {"normalisation"},
    {"ops", "drawing"},
    {"_kernels"},
    {"parts"},
    {"clips"},
    {
        *("classes", "errors", "exported", "maps", "files", "html_page", "identity", "inflation"),
        *("pictures", "progress", "randomness", "stability", "stopwatch", "timing"),
    },
)
LEAVES = FLOORS[-1]
FLOOR = {unit: number for number, units in enumerate(reversed(FLOORS)) for unit in units}

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def unit_of(module: str) -> str:
    """The part of the package that a module belongs to: `midgrain.ops.pool` to `ops`."""
    return module.split(".")[1] if "." in module else module


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of a module but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from executed(other)
        else:
            yield child
            yield from executed(child)


def imported(source: str) -> Iterator[str]:
    """The package's modules that a module imports, wherever in its code."""
    for node in executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "midgrain")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports out, from midgrain on"
            assert node.module
            if node.module.split(".")[0] == "midgrain":
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    yield submodule if submodule in MODULES else node.module


def climbs(module: str, source: str) -> list[str]:
    here = FLOOR[unit_of(module)]
    return [target for target in imported(source) if FLOOR[unit_of(target)] > here]


def test_every_part_has_its_floor() -> None:
    assert {unit_of(module) for module in MODULES} <= set(FLOOR), "give the new module a floor in FLOORS"


@pytest.mark.parametrize("module", MODULES)
def test_no_import_climbs(module) -> None:
    assert climbs(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_what_is_imported_on_demand_is_below_too() -> None:
    assert set(midgrain._LAZY) <= set(midgrain.__all__)
    assert all(FLOOR[unit_of(module)] < FLOOR["midgrain"] for module in midgrain._LAZY.values())


@pytest.mark.parametrize("module", [module for module in MODULES if unit_of(module) in LEAVES])
def test_leaves_import_nothing_of_the_package(module) -> None:
    assert list(imported(MODULES[module].read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("unit", ["explanation", "plots"])
def test_explanations_and_plots_need_no_model(unit) -> None:
    targets = {unit_of(target) for target in imported(MODULES[f"midgrain.{unit}"].read_text(encoding="utf-8"))}
    assert targets <= LEAVES | {"plots", "drawing"}


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("midgrain.driver", "from midgrain import ops", []),
        ("midgrain.driver", "from midgrain.driver import Pass", []),
        ("midgrain.driver", "import torch\nfrom torch import nn", []),
        ("midgrain.driver", "from midgrain import scorers", ["midgrain.scorers"]),
        ("midgrain.driver", "from midgrain.scorers.base import Score", ["midgrain.scorers.base"]),
        ("midgrain.ops.pool", "import midgrain.driver", ["midgrain.driver"]),
        ("midgrain.ops.pool", "def f():\n    from midgrain import driver", ["midgrain.driver"]),
        ("midgrain.ops.pool", "from midgrain import __version__", ["midgrain"]),
        ("midgrain.cli.app", "from midgrain import __version__", []),
        ("midgrain.plots", "if TYPE_CHECKING:\n    from midgrain.explanation import Explanation", []),
        ("midgrain.plots", "if TYPE_CHECKING:\n    pass\nelse:\n    import midgrain.cli", ["midgrain.cli"]),
    ],
)
def test_the_reader_of_imports(module, source, expected) -> None:
    assert climbs(module, source) == expected


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_every_module_says_what_it_is_and_what_it_offers(name) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert module.__doc__.strip()
    assert len(set(module.__all__)) == len(module.__all__)
    assert [offered for offered in module.__all__ if not hasattr(module, offered)] == []


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return run.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import midgrain",
        "import midgrain; dir(midgrain); midgrain.build_info()",
        "import midgrain as m, numpy as n; m.pool(n.ones((20, 20)), m.slic(n.zeros((20, 20, 3))))",
    ],
)
def test_superpixels_alone_need_neither_torch_nor_matplotlib(code) -> None:
    heavy = ("torch", "matplotlib", "PIL", "typer", "rich", "skimage", "scipy")
    assert fresh(f"{code}\nimport sys; print(sorted(set(sys.modules) & set({heavy})))") == "[]"


def test_explaining_needs_no_matplotlib() -> None:
    code = "import sys, midgrain; midgrain.SWAG, midgrain.methods(); print('matplotlib' in sys.modules)"
    assert fresh(code) == "False"


def test_every_public_name_is_there_at_once() -> None:
    code = "import midgrain as m; print(set(m.__all__) - set(dir(m)), [n for n in m.__all__ if getattr(m, n) is None])"
    assert fresh(code) == "set() []"


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'midgrain' has no attribute 'SWAGG'"):
        midgrain.SWAGG  # noqa: B018
