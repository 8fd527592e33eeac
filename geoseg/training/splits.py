"""Splits by place: which ground is held out for validation, and which pixels of each scene that leaves for training.

All three ways to split end in the same: a region on the ground. A pixel of any scene is held out where its center lies
in the region, and trains where it lies farther from it than the buffer. So scenes that overlap, dates of one place, and
one file given twice cannot leak; where whole scenes are asked for and overlap, that is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import geometry_mask

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.raster.aoi import AreaOfInterest, read_aoi
from geoseg.raster.georeference import ignore_not_georeferenced
from geoseg.raster.label_codes import apply, transformer

Geometries = NDArray[Any]

DRAWS = 256  # of which the one is taken that holds out the most even share of every class
PLANE = 2**40  # rows and columns of a grid that holds every coordinate
SLIVER = 1.0  # pixels; scenes that overlap by less lie side by side
STEPS = 32  # points on a side of a polygon that is carried to another CRS


@dataclass(frozen=True, slots=True)
class Site:
    """Where a scene lies.

    Attributes:
        name: for people.
        shape: rows and columns.
        transform: pixel to CRS coordinates.
        crs: None where unknown; then only scenes from the same files are known to share ground.
        files: that hold it.
    """

    name: str
    shape: tuple[int, int]
    transform: Affine
    crs: CRS | None
    files: tuple[str, ...] = ()

    def carried(self, polygons: Geometries, other: Site) -> Geometries | None:
        """Polygons in our pixel coordinates (column, row) in those of another scene; None where that is not known."""
        if (self.crs is None) != (other.crs is None) or (self.crs is None and not set(self.files) & set(other.files)):
            return None
        back = ~other.transform
        if self.crs == other.crs:
            return shapely.transform(polygons, _along(back @ self.transform)) if self != other else polygons
        assert self.crs is not None
        assert other.crs is not None
        onto: Any = transformer(self.crs.to_wkt(), other.crs.to_wkt()).transform
        fine = shapely.segmentize(polygons, max(1.0, max(self.shape) / STEPS))
        there = shapely.transform(shapely.transform(fine, _along(self.transform)), onto, interleaved=False)
        there = there[np.isfinite(shapely.bounds(there)).all(1)]
        return shapely.make_valid(shapely.transform(there, _along(back)))


@dataclass(frozen=True, slots=True)
class Region:
    """Polygons on a scene's grid, in pixel coordinates (column, row).

    Attributes:
        polygons: WKB of each.
    """

    polygons: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, polygons: Geometries) -> Region:
        parts = shapely.get_parts(polygons)
        return cls(tuple(shapely.to_wkb(parts[shapely.get_dimensions(parts) == 2])))

    @classmethod
    def of_aoi(cls, aoi: AreaOfInterest) -> Region:
        return cls.of(shapely.transform(shapely.from_wkb(list(aoi.polygons)), _along(~aoi.transform)))

    def grown(self, pixels: float) -> Region:
        """With all that lies within a distance."""
        return Region.of(shapely.buffer(_tree(self.polygons).geometries, pixels)) if pixels else self

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """(height, width): True where a pixel's center lies in a polygon."""
        tree = _tree(self.polygons)
        near = tree.geometries[tree.query(_box(window))]
        if not len(near):
            return np.zeros(window.shape, np.bool_)
        with ignore_not_georeferenced():
            inside: NDArray[np.bool_] = geometry_mask(
                near, window.shape, Affine.translation(window.col, window.row), invert=True
            )
        return inside


@dataclass(frozen=True, slots=True)
class Sides:
    """The two sides of one scene.

    Attributes:
        held: what is held out; training never sees it, not even around its labels.
        kept_from: what training takes no label from: `held` and the buffer around it.
    """

    held: Region
    kept_from: Region


def sides_of(sites: Sequence[Site], held: Sequence[Geometries], *, buffer_px: float) -> list[Sides]:
    """The sides of each scene, from what is held out of each.

    Args:
        sites: the scenes.
        held: of each, polygons in its pixel coordinates.
        buffer_px: pixels of each scene around the region that neither side uses.
    """
    sides = []
    for site in sites:
        own = [moved for other, part in zip(sites, held, strict=True) for moved in _moved(other, part, site)]
        region = Region.of(np.concatenate(own)) if own else Region()
        sides.append(Sides(region, region.grown(buffer_px)))
    return sides


