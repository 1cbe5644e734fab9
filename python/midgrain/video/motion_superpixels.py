"""Superpixels of a clip from its colours, gradient maps and motion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from midgrain import ops
from midgrain.ops.arrays import kernel_device
from midgrain.ops.checks import check_compactness, check_int
from midgrain.regions.superpixels import Segmentation, SlicOptions

__all__ = ["MotionSuperpixels"]

# As for SWAG of clips, and fewer where they would have hardly any pixels.
_DEFAULT_COUNT = 120
_MIN_DEFAULT_PIXELS = 16
_SOURCES = ("image", "gradient", "flow")


class MotionSuperpixels:
    """Gradient-augmented SLIC with optical flow as two more channels.

    A pixel's squared distance to a centre is that of `midgrain.slic`, (d_colour / w_c)^2 + (d_gradient / w_g)^2 + the
    one in space, with a term for every gradient map, and (d_flow / w_f)^2 beside them: the length of the difference of
    two flow vectors, in pixels per frame.

    Args:
        sources: "image", "gradient" and "flow", or some of them, joined by "+".
        options: of SLIC.
        flow_compactness: weight of the motion (w_f): this many pixels per frame of a difference count as much as a
            superpixel's width. A smaller one follows motion more.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.
    """

    def __init__(self, sources: str, options: SlicOptions, flow_compactness: float):
        if not isinstance(sources, str):
            raise TypeError(f"superpixels: expected a text such as 'image+flow', got {type(sources).__name__}")
        self.sources = sources.split("+")
        if not set(self.sources) <= set(_SOURCES) or len(set(self.sources)) < len(self.sources):
            raise ValueError(f"superpixels: expected some of {', '.join(_SOURCES)}, joined by '+', got {sources!r}")
        self.options = options
        self.flow_compactness = check_compactness(flow_compactness, "flow_compactness")

    def make(self, rgb: Tensor, gradients: Sequence[Tensor], flow: Tensor) -> Segmentation:
        """Superpixels of a batch of clips.

        Args:
            rgb: float32 [B, 3, T, H, W] in 0 .. 1.
            gradients: maps [B, T, H, W], each rescaled to 0 .. 100 over its clip; flat ones are left out.
            flow: [B, 2, T, H, W], pixels per frame.

        Raises:
            ValueError: nothing to make them of: only flat gradients.
        """
        device = kernel_device(rgb)
        rows = [
            self._one(rgb[i].to(device), [g[i].to(device) for g in gradients], flow[i].to(device))
            for i in range(len(rgb))
        ]
        return Segmentation(torch.cat([labels for labels, _ in rows]), torch.cat([counts for _, counts in rows]))

    def _one(self, rgb: Tensor, gradients: Sequence[Tensor], flow: Tensor) -> tuple[Tensor, Tensor]:
        options, channels = self.options, []
        # Features [n, T, H, W] with their weight and ranges.
        if "image" in self.sources:
            channels.append((ops.rgb_to_lab(rgb[None])[0], options.compactness, ops.LAB_RANGES))
        if "gradient" in self.sources:
            for each in gradients:
                low, high = each.min(), each.max()
                if high > low:
                    scaled = ((each - low) / (high - low) * 100.0).clamp(0.0, 100.0)
                    channels.append((scaled[None], options.gradient_compactness, (ops.GRADIENT_RANGE,)))
        if "flow" in self.sources:
            ranges = tuple((float(each.min()), float(each.max())) for each in flow)
            channels.append((flow, self.flow_compactness, ranges))
        if not channels:
            raise ValueError("superpixels: expected gradients that are not flat; add 'image' or 'flow'")
        features = torch.cat([values.float() for values, _, _ in channels])[None].contiguous()
        labels, counts = ops.slic(
            features,
            [weight for values, weight, _ in channels for _ in values],
            self._count(rgb[0].numel()),
            max_num_iter=options.max_num_iter,
            spacing=options.spacing,
            ranges=[pair for _, _, ranges in channels for pair in ranges],
            min_size_factor=options.min_size_factor,
        )
        return labels, counts

    def _count(self, pixels: int) -> int:
        if self.options.n_segments is not None:
            return check_int(self.options.n_segments, "n_segments", 1, pixels)
        return max(1, min(_DEFAULT_COUNT, pixels // _MIN_DEFAULT_PIXELS))
