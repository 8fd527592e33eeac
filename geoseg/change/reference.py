"""Reference points of a class map: drawn at random by class, labelled by people, turned into areas with intervals."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.change.areas import AreaReport, Estimate, StratifiedSample, estimate_areas
from geoseg.change.design import allocate, sample_size
from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.raster.landcover import read_legend
from geoseg.vector.coding import Coding
from geoseg.vector.measure import Ground, measure, to_crs
from geoseg.vector.points import read_points, write_points
from geoseg.vector.sources import FileSource
from geoseg.vector.trace import BACKGROUND

log = logging.getLogger(__name__)
STRIP = 2**24  # pixels read at once, in whole rows
EXPECTED = 0.8  # user's accuracy of classes that nothing is said of
STRATUM, REFERENCE = "stratum", "reference"  # columns


@dataclass(frozen=True, slots=True)
class ClassMap:
    """A class map, strip by strip in row-major order.

    Attributes:
        path: of the file.
        source: its pixels.
        coding: its classes.
    """

    path: Path
    source: FileSource
    coding: Coding

    @classmethod
    def of(cls, path: str | Path) -> ClassMap:
        source = FileSource.of(path, None)
        return cls(Path(path), source, Coding.of(read_legend(path), None, source.nodata))

    @property
    def ground(self) -> Ground:
        return self.source.ground

    def strips(self) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """First row, and codes of whole rows; BACKGROUND where nothing was mapped."""
        height, width = self.ground.shape
        rows = max(1, STRIP // width)
        for row in range(0, height, rows):
            yield row, self.codes(Window(row, 0, min(rows, height - row), width))

    def codes(self, window: Window) -> NDArray[np.int32]:
        pixels = self.source.read(window)
        codes = self.coding.encode(pixels.values)
        if pixels.valid is not None:
            codes[~pixels.valid] = BACKGROUND
        return codes

    def names(self, codes: NDArray[np.int32]) -> dict[int, str]:
        return {selection.id: selection.name for selection in self.coding.selections_of(codes)}


class Census(NamedTuple):
    """How much of each class a map has.

    Attributes:
        pixels: by class, in the order of the legend; classes without a pixel are left out.
        area_m2: of all of them together; None without a CRS.
    """

    pixels: dict[str, int]
    area_m2: float | None


def census(mapped: ClassMap) -> Census:
    """Count the pixels of a map.

    Raises:
        InputError: it has none.
    """
    counts: dict[int, int] = {}
    area = 0.0
    pixel_area = None if mapped.ground.crs is None else _pixel_areas_m2(mapped.ground)
    for row, codes in mapped.strips():
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            counts[int(code)] = counts.get(int(code), 0) + int(count)
        if pixel_area is not None:
            area += float((codes != BACKGROUND).sum(1) @ pixel_area[row : row + len(codes)])
    counts.pop(BACKGROUND, None)
    if not counts:
        raise InputError(f"{mapped.path} holds no class anywhere, so there is nothing to sample.")
    names = mapped.names(np.array(sorted(counts), np.int32))
    return Census(
        {name: counts[code] for code, name in names.items() if code in counts}, None if pixel_area is None else area
    )


def draw_sample(
    path: str | Path,
    output: str | Path,
    *,
    n: int | None = None,
    standard_error: float | None = None,
    expected: Mapping[str, float] | None = None,
    least: int = 50,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, int]:
    """Draw pixels of a class map, stratified by its classes, and write them as points to be labelled.

    The points are in random order, so that those labelled first are a sample too. Columns: point_id, stratum and
    map_class (the class of the map), reference (to be filled in), row, col. A warning says where there are fewer points
    than asked for, in all or of a class.

    Args:
        path: class map.
        output: .gpkg.
        n: number of points; worked out from `standard_error` where None.
        standard_error: of overall accuracy that is wanted.
        expected: user's accuracy by class, for that; 0.8 where not told.
        least: points of a class that is rare.
        seed: of the draw.
        overwrite: replace a file that exists.

    Returns:
        Number of points by class.

    Raises:
        InputError: the map or a number cannot be used, or the file exists.
    """
    if seed < 0:
        raise InputError(f"A seed is 0 or more, not {seed}.")
    if (n is None) == (standard_error is None):
        raise InputError("Give either the number of points (--n), or the standard error that is wanted.")
    mapped = ClassMap.of(path)
    sizes = census(mapped).pixels
    if n is None:
        told = dict.fromkeys(sizes, EXPECTED) | dict(expected or {})
        strange = sorted(set(told) - set(sizes))
        if strange:
            raise InputError(f"Class {strange[0]!r} is not on the map; it has {', '.join(sizes)}.")
        n = sample_size(sizes, told, standard_error or 0.0)
    given = allocate(sizes, max(n, 2 * len(sizes)) if standard_error is not None else n, least=least)
    rows, cols, strata = _drawn(mapped, sizes, given, seed)
    order = np.random.default_rng((seed, 1)).permutation(len(rows))
    rows, cols = rows[order], cols[order]
    names = [strata[i] for i in order]
    x, y = to_crs(rows + 0.5, cols + 0.5, mapped.ground.transform)
    columns = {
        "point_id": np.arange(1, len(rows) + 1),
        STRATUM: names,
        "map_class": names,
        REFERENCE: "",
        "row": rows,
        "col": cols,
    }
    points = gpd.GeoDataFrame(columns, geometry=shapely.points(x, y), crs=mapped.ground.crs)
    write_points(points, output, overwrite=overwrite)
    _warn_of_fewer(sizes, given, n, least)
    return given


def _warn_of_fewer(sizes: Mapping[str, int], given: Mapping[str, int], n: int, least: int) -> None:
    if (drawn := sum(given.values())) < n:
        whole = [f"{name} {count:,}" for name, count in given.items() if count == sizes[name]]
        log.warning("%s points, not %s: the map has no more pixels of %s.", f"{drawn:,}", f"{n:,}", ", ".join(whole))
    if few := [f"{name} {count:,}" for name, count in given.items() if count < min(least, sizes[name])]:
        told = "%d points do not suffice for %d of each class (--least): %s; give more with --n, or a smaller --least."
        log.warning(told, n, least, ", ".join(few))


@dataclass(frozen=True, slots=True)
class AreaSummary:
    """Areas of a map's classes by reference points.

    Attributes:
        report: accuracies and shares.
        mapped_pixels: what counting gives, by class.
        pixel_m2: mean area of a pixel; None without a CRS.
        told: what a reader of the numbers should know, as sentences.
    """

    report: AreaReport
    mapped_pixels: dict[str, int]
    pixel_m2: float | None
    told: tuple[str, ...]

    @property
    def unit(self) -> str:
        return "px" if self.pixel_m2 is None else "ha"

    @property
    def digits(self) -> int:
        """Decimals at which areas are told: whole square metres on a small map."""
        if self.pixel_m2 is None:
            return 1
        total = sum(self.mapped_pixels.values()) * self.pixel_m2
        return 4 if total < 1e5 else 2 if total < 1e7 else 1

    def areas(self) -> tuple[Estimate, ...]:
        """Of the report's classes, in hectares, or in pixels without a CRS."""
        return self.report.areas(1.0 if self.pixel_m2 is None else self.pixel_m2 / 1e4)

    def to_dict(self, confidence: float = 0.95) -> dict[str, Any]:
        """All numbers as JSON values; None where the sample says nothing. `low` and `high` are clipped to what can be:
        accuracies and shares to 0..1, areas to 0..all.
        """
        report, areas = self.report, self.areas()
        per_pixel = 1.0 if self.pixel_m2 is None else self.pixel_m2 / 1e4
        columns = zip(report.classes, report.users, report.producers, report.shares, areas, strict=True)
        return {
            "confidence": confidence,
            "overall_accuracy": _plain(report.overall, confidence),
            "classes": {
                name: {
                    "users_accuracy": _plain(users, confidence),
                    "producers_accuracy": _plain(producers, confidence),
                    "share": _plain(share, confidence),
                    f"area_{self.unit}": _plain(area, confidence),
                    f"mapped_{self.unit}": self.mapped_pixels.get(name, 0) * per_pixel,
                }
                for name, users, producers, share, area in columns
            },
            "sampled_pixels": report.counts.tolist(),
            "matrix": report.matrix.tolist(),
            "told": list(self.told),
        }


