"""Running a network from a layer on: what it gives is what the whole network gives."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midgrain import driver
from midgrain.network.capture import Site, run_from, run_until
from midgrain.network.layout import ChannelsFirst
from midgrain.network.resume import CannotResume, Resume
from midgrain.network.trace import trace
from models_for_tests import batch_for, seeded, tiny_net
from models_for_tests import one_thread as one_thread

FIRST = ChannelsFirst()


def resumed(model: nn.Module, name: str, x: Tensor, *, call: int = 0, **options: Any) -> Resume:
    layer = Site(name, model.get_submodule(name), call, 0, FIRST)
    with driver.preserved(model, x):
        return Resume(model, trace(model, x), layer, x, **options)


def assert_resumes(model: nn.Module, name: str, x: Tensor, *, call: int = 0, samples: int = 3, **options: Any) -> None:
    """Other values at the layer: the outputs are those of the whole network run with them."""
    x = x[:1]
    resume = resumed(model, name, x, call=call, **options)
    with driver.preserved(model, x), torch.no_grad():
        recorded = run_until(model, x, resume.site)
        assert torch.allclose(resume(recorded), model(x.clone()), rtol=1e-4, atol=1e-5)
        values = recorded * torch.linspace(0.2, 1.5, samples).reshape(-1, *[1] * (recorded.ndim - 1))
        kept = values.clone()
        actual = resume(values)
        expected = run_from(model, x.expand(samples, *x.shape[1:]), resume.site, values)
        assert torch.equal(values, kept)
    assert actual.shape == expected.shape
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert all("forward" not in module.__dict__ for module in model.modules())


class Block(nn.Module):
    """Functional code in place, a shortcut, one ReLU called many times, sizes read from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
        self.relu = nn.ReLU(inplace=True)
        self.inner.append(self.relu).append(nn.Conv2d(4, 4, 1)).append(self.relu)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        x = self.relu(self.stem(x))
        x = self.inner(x)
        x += 0.5
        x = self.relu(x)
        shortcut = x
        x = self.relu(self.a(x))
        x = self.b(x)
        x += shortcut
        x = self.relu(x)
        x = x.reshape(batch, 4, 2, height * width // 2).mean(3)
        return self.head(x.reshape(batch, -1))


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("name", ["stem", "inner.0", "inner.2", "inner", "a", "b"])
def test_every_layer_of_a_network_with_traps(name: str, samples: int) -> None:
    assert_resumes(seeded(Block), name, batch_for(), samples=samples)


@pytest.mark.parametrize("call", range(6))
def test_every_call_of_a_module_that_is_used_again(call: int) -> None:
    """Calls inside of what is not run do not count."""
    assert_resumes(seeded(Block), "relu", batch_for(), call=call)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", [str(number) for number in range(8)])
def test_every_layer_of_a_plain_network(dims: int, name: str) -> None:
    assert_resumes(tiny_net(dims), name, batch_for(dims))
    assert_resumes(tiny_net(dims), name, batch_for(dims), poison=True)


def test_nothing_before_the_layer_runs() -> None:
    model, x = tiny_net(), batch_for(batch=1)
    resume = resumed(model, "3", x)
    ran: list[str] = []
    for name, module in model.named_children():
        module.forward = lambda *args, name=name, own=module.forward: (ran.append(name), own(*args))[1]
    resume(torch.randn(2, 8, 12, 16))
    assert ran == ["4", "5", "6", "7", "8"]


def test_gradients() -> None:
    model, x = tiny_net(dtype=torch.float64), batch_for(batch=1, dtype=torch.float64)
    values = torch.randn(2, 8, 12, 16, dtype=torch.float64, requires_grad=True)
    with driver.preserved(model, x):
        (actual,) = torch.autograd.grad(resumed(model, "3", x)(values)[:, 1].sum(), values)
    (expected,) = torch.autograd.grad(model[4:](values.clone())[:, 1].sum(), values)
    assert torch.allclose(actual, expected)


@pytest.mark.parametrize(
    ("name", "leaks"), [("stem", False), ("inner", False), ("inner.0", False), ("a", True), ("b", True)]
)
def test_poison_finds_what_goes_around_the_layer(name: str, leaks: bool) -> None:
    """A shortcut goes around a and b."""
    model, x = seeded(Block), batch_for(batch=1)
    resumed(model, name, x)
    if leaks:
        with pytest.raises(CannotResume, match="its outputs depend on more than this layer"):
            resumed(model, name, x, poison=True)
    else:
        resumed(model, name, x, poison=True)


def test_poison_finds_the_input() -> None:
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3)) + x.mean((1, 2, 3))[:, None]

    model, x = seeded(Mixes), batch_for(batch=1)
    resumed(model, "conv", x)
    with pytest.raises(CannotResume):
        resumed(model, "conv", x, poison=True)


