"""The networks of a table, loaded before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from midgrain.evaluate.papers.declaration import Network, Table
from midgrain.models import LoadedModel, load_model, load_untrained

__all__ = ["Chosen", "Weights", "choose_networks", "methods_on"]


@dataclass(frozen=True)
class Weights:
    """Which weights the networks have.

    Attributes:
        model: what runs instead: a text for `midgrain.models.load_model`, or a loaded model; None is the table's own.
        file: of a state dict for the table's own network; None takes torchvision's.
        random: random weights instead, which measure nothing: to see that all runs, and for timing.
        device: where the networks go.
        seed: of random weights.
    """

    model: str | LoadedModel | None = None
    file: str | os.PathLike[str] | None = None
    random: bool = False
    device: str | torch.device = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        given = [self.model is not None, self.file is not None, self.random]
        if sum(given) > 1:
            raise ValueError("weights: expected at most one of a model, a file of weights and random weights")


@dataclass(frozen=True, eq=False)
class Chosen:
    """A network that is to be run."""

    network: Network
    loaded: LoadedModel
    #: What runs, in words.
    what: str
    untrained: bool = False


def choose_networks(
    table: Table, names: Sequence[str] | None, weights: Weights, methods: Sequence[str] | None = None
) -> list[Chosen]:
    """Load the networks of a table.

    Args:
        table: the table.
        names: the paper's names; None is all that can be had, or the first with a model or a file of one's own.
        weights: which.
        methods: those to be run, by the paper's names; networks without any of them are left out. None is all.

    Returns:
        One for each network that is run; those whose weights only the user can have are left out unless named.

    Raises:
        ValueError: an unknown name, several for one model, a network that cannot be had or has none of the methods,
            weights that do not fit.
        FileNotFoundError: weights that are neither here nor to be fetched.
    """
    wanted = [table.network(name) for name in dict.fromkeys(names or [])]
    fitting = [network for network in wanted or table.networks if methods_on(table, network.name, methods)]
    if len(fitting) < len(wanted) or not fitting:
        without = next(network.name for network in wanted or table.networks if network not in fitting)
        raise ValueError(f"methods: the paper has none of {', '.join(methods or [])} for {without}")
    if weights.model is not None or weights.file is not None:
        if len(wanted) > 1:
            raise ValueError(
                f"network: expected one, whose figures stand beside the given model, got "
                f"{', '.join(network.name for network in wanted)}"
            )
        fitting = fitting[:1]
    elif not wanted:
        fitting = [network for network in fitting if network.model is not None] or fitting[:1]
    return [_choose(table.name, network, weights) for network in fitting]


def methods_on(table: Table, network: str, methods: Sequence[str] | None) -> list[str]:
    """Those of the methods that midgrain has and that are run on a network, in the paper's order; None is all."""
    rows = table.rows(network)
    return [name for name in rows if name in table.methods and (methods is None or name in methods)]


def _choose(table: str, network: Network, weights: Weights) -> Chosen:
    if isinstance(weights.model, LoadedModel):
        return Chosen(network, weights.model, f"{weights.model.name}, given")
    if weights.model is not None:
        return Chosen(network, load_model(weights.model, weights.device), f"{weights.model}, given")
    if network.model is None:
        raise ValueError(f"model: expected one for {network.name} of {table}, got none; {network.weights}")
    if weights.random:
        loaded = load_untrained(network.model, weights.seed)
        loaded.model.to(weights.device)
        return Chosen(network, loaded, f"{network.model.partition('@')[0]} with random weights", True)
    if weights.file is not None:
        state = _state(Path(weights.file))
        loaded = load_untrained(network.model)
        _fill(loaded.model, state, weights.file)
        loaded.model.to(weights.device)
        return Chosen(network, replace(loaded, name=str(weights.file)), f"{network.model}, weights {weights.file}")
    return Chosen(network, load_model(network.model, weights.device), network.model)


def _state(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"weights: there is no file {str(path)!r}")
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"weights: {str(path)!r} holds no state dict ({_first_line(error)})") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"weights: expected a state dict in {str(path)!r}, got {type(found).__name__}")
    inner: Mapping[str, Any] = found.get("state_dict", found)
    return inner


def _fill(model: torch.nn.Module, state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"weights: {os.fspath(path)!r} does not fit the network ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
