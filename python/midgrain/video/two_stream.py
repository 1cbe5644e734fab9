"""Two-stream networks: what they look at in the frames, and what in the motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from midgrain import driver, ops
from midgrain.cams import CAM, make_map_scorer
from midgrain.driver import Target
from midgrain.explainer_base import check_scores, to_uint8
from midgrain.explanation import Explanation
from midgrain.normalisation import Normalisation
from midgrain.ops.checks import check_int, check_positive
from midgrain.regions.base import painted, pooled
from midgrain.regions.superpixels import Segmentation, SlicOptions
from midgrain.scorers import Score, Scorer, ScorerFunction
from midgrain.video.flow import FlowFunction, check_flow, optical_flow
from midgrain.video.motion_superpixels import MotionSuperpixels

__all__ = ["TwoStream", "TwoStreamExplanation"]

_FLOW_INPUTS = ("stack", "clip")
_RGB_INPUTS = ("clip", "frames")


@dataclass(frozen=True, eq=False)
class TwoStreamExplanation:
    """What each stream looks at, with the superpixels that they share."""

    #: Of the appearance: heat map [B, T, H, W].
    rgb: Explanation
    #: Of the motion: heat map [B, T, H, W], frame t's from the flow between t and t + 1; the last frame has that of
    #: the one before it.
    flow: Explanation
    #: The mean of both streams' probabilities, [B, classes]; None where their classes are not the same in number.
    probabilities: Tensor | None
    #: The optical flow, float32 [B, T - 1, H, W, 2] on the input's device: to the right and down, in pixels per frame.
    motion: Tensor

    @property
    def segments(self) -> Tensor:
        """The superpixels, int32 [B, T, H, W]."""
        assert self.rgb.segments is not None
        return self.rgb.segments


class _Frames(nn.Module):
    """An image network on clips: the mean of the frames' outputs."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        frames = x.movedim(2, 1)
        outputs: Tensor = self.network(frames.flatten(0, 1))
        mean: Tensor = outputs.unflatten(0, frames.shape[:2]).mean(1)
        return mean


class _Stacks(nn.Module):
    """A network for stacks of flow on all flow of a clip, [B, 2, F, H, W]: the mean over stacks of L flows.

    Stacks follow each other; where L does not divide F, one more ends with the last flow.
    """

    def __init__(self, network: Any, length: int | None):
        super().__init__()
        self.network, self.length = network, length

    def forward(self, x: Tensor) -> Tensor:
        flows = x.shape[2]
        length = flows if self.length is None else self.length
        if length > flows:
            raise ValueError(f"stack: expected up to {flows} flows, as the clip has, got {length}")
        starts = [*range(0, flows - length + 1, length)]
        if starts[-1] + length < flows:
            starts.append(flows - length)
        # u and v of the first flow, u and v of the second one, ...
        outputs = [self.network(x[:, :, start : start + length].movedim(2, 1).flatten(1, 2)) for start in starts]
        return torch.stack(outputs).mean(0) if len(outputs) > 1 else outputs[0]


