"""Image networks made into networks for clips by repeating their kernels over time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["Inflated", "inflate"]

_WEIGHTS = ("average", "centre")
# How far a still clip's outputs may be from the picture's, relative to the largest.
_TOLERANCE = 1e-3


def inflate(
    model: nn.Module,
    *,
    kernel: int = 3,
    weights: str = "average",
    last: int | None = None,
    size: int | tuple[int, int] = 224,
) -> Inflated:
    """A network for clips [B, C, T, H, W] from one for pictures [B, C, H, W], with its weights and no training.

    A kernel [h, w] becomes [t, h, w]: t copies of it, each divided by t, so that a clip that does not move gives what
    the picture gave. Only convolutions that look at neighbours get a kernel in time, in networks with depthwise
    convolutions only these. Time is neither cut nor strided: every layer has one map for each frame, and convolutions
    see the first and last frame again beyond the clip's ends, so that a still clip gives **exactly** the picture's
    outputs, in every frame. Pooling over the whole map includes time. That is checked before the network is returned.

    It names what is in the frames, not what happens in them: a network inflated and not trained on has seen no motion.

    Args:
        model: its forward may call modules and torch's pooling functions, and anything that does not mind a further
            axis. It is left as it was.
        kernel: t, odd; 1 gives every frame to the image network by itself until they are pooled.
        weights: "average", or "centre": the whole kernel in the middle and zeros before and after (as ViViT begins),
            which acts like `kernel=1` until it is trained.
        last: only so many convolutions get a kernel in time, the last ones in the order of `model.named_modules()`;
            None for all. Averages over neighbouring frames blur whatever moves, in early layers most of all.
        size: side or (height, width) of a picture that the network takes, for the check.

    Returns:
        The network for clips in evaluation mode, with copies of the weights; its modules have the names of the image
        network's after "network.".

    Raises:
        TypeError, ValueError: an unfit argument; a module that is not known for clips; a network whose outputs for a
            still clip are not the picture's.

    Source: Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, section 2.3 (I3D, whose clips are
    padded with zeros and strided in time); "centre": Arnab et al., "ViViT", ICCV 2021; `last`: Xie et al., "Rethinking
    Spatiotemporal Feature Learning", ECCV 2018 (top-heavy I3D).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from midgrain.inflation import inflate
        >>> picture_net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> inflate(picture_net, size=32)(torch.randn(2, 3, 16, 32, 32)).shape
        torch.Size([2, 8])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if isinstance(kernel, bool) or not isinstance(kernel, int):
        raise TypeError(f"kernel: expected an int, got {type(kernel).__name__}")
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel: expected an odd number of frames, got {kernel}")
    if weights not in _WEIGHTS:
        raise ValueError(f"weights: expected {' or '.join(_WEIGHTS)}, got {weights!r}")
    if last is not None and (isinstance(last, bool) or not isinstance(last, int)):
        raise TypeError(f"last: expected an int or None, got {type(last).__name__}")
    if last is not None and last < 0:
        raise ValueError(f"last: expected 0 or more, got {last}")
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"size: expected a side or (height, width), got {size!r}")
    network = copy.deepcopy(model)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise ValueError("model: expected a network with convolutions (nn.Conv2d), got none")
    depthwise = any(map(_is_depthwise, convolutions))
    looking = [each for each in convolutions if max(each.kernel_size) > 1 and (_is_depthwise(each) or not depthwise)]
    chosen = {id(each) for each in looking[0 if last is None else max(0, len(looking) - last) :]}

    def frames(convolution: nn.Conv2d) -> int:
        return kernel if id(convolution) in chosen else 1

    result = Inflated(_inflated(network, frames, weights, {}, "model"))
    for module in result.modules():
        module.training = False
    _check(model, result, convolutions[0].in_channels, sides)
    return result


class Inflated(nn.Module):
    """A network whose modules are for clips, run so that its calls of torch's functions for pictures are, too.

    Args:
        network: with modules for clips.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> Any:
        """Clips [B, C, T, H, W] -> the network's outputs."""
        with _PoolingOverTime():
            return self.network(clips)


