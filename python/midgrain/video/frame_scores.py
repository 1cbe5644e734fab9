"""One class for all frames of a clip, at one pass of an image network for each frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["FrameScore", "score_frames"]


@dataclass(frozen=True, eq=False)
class FrameScore:
    """What an image network said about one frame."""

    #: float32 [H, W].
    map: Tensor
    #: The class that the map is for; None where a callable picked the score.
    target: int | None
    #: [classes]; None where the network returns something else.
    logits: Tensor | None
    #: int32 [H, W], superpixels of this frame alone; None where there are none.
    segments: Tensor | None = None


#: From numbers of frames and a target (None: each frame's own class) to what is said about them.
ScoreSome = Callable[[list[int], Any], Sequence[FrameScore]]


def score_frames(
    score_some: ScoreSome, known: Sequence[FrameScore | None], target: Any = None, batch_size: int = 1
) -> list[FrameScore]:
    """Scores of all frames of a clip for the same class.

    While it is not known what class the clip is of, frames are scored for the most likely one so far; those that
    another one then turns out to be wanted of are scored again. So a clip whose frames agree costs one pass each.

    Args:
        score_some: scores some frames, up to `batch_size` of them.
        known: what is known of each frame, or None. Maps for another class are made again.
        target: one class, or a callable; None stands for the class of the mean of the frames' logits.
        batch_size: 1 or more.
    """
    scores = list(known)

    def score(which: list[int], wanted: Any) -> None:
        for start in range(0, len(which), batch_size):
            some = which[start : start + batch_size]
            for index, found in zip(some, score_some(some, wanted), strict=True):
                scores[index] = found

    if target is None:
        unknown = [index for index, each in enumerate(scores) if each is None]
        for start in range(0, len(unknown), batch_size):
            score(unknown[start : start + batch_size], _likely(scores))
        target = _likely(scores)
    wanted = None if callable(target) else target
    score([index for index, each in enumerate(scores) if each is None or each.target != wanted], target)
    return [each for each in scores if each is not None]


def _likely(scores: Sequence[FrameScore | None]) -> int | None:
    """The class of the mean logits; None where nothing is known."""
    logits = [score.logits for score in scores if score is not None and score.logits is not None]
    return int(torch.stack(logits).mean(0).argmax()) if logits else None
