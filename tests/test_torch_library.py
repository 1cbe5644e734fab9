"""The torch operators `midgrain::...`: torch's own checks of their registration, and torch.compile."""

import pytest
import torch

import midgrain as mg
from midgrain.ops import torch_library

ops = torch.ops.midgrain

# opcheck itself looks at .grad of the copies that it makes.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


@pytest.fixture
def values():
    return torch.randn(2, 3, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.randint(0, 5, (2, 6, 7), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("reduce", mg.ops.REDUCTIONS)
@pytest.mark.parametrize("num_threads", [None, 2])
def test_pool_passes_opcheck(reduce, num_threads, values, labels):
    needs_gradient = reduce in ("mean", "sum", "max", "min")
    arguments = (values.flatten(2).requires_grad_(needs_gradient), labels.flatten(1), reduce, 5, num_threads)
    torch.library.opcheck(ops.pool.default, arguments)


def test_paint_passes_opcheck(values, labels):
    torch.library.opcheck(ops.paint.default, (values[:, :, 0].requires_grad_(), labels.flatten(1), None))


@pytest.mark.parametrize("spatial", [(9, 8), (3, 5, 6)])
@pytest.mark.parametrize("ranges", [None, [-3.0, 3.0, -1.0, 1.0]])
def test_slic_passes_opcheck(spatial, ranges):
    arguments = (torch.randn(2, 2, *spatial), [0.5, 1.0], 6, 5, [1.0, 1.0, 1.0], ranges, 2, None)
    torch.library.opcheck(ops.slic.default, arguments)


@pytest.mark.parametrize(
    ("rgb", "channel_axis"),
    [(torch.rand(2, 3, 4, 5), 1), (torch.rand(2, 4, 5, 3), -1), (torch.zeros(1, 3, 2, 4, 5, dtype=torch.uint8), 1)],
)
def test_rgb_to_lab_passes_opcheck(rgb, channel_axis):
    torch.library.opcheck(ops.rgb_to_lab.default, (rgb, channel_axis, None))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_patches_pass_opcheck(axes, dtype):
    spatial, cells, grid = [4, 8, 6][-axes:], [2, 4, 3][-axes:], [2, 3, 2][-axes:]
    size = [s + s // c * (g - 1) for s, c, g in zip(spatial, cells, grid, strict=True)]
    images = torch.randn(2, 3, *spatial).to(dtype).requires_grad_()
    torch.library.opcheck(ops.extract_patches.default, (images, spatial, cells, grid, size, 1, 4, None))
    patches = torch.randn(2, 4, 3, *spatial).to(dtype).requires_grad_()
    torch.library.opcheck(ops.extract_patches_backward.default, (patches, spatial, cells, grid, size, 1, 2))
    maps = torch.randn(2, 6 if axes == 2 else 12, *cells).to(dtype).requires_grad_()
    for wanted in ([c + g - 1 for c, g in zip(cells, grid, strict=True)], [7] * axes):
        torch.library.opcheck(ops.aggregate_patches.default, (maps, grid, wanted, None))


def test_the_module_hands_out_the_registered_operators():
    for name in torch_library.__all__:
        assert getattr(torch_library, name) is getattr(ops, name)


FUNCTIONS = {
    "slic": lambda image, labels: mg.ops.slic(image, [0.3] * 3, 8),
    "rgb_to_lab": lambda image, labels: mg.ops.rgb_to_lab(image) / 100,
    "pool": lambda image, labels: mg.ops.pool(image, labels, "mean", n=5) * 2,
    "paint": lambda image, labels: mg.ops.paint(image[..., 0, :5], labels) + 1,
    "patches": lambda image, labels: mg.ops.aggregate_patches(
        mg.ops.extract_patches(image, (2, 7), (3, 2), count=6).square().mean(2), (3, 2), size=image.shape[2:]
    ),
    "all": lambda image, labels: mg.ops.pool(
        image, mg.ops.slic(mg.ops.rgb_to_lab(image), [10.0] * 3, 8, ranges=mg.ops.LAB_RANGES)[0], "max", n=16
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_into_one_graph(name, backend, values, labels):
    torch._dynamo.reset()
    image = values.float().sigmoid()
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(image, labels), FUNCTIONS[name](image, labels), equal_nan=True)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "function",
    [
        lambda values, labels: mg.ops.paint(mg.ops.pool(values, labels, "mean", n=5), labels),
        lambda values, labels: FUNCTIONS["patches"](values, labels),
    ],
    ids=["pool and paint", "patches"],
)
def test_compiles_with_gradients(function, dynamic, values, labels):
    torch._dynamo.reset()

    def loss(values):
        return function(values, labels).square().sum()

    gradients = []
    for compiled in (loss, torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")):
        leaf = values.clone().requires_grad_()
        compiled(leaf).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_the_number_of_threads_is_not_compiled_in(values, labels, monkeypatch):
    torch._dynamo.reset()
    compiled = torch.compile(FUNCTIONS["pool"], fullgraph=True, backend="eager")
    compiled(values, labels)
    monkeypatch.setenv("MIDGRAIN_NUM_THREADS", "none")
    with pytest.raises(ValueError, match="MIDGRAIN_NUM_THREADS"):
        compiled(values, labels)
