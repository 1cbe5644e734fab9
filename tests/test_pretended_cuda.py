"""The pretended CUDA device itself: it refuses what torch refuses on one, takes what torch takes, and counts.

What real devices do was taken from torch's sources; see pretended_rules.py. Nothing here needs a device.
"""

from __future__ import annotations

import copy
import io
import pickle
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import midgrain as mg
from midgrain.errors import BackendUnavailableError
from models_for_tests import batch_for, tiny_net
from models_for_tests import one_thread as one_thread
from pretended_cuda import CUDA, Pretended, pretended_cuda

MIXED = "Expected all tensors to be on the same device"
NOT_TO_NUMPY = "can't convert cuda:0 device type tensor to numpy"
CPU_INDEXED = "indices should be either on cpu or on the same device as the indexed tensor"
FIRST = torch.tensor([0, 1])
MASK = torch.tensor([True, False, True])


def numbers() -> torch.Tensor:
    return torch.arange(12.0).reshape(3, 4) - 5


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class GradientOnTheCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros(gradient.shape)


def hooked(x):
    leaf = x.clone().requires_grad_()
    inner = leaf * 2
    inner.register_hook(lambda gradient: gradient.cpu())
    inner.sum().backward()


def gradient_of(make):
    """The gradient of a number made from x."""

    def found(x, on):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(make(leaf, on), leaf)
        return gradient

    return found


# Name -> (what is done with x, float32 [3, 4] on the device; the error's text).
WRONG = {
    "numpy": (lambda x: x.numpy(), NOT_TO_NUMPY),
    "numpy of a result": (lambda x: x.sum(1).detach().numpy(), NOT_TO_NUMPY),
    "asarray": (lambda x: np.asarray(x), NOT_TO_NUMPY),
    "numpy function": (lambda x: np.stack([row for row in x]), NOT_TO_NUMPY),
    "dlpack": (lambda x: np.from_dlpack(x), "no memory that others"),
    "pin": (lambda x: x.pin_memory(), "cannot pin"),
    "arange without a device": (lambda x: x + torch.arange(4), MIXED),
    "zeros without a device": (lambda x: torch.cat([x, torch.zeros(1, 4)]), MIXED),
    "one number in cat": (lambda x: torch.stack([x[0, 0], torch.tensor(1.0)]), MIXED),
    "from_numpy": (lambda x: torch.from_numpy(np.ones((3, 4), np.float32)) * x, MIXED),
    "vector and number": (lambda x: torch.arange(4) * x[0, 0], MIXED),
    "two numbers": (lambda x: torch.addcmul(x, torch.tensor(1.0), torch.tensor(1.0)), "too many CPU scalars"),
    "matrix product": (lambda x: x @ torch.ones(4, 2), MIXED),
    "einsum": (lambda x: torch.einsum("ij,j->i", x, torch.ones(4)), MIXED),
    "linear": (lambda x: nn.Linear(4, 2)(x), MIXED),
    "convolution": (lambda x: F.conv2d(x[None, None], torch.ones(1, 1, 2, 2)), MIXED),
    "batch norm": (lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)), MIXED),
    "loss": (lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2])), MIXED),
    "grid_sample": (lambda x: F.grid_sample(x[None, None], torch.zeros(1, 2, 2, 2), align_corners=False), MIXED),
    "gather": (lambda x: x.gather(1, torch.zeros(3, 1, dtype=torch.int64)), MIXED),
    "index_select": (lambda x: x.index_select(0, FIRST), MIXED),
    "scatter": (lambda x: x.scatter(0, torch.zeros(1, 4, dtype=torch.int64), 1.0), MIXED),
    "index_add": (lambda x: torch.zeros(3, 4).index_add_(0, FIRST, x[:2]), MIXED),
    "take_along_dim": (
        lambda x: torch.take_along_dim(x, torch.zeros(3, 1, dtype=torch.int64), 1),
        "got tensor with cpu Device",
    ),
    "index of a CPU tensor": (lambda x: torch.zeros(12)[x.argmax(1)], CPU_INDEXED),
    "mask of a CPU tensor": (lambda x: torch.zeros(3, 4)[x > 0], CPU_INDEXED),
    "masked values set": (lambda x: x.__setitem__(x > 0, torch.ones(6)), MIXED),
    "values set at indices": (lambda x: x.__setitem__(FIRST, torch.ones(2, 4)), MIXED),
    "values from the device set": (lambda x: torch.zeros(3, 4).__setitem__(FIRST, x[:2]), MIXED),
    "mask filled": (lambda x: x.masked_fill(MASK[:, None], 0.0), MIXED),
    "where's mask": (lambda x: torch.where(MASK[:, None], x, 0.0), MIXED),
    "where's values": (lambda x: torch.where(x > 0, x, torch.zeros(4)), MIXED),
    "in place on the CPU": (lambda x: torch.zeros(3, 4).add_(x), MIXED),
    "number in place on the CPU": (lambda x: torch.tensor(0.0).add_(x.sum()), MIXED),
    "out on the CPU": (lambda x: torch.add(x, 1, out=torch.zeros(3, 4)), MIXED),
    "searchsorted": (lambda x: torch.searchsorted(torch.arange(4.0), x), MIXED),
    "equal": (lambda x: torch.equal(x, torch.zeros(3, 4)), MIXED),
    "allclose": (lambda x: torch.allclose(x, torch.zeros(3, 4)), MIXED),
    "generator": (lambda x: torch.randn(3, device=x.device, generator=generator()), "'cuda' device type for generator"),
    "shuffled": (lambda x: torch.randperm(3, generator=generator(), device="cuda"), "'cuda' device type for generator"),
    "multinomial": (lambda x: x.abs().multinomial(2, generator=generator()), "'cuda' device type for generator"),
    "no such kernel": (lambda x: torch.histogram(x, 3), "Could not run"),
    "product of integers": (lambda x: x.long() @ x.long().T, "not implemented for"),
    "second device": (lambda x: x.to("cuda:1"), "invalid device ordinal"),
    "network left on the CPU": (lambda x: tiny_net()(batch_for().to(x.device)), MIXED),
    "input left on the CPU": (lambda x: tiny_net().to(x.device)(batch_for()), MIXED),
    "gradient from the CPU": (
        lambda x: gradient_of(lambda leaf, _: GradientOnTheCPU.apply(leaf**2).sum())(x, None),
        MIXED,
    ),
    "hook to the CPU": (hooked, "has changed the type of value"),
    "own operator": (lambda x: mg.pool(x, torch.zeros(3, 4, dtype=torch.int32), n=1), MIXED),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_refused(name) -> None:
    if name == "no such kernel" and torch.version.cuda is None:
        pytest.skip("only a torch with CUDA knows its kernels")
    mistake, message = WRONG[name]
    with pretended_cuda():
        x = numbers().cuda()
        with pytest.raises((RuntimeError, TypeError, BufferError, NotImplementedError), match=message):
            mistake(x)