class Unsteady(nn.Module):
    """Calls its second layer only now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.times = 0

    def forward(self, x: Tensor) -> Tensor:
        self.times += 1
        x = self.first(x)
        if self.times % 2:
            x = self.second(x)
        return self.third(x).mean((2, 3))


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(1, -1)


class Counts(nn.Module):
    """A hook of the user's changes the layer's output: it would be applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
        self.conv.register_forward_hook(lambda module, args, output: output.square())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3)))


class Writes(nn.Module):
    """Writes into a part of what a layer returned."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x[:, 0] = 0
        y = self.conv(x)
        return torch.cat([x.mean((2, 3)), y.mean((2, 3))], 1)


@pytest.mark.parametrize(("build", "name"), [(Unsteady, "third"), (FixedBatch, "conv"), (Counts, "conv")])
def test_networks_that_do_not_allow_it(build: Any, name: str) -> None:
    model = seeded(build)
    with pytest.raises(CannotResume):
        resumed(model, name, batch_for(batch=1))
    assert all("forward" not in module.__dict__ for module in model.modules())


def test_a_network_that_writes_into_what_a_layer_returned() -> None:
    assert_resumes(seeded(Writes), "conv", batch_for())


def test_after_an_exception() -> None:
    model, x = tiny_net(), batch_for(batch=1)
    resume = resumed(model, "3", x)
    with pytest.raises(RuntimeError):
        resume(torch.randn(2, 7, 12, 16))  # Too few channels.
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert resume(torch.randn(2, 8, 12, 16)).shape == (2, 5)


def test_a_forward_of_the_users_own_comes_back() -> None:
    model, x = tiny_net(), batch_for(batch=1)
    own = model[1].forward
    model[1].forward = own
    resumed(model, "3", x)(torch.randn(1, 8, 12, 16))
    assert model[1].__dict__["forward"] is own


def test_autocast() -> None:
    model, x = tiny_net(), batch_for(batch=1)
    with torch.autocast("cpu", torch.bfloat16):
        resume = resumed(model, "3", x)
        with torch.no_grad():
            recorded = run_until(model, x, resume.site)
            assert torch.allclose(resume(recorded), model(x), rtol=0.05, atol=0.01)


def test_threads_that_share_a_network() -> None:
    """Each thread resumes with its own values, others run the whole network meanwhile."""
    model = seeded(Block).eval()
    inputs = [batch_for(batch=1, seed=seed) for seed in range(8)]
    layer = Site("inner", model.inner, 0, 0, FIRST)
    calls = trace(model, inputs[0])
    values = torch.rand(8, 2, 4, 24, 32)
    with torch.no_grad():
        whole = [model(x.clone()) for x in inputs]
        expected = [Resume(model, calls, layer, x)(values[number]) for number, x in enumerate(inputs)]
    wrong: list[Any] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        try:
            start.wait()
            with torch.no_grad():
                for _ in range(20):
                    if number % 2:
                        got, wanted = model(inputs[number].clone()), whole[number]
                    else:
                        got = Resume(model, calls, layer, inputs[number])(values[number])
                        wanted = expected[number]
                    if not torch.equal(got, wanted):
                        wrong.append(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all("forward" not in module.__dict__ for module in model.modules())


def test_a_layer_that_returns_a_dictionary() -> None:
    class Gives(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"size": 7, "maps": self.conv(x)}

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = Gives()

        def forward(self, x: Tensor) -> Tensor:
            given = self.trunk(x)
            return F.relu(given["maps"], inplace=True).mean((2, 3)) * given["size"]

    assert_resumes(seeded(Whole), "trunk", batch_for())


ZOO = {
    "alexnet": "features.8",
    "vgg11_bn": "features.20",
    "resnet18": "layer3.1",
    "resnet50": "layer4.1.conv2",
    "densenet121": "features.denseblock4",
    "inception_v3": "Mixed_7a",
    "googlenet": "inception5a",
    "mobilenet_v2": "features.14",
    "mobilenet_v3_small": "features.9",
    "efficientnet_b0": "features.6",
    "efficientnet_v2_s": "features.6.2",
    "convnext_tiny": "features.5",
    "regnet_y_400mf": "trunk_output.block4",
    "shufflenet_v2_x0_5": "stage4.0",
    "mnasnet0_5": "layers.12",
    "squeezenet1_1": "features.10",
    "swin_t": "features.5",
    "r3d_18": "layer3",
    "mc3_18": "layer4.0.conv1",
    "r2plus1d_18": "layer4.0",
}
_QUICK = ("resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5")


@pytest.mark.parametrize(
    "name", [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ZOO]
)
def test_torchvisions_networks(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    model = seeded(lambda: models.get_model(name, weights=None, **options)).eval()
    size = (8, 48, 64) if name in ("r3d_18", "mc3_18", "r2plus1d_18") else (96, 128)
    assert_resumes(model, ZOO[name], torch.rand(1, 3, *size), samples=2)
