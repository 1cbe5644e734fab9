"""What every explainer returns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from midgrain.drawing import draw_overlay
from midgrain.files import write_whole
from midgrain.maps import min_max

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation"]

_FORMAT = "midgrain-explanation"
_FORMAT_VERSION = 1
_ARRAYS = ("heatmap", "segments", "scores", "counts", "target", "outputs", "cam", "image")
# Before the names of details in an archive.
_DETAIL = "details."
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
        cam: of a class activation map, the raw map before it was resized, float32 [B, h, w] or [B, t, h, w]; None for
            other methods, and where several layers were fused.
        details: what else the method found out, one tensor [B] or [B, ...] for each name: "passes" (forward passes of
            one sample), "convergence_delta", ...; which there are stands with the method.
        image: the input as uint8 RGB [B, *S, 3], for drawing; None where it is no colour or grey picture.
    """

    heatmap: Tensor
    method: str = ""
    segments: Tensor | None = None
    scores: Tensor | None = None
    counts: Tensor | None = None
    target: Tensor | None = None
    outputs: Tensor | None = None
    cam: Tensor | None = None
    details: Mapping[str, Tensor] = field(default_factory=dict)
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
        colormap: str = "turbo",
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
            TypeError, ValueError: an unfit `i`, `image`, `alpha` or `colormap`; no picture to draw on.
        """
        from matplotlib import colormaps

        if isinstance(i, bool) or not isinstance(i, int | np.integer):
            raise TypeError(f"i: expected an int, got {type(i).__name__}")
        if not 0 <= i < len(self):
            raise IndexError(f"i: expected 0 .. {len(self) - 1}, got {i}")
        if isinstance(alpha, bool) or not isinstance(alpha, float | int | np.floating):
            raise TypeError(f"alpha: expected a number, got {type(alpha).__name__}")
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha: expected 0 .. 1, got {alpha}")
        if not isinstance(colormap, str):
            raise TypeError(f"colormap: expected a name, got {type(colormap).__name__}")
        if colormap not in colormaps:
            raise ValueError(f"colormap: Matplotlib has no colour map {colormap!r}")
        heat = min_max(self.heatmap[i : i + 1])[0].cpu().numpy()
        labels = self.segments[i].cpu().numpy() if contours and self.segments is not None else None
        if image is None:
            if self.image is None:
                raise ValueError("image: this explanation holds no picture to draw on; pass one")
            image = self.image[i].cpu().numpy()
        if not isinstance(image, np.ndarray):
            raise TypeError(f"image: expected a uint8 NumPy array, got {type(image).__name__}")
        if image.dtype != np.uint8:
            raise TypeError(f"image: expected a uint8 NumPy array, got dtype {image.dtype}")
        if image.size == 0:
            raise ValueError(f"image: expected at least one pixel, got shape {list(image.shape)}")
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
        arrays |= {_DETAIL + name: value for name, value in self.details.items()}
        stored = {
            name: value.float() if value.dtype == torch.bfloat16 else value
            for name, value in arrays.items()
            if value is not None
        }
        header = json.dumps({"format": _FORMAT, "version": _FORMAT_VERSION, "method": self.method})
        numpy_arrays = {name: value.detach().cpu().numpy() for name, value in stored.items()}
        write_whole(destination, lambda file: np.savez_compressed(file, header=np.array(header), **numpy_arrays))
        return destination

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Explanation:
        """Read what `save` wrote; the tensors are on the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not such an archive, or of a newer version.
        """
        refusal = f"path: {os.fspath(path)!r} is not an explanation saved by midgrain"
        with open(path, "rb") as file:
            try:
                with np.load(file, allow_pickle=False) as archive:
                    header = json.loads(str(archive["header"]))
                    tensors = {name: torch.from_numpy(archive[name]) for name in _ARRAYS if name in archive}
                    names = [name for name in archive.files if name.startswith(_DETAIL)]
                    details = {name.removeprefix(_DETAIL): torch.from_numpy(archive[name]) for name in names}
                known = header["format"] == _FORMAT and isinstance(header["method"], str)
                version = int(header["version"])
            except Exception as error:  # Of a damaged archive: zlib's, zipfile's, tokenize's, NumPy's, ...
                raise ValueError(refusal) from error
        if known and version > _FORMAT_VERSION:
            raise ValueError(
                f"path: {os.fspath(path)!r} has format version {version}, this midgrain reads up to {_FORMAT_VERSION}"
            )
        if not known or "heatmap" not in tensors or tensors["heatmap"].ndim not in (3, 4):
            raise ValueError(refusal)
        return Explanation(method=header["method"], details=details, **tensors)
