"""Straight walls from pixels, against outlines drawn by hand: geoseg beside buildingregulariser.

    pip install buildingregulariser
    python benchmarks/regularize.py DIR [--pixel 0.3]

DIR holds NAME_buildings.geojson. The outlines are burnt into pixels of --pixel metres, those that touch as one
building, and made straight again; the reference is the union of those that touch. IoU, mean distance between the
borders, points, and the share of corners within a degree of a right angle are means over buildings; "pixels" are the
traced outlines.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import from_origin

import geoseg
from geoseg.legend import LANDCOVER
from geoseg.vector import VectorSummary

NEAR = 1.0  # degrees
APART_M = 0.1  # between the points at which the distance of borders is measured
ALIKE = 0.5  # least IoU of a traced building with its reference, else the pixels have joined it with others
COLUMNS = ("IoU", "distance, m", "points", "right angles")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pixel", type=float, default=0.3)
    args = parser.parse_args()
    tables: dict[str, list[pd.DataFrame]] = {"pixels": [], "geoseg": [], "buildingregulariser": []}
    overlaps, seconds = dict.fromkeys(tables, 0.0), dict.fromkeys(tables, 0.0)
    asked, fallbacks = 0, 0
    for file in sorted(args.folder.glob("*_buildings.geojson")):
        outlines = gpd.read_file(file)
        outlines = outlines.to_crs(outlines.estimate_utm_crs())
        reference = gpd.GeoSeries(shapely.get_parts(shapely.union_all(outlines.geometry.make_valid().values)))
        with TemporaryDirectory() as work:
            scene = burnt(outlines, args.pixel, Path(work) / "scene.tif")
            summary, straight, seconds_ours = vectorized(scene, ("building",))
            _, pixels, seconds_traced = vectorized(scene, ())
        asked, fallbacks = asked + summary.regularized, fallbacks + summary.fallbacks
        theirs, seconds_theirs = by_others(pixels, args.pixel)
        for name, found, took in (
            ("pixels", pixels, seconds_traced),
            ("geoseg", straight, seconds_ours),
            ("buildingregulariser", theirs, seconds_traced + seconds_theirs),
        ):
            tables[name].append(measured(pixels.geometry, found.geometry, reference))
            seconds[name] += took
            overlaps[name] += found.area.sum() - shapely.area(shapely.union_all(found.geometry.make_valid().values))
    print(f"{fallbacks} of {asked} buildings fell back ({fallbacks / asked:.0%})\n")
    print(f"| outlines | buildings | {' | '.join(COLUMNS)} | overlaps, m² | s |\n|{'---|' * (len(COLUMNS) + 4)}")
    for name, parts in tables.items():
        table = pd.concat(parts)
        iou, distance, points, right = table[list(COLUMNS)].mean()
        told = f"{iou:.3f} | {distance:.3f} | {points:.1f} | {right:.2f} | {overlaps[name]:.1f} | {seconds[name]:.1f}"
        print(f"| {name} | {len(table)} | {told} |")


def burnt(outlines: gpd.GeoDataFrame, pixel: float, path: Path) -> Path:
    """A class map of buildings on bare ground."""
    west, south, east, north = outlines.total_bounds + 5 * np.array([-1, -1, 1, 1])
    shape = int((north - south) / pixel), int((east - west) / pixel)
    transform = from_origin(west, north, pixel, pixel)
    building, bare = (LANDCOVER.by_name(name).id for name in ("building", "bare"))
    values = rasterize(((one, building) for one in outlines.geometry), shape, bare, transform=transform, dtype="uint8")
    profile = {"height": shape[0], "width": shape[1], "count": 1, "dtype": "uint8", "crs": outlines.crs}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **profile) as raster:
        raster.write(values, 1)
        raster.update_tags(GEOSEG_LEGEND=LANDCOVER.to_json())
    return path


def vectorized(scene: Path, regularize: tuple[str, ...]) -> tuple[VectorSummary, gpd.GeoDataFrame, float]:
    """Buildings with straight walls or without, and the seconds that it took."""
    output = scene.with_name("buildings.parquet")
    began = time.perf_counter()
    summary = geoseg.vectorize_file(
        scene, output, geoseg.VectorOptions(classes=["building"], regularize=regularize), overwrite=True
    )
    return summary, gpd.read_parquet(output), time.perf_counter() - began


def by_others(pixels: gpd.GeoDataFrame, pixel: float) -> tuple[gpd.GeoDataFrame, float]:
    """The same by buildingregulariser, with tolerances that suit the pixels; rows that it leaves out are empty."""
    from buildingregulariser import regularize_geodataframe

    began = time.perf_counter()
    numbered = pixels.assign(number=range(len(pixels)))
    found = regularize_geodataframe(numbered, parallel_threshold=2 * pixel, simplify_tolerance=1.5 * pixel, num_cores=1)
    seconds = time.perf_counter() - began
    return gpd.GeoDataFrame(found.set_index("number").geometry.reindex(numbered.number)), seconds


def measured(pixels: gpd.GeoSeries, found: gpd.GeoSeries, reference: gpd.GeoSeries) -> pd.DataFrame:
    """A row for each building that the pixels have not joined with others."""
    rows = []
    tree = shapely.STRtree(reference.values)
    for traced, polygon in zip(pixels.values, found.values, strict=True):
        near = tree.query(traced, predicate="intersects")
        shares = [iou(traced, reference.values[index]) for index in near]
        if not shares or max(shares) < ALIKE:
            continue
        real = reference.values[near[int(np.argmax(shares))]]
        if polygon is None or polygon.is_empty:
            rows.append((0.0, np.nan, np.nan, np.nan))
            continue
        border = shapely.segmentize(polygon.exterior, APART_M)
        away = shapely.distance(shapely.points(shapely.get_coordinates(border)), real.exterior).mean()
        rows.append((iou(polygon, real), away, len(polygon.exterior.coords) - 1, right_angles(polygon)))
    return pd.DataFrame(rows, columns=COLUMNS)


def iou(one: shapely.Geometry, other: shapely.Geometry) -> float:
    one = shapely.make_valid(one)
    return float(shapely.area(shapely.intersection(one, other)) / shapely.area(shapely.union(one, other)))


def right_angles(polygon: shapely.Polygon) -> float:
    """Share of a shell's corners."""
    steps = np.diff(np.array(polygon.exterior.coords), axis=0)
    before = np.roll(steps, 1, axis=0)
    cross = before[:, 0] * steps[:, 1] - before[:, 1] * steps[:, 0]
    angles: NDArray[np.float64] = np.degrees(np.arctan2(np.abs(cross), (before * steps).sum(1)))
    corners = angles[angles > NEAR]
    return float((np.abs(corners - 90) < NEAR).mean()) if corners.size else 0.0


if __name__ == "__main__":
    main()