def estimate_from_points(
    path: str | Path, points: str | Path, *, column: str = REFERENCE, strata: str | Path | None = None
) -> AreaSummary:
    """Accuracies and areas of a class map from labelled points.

    Args:
        path: class map.
        points: vector file of points with the true class in `column`; those without are left out. `points.gpkg:sample`
            is the layer `sample` of a file that has several.
        column: of the class.
        strata: class raster whose classes the points were drawn from; the map itself where None.

    Raises:
        InputError: the points cannot be read, lie outside, have an unknown class, or were drawn from other strata; or
            several layers have the column and none is named. Both numbers are told.
    """
    mapped = ClassMap.of(path)
    drawn_from = mapped if strata is None else ClassMap.of(strata)
    given = read_points(points, mapped.ground.crs, column)
    if column not in given:
        raise InputError(f"{points} has no column {column!r}; it has {', '.join(given.columns.drop('geometry'))}.")
    labels = given[column].astype("string").str.strip().fillna("")
    labelled = (labels != "").to_numpy(bool)
    if not labelled.any():
        raise InputError(f"None of the {len(given)} points of {points} has a class in column {column!r} yet.")
    told = []
    if not labelled.all():
        told.append(
            f"{int((~labelled).sum())} of {len(given)} points have no class and are left out; if they were not left "
            "out at random, the estimates are biased."
        )
    given, reference = given[labelled], _names_of(labels[labelled].tolist(), mapped, points)
    counted, pixels = census(mapped), census(drawn_from).pixels
    on_map = _classes_at(mapped, given, points)
    stratum = on_map if strata is None else _classes_at(drawn_from, given.to_crs(drawn_from.ground.crs), points)
    if STRATUM in given and (other := sum(a != b for a, b in zip(given[STRATUM], stratum, strict=True))):
        raise InputError(
            f"{other} of {len(given)} points lie in another class than the stratum that they were drawn from: the map "
            "is another one. Give the map that the sample was drawn from with --strata."
        )
    order = [name for name in _known(mapped) if name in {*on_map, *reference, *counted.pixels}]
    report = estimate_areas(StratifiedSample(stratum, on_map, reference, pixels), order)
    area = counted.area_m2
    return AreaSummary(
        report, counted.pixels, None if area is None else area / sum(counted.pixels.values()), tuple(told)
    )


