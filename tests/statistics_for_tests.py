"""Images, and statistics of filters that are the same."""

from __future__ import annotations

import torch

from models_for_tests import batch_for

CLASSES, FILTERS = 5, 7


#: Class 4 has no image.
LABELS = torch.tensor([0, 1, 0, 3, 2, 0, 1, 1, 0, 2, 0])


def data(count=11, dims=2, seed=1):
    return batch_for(dims, batch=count, dtype=torch.float64, seed=seed), LABELS[:count]


def loader(x, y, batch_size=3, ids=None, start=0, end=None):
    """A list of batches."""
    places = torch.arange(start, len(x) if end is None else end)
    return [
        (x[rows], y[rows]) if ids is None else (x[rows], y[rows], [ids[row] for row in rows])
        for rows in places.split(batch_size)
    ]


def same(a, b) -> None:
    """Every figure is the same, bit for bit."""
    assert torch.equal(a.count, b.count)
    for name in ("mean", "variance"):
        assert torch.equal(getattr(a, name).nan_to_num(-1.0), getattr(b, name).nan_to_num(-1.0))
    seen = a.count.nonzero()[:, 0].tolist()
    for q in (0, 3, 50, 77.7, 100):
        assert torch.equal(a.percentile(q, seen, few="extreme"), b.percentile(q, seen, few="extreme"))
    for number in seen:
        for place in range(a.n_filters):
            assert a.top_images(number, place) == b.top_images(number, place)
