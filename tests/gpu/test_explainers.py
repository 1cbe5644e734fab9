"""Every method on the GPU: near the CPU's heat map, and the network as it was."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

import midgrain as mg
from gpu_for_tests import slopes, stream_of_its_own
from models_for_tests import FAST_OPTIONS, batch_for, one_thread, seeded, tiny_net

__all__ = ["one_thread"]  # a fixture for the whole file

#: Methods whose regions depend on gradients: one rounding more in a convolution may move a border, and with it a score.
GUIDED_REGIONS = frozenset({"swag-ig", "swag-g", "gws", "lime-ig", "lime-g", "xrai"})
#: What the networks of two devices may differ by: they multiply in other orders.
TOLERANCE = 2e-3


def network(name: str, dims: int) -> nn.Module:
    if name != "saliency-tubes":
        return tiny_net(dims)
    conv, pool = ((nn.Conv2d, nn.AdaptiveAvgPool2d), (nn.Conv3d, nn.AdaptiveAvgPool3d))[dims - 2]
    return seeded(
        lambda: nn.Sequential(conv(3, 8, 3, padding=1), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(8, 5))
    ).eval()


def options_of(name: str, given: torch.Tensor) -> dict[str, object]:
    """Quick ones; regions that depend on gradients are given, so that a network's rounding cannot move them."""
    options = dict(FAST_OPTIONS.get(name, {}))
    if name in GUIDED_REGIONS and name not in ("xrai",):
        options["superpixels"] = given
    return options


def explained(name: str, dims: int, device: torch.device):
    model = network(name, dims).to(device)
    state = copy.deepcopy(model.state_dict())
    flags = {key: (p.requires_grad, p.grad) for key, p in model.named_parameters()}
    x = batch_for(dims, 2)
    labels = mg.ops.slic_pictures(torch.rand_like(x, dtype=torch.float32).fill_(0.5), 12)[0]
    random_state = torch.random.get_rng_state()
    try:
        e = mg.explainer(name, model, **options_of(name, labels.to(device)))(x.to(device), target=[1, 3])
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}")
    assert torch.equal(torch.random.get_rng_state(), random_state), "the global random state moved"
    assert not model.training
    assert {key: (p.requires_grad, p.grad) for key, p in model.named_parameters()} == flags
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    return e


def deviation(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the largest magnitude."""
    found, expected = found.double().cpu(), expected.double()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", mg.methods())
def test_every_method(device, name, dims):
    try:
        expected = explained(name, dims, torch.device("cpu"))
    except (ValueError, TypeError) as error:
        # A method for pictures alone says so, on either device with the same words.
        with pytest.raises(type(error), match="^" + re.escape(str(error)) + "$"):
            explained(name, dims, device)
        return
    found = explained(name, dims, device)
    assert found.heatmap.device.type == device.type
    assert found.heatmap.dtype == expected.heatmap.dtype
    assert found.heatmap.shape == expected.heatmap.shape
    for field in ("segments", "scores", "counts", "target", "outputs", "cam", "image"):
        mine, theirs = getattr(found, field), getattr(expected, field)
        assert (mine is None) == (theirs is None), field
        if mine is not None:
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), field
            assert mine.device.type == device.type, field
    if name == "xrai" or (name in GUIDED_REGIONS and not torch.equal(found.segments.cpu(), expected.segments)):
        # Its regions grow where attributions say: ties of nearly equal ones may fall either way.
        correlation = np.corrcoef(found.heatmap.cpu().ravel(), expected.heatmap.ravel())[0, 1]
        assert correlation > 0.95
        return
    if found.segments is not None:
        assert torch.equal(found.segments.cpu(), expected.segments)
    assert deviation(found.heatmap, expected.heatmap) < TOLERANCE


@pytest.mark.parametrize("name", ["swag-i", "swag-ig", "swag-g"])
def test_swag_puts_its_own_maps_on_the_devices_own_superpixels(device, name):
    """What follows the network is exact: from the same pixel scores come the same superpixels and heat map."""
    scores = torch.from_numpy(slopes(np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3))))
    x = batch_for()
    found, expected = (
        mg.SWAG(
            tiny_net().to(place),
            superpixels={"swag-i": "image", "swag-ig": "image+gradient", "swag-g": "gradient"}[name],
            scorer=lambda model, x, target: scores.to(x.device),
            n_segments=30,
        )(x.to(place), target=1)
        for place in (device, torch.device("cpu"))
    )
    assert torch.equal(found.segments.cpu(), expected.segments)
    assert torch.equal(found.counts.cpu(), expected.counts)
    assert torch.equal(found.heatmap.cpu(), expected.heatmap)


@pytest.mark.parametrize("name", ["swag-ig", "gradcam", "guided"])
def test_settings_of_the_caller(device, name):
    """Without gradients, in inference mode, on a stream, under autocast: the same map."""
    model = tiny_net().to(device)
    explainer = mg.explainer(name, model)
    x = batch_for().to(device)
    plain = explainer(x, target=1).heatmap
    with torch.no_grad():
        assert torch.equal(explainer(x, target=1).heatmap, plain)
    with torch.inference_mode():
        assert torch.equal(explainer(x, target=1).heatmap, plain)
    with stream_of_its_own(device):
        streamed = explainer(x, target=1).heatmap
    assert torch.equal(streamed, plain)
    with torch.autocast(device.type, torch.bfloat16):
        low = explainer(x, target=1).heatmap
    assert low.dtype == torch.float32
    assert low.device.type == device.type
    assert torch.isfinite(low).all()