class InflatedConv(nn.Conv3d):
    """A convolution of clips that sees the first and last frame again beyond their ends, and zeros beside them.

    Args:
        convolution: of pictures.
        frames: kernel size in time.
        weights: see `inflate`.
        edges: zeros to the left, right, top and bottom, besides the convolution's own.
    """

    def __init__(self, convolution: nn.Conv2d, frames: int, weights: str, edges: Sequence[int] = (0, 0, 0, 0)):
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            _spatial(convolution.kernel_size, frames),
            _spatial(convolution.stride, 1),
            _spatial(convolution.padding, 0),
            _spatial(convolution.dilation, 1),
            convolution.groups,
            convolution.bias is not None,
            device=convolution.weight.device,
            dtype=convolution.weight.dtype,
        )
        self.edges = tuple(edges)
        flat = convolution.weight.detach()[:, :, None]
        with torch.no_grad():
            if weights == "average":
                self.weight.copy_((flat / frames).expand_as(self.weight))
            else:
                self.weight.zero_()
                self.weight[:, :, frames // 2].copy_(flat[:, :, 0])
            if convolution.bias is not None and self.bias is not None:
                self.bias.copy_(convolution.bias)

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, K, T, h, w]."""
        if any(self.edges):
            input = functional.pad(input, [*self.edges, 0, 0])
        beyond = self.kernel_size[0] // 2
        if beyond:
            first, last = input[:, :, :1], input[:, :, -1:]
            input = torch.cat([*[first] * beyond, input, *[last] * beyond], 2)
        if self.groups == self.in_channels > 1 and input.device.type == "cpu":
            # Ten times as fast there with the channels last.
            return super().forward(input.contiguous(memory_format=torch.channels_last_3d)).contiguous()
        return super().forward(input)


def _is_depthwise(convolution: nn.Conv2d) -> bool:
    return convolution.groups == convolution.in_channels > 1


def _inflated(
    module: nn.Module, frames: Callable[[nn.Conv2d], int], weights: str, done: dict[int, nn.Module], name: str
) -> nn.Module:
    """The module for clips; modules that are used in several places stay one."""
    if id(module) in done:
        return done[id(module)]
    if isinstance(module, nn.Conv2d):
        result: nn.Module = _convolution(module, frames(module), weights, name)
    elif (made := _simple(module)) is not None:
        result = made
    elif type(module) in _REFUSED:
        raise ValueError(f"model: {name} is a {type(module).__name__}, which cannot be inflated")
    else:
        result = module
        for key, child in list(module.named_children()):
            setattr(module, key, _inflated(child, frames, weights, done, f"{name}.{key}"))
    done[id(module)] = result
    return result


def _convolution(convolution: nn.Conv2d, frames: int, weights: str, name: str) -> nn.Module:
    edges: Sequence[int] = (0, 0, 0, 0)
    if type(convolution).forward is not nn.Conv2d.forward:
        # TensorFlow's "same" padding, which the EfficientNets keep in a module of the convolution.
        padding = getattr(convolution, "static_padding", None)
        if not isinstance(padding, nn.ZeroPad2d) and (padding is None or list(padding.parameters())):
            raise ValueError(f"model: {name} is a {type(convolution).__name__}, whose padding is not known")
        edges = padding.padding if isinstance(padding, nn.ZeroPad2d) else edges
    if isinstance(convolution.padding, str):
        # "same" puts the odd one to the right and at the bottom.
        extra = [d * (k - 1) for d, k in zip(convolution.dilation, convolution.kernel_size, strict=True)]
        if convolution.padding == "same":
            top, left = (each // 2 for each in extra)
            edges = (left, extra[1] - left, top, extra[0] - top)
        convolution = copy.copy(convolution)
        convolution.padding = (0, 0)
    if convolution.padding_mode != "zeros":
        raise ValueError(f"model: {name} pads with {convolution.padding_mode!r}, which cannot be inflated")
    return InflatedConv(convolution, frames, weights, edges)


def _spatial(value: Any, time: int) -> tuple[int, int, int]:
    """An option for height and width, with one for time before them."""
    height, width = (value, value) if isinstance(value, int) else value
    return time, height, width


def _norm(kind: Callable[..., nn.Module]) -> Callable[[Any], nn.Module]:
    def make(module: Any) -> nn.Module:
        track, affine = module.track_running_stats, module.affine
        made = kind(module.num_features, module.eps, module.momentum, affine, track)
        made.load_state_dict(module.state_dict())
        return made.to(module.weight) if affine else made

    return make


def _adaptive(kind: Callable[..., nn.Module]) -> Callable[[Any], nn.Module]:
    return lambda module: kind(_spatial(module.output_size, 1))


def _max_pool(module: Any) -> nn.Module:
    kernel, stride = _spatial(module.kernel_size, 1), _spatial(module.stride, 1)
    padding, dilation = _spatial(module.padding, 0), _spatial(module.dilation, 1)
    return nn.MaxPool3d(kernel, stride, padding, dilation, ceil_mode=module.ceil_mode)


def _average_pool(module: Any) -> nn.Module:
    kernel, stride, padding = _spatial(module.kernel_size, 1), _spatial(module.stride, 1), _spatial(module.padding, 0)
    return nn.AvgPool3d(kernel, stride, padding, module.ceil_mode, module.count_include_pad, module.divisor_override)


def _padding(kind: Callable[..., nn.Module], *options: str) -> Callable[[Any], nn.Module]:
    return lambda module: kind((*module.padding, 0, 0), *(getattr(module, each) for each in options))


_SIMPLE: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.BatchNorm2d: _norm(nn.BatchNorm3d),
    nn.InstanceNorm2d: _norm(nn.InstanceNorm3d),
    nn.AdaptiveAvgPool2d: _adaptive(nn.AdaptiveAvgPool3d),
    nn.AdaptiveMaxPool2d: _adaptive(nn.AdaptiveMaxPool3d),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.Dropout2d: lambda module: nn.Dropout3d(module.p, module.inplace),
    nn.ZeroPad2d: _padding(nn.ZeroPad3d),
    nn.ConstantPad2d: _padding(nn.ConstantPad3d, "value"),
    nn.ReflectionPad2d: _padding(nn.ReflectionPad3d),
    nn.ReplicationPad2d: _padding(nn.ReplicationPad3d),
}
_REFUSED = (
    nn.ConvTranspose2d,
    nn.FractionalMaxPool2d,
    nn.LPPool2d,
    nn.LazyConv2d,
    nn.MaxUnpool2d,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Upsample,
    nn.UpsamplingBilinear2d,
    nn.UpsamplingNearest2d,
)


def _simple(module: nn.Module) -> nn.Module | None:
    make = _SIMPLE.get(type(module))
    return None if make is None or getattr(module, "return_indices", False) else make(module)


class _PoolingOverTime(TorchFunctionMode):
    """Pooling functions for pictures, called with a clip, pool it."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        values = args[0] if args else kwargs.get("input")
        if func in _POOLING and isinstance(values, Tensor) and values.ndim == 5:
            return _POOLING[func](*args, **kwargs)
        return func(*args, **kwargs)


