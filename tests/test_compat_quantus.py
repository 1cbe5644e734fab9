"""`midgrain.compat.quantus.explain_func` inside Quantus's own metrics, which run live."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from midgrain.compat.quantus import explain_func
from models_for_tests import FAST_OPTIONS, METHODS, batch_for, quick_explainer, tiny_net
from models_for_tests import one_thread as one_thread

quantus = pytest.importorskip("quantus", reason="needs quantus")

pytestmark = pytest.mark.filterwarnings("ignore")  # Quantus warns of its own defaults.
QUIET = {"disable_warnings": True, "display_progressbar": False}
TARGETS = np.array([3, 0, 4])


def data() -> tuple[torch.nn.Module, np.ndarray]:
    return tiny_net(), batch_for(batch=3).numpy()


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method) -> None:
    model, x = data()
    found = explain_func(
        model, x, TARGETS, method=method, xai_lib="captum", softmax=False, **FAST_OPTIONS.get(method, {})
    )
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    assert found.shape == (3, 1, 24, 32)
    again = quick_explainer(method, model)(torch.from_numpy(x), torch.from_numpy(TARGETS)).heatmap.numpy()
    for here, there in zip(found[:, 0], again, strict=True):
        if there.max() >= 0:
            assert np.array_equal(here, there)
        else:  # Quantus refuses a map without a positive value.
            assert here.min() == 0
            assert np.allclose(here - here.max(), there - there.max(), atol=1e-6)
    quantus.helpers.asserts.assert_attributions(x_batch=x, a_batch=found)


METRICS = {
    "PixelFlipping": {"features_in_step": 96, "perturb_baseline": "black"},
    "FaithfulnessCorrelation": {"nr_runs": 8, "subset_size": 64, "return_aggregate": False},
    "MaxSensitivity": {"nr_samples": 2, "lower_bound": 0.1},
    "LocalLipschitzEstimate": {"nr_samples": 2},
    "Sparseness": {},
    "Complexity": {},
    "RandomLogit": {"num_classes": 5},
}


@pytest.mark.parametrize("method", ["gradcam", "swag-ig"])
@pytest.mark.parametrize("name", METRICS)
def test_metrics(name, method) -> None:
    """They call it again for perturbed inputs and other classes, and take its maps as they come."""
    model, x = data()
    np.random.seed(0)  # noqa: NPY002 - Quantus uses it
    targets = model(torch.from_numpy(x)).argmax(1).numpy()  # No map of these is blank.
    metric = getattr(quantus, name)(**METRICS[name], **QUIET)
    scores = metric(
        model=model,
        x_batch=x,
        y_batch=targets,
        a_batch=None,
        explain_func=explain_func,
        explain_func_kwargs={"method": method},
        device="cpu",
        batch_size=3,
    )
    values = np.array([np.ravel(score) for score in scores], dtype=float)
    assert len(values) == 3
    assert np.isfinite(values).all()
    if name == "Sparseness":
        again = metric(model=model, x_batch=x, y_batch=targets, a_batch=explain_func(model, x, targets, method=method))
        assert np.allclose(again, scores)


def test_randomised_models() -> None:
    """A method that looks at the model changes when its weights do; one that does not, does not."""
    model, x = data()
    for method, same in (("gradcam", False), ("sobel", True)):
        metric = quantus.MPRT(skip_layers=False, **QUIET)
        options = {"explain_func": explain_func, "explain_func_kwargs": {"method": method}, "device": "cpu"}
        scores = metric(model=model, x_batch=x, y_batch=TARGETS, a_batch=None, **options)
        similar = np.concatenate([np.ravel(value) for value in scores.values()])
        assert (similar > 0.999).all() == same


def test_dtypes_targets_and_clips() -> None:
    model, x = data()
    expected = explain_func(model, x, TARGETS, method="gradcam")
    assert np.allclose(explain_func(model, x.astype(np.float64), list(TARGETS), method="gradcam"), expected)
    assert np.allclose(explain_func(model.double(), x, TARGETS, method="gradcam"), expected, atol=1e-5)
    best = explain_func(model.float(), x, method="gradcam")
    assert best.shape == expected.shape
    clips = batch_for(3, batch=2).numpy()
    assert explain_func(tiny_net(3), clips, np.array([3, 0]), method="gradcam").shape == (2, 1, *clips.shape[2:])


def test_bad_input() -> None:
    model, x = data()
    with pytest.raises(ValueError, match="got 'Saliency'; use 'vanilla'"):
        explain_func(model, x, TARGETS, method="Saliency")
    with pytest.raises(TypeError, match="has no option steps"):
        explain_func(model, x, TARGETS, method="gradcam", steps=3)
    with pytest.raises(ValueError, match="target: expected one class per sample"):
        explain_func(model, x, TARGETS[:2], method="gradcam")
