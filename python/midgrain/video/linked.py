"""Image networks on clips: pixel scores frame by frame, superpixels that reach through the frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midgrain import ops
from midgrain.cams import make_map_scorer
from midgrain.driver import Target
from midgrain.explainer_base import check_scores, to_uint8
from midgrain.explanation import Explanation
from midgrain.network.altered import copies_at_once
from midgrain.ops.arrays import is_integral
from midgrain.ops.checks import check_int
from midgrain.regions.base import RegionExplainer, painted, pooled
from midgrain.regions.superpixels import SlicOptions, SuperpixelChoice
from midgrain.scorers import Scorer, ScorerFunction
from midgrain.video.frame_scores import FrameScore, score_frames

__all__ = ["LinkedFrames"]

# As for single pictures: in a window that is shorter than a superpixel is wide, each one reaches through all frames,
# and the frames are divided as a picture is.
_DEFAULT_COUNT = 300
_NAMES = {"image": "linked-i", "gradient": "linked-g", "image+gradient": "linked-ig"}


class LinkedFrames(RegionExplainer):
    """SWAG of an image network on a clip, with superpixels of the clip as a volume.

    The network scores the pixels of every frame by itself. One SLIC over all frames makes superpixels that last for
    several of them, and each has one score, the mean over its pixels in all its frames: the heat map moves with what
    it lies on, where single frames' superpixels and gradients would flicker.

    What is explained is the clip's class, that of the mean of the frames' logits, in every frame alike: the gradient
    of that mean is, but for the factor 1 / T, the gradient of each frame's own logit. The frames' own classes would
    change back and forth between two that are nearly as likely, and the heat with them.

    Args:
        model: a network for images, returning logits [B, classes]; anything else needs a callable target.
        superpixels: see `midgrain.SWAG`; made from the clip as a whole.
        scorer: see `midgrain.SWAG`; of single frames.
        n_segments: wanted superpixels of the volume; by default 300, fewer for tiny inputs.
        batch_size: frames at once; None chooses by their size.
        compactness: see `midgrain.SWAG`.
        gradient_compactness: see `midgrain.SWAG`.
        reduce: see `midgrain.SWAG`.
        max_num_iter: see `midgrain.SWAG`.
        spacing: pixel size along time, height and width; a larger first one makes superpixels shorter in time.
        min_size_factor: see `midgrain.SWAG`.
        mean: normalisation of x, by default ImageNet's.
        std: likewise.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch
        >>> from midgrain.video import LinkedFrames
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> e = LinkedFrames(model, n_segments=40)(torch.rand(1, 3, 8, 32, 32))
        >>> e.heatmap.shape, e.details["frame_outputs"].shape
        (torch.Size([1, 8, 32, 32]), torch.Size([1, 8, 10]))
    """

    def __init__(
        self,
        model: Any,
        superpixels: SuperpixelChoice = "image+gradient",
        scorer: str | Scorer | ScorerFunction = "guided",
        n_segments: int | None = None,
        *,
        batch_size: int | None = None,
        compactness: float = 20.0,
        gradient_compactness: float = 9.0,
        reduce: str = "mean",
        max_num_iter: int = 10,
        spacing: Sequence[float] | None = None,
        min_size_factor: float = 0.5,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        options = SlicOptions(n_segments, compactness, gradient_compactness, max_num_iter, spacing, min_size_factor)
        options = replace(options, default_count=_DEFAULT_COUNT)
        super().__init__(model, superpixels, options, mean=mean, std=std)
        self.scorer = make_map_scorer(scorer, mean=mean, std=std)
        self.batch_size = None if batch_size is None else check_int(batch_size, "batch_size", 1)
        if reduce not in ops.REDUCTIONS:
            raise ValueError(f"reduce: expected one of {', '.join(ops.REDUCTIONS)}, got {reduce!r}")
        self.reduce = reduce
        choice = self.superpixels.choice
        self.name = _NAMES.get(choice, "linked") if isinstance(choice, str) else "linked"

    def normalisation(self, x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """As `Explainer` has it, of the frames: by default ImageNet's."""
        return super().normalisation(x[:, :, 0])

    def rgb(self, x: Tensor) -> Tensor | None:
        """As `Explainer` has it, of the frames."""
        frames = super().rgb(x.movedim(2, 1).flatten(0, 1))
        return None if frames is None else frames.unflatten(0, (x.shape[0], x.shape[2])).movedim(2, 1)

    def frame_scores(self, frames: Tensor, target: Target) -> list[FrameScore]:
        """The pixel scores of some frames, each by itself. Call it inside `driver.preserved`.

        Args:
            frames: [n, C, H, W].
            target: as of images.

        Raises:
            TypeError, ValueError: see `midgrain.driver`; NaN or infinity in the scores.
        """
        score = self.scorer.score(self.model, frames, target)
        check_scores(score.map)
        classes, outputs = score.result.target, score.result.outputs
        return [
            FrameScore(
                score.map[place],
                None if classes is None else int(classes[place]),
                None if outputs is None else outputs[place],
            )
            for place in range(len(frames))
        ]

    def linked(self, x: Tensor, scores: Sequence[Sequence[FrameScore]]) -> Explanation:
        """Superpixels of clips and the frames' scores pooled over them.

        Args:
            x: [B, C, T, H, W].
            scores: those of every clip's frames, see `frame_scores`.

        Raises:
            ValueError: see `midgrain.SWAG`.
        """
        rgb = self.rgb(x)
        self.check_picture(x[:, :, 0], rgb)
        maps = torch.stack([torch.stack([frame.map for frame in clip]) for clip in scores])
        segments = self.segment(x, rgb, maps)
        regions = pooled(maps, segments, self.reduce)
        logits = [[frame.logits for frame in clip if frame.logits is not None] for clip in scores]
        outputs = torch.stack([torch.stack(clip) for clip in logits]) if all(logits) else None
        classes = [clip[0].target for clip in scores]
        return Explanation(
            heatmap=painted(regions, segments),
            method=self.name,
            segments=segments.labels.to(x.device),
            scores=regions,
            counts=segments.counts.to(x.device),
            target=None if None in classes else torch.tensor(classes, device=x.device),
            outputs=None if outputs is None else outputs.mean(1),
            details={} if outputs is None else {"frame_outputs": outputs},
            image=to_uint8(rgb, overwrite=True),
        )

    def _explain(self, x: Tensor, target: Target) -> Explanation:
        if x.ndim != 5:
            raise ValueError(f"x: expected clips [B, 3, T, H, W], got shape {list(x.shape)}; images are for SWAG")
        self.check_picture(x[:, :, 0], self.rgb(x))
        scores = [
            self._clip_scores(clip.movedim(1, 0).contiguous(), each)
            for clip, each in zip(x, _per_clip(target, len(x)), strict=True)
        ]
        return self.linked(x, scores)

    def _clip_scores(self, frames: Tensor, target: Any) -> list[FrameScore]:
        def score_some(which: list[int], wanted: Any) -> list[FrameScore]:
            return self.frame_scores(frames[which], wanted)

        return score_frames(score_some, [None] * len(frames), target, self.batch_size or copies_at_once(frames))


def _per_clip(target: Target, batch: int) -> list[Any]:
    """The target of each clip, for all its frames."""
    if target is None or callable(target) or isinstance(target, int):
        return [target] * batch
    try:
        classes = torch.as_tensor(np.asarray(target) if isinstance(target, list | tuple) else target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"target: expected a class, one per clip or a callable, got {type(target).__name__}") from error
    if list(classes.shape) not in ([], [batch]):
        raise ValueError(f"target: expected one class per clip ([{batch}]), got shape {list(classes.shape)}")
    if not is_integral(classes):
        raise TypeError(f"target: expected integers, got dtype {classes.dtype}")
    return [int(each) for each in classes.expand(batch)]
