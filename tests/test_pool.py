"""Pooling and painting: the definition, live peers, exact repeatability, shapes, dtypes and gradients."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import ndimage

import midgrain as mg
from oracles import pool as oracle

REDUCTIONS = mg.ops.REDUCTIONS
DIFFERENTIABLE = ("mean", "sum", "max", "min")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def worth(reduce, largest, members):
    """The magnitude that a result's error is measured by."""
    if reduce == "var":
        return largest * largest
    return largest * members if reduce in ("sum", "abs-sum", "l1") else largest


@st.composite
def planes(draw):
    """One plane of values and labels with some empty regions."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    n = draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal(shape) + draw(st.sampled_from([0.0, 1.0, 1e4]))
    if draw(st.booleans()):
        values = values.round(0)
    return values * draw(st.sampled_from([0.0, 1.0, 1e-30, 1e30])), rng.integers(0, n, shape), n


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-6)])
@settings(max_examples=60)
@given(plane=planes())
def test_equals_the_definition(reduce, dtype, tolerance, plane):
    values, labels, n = plane
    values = values.astype(dtype)
    result = mg.pool(values, labels, reduce, n=n)
    assert result.dtype == dtype
    with np.errstate(over="ignore"):
        expected = oracle.pool(values, labels, n, reduce).astype(dtype)
    atol = tolerance * worth(reduce, np.abs(values.astype(np.float64)).max(), np.bincount(labels.ravel()).max())
    np.testing.assert_allclose(result, expected, rtol=0, atol=min(atol, np.finfo(dtype).max))


@pytest.mark.parametrize("reduce", ["mean", "sum", "abs-sum", "l2", "max", "min", "median"])
@settings(max_examples=60)
@given(plane=planes())
def test_float64_is_the_fixed_point_definition_bit_for_bit(reduce, plane):
    values, labels, n = plane
    np.testing.assert_array_equal(mg.pool(values, labels, reduce, n=n), oracle.pool(values, labels, n, reduce))


@pytest.fixture
def plane(rng):
    """A plane of ordinary values, each of 13 regions present."""
    return rng.standard_normal((40, 50)), rng.permutation(np.arange(40 * 50) % 13).reshape(40, 50)


def by_region(function):
    return lambda values, labels, n: np.array([function(values[labels == r]) for r in range(n)])


def by_scatter(reduce):
    def peer(values, labels, n):
        start = torch.zeros(n, dtype=torch.float64)
        index, source = torch.from_numpy(labels).ravel(), torch.from_numpy(values).ravel()
        return start.scatter_reduce(0, index, source, reduce, include_self=False).numpy()

    return peer


def by_ndimage(function):
    return lambda values, labels, n: np.asarray(function(values, labels, range(n)))


PEERS = {
    "bincount-sum": ("sum", lambda v, i, n: np.bincount(i.ravel(), v.ravel(), n)),
    "bincount-mean": ("mean", lambda v, i, n: np.bincount(i.ravel(), v.ravel(), n) / np.bincount(i.ravel())),
    "ndimage-mean": ("mean", by_ndimage(ndimage.mean)),
    "ndimage-sum": ("sum", by_ndimage(ndimage.sum_labels)),
    "ndimage-max": ("max", by_ndimage(ndimage.maximum)),
    "ndimage-min": ("min", by_ndimage(ndimage.minimum)),
    "ndimage-median": ("median", by_ndimage(ndimage.median)),
    "ndimage-std": ("std", by_ndimage(ndimage.standard_deviation)),
    "ndimage-var": ("var", by_ndimage(ndimage.variance)),
    "scatter-mean": ("mean", by_scatter("mean")),
    "scatter-sum": ("sum", by_scatter("sum")),
    "scatter-max": ("max", by_scatter("amax")),
    "scatter-min": ("min", by_scatter("amin")),
    "norm-l1": ("l1", by_region(lambda v: np.linalg.norm(v, 1))),
    "norm-l2": ("l2", by_region(np.linalg.norm)),
    "numpy-abs-sum": ("abs-sum", by_region(lambda v: np.abs(v).sum())),
    "numpy-median": ("median", by_region(np.median)),
}


@pytest.mark.parametrize("name", PEERS)
def test_agrees_with_a_peer(name, plane):
    reduce, peer = PEERS[name]
    values, labels = plane
    expected = peer(values, labels, 13)
    np.testing.assert_allclose(mg.pool(values, labels, reduce), expected, rtol=1e-12, atol=1e-12)
    single = mg.pool(values.astype(np.float32), labels, reduce)
    np.testing.assert_allclose(single, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
class TestRepeatability:
    """Exactly the same bits, because sums are integers."""

    @pytest.mark.parametrize("num_threads", [2, 5])
    def test_threads(self, reduce, dtype, num_threads, rng):
        values = rng.standard_normal((3, 4, 60, 70)).astype(dtype)
        labels = rng.integers(0, 30, (3, 60, 70))
        expected = mg.pool(values, labels, reduce, num_threads=1)
        np.testing.assert_array_equal(mg.pool(values, labels, reduce, num_threads=num_threads), expected)

    def test_batch(self, reduce, dtype, rng):
        values = (rng.standard_normal((3, 4, 20, 30)) * 10.0 ** rng.integers(-3, 4, (3, 4, 1, 1))).astype(dtype)
        labels = rng.integers(0, 30, (3, 20, 30))
        together = mg.pool(values, labels, reduce, n=30)
        for b in range(3):
            for c in range(4):
                alone = mg.pool(values[b, c], labels[b], reduce, n=30)
                np.testing.assert_array_equal(together[b, c], alone)

    def test_order_of_the_pixels(self, reduce, dtype, rng):
        values = (rng.standard_normal((50, 60)) * 10.0 ** rng.integers(-6, 6, (50, 60))).astype(dtype)
        labels = rng.integers(0, 7, (50, 60))
        expected = mg.pool(values, labels, reduce)
        for _ in range(3):
            order = rng.permutation(3000)
            shuffled = [array.ravel()[order].reshape(50, 60) for array in (values, labels)]
            np.testing.assert_array_equal(mg.pool(*shuffled, reduce), expected)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_region_without_pixels(reduce):
    result = mg.pool(np.ones((2, 2)), np.array([[0, 0], [2, 2]]), reduce, n=4)
    empty = 0.0 if reduce in ("sum", "abs-sum", "l1", "l2") else np.nan
    np.testing.assert_array_equal(result[[1, 3]], [empty, empty])
    assert np.isfinite(result[[0, 2]]).all()


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.float32, 1e30), (np.float32, 1e-30), (np.float64, 1e300), (np.float64, 1e-290)]
)
@pytest.mark.parametrize("reduce", ["mean", "sum", "abs-sum", "l2", "std", "max", "min", "median"])
def test_very_large_and_small_magnitudes(dtype, scale, reduce, plane):
    values, labels = plane
    expected = mg.pool(values, labels, reduce) * scale
    result = mg.pool((values * scale).astype(dtype), labels, reduce)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6 * worth(reduce, 4 * scale, 160))


def test_the_largest_numbers():
    largest = np.finfo(np.float64).max
    values, labels = np.array([[largest, largest, -largest, largest]]), np.array([[0, 0, 1, 1]])
    for reduce, expected in {
        "mean": [largest, 0.0],
        "median": [largest, 0.0],
        "std": [0.0, largest],
        "var": [0.0, np.inf],
        "sum": [np.inf, 0.0],
    }.items():
        np.testing.assert_array_equal(mg.pool(values, labels, reduce), expected)


def test_a_large_offset_does_not_spoil_the_spread():
    labels = np.zeros((1, 4), int)
    assert mg.pool(np.array([[1e9, 1e9 + 1, 1e9, 1e9 + 1]]), labels, "var")[0] == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_paint_is_the_inverse(dtype, rng):
    labels = rng.permutation(np.arange(300) % 20).reshape(15, 20)
    scores = rng.standard_normal((2, 3, 20)).astype(dtype)
    painted = mg.paint(scores, labels)
    np.testing.assert_array_equal(painted, scores[..., labels])
    for reduce in ("max", "min", "median"):
        np.testing.assert_array_equal(mg.pool(painted, labels, reduce), scores)
    np.testing.assert_allclose(mg.pool(painted, labels, "mean"), scores, rtol=1e-6 if dtype == np.float32 else 1e-12)


def test_paint_keeps_nan_and_infinity():
    painted = mg.paint(np.array([np.nan, np.inf, -np.inf]), np.array([[0, 1], [2, 1]]))
    np.testing.assert_array_equal(painted, [[np.nan, np.inf], [-np.inf, np.inf]])


# values shape, labels shape, spatial_dims -> is there one label map per item?
POOL_SHAPES = [
    ((6, 7), (6, 7), None, False),
    ((4, 6, 7), (6, 7), None, False),
    ((2, 4, 6, 7), (6, 7), None, False),
    ((2, 4, 6, 7), (6, 7), 2, False),
    ((5, 6, 7), (5, 6, 7), None, False),
    ((5, 6, 7), (5, 6, 7), 3, False),
    ((5, 6, 7), (5, 6, 7), 2, True),
    ((2, 5, 6, 7), (5, 6, 7), None, False),
    ((2, 4, 6, 7), (2, 6, 7), None, True),
    ((2, 4, 3, 6, 7), (2, 6, 7), 2, True),
    ((2, 5, 6, 7), (2, 5, 6, 7), None, True),
    ((2, 4, 5, 6, 7), (2, 5, 6, 7), None, True),
    ((2, 4, 5, 6, 7), (2, 5, 6, 7), 3, True),
    ((5, 5, 6, 7), (5, 6, 7), 2, True),
    ((5, 5, 6, 7), (5, 6, 7), 3, False),
    ((1, 6, 7), (1, 6, 7), None, False),
]


@pytest.mark.parametrize(("values_shape", "labels_shape", "spatial_dims", "batched"), POOL_SHAPES)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_shapes_of_pool(values_shape, labels_shape, spatial_dims, batched, library, rng):
    values, labels = rng.standard_normal(values_shape), rng.integers(0, 5, labels_shape)
    spatial = labels_shape[1:] if batched else labels_shape
    leading = values_shape[: len(values_shape) - len(spatial)]
    expected = np.empty((*leading, 5))
    for index in np.ndindex(leading):
        own = labels[index[0]] if batched else labels
        expected[index] = np.bincount(own.ravel(), values[index].ravel(), 5)
    if library == "torch":
        values, labels = torch.from_numpy(values), torch.from_numpy(labels)
    result = mg.pool(values, labels, "sum", n=5, spatial_dims=spatial_dims)
    assert type(result) is type(values)
    np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-9, atol=1e-12)


# scores shape, labels shape, spatial_dims -> is there one label map per item?
PAINT_SHAPES = [
    ((5,), (6, 7), None, False),
    ((4, 5), (6, 7), None, False),
    ((2, 4, 5), (6, 7), 2, False),
    ((5,), (3, 6, 7), None, False),
    ((4, 5), (3, 6, 7), None, False),
    ((3, 5), (3, 6, 7), None, True),
    ((3, 5), (3, 6, 7), 2, True),
    ((3, 5), (3, 6, 7), 3, False),
    ((3, 4, 5), (3, 6, 7), None, True),
    ((2, 5), (2, 3, 6, 7), None, True),
    ((2, 4, 5), (2, 3, 6, 7), 3, True),
]


@pytest.mark.parametrize(("scores_shape", "labels_shape", "spatial_dims", "batched"), PAINT_SHAPES)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_shapes_of_paint(scores_shape, labels_shape, spatial_dims, batched, library, rng):
    scores, labels = rng.standard_normal(scores_shape), rng.integers(0, 5, labels_shape)
    expected = (
        np.stack([s[..., own] for s, own in zip(scores, labels, strict=True)]) if batched else scores[..., labels]
    )
    if library == "torch":
        scores, labels = torch.from_numpy(scores), torch.from_numpy(labels)
    result = mg.paint(scores, labels, spatial_dims=spatial_dims)
    assert type(result) is type(scores)
    np.testing.assert_array_equal(np.asarray(result), expected)


def test_shapes_that_fit_twice_are_refused():
    with pytest.raises(ValueError, match=r"labels: shape \[5, 6, 7\] fits values .* both .* spatial_dims"):
        mg.pool(np.ones((5, 5, 6, 7)), np.zeros((5, 6, 7), int))


def test_views_that_are_not_contiguous(plane):
    values, labels = plane
    flipped = mg.pool(values[::-1, ::2].T, labels[::-1, ::2].T, "sum")
    np.testing.assert_array_equal(flipped, mg.pool(values[::-1, ::2].copy(), labels[::-1, ::2].copy(), "sum"))
    tensor = torch.from_numpy(values)
    np.testing.assert_array_equal(mg.pool(tensor.T, torch.from_numpy(labels).T), mg.pool(values, labels))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.dtype(">f4"), np.float32),
        (np.int8, np.float64),
        (np.int64, np.float64),
        (np.uint8, np.float64),
        (np.bool_, np.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.uint8, torch.float64),
        (torch.int64, torch.float64),
        (torch.bool, torch.float64),
    ],
    ids=str,
)
def test_dtypes_of_values(dtype, expected):
    numbers, labels = [[0, 1, 1], [1, 0, 1]], [[0, 0, 1], [1, 1, 1]]
    if isinstance(dtype, torch.dtype):
        values, labels = torch.tensor(numbers, dtype=dtype), torch.tensor(labels)
    else:
        values, labels = np.array(numbers, dtype), np.array(labels)
    result = mg.pool(values, labels)
    assert result.dtype == expected
    assert result.tolist() == [0.5, 0.75]
    painted = mg.paint(values[:, :2], labels)
    assert painted.dtype == expected
    assert painted.tolist() == [[[0, 0, 1], [1, 1, 1]], [[1, 1, 0], [0, 0, 0]]]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_dtypes_of_labels(dtype, library):
    values, labels = np.array([[1.0, 3.0], [5.0, 7.0]]), np.array([[0, 0], [1, 1]], dtype)
    if library == "torch":
        values, labels = torch.from_numpy(values), torch.from_numpy(labels)
    assert mg.pool(values, labels, n=2).tolist() == [2.0, 6.0]
    assert mg.pool(values, labels).tolist() == [2.0, 6.0]


@pytest.fixture
def tensors(rng):
    """Values [2, 3, 4, 5] that need gradients and labels [2, 4, 5] with an empty region."""
    values = torch.from_numpy(rng.standard_normal((2, 3, 4, 5))).requires_grad_()
    return values, torch.from_numpy(rng.integers(0, 4, (2, 4, 5)))


@pytest.mark.parametrize("reduce", DIFFERENTIABLE)
def test_gradients_of_pool(reduce, tensors):
    values, labels = tensors
    present = torch.stack([torch.bincount(own.ravel(), minlength=5) > 0 for own in labels])[:, None]

    def pooled(values):
        return mg.pool(values, labels, reduce, n=5).where(present, 0)

    assert torch.autograd.gradcheck(pooled, (values,))
    assert torch.autograd.gradgradcheck(pooled, (values,))


def test_gradients_of_paint(tensors):
    labels = tensors[1]
    scores = torch.linspace(-1, 1, 2 * 3 * 5, dtype=torch.float64).reshape(2, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: mg.paint(scores, labels), (scores,))
    assert torch.autograd.gradgradcheck(lambda scores: mg.paint(scores, labels), (scores,))


@pytest.mark.parametrize("reduce", ["max", "min"])
def test_equal_extremes_share_the_gradient(reduce):
    values = torch.tensor([[2.0, 2.0, 2.0, 7.0]], requires_grad=True)
    mg.pool(values, torch.tensor([[0, 0, 0, 1]]), reduce).sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([[1 / 3, 1 / 3, 1 / 3, 1.0]]))


@pytest.mark.parametrize("reduce", sorted(set(REDUCTIONS) - set(DIFFERENTIABLE)))
def test_other_reductions_refuse_a_gradient(reduce, tensors):
    values, labels = tensors
    result = mg.pool(values, labels, reduce, n=4)
    with pytest.raises(NotImplementedError, match=rf"pool\(reduce='{reduce}'\) is not differentiable"):
        result.nansum().backward()


def test_gradients_keep_the_dtype_of_half_values():
    values = torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True)
    mg.pool(values, torch.zeros(2, 2, dtype=torch.int64)).sum().backward()
    assert values.grad.dtype == torch.bfloat16
    assert values.grad.tolist() == [[0.25, 0.25], [0.25, 0.25]]
