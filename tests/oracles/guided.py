"""Guided backpropagation by rewriting the forward pass.

The model runs with every ReLU function replaced by one whose own backward pass is guided. This shares nothing with
graph hooks or dispatch modes, which the package uses on the backward pass of the ordinary model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class _GuidedClip(torch.autograd.Function):
    """Clip to low .. high; the gradient passes where the output is strictly inside and the gradient positive."""

    @staticmethod
    def forward(ctx, values, low, high):
        output = values.clamp(low, high)
        ctx.save_for_backward((output > low) & (output < high))
        return output

    @staticmethod
    def backward(ctx, gradient):
        (inside,) = ctx.saved_tensors
        return gradient * inside * (gradient > 0), None, None


def _relu(values, inplace=False):
    return _clip(values, 0.0, float("inf"), inplace)


def _relu6(values, inplace=False):
    return _clip(values, 0.0, 6.0, inplace)


def _hardtanh(values, min_val=-1.0, max_val=1.0, inplace=False):
    return _clip(values, min_val, max_val, inplace)


def _clip(values, low, high, inplace):
    clipped = _GuidedClip.apply(values, low, high)
    return values.copy_(clipped) if inplace else clipped


class _RewrittenReLUs(TorchFunctionMode):
    """Every way to say ReLU, ReLU6 and Hardtanh becomes its guided twin; counts them."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.twins = {
            F.relu: _relu,
            torch.relu: _relu,
            torch.Tensor.relu: _relu,
            torch.relu_: lambda values: _relu(values, inplace=True),
            torch.Tensor.relu_: lambda values: _relu(values, inplace=True),
            F.relu6: _relu6,
            F.hardtanh: _hardtanh,
            F.hardtanh_: lambda values, *limits: _hardtanh(values, *limits, inplace=True),
        }

    def __torch_function__(self, func, types, args=(), kwargs=None):
        twin = self.twins.get(func)
        if twin is None:
            return func(*args, **(kwargs or {}))
        self.count += 1
        return twin(*args, **(kwargs or {}))


def guided_gradient(model, x, target=None):
    """The guided gradient of each sample's class score, x's shape, and the number of ReLUs that were run.

    The model must be in evaluation mode.
    """
    leaf = x.detach().clone().requires_grad_(True)
    with _RewrittenReLUs() as relus:
        logits = model(leaf.clone())
    classes = logits.argmax(1) if target is None else torch.as_tensor(target).expand(len(x))
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), leaf)
    return gradient, relus.count


def guided_map(model, x, target=None):
    """Largest magnitude of the guided gradient over the channels, [B, *S]."""
    return guided_gradient(model, x, target)[0].abs().amax(1)
