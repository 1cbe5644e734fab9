"""Parts of grad-cam's classes that these do not have: they are said so, also where a subclass builds on them."""

from __future__ import annotations

from typing import Any

from midgrain.compat.absent import Refusing

__all__ = ["WithoutParts"]

_FORMULA = "a formula of your own is a subclass of midgrain.cams.base.FormulaCAM"
_CALL = "call the object"
_NOTHING_PUT_IN = "the model is not changed"


class WithoutParts(Refusing):
    """A class of grad-cam's name without the steps that it is made of.

    Raises:
        TypeError: a subclass that overrides one of them, which nobody would call.
    """

    _instead = {  # noqa: RUF012 - annotated in the base class
        "activations_and_grads": "nothing is hooked; cam.outputs has the outputs",
        "get_cam_weights": _FORMULA,
        "get_cam_image": _FORMULA,
        "aggregate_multi_layers": "with one layer per object, maps can be put together in other ways",
        "compute_cam_per_layer": "with one layer per object, the call returns its map",
        "forward_augmentation_smoothing": "call the object with aug_smooth=True",
        "get_target_width_height": "maps have the input's size",
        "assemble_ablation_scores": _CALL,
        "save_activation": _CALL,
        "get_bias_data": _CALL,
        "recursive_replace_relu_with_guidedrelu": _NOTHING_PUT_IN,
        "recursive_replace_guidedrelu_with_relu": _NOTHING_PUT_IN,
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in cls._instead.keys() & vars(cls).keys():
            raise TypeError(f"{cls.__name__}.{name}: nothing calls it; {cls._instead[name]}")
