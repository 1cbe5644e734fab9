"""What every explainer returns."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from midgrain.drawing import draw_overlay
from midgrain.maps import min_max

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation"]

_FORMAT = "midgrain-explanation"
_FORMAT_VERSION = 1
_ARRAYS = ("heatmap", "segments", "scores", "counts", "target", "outputs", "image")
_PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg", ".pdf"})


@dataclass(frozen=True, eq=False)
class Explanation:
    """A batch of explanations.

    Attributes:
        heatmap: raw scores per pixel, float32 [B, H, W] or [B, T, H, W], on the input's device.
        method: the explainer's name.
        segments: int32 superpixel labels of the heat map's shape, from 0 on; None for methods without regions.
        scores: float32 [B, n_max], one per superpixel, NaN beyond a sample's own count; None without regions.
        counts: int32 [B], superpixels per sample; None without regions.
        target: int64 [B], the classes explained; None where a callable picked the score.
        outputs: the model's logits [B, classes] from the same pass; None where it returned something else.
        image: the input as uint8 RGB [B, *S, 3], for drawing; None where it is no colour or grey picture.
    """

    heatmap: Tensor
    method: str = ""
    segments: Tensor | None = None
    scores: Tensor | None = None
    counts: Tensor | None = None
    target: Tensor | None = None
    outputs: Tensor | None = None
    image: Tensor | None = None

    def __len__(self) -> int:
        return int(self.heatmap.shape[0])

    def __repr__(self) -> str:
        target = "" if self.target is None else f", target={self.target.tolist()}"
        counts = "" if self.counts is None else f", superpixels={self.counts.tolist()}"
        return f"Explanation({self.method!r}, heatmap={list(self.heatmap.shape)}{target}{counts})"

    def normalised(self) -> Tensor:
        """The heat map rescaled to 0 .. 1 over each image or clip; float32, the heat map's shape."""
        return min_max(self.heatmap)

    def overlay(
        self,
        i: int = 0,
        *,
        image: npt.NDArray[np.uint8] | None = None,
        alpha: float = 0.5,
        contours: bool = True,
        colormap: str = "viridis",
    ) -> npt.NDArray[np.uint8]:
        """Sample `i` drawn: its heat map blended into the picture, with superpixel borders.

        Args:
            i: index in the batch.
            image: uint8 [H, W, 3] to draw on ([T, H, W, 3] for a clip), of any size that shows the same crop; by
                default the explained input itself.
            alpha: opacity of the heat map, 0 .. 1.
            contours: draw superpixel borders.
            colormap: a Matplotlib colour map.

        Returns:
            uint8 [H, W, 3], for a clip [T, H, W, 3].

        Raises:
            IndexError: no such sample.
            TypeError, ValueError: an unfit `image`, `alpha` or `colormap`; no picture to draw on.
        """
        from matplotlib import colormaps

        if not 0 <= i < len(self):
            raise IndexError(f"i: expected 0 .. {len(self) - 1}, got {i}")
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha: expected 0 .. 1, got {alpha}")
        if colormap not in colormaps:
            raise ValueError(f"colormap: Matplotlib has no colour map {colormap!r}")
        heat = self.normalised()[i].cpu().numpy()
        labels = self.segments[i].cpu().numpy() if contours and self.segments is not None else None
        if image is None:
            if self.image is None:
                raise ValueError("image: this explanation holds no picture to draw on; pass one")
            image = self.image[i].cpu().numpy()
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            raise TypeError(f"image: expected a uint8 array, got {getattr(image, 'dtype', type(image).__name__)}")
        if image.ndim != heat.ndim + 1 or image.shape[-1] != 3 or (heat.ndim == 3 and len(image) != len(heat)):
            raise ValueError(f"image: expected RGB for a heat map {list(heat.shape)}, got shape {list(image.shape)}")
        if heat.ndim == 2:
            return draw_overlay(image, heat, labels, alpha=alpha, colormap=colormap)
        frames = [
            draw_overlay(image[t], heat[t], None if labels is None else labels[t], alpha=alpha, colormap=colormap)
            for t in range(len(heat))
        ]
        return np.stack(frames)

    def plot(self, i: int = 0, *, max_frames: int = 8, **overlay_options: Any) -> Figure:
        """A Matplotlib figure of sample `i`: the picture, its overlay and a colour bar.

        Args:
            i: index in the batch.
            max_frames: of a clip, how many frames to show, evenly spread.
            **overlay_options: see `overlay`.
        """
        from midgrain.plots import plot_explanation

        return plot_explanation(self, i, max_frames=max_frames, **overlay_options)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one NumPy .npz archive, whole or not at all. Returns the path.

        Raises:
            ValueError: the path names a picture; draw one with `plot().savefig(path)`.
            OSError: it cannot be written.
        """
        destination = Path(path)
        if destination.suffix.lower() in _PICTURE_SUFFIXES:
            raise ValueError(
                f"path: save() writes an .npz archive, got {destination.name!r}; for a picture use "
                "plot().savefig(path) or overlay()"
            )
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        stored = {name: value.float() if value.dtype == torch.bfloat16 else value
                  for name, value in arrays.items() if value is not None}
        header = json.dumps({"format": _FORMAT, "version": _FORMAT_VERSION, "method": self.method})
        handle, temporary = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(
                    file, allow_pickle=False, header=np.array(header),
                    **{name: value.cpu().numpy() for name, value in stored.items()},
                )
            Path(temporary).chmod(0o644)
            Path(temporary).replace(destination)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return destination

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Explanation:
        """Read what `save` wrote; the tensors are on the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not such an archive, or of a newer version.
        """
        refusal = f"path: {os.fspath(path)!r} is not an explanation saved by midgrain"
        try:
            with np.load(path, allow_pickle=False) as archive:
                if "header" not in archive:
                    raise ValueError(refusal)
                header = json.loads(str(archive["header"]))
                tensors = {name: torch.from_numpy(archive[name]) for name in _ARRAYS if name in archive}
        except (zipfile.BadZipFile, EOFError, TypeError, ValueError) as error:
            raise ValueError(refusal) from error
        if not isinstance(header, dict) or header.get("format") != _FORMAT or "heatmap" not in tensors:
            raise ValueError(refusal)
        if header["version"] > _FORMAT_VERSION:
            raise ValueError(
                f"path: {os.fspath(path)!r} has format version {header['version']}, this midgrain reads up to "
                f"{_FORMAT_VERSION}"
            )
        return Explanation(method=header["method"], **tensors)
