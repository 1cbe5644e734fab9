"""Explainers recorded as CUDA graphs."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.driver import Target
from midgrain.explanation import Explanation
from midgrain.ops.deferred import DeferredChecks, deferred_checks, static_sizes

if TYPE_CHECKING:
    from midgrain.explainer_base import Explainer

__all__ = ["CompiledExplainer", "CudaRecorder"]

# Runs before a recording: libraries choose algorithms and allocate in their first ones.
_WARM_UPS = 3
# Graphs at a time, each with memory for the network's activations: a new callable target with every call must not fill
# the device.
_MOST_RECORDINGS = 8

#: An explanation, and what has to be checked before it is believed.
Recorded: TypeAlias = tuple[Explanation, DeferredChecks]


class CudaRecorder:
    """Records work on a CUDA device as a graph."""

    def problem(self, x: Tensor) -> str | None:
        """Why work on this input cannot be recorded, None where it may be."""
        if not x.is_cuda:
            return f"the input lies on {x.device}; CUDA graphs are of work on a CUDA device"
        return None

    def record(self, work: Callable[[], Recorded], x: Tensor) -> tuple[Callable[[], None], Recorded]:
        """Runs the work some times, then records it.

        Args:
            work: what to record; reads x, and is called inside `driver.preserved` alone.
            x: the input, whose memory stays the same.

        Returns:
            What replays it, and what the work returned, whose tensors each replay overwrites.
        """
        with torch.cuda.device(x.device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    work()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may allocate meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                recorded = work()

        def replay() -> None:
            with torch.cuda.device(x.device):
                graph.replay()

        return replay, recorded


class _Weights:
    """Where a model's modules, parameters and buffers were; asked with every replay, so nothing is searched for."""

    def __init__(self, model: Any) -> None:
        self._entries: list[tuple[dict[str, Any], str, Any, int]] = []
        for module in model.modules() if isinstance(model, nn.Module) else ():
            tables: list[dict[str, Any]] = [module._parameters, module._buffers, module._modules]
            for held in tables:
                for name, value in held.items():
                    self._entries.append((held, name, value, value.data_ptr() if isinstance(value, Tensor) else 0))

    def are_where_they_were(self) -> bool:
        """Is none of them another one, or elsewhere?"""
        for held, name, value, address in self._entries:
            if held.get(name) is not value or (isinstance(value, Tensor) and value.data_ptr() != address):
                return False
        return True


@dataclass
class _Recording:
    """One recorded graph, its inputs and its results."""

    x: Tensor
    #: int64 [B]; None where the target is none or a callable.
    classes: Tensor | None
    replay: Callable[[], None]
    explanation: Explanation
    checks: DeferredChecks
    weights: _Weights
    #: Keeps a callable target, and with it the identity that the recording is found by.
    target: Target


