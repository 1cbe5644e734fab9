"""Every public name, method and parameter of the libraries is there, or refused by an error that says what to use.

The lists are the live libraries' own, so that a newer version with more in it fails here.
"""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from midgrain import compat
from midgrain.compat import absent
from midgrain.compat.absent import not_offered
from models_for_tests import batch_for, tiny_net

#: Theirs, ours, and what is not offered.
MODULES = [
    ("pytorch_grad_cam", "gradcam", absent.GRADCAM),
    ("pytorch_grad_cam.utils.image", "gradcam.utils.image", absent.GRADCAM_UTILS),
    ("pytorch_grad_cam.utils.model_targets", "gradcam.utils.model_targets", {}),
    ("pytorch_grad_cam.utils.reshape_transforms", "gradcam.utils.reshape_transforms", {}),
    ("captum.attr", "captum", absent.CAPTUM),
    ("torchcam.methods", "torchcam.methods", absent.TORCHCAM),
    ("torchcam.utils", "torchcam.utils", {}),
    ("lime.lime_image", "lime.lime_image", {}),
    ("lime.wrappers.scikit_image", "lime.wrappers.scikit_image", {}),
    ("skimage.segmentation", "skimage", absent.SKIMAGE),
]
EACH = pytest.mark.parametrize(("there", "here", "missing"), MODULES, ids=[there for there, _, _ in MODULES])
pytestmark = pytest.mark.filterwarnings("ignore")  # Of importing them.


def peer(name: str):
    return pytest.importorskip(name, reason="needs the extra 'peers'")


def ours(name: str):
    return importlib.import_module(f"midgrain.compat.{name}")


def public(module) -> list[str]:
    """What a library says is public; where it says nothing, its own classes and functions."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    package = module.__name__.partition(".")[0]
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "").startswith(package)]
    return [name for name in own if not name.startswith("_") and callable(getattr(module, name))]


def offered(module, there) -> Iterator[str]:
    yield from (name for name in public(there) if name in getattr(module, "__all__", ()))


def parameters(function) -> list[str]:
    return [name for name, each in inspect.signature(function).parameters.items() if "VAR" not in each.kind.name]


@EACH
def test_every_name_is_there_or_refused(there, here, missing) -> None:
    library, module = peer(there), ours(here)
    names = public(library)
    assert names
    for name in names:
        if name in getattr(module, "__all__", ()):
            assert name not in missing, f"{name} is offered and listed as not offered"
            continue
        with pytest.raises(ImportError, match=rf"midgrain does not offer .*{name}; \w") as raised:
            exec(f"from midgrain.compat.{here} import {name}", {})
        assert not isinstance(raised.value, ModuleNotFoundError)


@EACH
def test_every_parameter_is_there(there, here, missing) -> None:
    """Of functions, constructors and methods, in their order; further ones of midgrain's may follow."""
    library, module = peer(there), ours(here)
    checked = 0
    for name in offered(module, library):
        theirs, mine = getattr(library, name), getattr(module, name)
        pairs = [(theirs, mine)]
        if inspect.isclass(theirs):
            pairs += [(value, getattr(mine, each, None)) for each, value in methods(theirs)]
        for function, own in pairs:
            if own is not None:
                wanted = parameters(function)
                assert parameters(own)[: len(wanted)] == wanted, f"{name}: {function}"
                checked += 1
    assert checked


def methods(kind: type) -> list[tuple[str, typing.Any]]:
    found = inspect.getmembers(kind, inspect.isroutine)
    own = [(name, value) for name, value in found if not name.startswith("_") or name == "__call__"]
    # What torch.nn.Module has is not the library's.
    return [(name, value) for name, value in own if not hasattr(nn.Module, name) or name == "__call__"]


@EACH
def test_every_method_is_there_or_refused(there, here, missing) -> None:
    library, module = peer(there), ours(here)
    for name in offered(module, library):
        theirs, mine = getattr(library, name), getattr(module, name)
        if inspect.isclass(theirs):
            for method, _ in methods(theirs):
                if not hasattr(mine, method):
                    blank = object.__new__(mine)
                    with pytest.raises(AttributeError, match=rf"has no attribute '{method}'; \w"):
                        getattr(blank, method)


@EACH
def test_what_to_use_instead_exists(there, here, missing) -> None:
    """Names in the advice are names of this module, of midgrain, or said to stay with the library."""
    module = ours(here)
    for advice in set(missing.values()):
        for name in re.findall(r"midgrain(?:\.\w+)+", advice):
            parts, value = name.split("."), importlib.import_module("midgrain")
            for part in parts[1:]:
                value = getattr(value, part)
        for name in re.findall(r"\b[A-Z]\w+(?:CAM|Cam|Target|Gradients?|Ablation|Shap|Backprop)\b", advice):
            assert hasattr(module, name) or hasattr(compat.gradcam, name), f"{advice}: there is no {name}"


@EACH
def test_nothing_is_refused_that_the_library_does_not_have(there, here, missing) -> None:
    library = peer(there)
    for name in missing:
        found = hasattr(library, name)
        for more in (f"{there}.{name}", f"{there.rpartition('.')[0]}.{name}"):
            try:
                found = found or importlib.import_module(more) is not None
            except ModuleNotFoundError:
                found = found or hasattr(importlib.import_module(there.rpartition(".")[0] or there), name)
        assert found, name


