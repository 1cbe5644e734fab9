"""What extremal perturbation is made of: smooth masks, the reference of an area, inputs hidden by degrees."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import midgrain as mg
from midgrain.masking.mask_search import area_reference
from midgrain.masking.perturbations import BlurPyramid, Fading
from midgrain.masking.smooth_masks import SmoothMasks
from models_for_tests import SPATIAL, batch_for, relative_deviation, tiny_net
from models_for_tests import one_thread as one_thread
from oracles import masking as oracle

CPU = torch.device("cpu")


# Masks.


@pytest.mark.parametrize(
    ("size", "step", "sigma"),
    [
        ((9, 14), (3, 3), (4.0, 4.0)),
        ((5, 7), (1, 2), (2.0, 3.0)),
        ((1, 1), (1, 1), (3.0, 3.0)),
        ((8, 3), (4, 5), (6.0, 2.0)),
        ((3, 6, 7), (2, 3, 3), (2.0, 3.0, 3.0)),
    ],
    ids=str,
)
def test_masks_and_their_gradients_by_definition(size, step, sigma) -> None:
    smooth = SmoothMasks(size, step, sigma, CPU, torch.float64)
    assert smooth.lattice == tuple(math.ceil(n / s) for n, s in zip(size, step, strict=True))
    random = torch.Generator().manual_seed(0)
    parameters = torch.rand(3, *smooth.lattice, dtype=torch.float64, generator=random)
    parameters[2] *= 0.1
    masks = smooth(parameters.requires_grad_(True))
    assert masks.shape == (3, *size)
    gradients = torch.randn(masks.shape, dtype=torch.float64, generator=random)
    (found,) = torch.autograd.grad(masks, parameters, gradients)
    for number, values in enumerate(parameters.detach().numpy()):
        expected = oracle.smooth_mask(values, size, step, sigma)
        assert np.abs(masks[number].detach().numpy() - expected).max() < 1e-12
        slope = oracle.smooth_mask_gradient(values, gradients[number].numpy(), step, sigma, len(smooth.bumps))
        assert np.abs(found[number].numpy() - slope).max() < 1e-10


@pytest.mark.parametrize("size", [(24, 32), (50, 37), (224, 224)], ids=str)
def test_no_place_is_preferred_by_the_masks_make(size) -> None:
    """Else the pixels of a mask that is even everywhere would have an order, the corners first."""
    smooth = mg.explainer("extremal", tiny_net())._masks_of(torch.zeros(1, 3, *size))
    for level in (0.0, 0.1, 0.7, 1.0):
        assert torch.equal(smooth(torch.full((1, *smooth.lattice), level)), torch.full((1, *size), level))


@pytest.mark.parametrize("size", [(24, 32), (50, 37), (6, 20, 20)], ids=str)
def test_even_masks_move_evenly(size) -> None:
    smooth = mg.explainer("extremal", tiny_net())._masks_of(torch.zeros(1, 3, *size))
    ones = torch.ones(1, *smooth.lattice, requires_grad=True)
    (gradient,) = torch.autograd.grad(smooth(ones).mean(), ones)
    assert (gradient.max() - gradient.min()) > 0.2 * gradient.mean()  # The outermost share fewer pixels.
    moved = gradient[0] / smooth.weights
    assert torch.allclose(moved, moved.mean().expand_as(moved), rtol=1e-5)


def test_masks_mirror_with_their_parameters() -> None:
    smooth = SmoothMasks((20, 23), (3, 4), (6.0, 8.0), CPU)
    parameters = torch.rand(1, *smooth.lattice, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(smooth(parameters.flip(1, 2)), smooth(parameters).flip(1, 2), atol=1e-6)


# Areas.


@given(
    values=st.lists(st.integers(0, 6), min_size=1, max_size=40),
    area=st.floats(0.01, 0.99),
)
def test_the_reference_of_an_area(values, area) -> None:
    mask = torch.tensor([values], dtype=torch.float64) / 6
    wanted = torch.tensor([area], dtype=torch.float64)
    reference = area_reference(mask, wanted)
    ones = min(max(round(area * len(values)), 1), len(values))
    assert reference.sum().item() == pytest.approx(ones)
    # Higher values never get less, equal ones the same.
    order = mask[0].argsort()
    assert (reference[0, order].diff() >= -1e-12).all()
    # Apart from what equal values share, it is the distance of the sorted mask from the sorted reference.
    shared = (reference * (1 - reference)).mean()
    actual = (mask - reference).square().mean() + shared
    assert actual.item() == pytest.approx(oracle.area_loss(mask.numpy(), area), abs=1e-9)


def test_the_reference_of_several_masks_does_not_depend_on_order() -> None:
    mask = torch.rand(1, 50, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    masks, areas = torch.cat([mask, mask[:, order]]), torch.tensor([0.33, 0.33], dtype=torch.float64)
    found = area_reference(masks, areas)
    assert torch.equal(found[0, order], found[1])
    areas = torch.tensor([0.1, 0.6], dtype=torch.float64)
    assert area_reference(masks, areas).sum(1).tolist() == pytest.approx([5, 30])


# Perturbations.


def test_blur_by_degrees() -> None:
    x = batch_for(size=(13, 17), dtype=torch.float64).float()
    masks = torch.rand(2, 13, 17, generator=torch.Generator().manual_seed(0))
    masks[0, 0, :3] = torch.tensor([0.0, 1.0, 3 / 7])
    pyramid = BlurPyramid(x, 4.0)
    for sample in range(2):
        actual = pyramid.apply(sample, masks)
        assert actual.shape == (2, 3, 13, 17)
        for copy, mask in zip(actual, masks, strict=True):
            expected = oracle.blur_by_degrees(x[sample].double().numpy(), mask.double().numpy(), 4.0)
            assert relative_deviation(copy, torch.tensor(expected)) < 1e-5


def test_clips_are_blurred_frame_by_frame() -> None:
    x = batch_for(3, batch=1)
    masks = torch.rand(1, *SPATIAL[3], generator=torch.Generator().manual_seed(0))
    actual = BlurPyramid(x, 3.0).apply(0, masks)[0]
    for t in range(SPATIAL[3][0]):
        assert torch.allclose(actual[:, t], BlurPyramid(x[:, :, t], 3.0).apply(0, masks[:, t])[0], atol=1e-6)


def test_what_a_mask_of_ones_shows_is_the_input() -> None:
    x, hidden = batch_for(), torch.zeros(2, 3, 24, 32)
    ones = torch.ones(1, 24, 32)
    for perturbation in (BlurPyramid(x, 4.0), Fading(x, hidden)):
        assert torch.allclose(perturbation.apply(1, ones)[0], x[1], atol=1e-6)
    assert torch.equal(Fading(x, hidden + 0.5).apply(0, 0 * ones)[0], torch.full((3, 24, 32), 0.5))
    assert BlurPyramid(x, 4.0).apply(0, 0 * ones).std() < 0.8 * x[0].std()


def test_perturbed_inputs_can_be_differentiated_between_levels() -> None:
    masks = torch.rand(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masks = (masks * 7).floor() / 7 + 0.05 + 0.04 * masks  # Where no level is crossed.
    pyramid = BlurPyramid(batch_for(size=(5, 6)).double(), 2.0)
    pyramid.levels, pyramid.dtype = pyramid.levels.double(), torch.float64
    assert torch.autograd.gradcheck(lambda m: pyramid.apply(1, m), masks.requires_grad_(True), eps=1e-6)
