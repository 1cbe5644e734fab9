"""The statistics of all classes, and how much memory what lies between their extremes may take."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from midgrain.failures.class_statistics import NO_IMAGE, ClassStatistics
from midgrain.failures.quantiles import Sketches, Values, can_sketch, largest_sketch

__all__ = ["ClassTable"]


class ClassTable:
    """Classes that have images, each made when its first image comes.

    Args:
        classes: that there may be.
        filters: of the layer.
        keep: extremes of each filter.
        memory: bytes for all values, or for sketches of them.
    """

    def __init__(self, classes: int, filters: int, keep: int, memory: int):
        self.classes, self.filters, self.keep, self.memory = classes, filters, keep, memory
        self.by_class: dict[int, ClassStatistics] = {}
        #: "values", "sketches" or "none": what is kept between the extremes, the same for all classes.
        self.between = "values"
        self.sketch_size: int | None = None
        #: First and last of numbers that images got in their order.
        self.numbered: list[tuple[int, int]] = []
        #: Number -> id, where ids are texts.
        self.names: dict[int, str] | None = None

    @property
    def nbytes(self) -> int:
        """Of memory, without names."""
        between = sum(each.between.nbytes for each in self.by_class.values() if each.between is not None)
        # Four float64 sums; of each extreme two float32 and an int64.
        return between + len(self.by_class) * self.filters * (32 + 16 * self.keep)

    def add(
        self, classes: npt.NDArray[np.int64], values: npt.NDArray[np.float32], images: npt.NDArray[np.int64]
    ) -> None:
        """Add images: their classes [n], values [n, K] and numbers [n]."""
        for number in np.unique(classes).tolist():
            each = self.by_class.get(number)
            if each is None:
                each = self.by_class[number] = ClassStatistics(self.filters, self.keep)
                each.between = self._empty()
            rows = classes == number
            each.add(values[rows], images[rows])
        self._make_room()

    def merged(self, other: ClassTable) -> ClassTable:
        """Both together; neither is changed.

        Raises:
            ValueError: images that are in both, as far as their numbers and names tell.
        """
        made = ClassTable(self.classes, self.filters, self.keep, self.memory)
        self._refuse_overlap(other)
        made.numbered = sorted([*self.numbered, *other.numbered])
        renamed = self._renamed(other, made)
        sizes = [size for size in (self.sketch_size, other.sketch_size) if size is not None]
        if "none" in (self.between, other.between):
            made.between = "none"
        elif sizes:
            made.between, made.sketch_size = "sketches", min(sizes)
        for number in sorted({*self.by_class, *other.by_class}):
            mine = self.by_class.get(number) or ClassStatistics(self.filters, self.keep)
            theirs = other.by_class.get(number) or ClassStatistics(self.filters, self.keep)
            theirs = renamed(theirs)
            both = mine.shares_images(theirs)
            if len(both):
                raise _in_both(number, both.tolist(), made.names)
            each = made.by_class[number] = mine.merged(theirs)
            each.between = made._together(mine.between, theirs.between)
        made._make_room()
        made.forget_names()
        return made

    def forget_names(self) -> None:
        """Keep only the names of images that are among the extremes."""
        if self.names is not None and self.by_class:
            kept = np.unique(np.concatenate([each.high_images.ravel() for each in self.by_class.values()])).tolist()
            self.names = {number: self.names[number] for number in kept if number != NO_IMAGE}

    def _empty(self) -> Values | Sketches | None:
        if self.between == "values":
            return Values(self.filters)
        return None if self.sketch_size is None else Sketches(self.filters, self.sketch_size)

    def _make_room(self) -> None:
        """From values to sketches, once they are too many."""
        images = sum(each.count for each in self.by_class.values())
        if self.between != "values" or images * self.filters * 4 <= self.memory:
            return
        self.sketch_size = largest_sketch(self.classes * self.filters, self.memory) if can_sketch() else None
        self.between = "none" if self.sketch_size is None else "sketches"
        if self.sketch_size is None:
            why = "not even sketches of them would fit" if can_sketch() else "the package datasketches is not installed"
            warnings.warn(
                f"memory: the values no longer fit into {self.memory} bytes, and {why}; percentiles between the "
                f"{self.keep} least and greatest values of a filter are given up",
                stacklevel=2,
            )
        for each in self.by_class.values():
            each.between = self._as_now(each.between)

    def _together(self, mine: Values | Sketches | None, theirs: Values | Sketches | None) -> Values | Sketches | None:
        made = self._empty()
        for part in (mine, theirs):
            now = self._as_now(part)
            if isinstance(made, Values) and isinstance(now, Values):
                made.add(now.rows())
            elif isinstance(made, Sketches) and isinstance(now, Sketches):
                made.merge(now)
        return made

    def _as_now(self, part: Values | Sketches | None) -> Values | Sketches | None:
        if self.between == "none":
            return None
        return part.sketched(self.sketch_size) if isinstance(part, Values) and self.sketch_size is not None else part

    def _refuse_overlap(self, other: ClassTable) -> None:
        if (self.names is None) != (other.names is None) and self.by_class and other.by_class:
            raise ValueError("other: expected ids of one kind, got texts here and numbers there")
        for first, last in self.numbered:
            for begin, end in other.numbered:
                if first <= end and begin <= last:
                    raise ValueError(
                        f"other: both have images numbered {max(first, begin)} .. {min(last, end)}; give the samples "
                        "ids (x, y, ids), or the second fit first_id="
                    )

    def _renamed(self, other: ClassTable, made: ClassTable) -> _Renumber:
        """Numbers of named images belong to one table alone."""
        if other.names is None:
            made.names = None if self.names is None else dict(self.names)
            return _Renumber({})
        mine = self.names or {}
        known = {name: number for number, name in mine.items()}
        made.names = dict(mine)
        numbers: dict[int, int] = {}
        start = max(mine, default=-1) + 1
        for number, name in other.names.items():
            numbers[number] = known.get(name, start + number)
            made.names[numbers[number]] = name
        return _Renumber(numbers)


class _Renumber:
    """Gives a class's images other numbers; without any, leaves them."""

    def __init__(self, numbers: dict[int, int]):
        self.before = np.array(sorted(numbers), np.int64)
        self.after = np.array([numbers[number] for number in sorted(numbers)], np.int64)

    def __call__(self, each: ClassStatistics) -> ClassStatistics:
        if not len(self.before):
            return each
        made = each.merged(ClassStatistics(*each.high.shape))
        made.between = each.between
        places = np.searchsorted(self.before, made.high_images).clip(max=len(self.before) - 1)
        made.high_images = np.where(made.high_images == NO_IMAGE, NO_IMAGE, self.after[places])
        return made


def _in_both(number: int, images: Iterable[int], names: dict[int, str] | None) -> ValueError:
    said = [str(image) if names is None else names[image] for image in images]
    return ValueError(
        f"other: image(s) {', '.join(said[:5])}{' and others' if len(said) > 5 else ''} of class {number} are in both; "
        "if they are not the same ones, give the samples ids that tell them apart (x, y, ids)"
    )
