"""Objects of a scene: a table that says what each is, and a painter that gives the ids of any window.

Painters hold masks or outlines, never the pixels of the scene; what they paint does not depend on the window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from geoseg.grid import Window
from geoseg.legend import Selection
from geoseg.objects.join import Found
from geoseg.raster.georeference import ignore_not_georeferenced

NOTHING = 0
BLOCK = 2048  # rows and columns painted at once; no result depends on it

Ids = NDArray[np.int32]


class Painter(Protocol):
    """Ids (height, width) of a window inside the scene, 0 where there is no object; objects share no pixel."""

    def __call__(self, window: Window) -> Ids: ...


@dataclass(frozen=True, slots=True)
class Objects:
    """What was found on a scene.

    Attributes:
        table: one row for each object, in the order of first pixels: id (1, 2, ...), class_id, class_name, score (0 to
            1, how sure it is that there is such an object) and confidence (0 to 1, mean probability of its pixels).
        paint: their pixels.
        classes: that objects may be of, as layers of a vector file.
    """

    table: pd.DataFrame
    paint: Painter
    classes: tuple[Selection, ...]

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[float]], paint: Painter, classes: tuple[Selection, ...]) -> Objects:
        """Number the objects whose class_id, score and confidence are given."""
        names = {selection.id: selection.name for selection in classes}
        class_ids = np.asarray(columns["class_id"], np.int32)
        table = pd.DataFrame(
            {
                "id": np.arange(1, class_ids.size + 1, dtype=np.int64),
                "class_id": class_ids,
                "class_name": pd.Series([names[number] for number in class_ids.tolist()], dtype=object),
                "score": np.asarray(columns["score"], np.float64),
                "confidence": np.asarray(columns["confidence"], np.float64),
            }
        )
        return cls(table, paint, classes)

    @classmethod
    def of_masks(cls, found: Sequence[Found], classes: tuple[Selection, ...]) -> Objects:
        """Objects in the order of their first pixels, as `join_pieces` gives them."""
        columns = {name: [getattr(one, name) for one in found] for name in ("class_id", "score", "confidence")}
        return cls.of(columns, MaskPainter(found), classes)

    def only(self, kept: NDArray[np.bool_]) -> Objects:
        """Some of them, numbered anew."""
        if kept.all():
            return self
        numbers = np.zeros(kept.size + 1, np.int32)
        numbers[1:][kept] = np.arange(1, int(kept.sum()) + 1)
        table = self.table[kept].reset_index(drop=True)
        table["id"] = np.arange(1, len(table) + 1, dtype=np.int64)
        return Objects(table, Renumbered(self.paint, numbers), self.classes)


@dataclass(frozen=True, slots=True)
class Renumbered:
    """Another painter's ids through a table.

    Attributes:
        paint: the painter.
        numbers: (ids + 1,) new id of each, 0 for those that go.
    """

    paint: Painter
    numbers: Ids

    def __call__(self, window: Window) -> Ids:
        painted: Ids = self.numbers[self.paint(window)]
        return painted


class MaskPainter:
    """Paints masks: the first has id 1.

    Args:
        found: they share no pixel.
    """

    def __init__(self, found: Sequence[Found]) -> None:
        self._found = found
        boxes = [shapely.box(w.col, w.row, w.col_stop, w.row_stop) for w in (one.window for one in found)]
        self._tree = shapely.STRtree(boxes)

    def __call__(self, window: Window) -> Ids:
        ids = np.full(window.shape, NOTHING, np.int32)
        near = self._tree.query(shapely.box(window.col, window.row, window.col_stop, window.row_stop))
        for number in np.sort(near).tolist():
            found = self._found[number]
            shared = found.window.intersection(window)
            if not shared.is_empty:
                ids[shared.relative_to(window).slices][found.within(shared)] = number + 1
        return ids


class OutlinePainter:
    """Paints the pixels whose centers lie in polygons: the first has id 1. Where several do, the last counts.

    Args:
        polygons: in the CRS.
        transform: pixel to CRS coordinates.
        on_edges: the polygons go along pixel edges; rounding on the way to the CRS and back is undone.
    """

    def __init__(self, polygons: NDArray[np.object_], transform: Affine, *, on_edges: bool = True) -> None:
        back = ~transform

        def to_pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = points.T
            moved = np.stack([back.a * x + back.b * y + back.c, back.d * x + back.e * y + back.f], axis=1)
            return np.asarray(np.rint(moved) if on_edges else moved)

        self._polygons = shapely.transform(polygons, to_pixels)
        self._tree = shapely.STRtree(self._polygons)

    def __call__(self, window: Window) -> Ids:
        near = np.sort(self._tree.query(shapely.box(window.col, window.row, window.col_stop, window.row_stop)))
        if not near.size:
            return np.full(window.shape, NOTHING, np.int32)
        pairs = [(self._polygons[number], number + 1) for number in near.tolist()]
        with ignore_not_georeferenced():
            ids: Ids = rasterize(
                pairs, window.shape, NOTHING, transform=Affine.translation(window.col, window.row), dtype="int32"
            )
        return ids
