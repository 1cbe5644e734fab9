"""Where the channels of a layer's maps lie in what the layer returned, and setting some of them to 0."""

from __future__ import annotations

import torch
from torch import Tensor

from midgrain.network.capture import Site

__all__ = ["channel_places", "without_channels"]


def channel_places(site: Site, values: Tensor, who: str) -> Tensor:
    """Where in one sample of the layer's output a channel's map lies: int64 [K, positions].

    Args:
        site: the layer.
        values: what it returned, [B, ...].
        who: for the error, who sets channels to 0, with the verb.

    Raises:
        ValueError: the maps are not values of the output, only moved.
    """
    one = values[:1]
    numbers = torch.arange(one.numel(), dtype=torch.float64, device=values.device).reshape(one.shape)
    numbered, maps = site.layout.maps(numbers).flatten(2)[0], site.layout.maps(one).flatten(2)[0]
    places = numbered.long()
    moved = bool(((places == numbered) & (places >= 0) & (places < one.numel())).all())
    if not moved or not torch.equal(maps, one.flatten()[places].to(maps.dtype)):
        raise ValueError(
            f"reshape: {who} channels of {site.name} to 0 in its own output, so reshape may only move values, not "
            "compute with them"
        )
    return places


def without_channels(values: Tensor, places: Tensor, gone: Tensor) -> Tensor:
    """A layer's outputs with some channels set to 0, each sample others.

    Args:
        values: [n, ...], left as it is.
        places: int64 [K, positions], see `channel_places`.
        gone: bool [n, K].

    Returns:
        A contiguous copy of `values`.
    """
    ordered = torch.arange(values[0].numel(), device=places.device)
    if torch.equal(places.flatten(), ordered):  # Channels first
        return values.reshape(*gone.shape, -1).where(~gone[:, :, None], 0.0).reshape(values.shape)
    flat = values.flatten(1)
    kept = torch.ones_like(flat, dtype=torch.bool)
    kept[:, places.flatten()] = ~gone.repeat_interleave(places.shape[1], 1)
    return flat.where(kept, 0.0).reshape(values.shape)