def test_quantus_is_left_where_it_is() -> None:
    quantus = peer("quantus")
    for name in ("MaxSensitivity", "evaluate"):
        assert hasattr(quantus, name)
        with pytest.raises(ImportError, match=f"midgrain does not offer Quantus's {name}; .*keep importing"):
            exec(f"from midgrain.compat.quantus import {name}", {})
    from midgrain.compat.quantus import explain, explain_func

    assert explain is explain_func
    model, x = tiny_net(), batch_for(batch=1).numpy()
    known = set(importlib.import_module("midgrain").methods())
    for name in quantus.available_methods_captum():
        with pytest.raises(ValueError, match="expected") as raised:
            explain(model, x, np.array([1]), method=name)
        advised = re.search(r"use '([\w-]+)'$", str(raised.value))
        assert (advised and advised[1] in known) or "expected one of" in str(raised.value)


def test_modules_that_lime_and_torchcam_have_beside() -> None:
    for name in absent.LIME:
        with pytest.raises(ImportError, match=f"midgrain does not offer lime's {name}; .*keep importing"):
            exec(f"from midgrain.compat.lime import {name}", {})
    with pytest.raises(ImportError, match=r"torchcam's metrics; use midgrain\.measures"):
        exec("from midgrain.compat.torchcam import metrics", {})


def test_names_that_nobody_has() -> None:
    for module in ("gradcam", "captum", "torchcam", "lime", "skimage"):
        with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
            ours(module).Nonsense  # noqa: B018
    look = not_offered("m", "p", {"a": "use b"}, "use c")
    with pytest.raises(ImportError, match="midgrain does not offer p's a; use b"):
        look("a")
    with pytest.raises(ImportError, match="p's x; use c"):
        look("x")
    with pytest.raises(AttributeError, match="'m' has no attribute '__path__'"):
        look("__path__")


def test_a_subclass_that_nobody_would_call() -> None:
    for name in ("get_cam_weights", "get_cam_image"):
        with pytest.raises(TypeError, match=rf"Mine\.{name}: nothing calls it; .*FormulaCAM"):
            type("Mine", (compat.gradcam.GradCAM,), {name: lambda self: None})
    with pytest.raises(AttributeError, match=r"'GradCAM' object has no attribute 'nonsense'$"):
        compat.gradcam.GradCAM(nn.Conv2d(3, 3, 3), []).nonsense  # noqa: B018


#: Parameters that are there to be refused: the call, and what to use instead.
REFUSED = {
    "ratio_channels_to_ablate": lambda: compat.gradcam.AblationCAM(tiny_net(), ["4"], ratio_channels_to_ablate=0.5),
    "ablation_layer": lambda: compat.gradcam.AblationCAM(tiny_net(), ["4"], ablation_layer=nn.ReLU()),
    "eigen_smooth": lambda: compat.gradcam.FullGrad(tiny_net())(batch_for(batch=1), eigen_smooth=True),
    "attribute_to_layer_input": lambda: cam().attribute(batch_for(batch=1), 1, attribute_to_layer_input=True),
    "grad_kwargs": lambda: cam().attribute(batch_for(batch=1), 1, grad_kwargs={"retain_graph": True}),
    "draw_baseline_from_distrib": lambda: compat.captum.NoiseTunnel(compat.captum.Saliency(tiny_net())).attribute(
        batch_for(batch=1), draw_baseline_from_distrib=True
    ),
    "interpretable_model": lambda: compat.captum.Lime(tiny_net(), interpretable_model=object()),
    "similarity_func": lambda: compat.captum.Lime(tiny_net(), similarity_func=abs),
    "perturb_func": lambda: compat.captum.Lime(tiny_net(), perturb_func=abs),
    "inputs": lambda: compat.captum.Saliency(tiny_net()).attribute((batch_for(batch=1), batch_for(batch=1)), 1),
    "baselines": lambda: compat.captum.IntegratedGradients(tiny_net()).attribute(batch_for(batch=1), (0, 0), 1),
    "method": lambda: compat.captum.IntegratedGradients(tiny_net()).attribute(
        batch_for(batch=1), target=1, method="riemann_left"
    ),
    "feature_mask": lambda: compat.captum.KernelShap(tiny_net()).attribute(batch_for(batch=1), target=1),
    "targets": lambda: compat.gradcam.GradCAM(tiny_net(), ["4"])(batch_for(batch=2), [lambda output: output[0]]),
    "slic_zero": lambda: compat.skimage.slic(np.zeros((8, 8, 3)), slic_zero=True),
}


def cam():
    model = tiny_net()
    return compat.captum.LayerGradCam(model, model[4])


@pytest.mark.parametrize("name", REFUSED)
def test_every_refused_parameter_says_what_to_do(name) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*expected") as raised:
        REFUSED[name]()
    text = (Path(__file__).parent.parent / "docs" / "compat.md").read_text(encoding="utf-8")
    assert f"`{name}`" in text, "docs/compat.md does not say so"
    assert raised.value.__cause__ is None


def test_finer_cam_is_grad_cam_with_a_target() -> None:
    theirs = peer("pytorch_grad_cam")
    model, x = tiny_net().eval(), batch_for(batch=2)
    for number, module in enumerate(model):
        if isinstance(module, nn.ReLU | nn.ReLU6):
            model[number] = nn.ReLU()
    made = [library.utils.model_targets.FinerWeightedTarget(2, [0, 4], 0.6) for library in (theirs, compat.gradcam)]
    expected = theirs.FinerCAM(model, [model[4]])(x, [made[0]] * 2)
    assert np.ptp(expected) > 0.9
    assert compat.gradcam.GradCAM(model, [model[4]])(x, [made[1]] * 2) == pytest.approx(expected, abs=1e-4)


def test_neurons_as_functions() -> None:
    """What is advised in the place of captum's methods for neurons."""
    model, x = tiny_net(), batch_for(batch=2)
    found = compat.captum.Saliency(lambda x: model[:2](x)[:, 1, 3, 4]).attribute(x)
    assert found.shape == x.shape
    assert torch.count_nonzero(found)
