"""A panoptic scene: every measured pixel has a class, and those of things have an object too.

The merge is that of Kirillov et al. 2019 (arXiv:1801.00868): objects come first, the better before the worse, then the
other classes fill what is left. Unlike there nothing is left void: the semantic branch is asked for the likeliest class
among those that are no things.

Ids are uint32, and can be read without the table: `class_id = id >> 24`, and `id & 0xffffff` is 0 for stuff and counts
objects from 1 for things, in the order of their first pixels. 0xffffffff is nodata.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoseg.errors import GeosegError
from geoseg.grid import Window
from geoseg.legend import NODATA, Legend, Selection
from geoseg.objects.outline import OutlineOptions, draw, with_columns
from geoseg.objects.paint import BLOCK, NOTHING, Objects
from geoseg.raster.landcover import CONFIDENCE_ONE
from geoseg.vector.blocks import BlockPixels, Blocks, Progress, trace_blocks
from geoseg.vector.join import Coverage, join
from geoseg.vector.measure import Ground
from geoseg.vector.sources import FileSource
from geoseg.vector.trace import BACKGROUND

BITS = 24  # of an id that count objects
MOST = (1 << BITS) - 1
VOID = 0xFFFFFFFF
FIRST = 256  # code of the first object while outlines are traced; below it are class ids


@dataclass(frozen=True)
class Panoptic:
    """Stuff from a class map, things from objects.

    Attributes:
        stuff: class map and confidence, on the output's grid.
        objects: that cover it.
        legend: of all classes.
    """

    stuff: FileSource
    objects: Objects
    legend: Legend

    @classmethod
    def of(cls, landcover: Path, confidence: Path, objects: Objects, legend: Legend) -> Panoptic:
        """Open the class map.

        Raises:
            GeosegError: there are more objects than ids.
        """
        if len(objects.table) > MOST:
            raise GeosegError(f"{len(objects.table)} objects are more than ids count, {MOST}; cut the scene in parts.")
        return cls(FileSource.of(landcover, confidence), objects, legend)

    @property
    def ground(self) -> Ground:
        return self.stuff.ground

    @property
    def object_ids(self) -> NDArray[np.uint32]:
        """(objects + 1,) panoptic id of each object; the first is VOID."""
        class_id = self.objects.table["class_id"].to_numpy(np.uint32)
        number = self.objects.table.groupby("class_id").cumcount().to_numpy(np.uint32) + np.uint32(1)
        return np.append(np.uint32(VOID), (class_id << np.uint32(BITS)) | number)

    def paint(self, window: Window) -> NDArray[np.uint32]:
        """Panoptic ids (height, width) of a window."""
        classes, things = self.stuff.read(window).values, self.objects.paint(window)
        ids = np.where(self._is_void(classes), np.uint32(VOID), classes.astype(np.uint32) << np.uint32(BITS))
        return np.where(things == NOTHING, ids, self.object_ids[things])

    def codes(self, window: Window) -> BlockPixels:
        """What is traced: class ids of stuff, objects from FIRST on; and the confidence."""
        pixels, things = self.stuff.read(window), self.objects.paint(window)
        codes = np.where(self._is_void(pixels.values), np.int32(BACKGROUND), pixels.values.astype(np.int32))
        return BlockPixels(np.where(things == NOTHING, codes, things + np.int32(FIRST - 1)), pixels.confidence)

    @property
    def selections(self) -> tuple[Selection, ...]:
        """Classes of the polygons, by id: those of objects, maybe groups, and all others, which are stuff."""
        things = self.objects.classes
        within = {number for selection in things for number in selection.ids}
        stuff = [one for one in self.legend.select() if one.id not in within]
        return tuple(sorted([*things, *stuff], key=lambda selection: selection.id))

    def _is_void(self, classes: NDArray[Any]) -> NDArray[np.bool_]:
        return np.isin(classes, (NODATA, self.legend.nodata))


class PanopticTables(NamedTuple):
    """What a panoptic scene holds.

    Attributes:
        polygons: a coverage; one row for each object and for each 4-connected part of stuff: id, class_id, class_name,
            is_thing, score (of things), area_m2, perimeter_m (area_px alone without a CRS), confidence, geometry.
        ids: one row for each id: id, class_id, class_name, is_thing, score, confidence, pixels.
        regularized: polygons that were to get straight walls.
        fallbacks: those of them that would have fitted poorly, and were simplified only.
    """

    polygons: gpd.GeoDataFrame
    ids: pd.DataFrame
    regularized: int = 0
    fallbacks: int = 0


def tables_of(panoptic: Panoptic, options: OutlineOptions, progress: Progress | None = None) -> PanopticTables:
    """Trace a panoptic scene block by block; the result does not depend on the blocks."""
    ground = panoptic.ground
    coverage = join(trace_blocks(panoptic.codes, Blocks.regular(ground.shape, BLOCK), progress))
    facts = _facts(panoptic, coverage)
    code = coverage.components.code
    drawn = draw(coverage, ground, options, straight=code[code >= FIRST])
    columns = {name: facts[name] for name in ("id", "class_id", "class_name", "is_thing", "score")}
    polygons = with_columns(drawn.polygons, columns, facts["confidence"])
    return PanopticTables(polygons, _by_id(facts), drawn.regularized, drawn.fallbacks)


def _facts(panoptic: Panoptic, coverage: Coverage) -> pd.DataFrame:
    """What is known of each component, in order."""
    components, table = coverage.components, panoptic.objects.table
    code = components.code
    is_thing = code >= FIRST
    number = np.where(is_thing, code - FIRST, 0)
    class_id = code.copy()
    class_id[is_thing] = table["class_id"].to_numpy(np.int32)[number[is_thing]]
    ids = class_id.astype(np.uint32) << np.uint32(BITS)
    ids[is_thing] = panoptic.object_ids[1:][number[is_thing]]
    known = np.maximum(components.confidence_count, 1) * float(CONFIDENCE_ONE)
    confidence = np.where(components.confidence_count > 0, components.confidence_sum / known, np.nan)
    score = np.full(code.size, np.nan)
    for column, name in ((score, "score"), (confidence, "confidence")):
        column[is_thing] = table[name].to_numpy()[number[is_thing]]
    names = {entry.id: entry.name for entry in panoptic.legend.classes}
    names |= {selection.id: selection.name for selection in panoptic.objects.classes}
    return pd.DataFrame(
        {
            "id": ids.astype(np.int64),
            "class_id": class_id,
            "class_name": pd.Series([names[one] for one in class_id.tolist()], dtype=object),
            "is_thing": is_thing,
            "score": score,
            "confidence": confidence,
            "pixels": components.pixels,
        }
    )


def _by_id(facts: pd.DataFrame) -> pd.DataFrame:
    """One row for each id, stuff first by class, then things by number; confidence is the mean over pixels."""
    weighted = facts.assign(confidence=facts["confidence"] * facts["pixels"])
    first = dict.fromkeys(("class_id", "class_name", "is_thing", "score"), "first")
    found = weighted.groupby("id", sort=True).agg(first | {"confidence": "sum", "pixels": "sum"}).reset_index()
    found["confidence"] /= found["pixels"]
    return found.sort_values(["is_thing", "id"], ignore_index=True)
