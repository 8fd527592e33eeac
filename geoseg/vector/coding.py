"""Coding: which value of a class map belongs to which class or group, and what that is called."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.legend import Legend, Selection
from geoseg.vector.kernels import compiled
from geoseg.vector.trace import BACKGROUND

REST = BACKGROUND + 1
"""Code of what is measured but gets no polygon, where that matters: together one class, to be left out later."""

_PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Paul Tol's "bright"


@dataclass(frozen=True, slots=True)
class Coding:
    """Class values to codes: the id of the class or group asked for, or BACKGROUND.

    Attributes:
        selections: the classes and groups that get polygons; None takes every value as a class of its own.
        nodata: the raster's own nodata value, if it has one.
        rest: code of values that are measured but not asked for.
        known: values that the legend names, whether they get polygons or not; empty without a legend.
        unknown: values met that `known` lacks, to be told to the user; filled while encoding.
    """

    selections: tuple[Selection, ...] | None
    nodata: float | None = None
    rest: int = BACKGROUND
    known: frozenset[int] = frozenset()
    unknown: set[int] = field(default_factory=set, compare=False)

    @classmethod
    def of(
        cls, legend: Legend | None, classes: Iterable[str] | None, nodata: float | None, rest: int = BACKGROUND
    ) -> Coding:
        """The coding for a legend and the names asked for; without a legend, classes are called class_<id>."""
        names = None if classes is None else tuple(classes)
        if legend is not None and nodata is None:
            nodata = legend.nodata
        if legend is None or _is_generic(legend):
            return cls(None if names is None else tuple(_generic_by_name(name) for name in names), nodata, rest)
        known = frozenset((*legend.ids, legend.nodata))
        return cls(legend.select(names), nodata, rest, known)

    def codes_of(self, names: Iterable[str], legend: Legend | None) -> tuple[int, ...]:
        """The codes of some of the classes that get polygons; a group stands for all of its classes.

        Raises:
            InputError: a name is unknown, or gets no polygons of its own.
        """
        codes: list[int] = []
        for name in names:
            generic = legend is None or _is_generic(legend)
            ids = {_generic_by_name(name).id} if generic or legend is None else set(legend.select([name])[0].ids)
            if self.selections is None:
                codes += ids
                continue
            found = [selection.id for selection in self.selections if ids.issuperset(selection.ids)]
            if not found:
                given = ", ".join(selection.name for selection in self.selections)
                raise InputError(f"Class {name!r} gets no polygons that could be shaped; those asked for are {given}.")
            codes += found
        return tuple(codes)

    def encode(self, values: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Codes of class values, in the same shape.

        Raises:
            InputError: a value does not fit into 32 bits.
        """
        if values.dtype == np.uint8:
            seen = np.zeros(256, np.bool_)
            table = self._encode_slowly(np.arange(256))
            codes = _looked_up(np.atleast_2d(values), table, seen).reshape(values.shape)
            if self.known:
                self._note(np.flatnonzero(seen))
            return codes
        if self.known:
            self._note(np.unique(values))
        return self._encode_slowly(values)

    def selections_of(self, codes: NDArray[np.int32]) -> tuple[Selection, ...]:
        """The classes of the layers and of `codes`, in order."""
        if self.selections is not None:
            return self.selections
        return tuple(generic_selection(int(code)) for code in np.unique(codes))

    def _encode_slowly(self, values: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        if self.selections is None:
            _check_range(values, self.nodata)
            codes = values.astype(np.int32)
        else:
            codes = np.full(values.shape, self.rest, np.int32)
            for selection in self.selections:
                codes[np.isin(values, selection.ids)] = selection.id
        if self.nodata is not None:
            codes[values == self.nodata] = BACKGROUND
        return codes

    def _note(self, values: NDArray[np.integer[Any]]) -> None:
        self.unknown.update(int(v) for v in values if int(v) not in self.known and v != self.nodata)


@compiled
def _looked_up(values: NDArray[np.uint8], table: NDArray[np.int32], seen: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The table's entry for each value; `seen` tells which values there are."""
    codes = np.empty(values.shape, np.int32)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            value = values[i, j]
            codes[i, j] = table[value]
            seen[value] = True
    return codes


def _is_generic(legend: Legend) -> bool:
    """Whether the legend names nothing; then only the classes that occur are of interest, not all 255."""
    return all(c.name == f"class_{c.id}" for c in legend.classes)


def generic_selection(class_id: int) -> Selection:
    """What a class without a legend is called, with a color of its own."""
    return Selection(class_id, f"class_{class_id}", _PALETTE[class_id % len(_PALETTE)], (class_id,))


def _generic_by_name(name: str) -> Selection:
    match = re.fullmatch(r"(?:class_)?(-?\d+)", name)
    if match is None:
        raise InputError(f"Class {name!r} is not known: the raster has no legend, its classes are class_<id>.")
    return generic_selection(int(match[1]))


def _check_range(values: NDArray[np.integer[Any]], nodata: float | None) -> None:
    limits = np.iinfo(np.int32)
    if np.can_cast(values.dtype, np.int32) or values.size == 0:
        return
    used = values if nodata is None else values[values != nodata]
    if used.size and (used.max() > limits.max or used.min() <= limits.min):
        raise InputError(f"Class ids go up to {limits.max}; the raster has {used.min()} to {used.max()}.")
