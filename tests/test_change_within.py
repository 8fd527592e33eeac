"""Change and stacks within an area of interest: those without one, where it lies, and nothing elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from builders import HALF_METRE, tiny_model, write_rgb
from numpy.typing import NDArray
from rasterio.crs import CRS
from test_change import UTM, class_map, read
from test_pairs import model as pair_model
from test_pairs import spread_for_pairs
from test_vectorize import write_raster

import geoseg
from geoseg.change import series
from geoseg.errors import InputError
from geoseg.models import Model
from geoseg.raster.aoi import read_aoi

__all__ = ["pair_model"]
UTM31 = "EPSG:32631"
TRIANGLE = ((20.3, 10.2), (81.7, 33.1), (47.9, 68.8))  # column and row
SHAPE = (90, 120)
PLAIN = geoseg.RunOptions(device="cpu", engine="torch", chip=128, block=64)
Mask = NDArray[np.bool_]


def area(folder: Path, transform: Affine, crs: str = "EPSG:4326", *, points: object = TRIANGLE) -> Path:
    """The triangle as a file in another CRS than the dates."""
    triangle = shapely.Polygon([transform @ point for point in points])
    path = folder / "aoi.gpkg"
    gpd.GeoDataFrame(geometry=[triangle], crs=UTM31).to_crs(crs).to_file(path)
    return path


def inside(path: Path, transform: Affine, shape: tuple[int, int]) -> tuple[Mask, tuple[slice, slice]]:
    """Where the polygons lie on a grid, and the rows and columns that hold them."""
    found = read_aoi(path, shape=shape, transform=transform, crs=CRS.from_string(UTM31))
    mask = np.zeros(shape, np.bool_)
    mask[found.window.slices] = found.mask(found.window)
    assert 0 < mask.sum() < found.window.area < mask.size
    return mask, found.window.slices


def run_in(path: Path) -> geoseg.RunOptions:
    return replace(PLAIN, aoi=str(path))


@pytest.mark.parametrize("crs", [UTM31, "EPSG:4326"])
def test_change_of_maps(tmp_path: Path, crs: str) -> None:
    """With a mask, and a second date that begins elsewhere: raster, matrix, polygons and figures are of the area."""
    one, two = class_map(1), class_map(2)
    cloud = np.ones(SHAPE, np.uint8)
    cloud[20:30, 30:60] = 0
    paths = [
        write_raster(tmp_path / "1.tif", one, UTM),
        write_raster(tmp_path / "2.tif", two, UTM @ Affine.translation(-4, -3)),
    ]
    clouds = geoseg.CloudOptions(masks=(str(write_raster(tmp_path / "m.tif", cloud, UTM)), "-"))
    options, dates = geoseg.ChangeOptions(min_area_m2=40), geoseg.DateOptions(clouds=clouds)
    aoi = area(tmp_path, UTM, crs)
    mask, window = inside(aoi, UTM, (87, 116))
    given = {"dates": dates, "options": options, "run": run_in(aoi)}
    wanted = {"polygons": tmp_path / "c.gpkg", "report": tmp_path / "r.html"}
    found = geoseg.change_files(*paths, tmp_path / "c.tif", **wanted, **given)

    known = mask & (cloud[:87, :116] == 1)  # without an area, but with what it hides taken out of one date
    alone = write_raster(tmp_path / "alone.tif", np.where(known, one[:87, :116], 255).astype(np.uint8), UTM)
    expected = geoseg.change_files(alone, paths[1], tmp_path / "e.tif", options=options)
    assert np.array_equal(read(tmp_path / "c.tif"), read(tmp_path / "e.tif")[window])
    assert (read(tmp_path / "c.tif")[~mask[window]] == 255).all()
    assert found.transform == UTM @ Affine.translation(window[1].start, window[0].start)
    assert np.array_equal(found.matrix.pixels, expected.matrix.pixels)
    assert found.matrix.pixels.sum() == known.sum()
    np.testing.assert_allclose(found.matrix.m2, expected.matrix.m2)
    polygons = gpd.read_file(tmp_path / "c.gpkg", layer="polygons")
    moved = found.matrix.m2.sum() - np.trace(found.matrix.m2)
    assert polygons.area_m2.sum() == pytest.approx(moved)
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["pixels"] == found.matrix.pixels.tolist()
    assert (told["grid"]["rows"], told["grid"]["columns"]) == found.shape
    again = geoseg.change_files(*paths, tmp_path / "c.tif", **given)
    assert again.up_to_date


def test_another_area_is_another_change(tmp_path: Path) -> None:
    """The area is part of what tells whether an output is up to date."""
    paths = [write_raster(tmp_path / f"{i}.tif", class_map(i), UTM) for i in (1, 2)]
    aoi = area(tmp_path, UTM)
    run = run_in(aoi)
    first = geoseg.change_files(*paths, tmp_path / "c.tif", run=run)
    area(tmp_path, UTM, points=(*TRIANGLE[:2], (50, 67.8)))
    with pytest.raises(InputError, match="--overwrite"):
        geoseg.change_files(*paths, tmp_path / "c.tif", run=run)
    second = geoseg.change_files(*paths, tmp_path / "c.tif", run=run, overwrite=True)
    assert not second.up_to_date
    assert second.matrix.pixels.sum() != first.matrix.pixels.sum()
    assert second.matrix.pixels.sum() == inside(aoi, UTM, SHAPE)[0].sum()


def scenes(folder: Path, shape: tuple[int, int] = (90, 110)) -> list[Path]:
    return [write_rgb(folder / f"s_{2000 + seed}.tif", shape, seed=seed, crs=UTM31) for seed in range(2)]


@pytest.mark.parametrize("rounded", [0.0, 1e-8])
def test_change_of_scenes(tmp_path: Path, rounded: float) -> None:
    """Networks look beyond the area; transforms may differ by a rounding where it ends on sides of pixels."""
    paths, model, shape = scenes(tmp_path), tiny_model(), (90, 110)
    with rasterio.open(paths[1], "r+") as raster:
        raster.transform = raster.transform @ Affine.translation(rounded, -rounded)
    aoi = area(tmp_path, HALF_METRE, UTM31, points=((30, 20), (70, 20), (70, 60), (30, 60)) if rounded else TRIANGLE)
    mask, window = np.zeros(shape, np.bool_), np.s_[20:60, 30:70]
    mask[window] = True
    if not rounded:
        mask, window = inside(aoi, HALF_METRE, shape)
    for name, run in (("whole", PLAIN), ("part", run_in(aoi))):
        given = {"model": model, "run": run, "probability": tmp_path / f"{name}_p.tif"}
        summary = geoseg.change_files(*paths, tmp_path / f"{name}.tif", **given)
    assert summary.matrix.pixels.sum() == mask.sum()
    for suffix in ("", "_p"):
        whole, part = (read(tmp_path / f"{name}{suffix}.tif") for name in ("whole", "part"))
        assert np.array_equal(part, np.where(mask, whole, 255)[window])
    assert summary.folder == tmp_path / "part-dates"
    assert geoseg.change_files(*paths, tmp_path / "part.tif", report=tmp_path / "r.html", **given).up_to_date


def test_change_by_a_network_that_sees_both_dates(tmp_path: Path, pair_model: Model) -> None:
    spread_for_pairs(pair_model)
    paths, aoi = scenes(tmp_path), area(tmp_path, HALF_METRE)
    mask, window = inside(aoi, HALF_METRE, (90, 110))
    for name, place in (("whole", None), ("part", str(aoi))):
        run = geoseg.RunOptions(aoi=place, device="cpu", engine="torch", precision="float32", halo="exact")
        geoseg.change_files(*paths, tmp_path / f"{name}.tif", model=pair_model, run=run)
    whole, part = (read(tmp_path / f"{name}.tif") for name in ("whole", "part"))
    assert np.array_equal(part, np.where(mask, whole, 255)[window])


@pytest.mark.parametrize("kind", ["maps", "scenes"])
def test_stacks(tmp_path: Path, kind: str) -> None:
    """All rasters of the folder are on one grid; areas, and the share that is known, are of the area."""
    if kind == "maps":
        values = [class_map(seed, SHAPE, 3) for seed in range(3)]
        values[1][:40] = 255
        transform, shape = UTM, SHAPE
        paths = [write_raster(tmp_path / f"lc_{2000 + k}.tif", v, UTM) for k, v in enumerate(values)]
    else:
        transform, shape, paths = HALF_METRE, (90, 110), scenes(tmp_path)
    aoi = area(tmp_path, transform)
    mask, window = inside(aoi, transform, shape)
    run = run_in(aoi)
    geoseg.stack_files(paths, tmp_path / "whole", model=tiny_model(), run=PLAIN)
    found = geoseg.stack_files(paths, tmp_path / "part", model=tiny_model(), run=run)
    names = [path.name for path in found.outputs if path.suffix == ".tif"]
    assert set(names) >= {f"{name}.tif" for name in series.LAYERS}
    for name in names:
        expected = np.where(mask, read(tmp_path / "whole" / name), 255)[window]
        assert np.array_equal(read(tmp_path / "part" / name), expected), name
    most = [path if kind == "maps" else tmp_path / "whole" / f"{path.stem[2:]}.tif" for path in paths]
    seen = np.stack([read(path)[mask] for path in most])
    assert found.series.pixels.sum(1).tolist() == (seen != 255).sum(1).tolist()
    np.testing.assert_allclose(found.series.known, (seen != 255).mean(1))
    assert found.series.total == mask.sum()
    assert geoseg.stack_files(paths, tmp_path / "part", model=tiny_model(), run=run).up_to_date


def test_no_output_replaces_the_area(tmp_path: Path) -> None:
    paths = [write_raster(tmp_path / f"{i}.tif", class_map(i), UTM) for i in (1, 2)]
    aoi = area(tmp_path, UTM)
    (tmp_path / "out").mkdir()
    for name in ("r.json", "out/areas.json"):
        gpd.read_file(aoi).to_file(tmp_path / name, driver="GeoJSON")
    files = {path: path.read_bytes() for path in (aoi, tmp_path / "r.json", tmp_path / "out" / "areas.json")}
    for place, outputs in ((aoi, {"polygons": aoi}), (tmp_path / "r.json", {"report": tmp_path / "r.html"})):
        with pytest.raises(InputError, match="is the same file as"):
            geoseg.change_files(*paths, tmp_path / "c.tif", run=run_in(place), overwrite=True, **outputs)
    with pytest.raises(InputError, match=r"areas.json is the same file as"):
        geoseg.stack_files(paths, tmp_path / "out", run=run_in(tmp_path / "out" / "areas.json"), overwrite=True)
    assert all(path.read_bytes() == content for path, content in files.items())
    assert not (tmp_path / "c.tif").exists()


def test_an_area_between_the_centers_of_pixels_is_refused(tmp_path: Path) -> None:
    paths = [write_raster(tmp_path / f"{i}.tif", class_map(i), UTM) for i in (1, 2)]
    aoi = area(tmp_path, UTM, points=((20.6, 10.6), (20.9, 10.6), (20.9, 10.9)))
    for call, output in ((geoseg.change_files, "c.tif"), (geoseg.stack_files, "out")):
        dates = paths if output == "c.tif" else [paths]
        with pytest.raises(InputError, match=r"No pixel has its center .*aoi.gpkg; draw a larger one"):
            call(*dates, tmp_path / output, run=run_in(aoi))
        assert not (tmp_path / output).exists()


def test_clouds_over_the_area_are_told(tmp_path: Path) -> None:
    """What lies outside is of no help."""
    aoi, hidden = area(tmp_path, UTM), class_map(2)
    mask = inside(aoi, UTM, SHAPE)[0]
    hidden[mask] = 255
    paths = [write_raster(tmp_path / f"{i}.tif", v, UTM) for i, v in enumerate((class_map(1), hidden))]
    with pytest.raises(
        InputError, match=rf"of {mask.sum():,} within .*aoi.gpkg, 0.tif shows {mask.sum():,} and 1.tif 0"
    ):
        geoseg.change_files(*paths, tmp_path / "c.tif", run=run_in(aoi))