class TwoStream:
    """SWAG for networks with a stream for appearance and one for motion (Thesis 4.6).

    Each network's pixels are scored by themselves; one set of superpixels, made from colours, both maps and optical
    flow, is shared by both, so that the two heat maps can be compared region by region. The probabilities of the two
    are averaged, as Simonyan and Zisserman do.

    Args:
        rgb_network: the appearance's.
        flow_network: the motion's.
        rgb_input: "clip", [B, 3, T, H, W], or "frames": a network for images, whose outputs are averaged over the
            frames.
        flow_input: "stack", [B, 2 L, H, W] with u and v of one flow after the other, or "clip", [B, 2, T - 1, H, W].
        stack: L; None takes all flow of the clip as one stack. With a shorter one the outputs are averaged over stacks
            that follow each other.
        flow_limit: flow is cut at so many pixels per frame and divided by it for its network (20 as I3D's); None
            leaves it in pixels.
        flow: the function that makes it, by default `midgrain.video.optical_flow` (OpenCV).
        superpixels: some of "image", "gradient" and "flow", joined by "+".
        scorer: of both networks' pixels, see `midgrain.SWAG`.
        flow_scorer: of the flow network's; by default `scorer`. A class activation map needs `flow_input="clip"`.
        n_segments: wanted superpixels; by default 120, fewer for tiny inputs.
        compactness: see `midgrain.SWAG`.
        gradient_compactness: see `midgrain.SWAG`.
        flow_compactness: weight of motion in the superpixels, in pixels per frame; smaller follows it more.
        reduce: see `midgrain.SWAG`.
        max_num_iter: see `midgrain.SWAG`.
        spacing: see `midgrain.SWAG`.
        min_size_factor: see `midgrain.SWAG`.
        mean: normalisation of the frames; by default Kinetics' for clips and ImageNet's for frames.
        std: likewise.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Source: Simonyan and Zisserman, "Two-stream convolutional networks for action recognition in videos", 2014; I3D:
    Carreira and Zisserman 2017.

    Example:
        >>> import torch
        >>> from midgrain.video import TwoStream
        >>> def net(conv, pool, channels):
        ...     return torch.nn.Sequential(conv(channels, 8, 3), torch.nn.ReLU(), pool(1), torch.nn.Flatten(),
        ...                                torch.nn.Linear(8, 4))
        >>> rgb = net(torch.nn.Conv3d, torch.nn.AdaptiveAvgPool3d, 3)
        >>> flow = net(torch.nn.Conv2d, torch.nn.AdaptiveAvgPool2d, 2 * 5)
        >>> e = TwoStream(rgb, flow)(torch.rand(1, 3, 6, 32, 32), flow=torch.zeros(1, 5, 32, 32, 2))
        >>> e.rgb.heatmap.shape, e.flow.heatmap.shape, e.probabilities.shape
        (torch.Size([1, 6, 32, 32]), torch.Size([1, 6, 32, 32]), torch.Size([1, 4]))
    """

    def __init__(
        self,
        rgb_network: Any,
        flow_network: Any,
        *,
        rgb_input: str = "clip",
        flow_input: str = "stack",
        stack: int | None = None,
        flow_limit: float | None = 20.0,
        flow: FlowFunction = optical_flow,
        superpixels: str = "image+gradient+flow",
        scorer: str | Scorer | ScorerFunction = "guided",
        flow_scorer: str | Scorer | ScorerFunction | None = None,
        n_segments: int | None = None,
        compactness: float = 20.0,
        gradient_compactness: float = 9.0,
        flow_compactness: float = 1.0,
        reduce: str = "mean",
        max_num_iter: int = 10,
        spacing: Sequence[float] | None = None,
        min_size_factor: float = 0.5,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        for network in (rgb_network, flow_network):
            driver.check_model(network)
        for name, value, known in (("rgb_input", rgb_input, _RGB_INPUTS), ("flow_input", flow_input, _FLOW_INPUTS)):
            if value not in known:
                raise ValueError(f"{name}: expected {' or '.join(known)}, got {value!r}")
        if not callable(flow):
            raise TypeError(f"flow: expected a function of frames, got {type(flow).__name__}")
        if reduce not in ops.REDUCTIONS:
            raise ValueError(f"reduce: expected one of {', '.join(ops.REDUCTIONS)}, got {reduce!r}")
        if stack is not None:
            check_int(stack, "stack", 1)
        self.rgb_network = rgb_network if rgb_input == "clip" else _Frames(rgb_network)
        self.flow_network = flow_network if flow_input == "clip" else _Stacks(flow_network, stack)
        self.flow_limit = None if flow_limit is None else check_positive(flow_limit, "flow_limit")
        self.make_flow, self.reduce, self._images = flow, reduce, rgb_input == "frames"
        options = SlicOptions(n_segments, compactness, gradient_compactness, max_num_iter, spacing, min_size_factor)
        self.superpixels = MotionSuperpixels(superpixels, options, flow_compactness)
        self.rgb_scorer = make_map_scorer(scorer, mean=mean, std=std)
        self.flow_scorer = make_map_scorer(scorer if flow_scorer is None else flow_scorer)
        for name, made, frames in (
            ("scorer", self.rgb_scorer, self._images),
            ("flow_scorer", self.flow_scorer, flow_input == "stack"),
        ):
            if frames and isinstance(made, CAM):
                raise ValueError(
                    f"{name}: class activation maps of a network that sees no clip say nothing of single frames; take "
                    "a pixel scorer such as 'guided'"
                )
        self._normalisation = Normalisation(mean, std)

    def __call__(
        self, x: Tensor, target: Target = None, flow_target: Target = None, *, flow: Tensor | None = None
    ) -> TwoStreamExplanation:
        """Explain a batch of clips.

        Args:
            x: floats [B, 3, T, H, W], T of 2 or more, normalised as the appearance's network expects.
            target: what is explained of both streams, see `midgrain.SWAG`. None stands for the class of the averaged
                probabilities; where the networks' classes are not the same in number, for each one's own.
            flow_target: of the motion's stream, where it is another.
            flow: optical flow, floats [B, T - 1, H, W, 2], to the right and down in pixels per frame; by default made
                from x.

        Raises:
            TypeError, ValueError: see `midgrain.driver`; flow that does not fit, NaN or infinity in the gradient.
            ModuleNotFoundError: optical flow is to be made and OpenCV is not installed.
        """
        x = driver.check_input(x)
        if x.ndim != 5 or x.shape[1] != 3 or x.shape[2] < 2:
            raise ValueError(f"x: expected clips [B, 3, T, H, W] of two frames or more, got shape {list(x.shape)}")
        rgb = self._rgb(x)
        pictures = self.pictures(x)
        motion = self._motion(pictures, flow).to(x.device)
        moves = motion.movedim(-1, 1)
        seen = moves if self.flow_limit is None else moves.clamp(-self.flow_limit, self.flow_limit) / self.flow_limit
        seen = seen.to(x.dtype).contiguous()
        networks = nn.ModuleList(
            [each for each in (self.rgb_network, self.flow_network) if isinstance(each, nn.Module)]
        )
        with driver.preserved(networks, x):
            scores = self._scores(x, seen, target, target if flow_target is None else flow_target)
        appearance, moving = (score.map for score in scores)
        moving = torch.cat([moving, moving[:, -1:]], 1)
        with torch.no_grad():
            segments = self.superpixels.make(rgb, [appearance, moving], torch.cat([moves, moves[:, :, -1:]], 2))
        return TwoStreamExplanation(
            self._explanation("two-stream-rgb", appearance, scores[0], segments, pictures),
            self._explanation("two-stream-flow", moving, scores[1], segments, pictures),
            _fused(scores),
            motion,
        )

    def pictures(self, x: Tensor) -> Tensor:
        """The pictures behind x [B, 3, T, H, W], uint8 [B, T, H, W, 3]: what flow is made of."""
        found = to_uint8(self._rgb(x))
        assert found is not None
        return found

    def _rgb(self, x: Tensor) -> Tensor:
        """float32 [B, 3, T, H, W] in 0 .. 1."""
        given: Tensor = x.movedim(2, 1).flatten(0, 1) if self._images else x
        found: Tensor | None = self._normalisation.rgb(given)
        assert found is not None
        return found.unflatten(0, (x.shape[0], x.shape[2])).movedim(2, 1) if self._images else found

    def _motion(self, pictures: Tensor, flow: Tensor | None) -> Tensor:
        """Optical flow, float32 [B, T - 1, H, W, 2], on the CPU."""
        batch, frames, height, width, _ = pictures.shape
        if flow is None:
            found = [check_flow(self.make_flow(each), frames, height, width) for each in pictures.cpu().numpy()]
            return torch.from_numpy(np.stack(found))
        if not isinstance(flow, Tensor):
            raise TypeError(f"flow: expected a tensor, got {type(flow).__name__}")
        if len(flow) != batch:
            raise ValueError(f"flow: expected one for each of {batch} clips, got shape {list(flow.shape)}")
        found = [check_flow(each.detach().cpu().numpy(), frames, height, width) for each in flow]
        return torch.from_numpy(np.stack(found))

    def _scores(self, x: Tensor, seen: Tensor, target: Target, flow_target: Target) -> list[Score]:
        """Both streams' maps. Without a target each is asked for its own class first, which mostly is that of both."""
        streams = [
            (self.rgb_scorer, self.rgb_network, x, target),
            (self.flow_scorer, self.flow_network, seen, flow_target),
        ]
        scores = [scorer.score(network, inputs, wanted) for scorer, network, inputs, wanted in streams]
        probabilities = _fused(scores)
        if probabilities is not None:
            fused = probabilities.argmax(1)
            for number, (scorer, network, inputs, wanted) in enumerate(streams):
                own = scores[number].result.target
                if wanted is None and own is not None and not torch.equal(own, fused):
                    scores[number] = scorer.score(network, inputs, fused)
        for score, like in zip(scores, (x, seen), strict=True):
            check_scores(score.map)
            if list(score.map.shape) != [len(like), *like.shape[2:]]:
                raise ValueError(
                    f"scorer: expected maps of shape {[len(like), *like.shape[2:]]}, got {list(score.map.shape)}"
                )
        return scores

    def _explanation(
        self, name: str, maps: Tensor, score: Score, segments: Segmentation, pictures: Tensor
    ) -> Explanation:
        regions = pooled(maps, segments, self.reduce)
        return Explanation(
            heatmap=painted(regions, segments),
            method=name,
            segments=segments.labels.to(maps.device),
            scores=regions,
            counts=segments.counts.to(maps.device),
            target=score.result.target,
            outputs=score.result.outputs,
            details=score.details,
            image=pictures,
        )


def _fused(scores: Sequence[Score]) -> Tensor | None:
    """The mean of the streams' probabilities; None where they have none, or not of as many classes."""
    outputs = [score.result.outputs for score in scores]
    if any(each is None for each in outputs):
        return None
    first, second = (each.float().softmax(1) for each in outputs if each is not None)
    return (first + second) / 2 if first.shape == second.shape else None