def by_scenes(sites: Sequence[Site], extents: Sequence[Window], validate: Sequence[bool]) -> list[Geometries]:
    """Whole scenes.

    Args:
        sites: the scenes.
        extents: of each, the pixels that may be labelled.
        validate: of each, whether it is held out.

    Raises:
        InputError: a scene to train on overlaps one that is held out.
    """
    boxes = [np.array([_box(extent)]) for extent in extents]
    for site, box in _where(validate, sites, boxes):
        for other, own in _where([not one for one in validate], sites, boxes):
            for moved in _moved(site, box, other):
                shared = shapely.buffer(shapely.intersection(moved[:, None], own), -SLIVER)
                if shapely.area(shared).any():
                    raise InputError(
                        f"Scenes {other.name} (role: train) and {site.name} (role: validate) show the same ground, so "
                        "that scores would be of what was trained on. Split by blocks or polygons, which keeps all "
                        "scenes of a place on one side, or leave one out."
                    )
    return [box if held else box[:0] for box, held in zip(boxes, validate, strict=True)]


def by_polygons(sites: Sequence[Site], path: str) -> list[Geometries]:
    """Places given as polygons.

    Raises:
        InputError: the file cannot be used, or no polygon lies on a scene.
    """
    plane = Affine(1, 0, -PLANE / 2, 0, -1, PLANE / 2)
    held = []
    for site in sites:
        found = read_aoi(path, shape=(PLANE, PLANE), transform=plane, crs=site.crs).polygons
        polygons = shapely.transform(shapely.from_wkb(list(found)), _along(~site.transform))
        held.append(polygons[shapely.intersects(polygons, _box(Window(0, 0, *site.shape)))])
    if not any(len(polygons) for polygons in held):
        raise InputError(f"No polygon of {path} lies on a scene; compare their bounds with geoseg info.")
    return held


def by_blocks(
    cells: Sequence[NDArray[np.integer]],
    pixels: Sequence[NDArray[np.integer]],
    *,
    cell_px: int,
    block_px: int,
    share: float,
    seed: int,
) -> list[Geometries]:
    """Blocks drawn at random among those with labels, so that of every class about the same share is held out.

    Args:
        cells: of each scene, (cell, 2) row and column of labelled cells, in units of `cell_px`.
        pixels: of each scene, (cell, code) labelled pixels.
        cell_px: side of a cell.
        block_px: side of a block; cells belong to the block that holds their first pixel.
        share: of the blocks.
        seed: of the draw.

    Raises:
        InputError: there are fewer than two labelled blocks.
    """
    blocks, counts = [], []
    for scene, (where, found) in enumerate(zip(cells, pixels, strict=True)):
        own, which = np.unique(where * cell_px // block_px, axis=0, return_inverse=True)
        total = np.zeros((len(own), found.shape[1]))
        np.add.at(total, which.ravel(), found)
        blocks.append(np.column_stack([np.full(len(own), scene), own]))
        counts.append(total)
    table, weights = np.concatenate(blocks), np.concatenate(counts)
    if len(table) < 2:
        raise InputError(
            f"A split by blocks of {block_px} px needs two blocks with labels; there is {len(table)}. Give a smaller "
            "split.block_px, or split by scenes or polygons."
        )
    chosen = table[_even_draw(weights, share, seed)]
    return [_boxes(chosen[chosen[:, 0] == scene, 1:], block_px) for scene in range(len(cells))]


def _even_draw(counts: NDArray[np.float64], share: float, seed: int) -> NDArray[np.intp]:
    """Of many draws of blocks (block, code), the one whose worst class is nearest to the share."""
    rng = np.random.default_rng(seed)
    number = min(len(counts) - 1, max(1, round(share * len(counts))))
    kinds = counts[:, counts.any(0)]
    draws = [np.sort(rng.permutation(len(counts))[:number]) for _ in range(DRAWS)]
    worst = [np.abs(kinds[draw].sum(0) / kinds.sum(0) - share).max() for draw in draws]
    return draws[int(np.argmin(worst))]


def _moved(site: Site, polygons: Geometries, other: Site) -> Iterable[Geometries]:
    """Polygons of one scene on another, if any."""
    moved = site.carried(polygons, other) if len(polygons) else None
    return [] if moved is None else [moved]


def _where(chosen: Sequence[bool], sites: Sequence[Site], boxes: Sequence[Geometries]) -> list[tuple[Site, Geometries]]:
    return [(site, box) for held, site, box in zip(chosen, sites, boxes, strict=True) if held]


def _box(window: Window) -> Any:
    return shapely.box(window.col, window.row, window.col_stop, window.row_stop)


def _boxes(blocks: NDArray[np.integer], side: int) -> Geometries:
    rows, cols = blocks[:, 0] * side, blocks[:, 1] * side
    boxes: Geometries = shapely.box(cols, rows, cols + side, rows + side)
    return boxes


def _along(transform: Affine) -> Any:
    """A transform of (point, 2) coordinates."""
    return lambda points: np.column_stack(apply(transform, points[:, 0], points[:, 1]))


@lru_cache(maxsize=64)
def _tree(polygons: tuple[bytes, ...]) -> shapely.STRtree:
    return shapely.STRtree(shapely.from_wkb(list(polygons)))