def set_to(place, value):
    def changed(x, on):
        made = x.clone()
        made[place(on) if callable(place) else place] = value(on) if callable(value) else value
        return made

    return changed


def pooled(x, on):
    labels = on(torch.tensor([[0, 0, 1, 1]] * 3, dtype=torch.int32))
    return mg.paint(mg.pool(x, labels), labels)


def in_place(x, on):
    made = x.clone()
    made[1:].mul_(3)
    made.view(2, 6)[:, 0].zero_()
    made.unsqueeze_(0).transpose_(1, 2).squeeze_()
    return made.t_() + torch.zeros_like(x, device=x.device)


def second_order(x, on):
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad((leaf**3).sum(), leaf, create_graph=True)
    return torch.autograd.grad(first.sum(), leaf)[0]


# Name -> what is done with x and `on`, which puts a tensor to where x is. `torch.tensor(2.0)` is on the CPU.
RIGHT = {
    "numbers": lambda x, on: (x + 1, 2 * x, x / np.float32(3), x > 0, -x, x**2, 1 - x),
    "number on the CPU": lambda x, on: (x + torch.tensor(2.0), torch.tensor(2.0) * x, x.clamp(torch.tensor(0.0))),
    "where": lambda x, on: torch.where(x > 0, torch.tensor(1.0), torch.tensor(0.0)) + x.where(x > 0, 1),
    "indices on the CPU": lambda x, on: (x[FIRST], x[:, FIRST], x[MASK], x[FIRST, FIRST], x[[0, 2]], x[2, [1]]),
    "other indices": lambda x, on: (
        x[np.array([0, 2])],
        x[np.int64(1)],
        x[on(FIRST)],
        x[x > 0],
        x[on(torch.tensor(1))],
    ),
    "ranges": lambda x, on: (x[range(2)], x[[]], x[[True, False, True]], x[None, ..., 1:3], x[x.argmax(0)]),
    "set a number": set_to(0, 3.0),
    "set rows from the CPU": set_to(slice(0, 2), lambda on: torch.ones(2, 4)),
    "set at a list": set_to([0, 2], lambda on: on(torch.ones(2, 4))),
    "set at indices": set_to(lambda on: FIRST, lambda on: on(torch.ones(2, 4))),
    "set a number at indices": set_to(lambda on: (on(FIRST), FIRST), lambda on: torch.tensor(9.0)),
    "set at a mask": set_to(lambda on: on(MASK), 0.5),
    "copies": lambda x, on: (torch.zeros(3, 4).copy_(x), x.clone().copy_(torch.ones(3, 4)), x.cpu().numpy() * 2),
    "filled": lambda x, on: (x.masked_fill(x > 0, torch.tensor(7.0)), torch.full_like(x, 2), x.clone().fill_(3)),
    "factories": lambda x, on: (
        *(torch.arange(4, device=x.device), torch.zeros(2, device=x.device), torch.ones((), device=x.device)),
        *(torch.eye(2, device=x.device), torch.linspace(0, 1, 3, device=x.device), x.new_zeros(2), x.new_ones(1)),
        *(
            torch.full((2,), 3.0, device=x.device),
            torch.ones_like(x),
            x.new_full((1,), 2),
            torch.tril(torch.ones_like(x)),
        ),
    ),
    "values": lambda x, on: (
        *(torch.tensor([1.0, 2.0], device=x.device), torch.as_tensor([1, 2], device=x.device), x.new_tensor([3, 4])),
        *(torch.tensor(x[0].tolist(), device=x.device), torch.as_tensor(np.ones(2), device=x.device)),
        *(torch.as_tensor(x), torch.tensor([x[0, 1], 2.0]), torch.from_numpy(np.ones(3)).to(x)),
    ),
    "kinds": lambda x, on: (x.double(), x.half(), x.to(torch.int32), x.to(torch.bfloat16).float(), x.bool(), x.long()),
    "reductions": lambda x, on: (x.sum(), x.amax(1), x.mean(0), x.std(), x.argmax(), x.cumsum(1), x.median(), x.norm()),
    "orders": lambda x, on: (*x.sort(1), *x.topk(2), x.argsort(0), x.flip(0), x.unique(), x.nonzero(), x.quantile(0.5)),
    "products": lambda x, on: (x @ x.T, torch.einsum("ij,kj->ik", x, x), F.linear(x, x), torch.linalg.svdvals(x)),
    "reads": lambda x, on: (
        float(x.sum()),
        int(x[0, 1]),
        bool((x > 0).any()),
        x.tolist(),
        x.sum().item(),
        float(f"{x[0, 0]:.1f}"),
    ),
    "resized": lambda x, on: F.interpolate(x[None, None], (7, 5), mode="bilinear", align_corners=False),
    "softmax": lambda x, on: (x.softmax(1), F.one_hot(x.argmax(1), 4), F.pad(x, (1, 2)), x.repeat_interleave(2, 0)),
    "in place": in_place,
    "gradient": gradient_of(lambda x, on: (x.relu() * on(torch.ones(4))).sum()),
    "gradient through the CPU": gradient_of(lambda x, on: (x.cpu() * torch.arange(4)).sum()),
    "gradient through indices": gradient_of(lambda x, on: (x[FIRST] ** 2).sum() + x[[0, 0]].sum()),
    "second gradient": second_order,
    "network": lambda x, on: tiny_net().to(x.device)(batch_for().to(x.device)),
    "own operators": pooled,
    "unravelled": lambda x, on: torch.unravel_index(x.argmax(), (3, 4)),
}