def _drawn(
    mapped: ClassMap, sizes: Mapping[str, int], given: Mapping[str, int], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Rows, columns and strata of random pixels: each stratum's are drawn as numbers in its row-major order."""
    rng = np.random.default_rng((seed, 0))
    wanted = {name: np.sort(rng.choice(sizes[name], count, replace=False)) for name, count in given.items()}
    seen = dict.fromkeys(sizes, 0)
    rows, cols, strata = [], [], []
    for first, codes in mapped.strips():
        found = np.unique(codes[codes != BACKGROUND])
        names = mapped.names(found)
        for code in found.tolist():
            name, here = names[code], np.flatnonzero(codes == code)
            ranks = wanted[name][(wanted[name] >= seen[name]) & (wanted[name] < seen[name] + here.size)] - seen[name]
            at = here[ranks]
            seen[name] += here.size
            rows.append(first + at // codes.shape[1])
            cols.append(at % codes.shape[1])
            strata += [name] * at.size
    row, col = np.concatenate(rows), np.concatenate(cols)
    order = np.lexsort((col, row))  # whatever the strips were
    return row[order], col[order], [strata[i] for i in order]


def _classes_at(mapped: ClassMap, points: gpd.GeoDataFrame, path: str | Path) -> list[str]:
    """The class of the map under each point."""
    inverse = ~mapped.ground.transform
    x, y = points.geometry.x.to_numpy(), points.geometry.y.to_numpy()
    cols, rows = (np.floor(axis).astype(np.int64) for axis in (inverse * (x, y)))
    height, width = mapped.ground.shape
    outside = (rows < 0) | (rows >= height) | (cols < 0) | (cols >= width)
    if outside.any():
        raise InputError(f"{int(outside.sum())} of {len(points)} points of {path} lie outside {mapped.path}.")
    codes = np.array([mapped.codes(Window(int(r), int(c), 1, 1))[0, 0] for r, c in zip(rows, cols, strict=True)])
    empty = codes == BACKGROUND
    if empty.any():
        raise InputError(f"{int(empty.sum())} of {len(points)} points of {path} lie where {mapped.path} has no class.")
    names = mapped.names(codes)
    return [names[int(code)] for code in codes]


def _known(mapped: ClassMap) -> Sequence[str]:
    """All classes that a map may have, in order."""
    if mapped.coding.selections is not None:
        return [selection.name for selection in mapped.coding.selections]
    return list(census(mapped).pixels)


def _names_of(labels: Sequence[str], mapped: ClassMap, path: str | Path) -> list[str]:
    known = _known(mapped)
    strange = sorted({label for label in labels if label not in known})
    if strange:
        raise InputError(f"{path} has the class {strange[0]!r}, which the map does not; it has {', '.join(known)}.")
    return list(labels)


def _pixel_areas_m2(ground: Ground) -> NDArray[np.float64]:
    """Of one pixel in each row, in the middle column."""
    height, width = ground.shape
    if not ground.is_geodesic:
        return np.full(height, ground.pixel_area_m2)
    rows, col = np.arange(height), width // 2
    corners = [to_crs(rows + down, np.full(height, col + right), ground.transform) for down, right in _CORNERS]
    rings = np.stack([np.stack(corner, -1) for corner in corners], 1)
    pixels = np.asarray(shapely.polygons(rings), dtype=object)
    return measure(pixels, np.ones(height, np.int64), ground).area


_CORNERS = ((0, 0), (1, 0), (1, 1), (0, 1))


def _plain(one: Estimate, confidence: float) -> dict[str, float | None]:
    low, high = one.interval(confidence)
    numbers = {"value": one.value, "standard_error": one.standard_error, "low": low, "high": high}
    return {key: None if math.isnan(number) else number for key, number in numbers.items()}
