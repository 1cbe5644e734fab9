"""What a table of a paper is: networks, methods, measures, the printed figures and the data they are of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CURVES", "WEAK_LOCALISATION", "Figure", "Measure", "Method", "Network", "Table", "printed"]

_NUMBER = re.compile(r"~?(-?\d*\.?\d+)(?:\.\.(-?\d*\.?\d+))?")
_NOTHING = "-"


@dataclass(frozen=True)
class Figure:
    """A number of a paper."""

    value: float
    #: As it stands there: "0.105", "~10" where the paper says "about", "12..14" where it gives a range.
    text: str


@dataclass(frozen=True)
class Network:
    """A network of a paper, by the paper's name."""

    name: str
    #: What `midgrain.models.load_model` takes; None where it cannot be had that way.
    model: str | None
    #: What to say of weights that midgrain cannot fetch.
    weights: str = ""


@dataclass(frozen=True)
class Method:
    """A method of a paper, as midgrain runs it."""

    #: One of `midgrain.methods()`, or what makes an explainer of the network.
    explainer: str | Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Forward passes of one explanation, a backward pass counted as one more.
    passes: int = 2
    #: Network -> options and passes that differ there.
    elsewhere: Mapping[str, tuple[Mapping[str, Any], int]] = field(default_factory=dict)

    def on(self, network: str) -> tuple[dict[str, Any], int]:
        """Options and passes on a network."""
        options, passes = self.elsewhere.get(network, ({}, self.passes))
        return {**self.options, **options}, passes


@dataclass(frozen=True)
class Measure:
    """A measure of a paper, as `midgrain.evaluate` runs it."""

    #: One of `midgrain.evaluate.MEASURES`; "" where this version has none.
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    #: "lower" or "higher".
    better: str = "lower"
    #: The column of the results, after the label: "increase" of drop_increase.
    part: str = ""
    #: From the results' number to the paper's: 100 for per cent.
    factor: float = 1.0
    #: Forward passes for one explanation.
    passes: int = 0
    #: The samples that count, one of the layout's subsets; all of them where empty.
    subset: str = ""
    #: The label whose column this measure reads, where another one has filled it.
    of: str = ""


#: Deletion and insertion as the thesis measures them.
CURVES = {
    "deletion": Measure("deletion", {"steps": 28}, passes=29),
    "insertion": Measure("insertion", {"steps": 28}, "higher", passes=29),
}
#: Weak localisation by the thesis's three thresholds, in per cent.
WEAK_LOCALISATION = {
    label: Measure("weak_localisation", {"thresholding": label}, factor=100.0) for label in ("value", "mean", "energy")
}


@dataclass(frozen=True)
class Table:
    """A table of a paper."""

    name: str
    #: What it shows, in one line.
    title: str
    #: Where the figures stand.
    source: str
    #: One of `midgrain.evaluate.layouts.LAYOUTS`, or "" where no data are needed.
    layout: str
    networks: Sequence[Network]
    #: The paper's name -> how midgrain runs it; methods that only have figures are not in midgrain.
    methods: Mapping[str, Method]
    #: Label -> measure.
    measures: Mapping[str, Measure]
    #: The paper's name of the network -> method -> label -> figure.
    figures: Mapping[str, Mapping[str, Mapping[str, Figure]]]
    #: How many samples the paper had.
    samples: str
    #: Where this differs from the paper's setting, or the paper does not say.
    differences: Sequence[str] = ()
    #: Which class is explained, see `midgrain.evaluate.evaluate`.
    target: str = "predicted"
    #: Pictures are shown whole, their shorter side as long as the network's input, instead of a square from the centre.
    whole_pictures: bool = False
    #: Digits after the point.
    decimals: int = 3
    #: Also run the methods that the paper has no figure of.
    every_method: bool = False
    #: What runs it: "explanations" (`midgrain.evaluate.evaluate`), "filters" or "timing".
    kind: str = "explanations"

    def network(self, name: str) -> Network:
        """A network by the paper's name, in any case.

        Raises:
            ValueError: an unknown one.
        """
        for network in self.networks:
            if network.name.casefold() == name.casefold():
                return network
        raise ValueError(f"network: expected one of {', '.join(n.name for n in self.networks)}, got {name!r}")

    def rows(self, network: str) -> list[str]:
        """The methods with a figure for a network, in the paper's order; with `every_method` the others too."""
        known = list(self.figures.get(network, {}))
        return known + [name for name in self.methods if self.every_method and name not in known]

    def passes(self, network: str, methods: Sequence[str] | None = None) -> int:
        """Forward passes for one sample, about; see `Method.passes`."""
        run = [name for name in self.rows(network) if name in self.methods and (methods is None or name in methods)]
        measuring = sum(measure.passes for measure in self.measures.values())
        return sum(self.methods[name].on(network)[1] + measuring for name in run)


def printed(text: str, columns: Sequence[tuple[str, str]]) -> dict[str, dict[str, dict[str, Figure]]]:
    """The figures of a table as it is printed: a line for each method, its name, then a number for each column.

    Args:
        text: the lines; "-" stands where there is no number, "~10" for about 10, "12..14" for a range.
        columns: (network, label) of each column.

    Returns:
        Network -> method -> label -> figure.

    Raises:
        ValueError: a line with too few numbers, or something else than a number.

    Example:
        >>> from midgrain.evaluate.papers.declaration import printed
        >>> printed("Grad-CAM ++  .147 -", [("ResNet50", "deletion"), ("ResNet50", "insertion")])
        {'ResNet50': {'Grad-CAM ++': {'deletion': Figure(value=0.147, text='.147')}}}
    """
    found: dict[str, dict[str, dict[str, Figure]]] = {network: {} for network, _ in columns}
    for line in text.strip().splitlines():
        words = line.split()
        name, numbers = " ".join(words[: -len(columns)]), words[-len(columns) :]
        if not name or len(numbers) < len(columns):
            raise ValueError(f"text: expected a name and {len(columns)} numbers, got {line!r}")
        for (network, label), number in zip(columns, numbers, strict=True):
            if number != _NOTHING:
                found[network].setdefault(name, {})[label] = _figure(number)
    return found


def _figure(text: str) -> Figure:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"text: expected a number, got {text!r}")
    low, high = match[1], match[2] or match[1]
    return Figure((float(low) + float(high)) / 2, text)