def comparable(value):
    """On the CPU, to be compared."""
    if isinstance(value, tuple | list):
        return [comparable(each) for each in value]
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", RIGHT)
def test_right_code_gives_what_the_cpu_gives(name) -> None:
    expected = comparable(RIGHT[name](numbers(), lambda tensor: tensor))
    with pretended_cuda():
        found = RIGHT[name](numbers().cuda(), lambda tensor: tensor.cuda())
        if isinstance(found, torch.Tensor):
            assert found.device == CUDA
        torch.testing.assert_close(comparable(found), expected, rtol=1e-6, atol=1e-6)


def test_tensors_say_where_they_are() -> None:
    with pretended_cuda():
        for x in (torch.ones(2).cuda(), torch.ones(2).to("cuda"), torch.ones(2).to("cuda:0"), torch.ones(2).cuda(0)):
            for each in (x, x + 1, x[:1], x.clone(), x.detach(), torch.zeros(3, device="cuda"), torch.empty_like(x)):
                assert isinstance(each, Pretended)
                assert each.device == torch.device("cuda:0")
                assert (each.is_cuda, each.is_cpu, each.is_meta, each.get_device()) == (True, False, False, 0)
                assert "cuda:0" in repr(each)
        for each in (x.cpu(), x.to("cpu"), torch.ones(2), torch.ones_like(x, device="cpu")):
            assert type(each) is torch.Tensor
            assert each.device.type == "cpu"
        assert x.to("cuda") is x


def test_networks_move_and_come_back() -> None:
    net = tiny_net()
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    with pretended_cuda():
        net.cuda()
        assert all(isinstance(each, nn.Parameter) and each.is_cuda and each.requires_grad for each in net.parameters())
        assert all(each.is_cuda for each in net.buffers())
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert all(isinstance(each, nn.Parameter) and each.is_cuda for each in other.parameters())
            assert other[0].weight is not net[0].weight
        net(batch_for().cuda()).sum().backward()
        assert net[0].weight.grad.is_cuda
        file = io.BytesIO()
        torch.save({name: value.cpu() for name, value in net.state_dict().items()}, file)
        file.seek(0)
        net.load_state_dict(torch.load(file))
        net.cpu()
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())
    assert all(type(each) is nn.Parameter for each in net.parameters())