class CompiledExplainer:
    """An explainer whose work, network included, is recorded once and then replayed; see `Explainer.compile`.

    Call it as the explainer itself. The model's weights are read where they lie: training them in place shows in the
    next call; where parameters have moved or modules were replaced (`load_state_dict(assign=True)`, `.half()`, a new
    head), the work is recorded anew.

    Attributes:
        explainer: what was compiled.
        captured: is a graph replayed for targets like the example's?
        reason: why not; None where it is.
    """

    def __init__(self, explainer: Explainer, example: Tensor, target: Target, recorder: CudaRecorder | None = None):
        self.explainer = explainer
        self._recorder = recorder or CudaRecorder()
        self._recordings: dict[object, _Recording | str] = {}
        self._lock = threading.Lock()
        self._last: Any = None
        driver.check_input(example)
        self._shape_dtype_device = (list(example.shape), example.dtype, example.device)
        self._problem = self._recorder.problem(example)
        self._key = _key(target)
        # Either way the explainer itself runs once: what is wrong with the example or the model is raised as always.
        if self._problem is not None:
            explainer(example, target)
        else:
            with torch.inference_mode(False):
                self._recording(example, target)

    @property
    def captured(self) -> bool:
        """Is a graph replayed for targets like the example's?"""
        return self.reason is None

    @property
    def reason(self) -> str | None:
        """Why the explainer itself answers; None where a graph is replayed."""
        if self._problem is not None:
            return self._problem
        found = self._recordings.get(self._key)
        return found if isinstance(found, str) else None

    def __repr__(self) -> str:
        shape, dtype, device = self._shape_dtype_device
        how = "captured" if self.captured else f"not captured: {self.reason}"
        return f"CompiledExplainer({self.explainer.name!r}, {shape}, {dtype}, {device}, {how})"

    def __call__(self, x: Tensor, target: Target = None) -> Explanation:
        """Explain a batch of the example's shape, dtype and device; see `Explainer`.

        Raises:
            TypeError: x is no tensor.
            ValueError: x is unlike the example; whatever the explainer raises.
        """
        self._check_like_example(x)
        if self._problem is not None:
            return self.explainer(x, target)
        with self._lock, torch.inference_mode(False), torch.no_grad():
            recording = self._recording(x, target)
            if recording is None:
                return self.explainer(x, target)
            return self._replay(recording, x, target)

    def _check_like_example(self, x: object) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a torch tensor, got {type(x).__name__}")
        shape, dtype, device = self._shape_dtype_device
        if (list(x.shape), x.dtype, x.device) != (shape, dtype, device):
            raise ValueError(
                f"x: expected shape {shape}, {dtype} on {device}, as the example of compile() had, got "
                f"{list(x.shape)}, {x.dtype} on {x.device}"
            )

    def _recording(self, x: Tensor, target: Target) -> _Recording | None:
        """The graph for this kind of target, recorded where there is none yet; None where there cannot be one."""
        key = _key(target)
        found = self._recordings.get(key)
        if isinstance(found, _Recording) and not found.weights.are_where_they_were():
            found = None
        if found is None:
            self._recordings.pop(key, None)
            while len(self._recordings) >= _MOST_RECORDINGS:
                del self._recordings[next(iter(self._recordings))]
            found = self._recordings[key] = self._record(x, target)
            if isinstance(found, str):
                warnings.warn(
                    f"{self.explainer.name}: not recorded as a CUDA graph, so it runs as without compile(): {found}",
                    RuntimeWarning,
                    stacklevel=3,
                )
        return found if isinstance(found, _Recording) else None

    def _record(self, x: Tensor, target: Target) -> _Recording | str:
        # What the caller asks for may be wrong; only then is the work itself to blame.
        outputs = self.explainer(x, target).outputs
        still, classes = x.detach().clone(), None
        if target is not None and not callable(target):
            assert outputs is not None
            classes = driver.class_tensor(target, len(x), outputs.shape[1]).to(x.device).clone()

        def work() -> Recorded:
            with static_sizes(), deferred_checks() as checks, _weights_cast_anew(x):
                explanation = self.explainer._explain(driver.check_input(still), target if classes is None else classes)
                checks.gather()
            return explanation, checks

        try:
            with driver.preserved(self.explainer.model, x):
                replay, (explanation, checks) = self._recorder.record(work, still)
        except Exception as error:  # Whatever a network does that a graph cannot hold.
            return _cause(error)
        weights = _Weights(self.explainer.model)
        return _Recording(still, classes, replay, explanation, checks, weights, target)

    def _replay(self, recording: _Recording, x: Tensor, target: Target) -> Explanation:
        outputs = recording.explanation.outputs
        wait_for, done = _ordered(x)
        wait_for(self._last)
        if recording.classes is not None:
            assert outputs is not None
            recording.classes.copy_(driver.class_tensor(target, len(x), outputs.shape[1]))
        recording.x.copy_(x.detach())
        recording.replay()
        explanation = _cloned(recording.explanation)
        self._last = done()
        recording.checks.raise_if_bad()
        return _cut(explanation)


def _key(target: Target) -> object:
    """What a recording depends on besides the input: the kind of target, or which callable, and autocast."""
    kind = "predicted" if target is None else id(target) if callable(target) else "classes"
    return kind, torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")


def _cause(error: BaseException) -> str:
    """One line on what went wrong first: the end of a broken recording fails, too."""
    while error.__context__ is not None:
        error = error.__context__
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])


@contextlib.contextmanager
def _weights_cast_anew(x: Tensor) -> Iterator[None]:
    """Autocast, where it is on, keeps no casts of weights: a graph would read them after they are freed."""
    if not torch.is_autocast_enabled(x.device.type):
        yield
        return
    with torch.autocast(x.device.type, torch.get_autocast_dtype(x.device.type), cache_enabled=False):
        yield


def _ordered(x: Tensor) -> tuple[Callable[[Any], None], Callable[[], Any]]:
    """Makes the current stream wait for an event, and records one: calls may come on different streams."""
    if not x.is_cuda:
        return lambda event: None, lambda: None
    stream = torch.cuda.current_stream(x.device)

    def wait_for(event: Any) -> None:
        if event is not None:
            stream.wait_event(event)

    return wait_for, stream.record_event


def _cloned(explanation: Explanation) -> Explanation:
    """The caller's own copy; the next replay overwrites the recorded one."""
    changes: dict[str, Any] = {
        field.name: value.clone()
        for field in dataclasses.fields(explanation)
        if isinstance(value := getattr(explanation, field.name), Tensor)
    }
    changes["details"] = {name: value.clone() for name, value in explanation.details.items()}
    return dataclasses.replace(explanation, **changes)


def _cut(explanation: Explanation) -> Explanation:
    """Scores up to the largest count; recorded ones reach to the bound known beforehand."""
    if explanation.scores is None or explanation.counts is None:
        return explanation
    return dataclasses.replace(explanation, scores=explanation.scores[:, : int(explanation.counts.max())])
