"""`channel_axis=-1` of pool and paint: shapes, gradients and what is refused."""

import numpy as np
import pytest
import torch

import midgrain as mg

ops = torch.ops.midgrain

# opcheck itself looks at .grad of the copies that it makes.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

# values shape with the channels last, labels shape, spatial_dims
SHAPES = [
    ((6, 7, 3), (6, 7), None),
    ((4, 6, 7, 3), (6, 7), None),
    ((2, 4, 6, 7, 3), (6, 7), None),
    ((5, 6, 7, 3), (5, 6, 7), None),
    ((5, 6, 7, 3), (5, 6, 7), 2),
    ((2, 4, 6, 7, 3), (2, 6, 7), None),
    ((2, 5, 6, 7, 3), (2, 5, 6, 7), None),
    ((6, 7, 1), (6, 7), None),
]


@pytest.mark.parametrize(("values_shape", "labels_shape", "spatial_dims"), SHAPES)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_shapes(values_shape, labels_shape, spatial_dims, library):
    rng = np.random.default_rng(0)
    values, labels = rng.standard_normal(values_shape), rng.integers(0, 5, labels_shape)
    planes = np.moveaxis(values, -1, 0)
    expected = np.stack([mg.pool(plane, labels, n=6, spatial_dims=spatial_dims) for plane in planes], -1)
    scores = np.nan_to_num(expected)
    channels = np.moveaxis(scores, -1, 0)
    painted = np.stack([mg.paint(own, labels, spatial_dims=spatial_dims) for own in channels], -1)
    if library == "torch":
        values, labels, scores = (torch.from_numpy(array) for array in (values, labels, scores))
    result = mg.pool(values, labels, n=6, spatial_dims=spatial_dims, channel_axis=-1)
    assert type(result) is type(values)
    np.testing.assert_array_equal(np.asarray(result), expected)
    back = mg.paint(scores, labels, spatial_dims=spatial_dims, channel_axis=-1)
    np.testing.assert_array_equal(np.asarray(back), painted)


def test_views_and_other_dtypes():
    rng = np.random.default_rng(0)
    values, labels = rng.integers(0, 9, (4, 5, 6)), rng.integers(0, 3, (4, 5))
    expected = mg.pool(np.moveaxis(values, -1, 0).astype(float), labels).T
    np.testing.assert_array_equal(mg.pool(values, labels, channel_axis=-1), expected)
    np.testing.assert_array_equal(mg.pool(values[..., ::-1], labels, channel_axis=-1), expected[:, ::-1])
    np.testing.assert_array_equal(mg.pool(np.moveaxis(values, -1, 0), labels), expected.T)
    half = torch.from_numpy(values).to(torch.bfloat16)
    assert mg.pool(half, torch.from_numpy(labels), channel_axis=-1).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v, i: mg.pool(v, i, channel_axis=0), "channel_axis: expected 1 or -1, got 0"),
        (lambda v, i: mg.pool(v, i, channel_axis=2), "channel_axis: expected -1 .. 1, got 2"),
        (lambda v, i: mg.pool(v, i, channel_axis=-2), "channel_axis: expected -1 .. 1, got -2"),
        (lambda v, i: mg.paint(v, i, channel_axis=0), "channel_axis: expected 1 or -1, got 0"),
        (lambda v, i: mg.pool(v, i), r"labels: expected the trailing shape of values \[4, 5, 3\]"),
        (lambda v, i: mg.pool(v[..., 0], i, channel_axis=-1), r"labels: expected the trailing shape of values \[4\]"),
        (lambda v, i: mg.pool(np.float64(1), i, channel_axis=-1), "values: expected channels along the last axis"),
        (lambda v, i: mg.paint(np.ones(3), i, channel_axis=-1), "scores: expected"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call(np.ones((4, 5, 3)), np.zeros((4, 5), int))


@pytest.mark.parametrize("channel_axis", [None, "1", 1.0, True])
def test_the_channel_axis_is_an_int(channel_axis):
    for call in (mg.pool, mg.paint):
        with pytest.raises(TypeError, match=r"^channel_axis: expected an int"):
            call(np.ones((4, 5, 3)), np.zeros((4, 5), int), channel_axis=channel_axis)


@pytest.fixture(params=[1, 2])
def tensors(request):
    """Values [2, 4, 5, 3] and labels 0 .. 3, [4, 5] or [2, 4, 5]."""
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.standard_normal((2, 4, 5, 3))).requires_grad_()
    labels = torch.from_numpy(rng.integers(0, 4, (2, 4, 5)))
    return values, labels if request.param == 2 else labels[0]


@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "min"])
def test_gradients_of_pool(reduce, tensors):
    values, labels = tensors

    def pooled(values):
        return mg.pool(values, labels, reduce, n=5, channel_axis=-1).nan_to_num()

    assert torch.autograd.gradcheck(pooled, (values,))
    assert torch.autograd.gradgradcheck(pooled, (values,))


def test_gradients_of_paint(tensors):
    labels = tensors[1]
    scores = torch.linspace(-1, 1, 2 * 5 * 3, dtype=torch.float64).reshape(2, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: mg.paint(scores, labels, channel_axis=-1), (scores,))
    assert torch.autograd.gradgradcheck(lambda scores: mg.paint(scores, labels, channel_axis=-1), (scores,))


@pytest.mark.parametrize("reduce", mg.ops.REDUCTIONS)
def test_opcheck(reduce, tensors):
    values, labels = tensors
    labels = labels.reshape(-1, 20)
    flat = values.detach().reshape(2, 20, 3).requires_grad_(reduce in ("mean", "sum", "max", "min"))
    torch.library.opcheck(ops.pool.default, (flat, labels, reduce, 4, None, True))
    torch.library.opcheck(ops.paint.default, (flat.detach()[:, :5].requires_grad_(), labels, None, True))


def test_compiles_into_one_graph(tensors):
    values, labels = tensors

    def function(values, labels):
        last = mg.pool(values, labels, n=5, channel_axis=-1)
        memory = mg.pool(values.movedim(-1, 1), labels, n=5)
        return mg.paint(last.nan_to_num(), labels, channel_axis=-1) + memory.nan_to_num().sum()

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(values, labels), function(values, labels))
