"""What label values mean, and where labels lie: shared by the readers of class rasters and of polygons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.legend import Legend

UNLABELLED = 255
OTHER = "other"  # a name for none of the classes that the labels tell
LISTED = 12  # values that an error names at most

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class LabelCodes:
    """What label codes stand for: the classes of a legend, then its groups.

    Attributes:
        legend: whose classes are the channels.
        names: of each code.
        members: of each code, the channels that it allows; a class allows itself alone.
    """

    legend: Legend
    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, legend: Legend) -> LabelCodes:
        groups = [group for group in legend.groups if group not in legend.names]
        members = [tuple(i for i, entry in enumerate(legend.classes) if entry.group == group) for group in groups]
        names = (*legend.names, *groups)
        _check_number(len(names))
        return cls(legend, names, (*((i,) for i in range(len(legend.classes))), *members))

    def with_other(self, told: Iterable[int]) -> LabelCodes:
        """One more code, `other`, for the channels that no code of `told` allows, unless the legend has that name.

        Raises:
            InputError: they allow all channels, or there are too many codes.
        """
        if OTHER in self.legend.names or OTHER in self.legend.groups:
            return self
        taken = {channel for code in told if code < len(self.members) for channel in self.members[code]}
        rest = tuple(channel for channel in range(len(self.legend.classes)) if channel not in taken)
        _check_number(len(self.names) + 1)
        if not rest:
            raise InputError(f"The labels tell all classes of the legend, so that {OTHER!r} is none; leave it out.")
        return LabelCodes(self.legend, (*self.names, OTHER), (*self.members, rest))

    def code(self, name: str) -> int:
        """The code of a class or group.

        Raises:
            InputError: the legend has neither.
        """
        if name not in self.names:
            raise InputError(f"Class {name!r} is not in the legend; it has {', '.join(self.names)}.")
        return self.names.index(name)


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What the user states of a label file.

    Attributes:
        column: of a vector file that holds the class; `class_name` or `class_id` where None.
        meanings: label value (as text) -> name of a class or group of the legend, or `other`: none of the classes that
            the labels tell.
        ignore: label values (as text) that count as unlabelled.
        elsewhere: name, as in `meanings`, of all that no polygon of a vector file covers; unlabelled where None.
        apart: pixels beside another polygon of the same class are unlabelled, so that each polygon is a part by itself.
    """

    column: str | None = None
    meanings: Mapping[str, str] | None = None
    ignore: tuple[str, ...] = ()
    elsewhere: str | None = None
    apart: bool = False

    @property
    def tells_other(self) -> bool:
        return OTHER in (*(self.meanings or {}).values(), self.elsewhere)

    def without_other(self) -> LabelOptions:
        """The same, with all that is `other` unlabelled."""
        meanings = self.meanings or {}
        rest = tuple(value for value, name in meanings.items() if name == OTHER)
        kept = {value: name for value, name in meanings.items() if name != OTHER}
        elsewhere = None if self.elsewhere == OTHER else self.elsewhere
        return LabelOptions(self.column, kept, (*self.ignore, *rest), elsewhere, self.apart)


@dataclass(frozen=True, slots=True)
class Place:
    """The grid that labels are brought to.

    Attributes:
        shape: rows and columns.
        transform: pixel to CRS coordinates.
        crs: None where unknown.
    """

    shape: tuple[int, int]
    transform: Affine
    crs: CRS | None

    @property
    def window(self) -> Window:
        return Window(0, 0, *self.shape)


class Meaning(NamedTuple):
    """A value in a label file: as text, and the name that the file itself gives it."""

    value: str
    name: str | None


def code_of(found: Meaning, codes: LabelCodes, options: LabelOptions) -> int | None:
    """The code of a label value; None where it means nothing.

    See `open_labels` for the order in which value and name are asked.
    """
    known = [text for text in found if text is not None]
    if any(text in options.ignore for text in known):
        return UNLABELLED
    meanings = options.meanings or {}
    for text in known:
        if text in meanings:
            return codes.code(meanings[text])
    if found.name is not None:
        return codes.names.index(found.name) if found.name in codes.names else None
    ids = [str(i) for i in codes.legend.ids]
    if found.value == str(codes.legend.nodata):
        return UNLABELLED
    return ids.index(found.value) if found.value in ids and not meanings else None


def unknown_values(path: str, values: list[str], codes: LabelCodes) -> InputError:
    """The error for label values that mean nothing."""
    shown = ", ".join(values[:LISTED]) + (", ..." if len(values) > LISTED else "")
    return InputError(
        f"{path} has the label{'s' if len(values) > 1 else ''} {shown}, which the legend does not; it has "
        f"{', '.join(codes.names)}. Say what they mean, as in --map {_quoted(values[0])}={codes.names[0]}, or leave "
        f"them out with --ignore {_quoted(values[0])}; for a training, in its YAML: `map:` and `ignore:` of the scene."
    )


def check_crs(path: str, own: object | None, place: Place) -> None:
    """Refuse labels with a CRS on a scene without one, and the other way round."""
    if (own is None) != (place.crs is None):
        which, other = ("The scene", path) if place.crs is None else (path, "the scene")
        raise InputError(
            f"{which} has no CRS, {other} has one; give both the same with ogr2ogr -a_srs or gdal_edit -a_srs."
        )


def extent_of(path: str, cols: NDArray[np.float64], rows: NDArray[np.float64], place: Place) -> Window:
    """The pixels of the scene that hold labels, whose outline has these positions on its grid; a little more.

    Raises:
        InputError: none do.
    """
    finite = np.isfinite(cols) & np.isfinite(rows)
    if finite.any():
        top, left = (int(np.floor(axis[finite].min())) for axis in (rows, cols))
        bottom, right = (int(np.ceil(axis[finite].max())) for axis in (rows, cols))
        found = with_slack(Window(top, left, bottom - top, right - left)).clipped(place.shape)
        if not found.is_empty:
            return found
    raise InputError(f"The labels {path} lie outside the scene; compare their bounds with geoseg info.")


def with_slack(window: Window) -> Window:
    """A little larger: edges that are straight in one CRS are bent in another."""
    return window.padded(2 + max(window.shape) // 100)


def outline(window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of points all over a window, its corners and edges among them."""
    rows, cols = (
        np.linspace(start, stop, 33) for start, stop in ((window.row, window.row_stop), (window.col, window.col_stop))
    )
    grid = np.meshgrid(cols, rows)
    return grid[0].ravel(), grid[1].ravel()


def apply(
    transform: Affine, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A transform of many points at once."""
    t = transform
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


@cache
def transformer(source: str, target: str) -> Transformer:
    """From one CRS to another, both as WKT; (x, y) order."""
    return Transformer.from_crs(source, target, always_xy=True)


def _check_number(names: int) -> None:
    if names > UNLABELLED:
        raise InputError(f"Labels tell at most {UNLABELLED} classes and groups apart, not {names}.")


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text