def test_random_numbers_of_the_device_are_its_own() -> None:
    before = torch.get_rng_state()
    with pretended_cuda():
        drawn = [torch.rand(3, device="cuda"), F.dropout(torch.ones(9).cuda()), torch.randn_like(torch.ones(3).cuda())]
        assert all(each.is_cuda for each in drawn)
        assert torch.equal(torch.get_rng_state(), before)
        state = torch.cuda.get_rng_state()
        with torch.random.fork_rng(devices=[CUDA]):
            first = torch.rand(3, device="cuda")
        assert torch.equal(torch.cuda.get_rng_state(), state)
        assert torch.equal(torch.rand(3, device="cuda"), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_copies_and_waits_are_counted() -> None:
    with pretended_cuda() as traffic:

        def counted(call):
            before = traffic.to_device, traffic.to_host, traffic.reads, traffic.kernels
            call()
            after = traffic.to_device, traffic.to_host, traffic.reads, traffic.kernels
            return tuple(b - a for a, b in zip(before, after, strict=True))

        x = numbers().cuda()
        for call in (lambda: x + 1, lambda: x.sum(), lambda: x[:, 1:], lambda: x[0], lambda: torch.zeros_like(x)):
            assert counted(call) == (0, 0, 0, 0)
        assert counted(lambda: numbers().cuda()) == (1, 0, 0, 0)
        assert counted(lambda: torch.tensor([1.0], device="cuda")) == (1, 0, 0, 0)
        assert counted(lambda: x.clone().copy_(numbers())) == (1, 0, 0, 0)
        assert counted(lambda: x[FIRST]) == (1, 0, 0, 0)
        assert counted(lambda: x[[0, 1]]) == (1, 0, 0, 0)
        assert counted(lambda: x.cpu()) == (0, 1, 0, 0)
        assert counted(lambda: numbers().copy_(x)) == (0, 1, 0, 0)
        for call in (
            *(lambda: x.sum().item(), lambda: float(x[0, 0]), lambda: bool(x.any()), lambda: x.tolist()),
            *(lambda: x[x > 0], lambda: x.nonzero(), lambda: x.unique(), lambda: torch.equal(x, x)),
            *(
                lambda: x.repeat_interleave(torch.ones(3, dtype=torch.int64, device="cuda"), 0),
                lambda: f"{x[0, 0]:.2f}",
            ),
        ):
            assert counted(call) == (0, 0, 1, 0)
        labels = torch.zeros(3, 4, dtype=torch.int32, device="cuda")
        assert counted(lambda: mg.pool(x, labels, n=1)) == (0, 0, 0, 1)
        assert traffic.waits == traffic.to_host + traffic.reads


def test_own_operators_refuse_where_kernels_are_not_usable() -> None:
    with pretended_cuda(kernels=False):
        x, labels = numbers().cuda(), torch.zeros(3, 4, dtype=torch.int32).cuda()
        with pytest.raises(BackendUnavailableError):
            mg.pool(x, labels, n=1)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_guards(guard) -> None:
    with pretended_cuda(), guard():
        x = batch_for().to("cuda")
        assert torch.equal(tiny_net().to("cuda")(x).cpu(), tiny_net()(batch_for()))
        with pytest.raises(RuntimeError, match=MIXED):
            F.linear(x, torch.ones(2, 32))


def test_threads_know_the_device() -> None:
    found = []
    with pretended_cuda() as traffic:
        x = numbers().cuda()

        def work():
            found.append(x + torch.arange(4, device=x.device))
            leaf = torch.ones(2, device="cuda", requires_grad=True)
            leaf.sum().backward()
            found.append(leaf.grad)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert [each.is_cuda for each in found] == [True, True]
        assert torch.equal(found[0].cpu(), numbers() + torch.arange(4))
        assert traffic.to_host == 1


def test_nothing_is_left_behind() -> None:
    available, bootstrap = torch.cuda.is_available, threading.Thread._bootstrap_inner
    with pretended_cuda():
        x = torch.ones(2).cuda()
        assert torch.cuda.is_available()
        assert mg.build_info()["cuda"]["usable"]
        with pytest.raises(RuntimeError, match="already"), pretended_cuda():
            pass
    assert torch.cuda.is_available is available
    assert threading.Thread._bootstrap_inner is bootstrap
    assert not isinstance(torch.zeros(2), Pretended)
    with pytest.raises(RuntimeError, match="outlived"):
        x + 1