def _adaptive_pooling(function: Callable[..., Any]) -> Callable[..., Any]:
    def pool(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        _refuse_indices(return_indices)
        return function(input, _spatial(output_size, 1))

    return pool


def _refuse_indices(wanted: bool) -> None:
    if wanted:
        raise ValueError("model: max pooling that returns indices cannot be inflated")


def _max_pooling(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    _refuse_indices(return_indices)
    kernel, step = _spatial(kernel_size, 1), _spatial(stride or kernel_size, 1)
    return functional.max_pool3d(input, kernel, step, _spatial(padding, 0), _spatial(dilation, 1), ceil_mode)


def _average_pooling(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    kernel, step = _spatial(kernel_size, 1), _spatial(stride or kernel_size, 1)
    return functional.avg_pool3d(
        input, kernel, step, _spatial(padding, 0), ceil_mode, count_include_pad, divisor_override
    )


def _mean(input: Tensor, dim: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    if dim is not None and not isinstance(dim, int) and sorted(dim) in ([2, 3], [-2, -1]):
        dim = (2, 3, 4)
    return torch.mean(input, dim, keepdim, **options) if dim is not None else torch.mean(input, **options)


_POOLING: dict[Any, Callable[..., Any]] = {
    functional.adaptive_avg_pool2d: _adaptive_pooling(functional.adaptive_avg_pool3d),
    functional.adaptive_max_pool2d: _adaptive_pooling(functional.adaptive_max_pool3d),
    functional.avg_pool2d: _average_pooling,
    functional.max_pool2d: _max_pooling,
    torch.max_pool2d: _max_pooling,
    torch.mean: _mean,
    Tensor.mean: _mean,
}


def _check(model: nn.Module, inflated: Inflated, channels: int, sides: tuple[int, ...]) -> None:
    """That a still clip gives the picture's outputs."""
    image_network = copy.deepcopy(model)
    for module in image_network.modules():
        module.training = False
    parameter = next(image_network.parameters())
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, channels, *sides, generator=generator).to(parameter)
    with torch.no_grad():
        try:
            expected = image_network(picture)
        except Exception as error:
            raise ValueError(
                f"size: the network does not take a picture {list(picture.shape)} ({_first_line(error)})"
            ) from error
        try:
            found = inflated(picture[:, :, None].expand(-1, -1, 2, -1, -1))
        except Exception as error:
            raise ValueError(f"model: cannot be run on clips ({_first_line(error)})") from error
    if not isinstance(expected, Tensor) or not isinstance(found, Tensor):
        raise ValueError(f"model: expected a network that returns a tensor, got {type(expected).__name__}")
    if expected.shape == found.shape:
        deviation = (found.double() - expected.double()).abs().max()
        if deviation <= _TOLERANCE * expected.double().abs().max():
            return
    raise ValueError(
        f"model: a still clip gives other outputs ({list(found.shape)}) than the picture ({list(expected.shape)}), so "
        "something in its forward does not suit clips"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
