"""SISE: the input seen through the feature maps of every convolutional block, fused from shallow to deep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from midgrain import driver
from midgrain.cams.base import CAM
from midgrain.cams.layers import Layer, Reshape, last_spatial_site
from midgrain.driver import Target
from midgrain.explainer_base import ManyPassExplainer, to_uint8
from midgrain.explanation import Explanation
from midgrain.maps import min_max, resize_maps
from midgrain.network.altered import check_batch_size, log_odds
from midgrain.network.capture import Capture, Site, capture
from midgrain.network.modules import unwrapped
from midgrain.network.probe import Probe, check_output
from midgrain.network.stages import stage_sites
from midgrain.network.trace import Trace
from midgrain.ops.checks import check_bool, check_positive
from midgrain.progress import progress_bar

__all__ = ["SISE"]


class SISE(ManyPassExplainer):
    """Semantic input sampling for explanation, of images and clips (Sattarzadeh et al. 2021).

    The feature maps of the last layer of each convolutional block that raise the score (eq. 6 to 8: those whose
    gradient has a sum above `mu` times the layer's largest) are resized to the input and rescaled to 0 .. 1. The
    network is asked about the input behind each of these masks m, and the block's map is the mean of
    score(x * m) * m / sum(m) (eq. 10 to 12). The maps are fused from shallow to deep: the two are added, each rescaled
    to 0 .. 1, and what is below Otsu's threshold of the deeper one is set to 0; and so on with the next.

    Feature maps that are the same everywhere are left out, and so are blocks of whose maps none raises the score.

    Details: "masks" int64 [B, blocks], the masks of each block; "passes" int64 [B], forward passes of a sample: one
    for each mask, one for the gradients of each target, one without either.

    Args:
        model: a convolutional network returning logits [B, classes]; anything else needs a callable target, whose
            score is then taken as it is.
        layer: None finds the last layer of each block (`midgrain.network.stages`); otherwise modules or their dotted
            names.
        reshape: see `midgrain.cams.CAM`; goes with `layer`.
        mu: 0 takes every map that raises the score; 0.3 and 0.5 are the paper's faster settings.
        output: what the score is, "probability" or "logit" of the class.
        batch_size: masked inputs at once; None chooses by the input's size.
        progress: show a bar.
        mean: normalisation of x, by default ImageNet's for images and Kinetics' for clips.
        std: likewise.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range.

    Example:
        >>> import torch, midgrain as mg
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        ...                             torch.nn.Conv2d(4, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                             torch.nn.Flatten(), torch.nn.Linear(8, 10))
        >>> explain = mg.explainer("sise", model)
        >>> x = torch.rand(2, 3, 32, 32)
        >>> explain.layer_names(x), explain(x, target=3).details["masks"].shape
        (('1', '4'), torch.Size([2, 2]))
    """

    name = "sise"

    def __init__(
        self,
        model: Any,
        layer: Layer | Sequence[Layer] | None = None,
        reshape: Reshape | None = None,
        mu: float = 0.0,
        output: str = "probability",
        batch_size: int | None = None,
        progress: bool = False,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__(model, mean=mean, std=std)
        self._blocks = _Blocks(layer, reshape)
        self.mu = check_positive(mu, "mu", zero=True)
        if self.mu >= 1.0:
            raise ValueError(f"mu: expected 0 or more and less than 1, which no map exceeds, got {mu}")
        self.output = check_output(output)
        self.batch_size = check_batch_size(batch_size)
        self.progress = check_bool(progress, "progress")

    def layer_names(self, x: Tensor, target: Target = None) -> tuple[str, ...]:
        """The names of the layers that are looked at for such an input, shallow to deep.

        Args:
            x: see `__call__`.
            target: likewise; what a callable picks may come from other layers.

        Raises:
            TypeError, ValueError: see `__call__`.
        """
        x = driver.check_input(x)
        with driver.preserved(self.model, x):
            return tuple(site.name for site in self._sites(unwrapped(self.model), x, target))

    def _explain_all(self, x: Tensor, targets: Sequence[Target]) -> list[Explanation]:
        network = unwrapped(self.model)
        sites = self._sites(network, x, targets[0])
        places = [(site.name, site.call, site.item) for site in sites]
        for target in targets[1:]:
            if [(site.name, site.call, site.item) for site in self._sites(network, x, target)] != places:
                # Callables that read different parts of the network: no masks to share.
                return [self._explain(x, each) for each in targets]
        probe = Probe(network, x, targets, output=self.output, batch_size=self.batch_size)
        # Maps, and what the network says of them, are the same for all targets; which of them are masks is not.
        activations: tuple[Tensor, ...] = ()
        raising = []
        for place in range(len(targets)):
            seen = self._seen(network, probe, place, sites)
            activations = activations or seen.activations
            raising.append(self._raising(seen))
        chosen = [torch.stack(each) for each in zip(*raising, strict=True)]
        total = sum(int(each.any(0).sum()) for each in chosen)
        with progress_bar("masking with feature maps", total, shown=self.progress) as advance:
            blocks = [
                _block_maps(probe, maps, wanted, advance) for maps, wanted in zip(activations, chosen, strict=True)
            ]
        masks = torch.stack([each.sum(2) for each in chosen], 2)  # [targets, B, blocks]
        passes = (probe.passes + len(targets)).to(x.device)
        picture = to_uint8(self.rgb(x))
        return [
            Explanation(
                heatmap=_fused([block[place] for block in blocks]).to(x.device),
                method=self.name,
                target=result.target,
                outputs=result.outputs,
                details={"masks": masks[place], "passes": passes},
                image=picture,
            )
            for place, result in enumerate(probe.results)
        ]

    def _sites(self, network: nn.Module, x: Tensor, target: Target) -> tuple[Site, ...]:
        """Where the layers' outputs are caught, shallow to deep."""
        sites = self._blocks.sites(network, x, target)
        calls = self._blocks.trace(network, x, target)
        return tuple(sorted(sites, key=lambda site: calls.of(site.module)[site.call].end))

    def _seen(self, network: nn.Module, probe: Probe, place: int, sites: Sequence[Site]) -> Capture:
        """The feature maps and their gradients for one of the targets."""
        classes, target = probe.results[place].target, probe.targets[place]
        if classes is not None:
            target = _log_odds(classes) if self.output == "probability" else classes
        return capture(network, probe.x, target, sites)

    def _raising(self, seen: Capture) -> list[Tensor]:
        """Per layer, which maps raise the score, bool [B, K] (eq. 6 to 8), but for those that are constant."""
        found = []
        for maps, gradients in zip(seen.activations, seen.gradients, strict=True):
            sums = gradients.flatten(2).sum(2, dtype=torch.float64)
            flat = maps.flatten(2)
            found.append((sums > self.mu * sums.amax(1, keepdim=True)) & (flat.amin(2) < flat.amax(2)))
        return found


class _Blocks(CAM):
    """Finds layers as class activation maps do, but those of all blocks."""

    def find_sites(self, model: nn.Module, x: Tensor, calls: Trace, target: Target) -> tuple[Site, ...]:
        return stage_sites(model, x, calls, last_spatial_site(model, x, calls, target), target)


def _log_odds(classes: Tensor) -> Callable[[Tensor], Tensor]:
    """log(p / (1 - p)) of a class's probability p: its gradient is that of p times 1 / (p (1 - p)).

    So the same maps raise it and are compared with the same largest, also where p is so near to 0 or 1 that its own
    gradient vanishes.
    """
    return lambda outputs: log_odds(outputs).gather(1, classes[:, None])[:, 0]


def _block_maps(probe: Probe, maps: Tensor, chosen: Tensor, advance: Callable[[int], object]) -> Tensor:
    """One block's map for each target: the mean of score(x * m) * m / sum(m) over its masks (eq. 10 to 12).

    Args:
        probe: asks the network.
        maps: [B, K, *s].
        chosen: bool [targets, B, K], whose masks they are.
        advance: told how many masked inputs each pass has done.

    Returns:
        float64 [targets, B, *S]; 0 without masks.
    """
    x = probe.x

    def masks_of(sample: int, numbers: Sequence[int]) -> Tensor:
        return min_max(resize_maps(maps[sample, list(numbers)].to(x.device), x.shape[2:]))

    def masked(sample: int, numbers: Sequence[int]) -> Tensor:
        return x[sample] * masks_of(sample, numbers)[:, None].to(x.dtype)

    wanted = chosen.any(0)
    scores = probe.scores(masked, wanted, advance).where(chosen, 0.0)
    found = torch.zeros(len(chosen), len(x), *x.shape[2:], dtype=torch.float64, device=x.device)
    for sample in range(len(x)):
        # Masks are made again, some at a time, rather than kept.
        for numbers in wanted[sample].nonzero()[:, 0].split(probe.batch_size):
            if not len(numbers):
                continue
            masks = masks_of(sample, numbers.tolist()).double()
            shares = scores[:, sample, numbers] / masks.flatten(1).sum(1)
            found[:, sample] += torch.tensordot(shares, masks, 1)
    counts = chosen.sum(2).clamp(min=1)
    return found / counts.reshape(*counts.shape, *[1] * (x.ndim - 2))


def _fused(blocks: Sequence[Tensor]) -> Tensor:
    """The blocks' maps [B, *S], shallow to deep, as one, float32."""
    samples = zip(*(block.cpu().numpy() for block in blocks), strict=True)
    return torch.from_numpy(np.stack([_fused_sample(maps) for maps in samples]).astype(np.float32))


def _fused_sample(maps: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    from skimage.filters import threshold_otsu

    telling = [each for each in maps if each.min() < each.max()]
    if not telling:
        return np.zeros_like(maps[0])
    fused = _rescaled(telling[0])
    for each in telling[1:]:
        deeper = _rescaled(each)
        fused = (_rescaled(fused) + deeper) * (deeper > threshold_otsu(deeper))
    return fused


def _rescaled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low if high > low else 1.0)
