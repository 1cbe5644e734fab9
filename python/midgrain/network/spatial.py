"""Which of a network's layers return maps of the whole input, and how to read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from midgrain.network.capture import Site
from midgrain.network.layout import ChannelsFirst, Layout, Tokens, layout_of
from midgrain.network.trace import Call, Trace

__all__ = ["Layouts", "is_convolution", "is_norm", "is_pooling", "spatial_sites"]


def spatial_sites(x: Tensor, calls: Trace, *, outputs: bool = False) -> Iterator[Site]:
    """Spatial outputs, last first; of several modules that hand on the same tensor, the outermost.

    Poolings do not count.

    Args:
        x: the network's input.
        calls: the trace of the network for inputs of this shape.
        outputs: also what the network itself returns, which is what is explained.
    """
    met: set[tuple[Call, int]] = set() if outputs else set(calls.calls[-1].makers)
    layouts = Layouts(x, calls)
    width = None
    for call in reversed(calls.calls[:-1]):
        for item, maker in enumerate(call.makers):
            made_inside = maker[0] is call or any(outer is call for outer in maker[0].ancestors)
            if maker in met or not made_inside:
                continue
            met.add(maker)
            layout = layouts.of(call, item)
            if layout is None or is_pooling(maker[0].module):
                continue
            if isinstance(layout, Tokens):
                # Queries, keys and values, apart or side by side, and hidden layers are not the tokens themselves.
                if isinstance(call.module, nn.Linear) or _operation(call.module) == "linear":
                    continue
                width = width or call.shapes[item][-1]
                if call.shapes[item][-1] != width:
                    continue
            yield Site(call.name, call.module, call.index, item, layout)


class Layouts:
    """Layouts of what the calls of a trace returned."""

    def __init__(self, x: Tensor, calls: Trace):
        self._size = x.shape[2:]
        self._batch = calls.batch
        #: Sizes of the maps and numbers of tokens that were there when a call returned, per call.
        self._before: dict[Call, tuple[tuple[tuple[int, ...], ...], frozenset[int]]] = {}
        grids: tuple[tuple[int, ...], ...] = ()
        tokens: frozenset[int] = frozenset()
        for call in calls.calls:
            self._before[call] = (grids, tokens)
            for shape in call.shapes:
                # Attention may fold its heads into the batch; the positions are told all the same.
                if len(shape) == x.ndim and shape[0]:
                    if (
                        isinstance(layout_of(shape, self._size, shape[0]), ChannelsFirst)
                        and shape[2:] not in grids[-1:]
                    ):
                        grids = (*(grid for grid in grids if grid != shape[2:]), shape[2:])
                elif len(shape) == 3:
                    tokens |= {shape[1]}

    def of(self, call: Call, item: int) -> Layout | None:
        """The layout of one of the tensors that a call returned; None where it is not spatial."""
        shape = call.shapes[item]
        if not call.floating[item]:
            return None
        grids, tokens = self._before[call]
        if len(shape) == len(self._size) + 2 and shape[-1] == shape[-2] and shape[-1] in tokens:
            return None  # Attention from every token to every token.
        return layout_of(shape, self._size, self._batch, grids, last=_normalises_last_axis(call.module, shape))


def _normalises_last_axis(module: nn.Module, shape: Sequence[int]) -> bool:
    normalised = list(getattr(module, "normalized_shape", ())) == list(shape[-1:])
    return len(shape) > 3 and (normalised or _operation(module) == "layer_norm")


def is_pooling(module: nn.Module) -> bool:
    """Does it pool, and nothing else, as far as its name or its one operation tells?"""
    named = "Pool" in type(module).__name__ and next(module.parameters(), None) is None
    return named or "pool" in _operation(module)


def is_convolution(module: nn.Module) -> bool:
    """Does it convolve, and nothing else, as far as its class or its one operation tells?"""
    return isinstance(module, _ConvNd) or _operation(module).startswith("conv")


def is_norm(module: nn.Module) -> bool:
    """Does it normalise its input, as far as its class's name or its one operation tells?"""
    named = "norm" in type(module).__name__.lower()
    weighs = any(isinstance(inner, _ConvNd | nn.Linear) for inner in module.modules())
    return (named and not weighs) or "norm" in _operation(module)


def _operation(module: nn.Module) -> str:
    """The operation that a module of an exported program consists of, "" where it is not just one."""
    graph = getattr(module, "graph", None)
    if not isinstance(graph, torch.fx.Graph):
        return ""
    nodes = [node for node in graph.nodes if node.op in ("call_function", "call_module")]
    names = [getattr(node.target, "__name__", "").partition(".")[0] for node in nodes]
    return names[0] if len(names) == 1 else ""
