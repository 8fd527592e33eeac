"""Class maps, as arrays and as files, to tables of polygons."""

from __future__ import annotations

import logging
from pathlib import Path

import dask.array as da
import numpy as np
import odc.geo.xr
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from oracles import pixel_polygons
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from geoseg.errors import InputError
from geoseg.legend import LANDCOVER, Legend, LegendClass
from geoseg.raster.landcover import encode_confidence
from geoseg.vector import VectorOptions, read_polygons, vectorize, vectorize_raster
from geoseg.vector.coding import Coding
from geoseg.vector.confidence import to_units, units_of_one
from geoseg.vector.levels import UNKNOWN, to_levels
from geoseg.vector.trace import BACKGROUND

# odc-geo multiplies transforms the way that affine 3.1 is about to deprecate
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

UTM = Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
COLUMNS = ["class_id", "class_name", "area_m2", "perimeter_m", "geometry"]


def noise(shape: tuple[int, int] = (23, 31), seed: int = 0) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    values = np.kron(generator.integers(1, 7, (12, 16)), np.ones((2, 2), int))[: shape[0], : shape[1]]
    return np.where(generator.random(shape) < 0.05, 255, values).astype(np.uint8)


def georeferenced(
    values: NDArray[np.generic],
    transform: Affine = UTM,
    crs: str | None = "EPSG:32631",
    legend: Legend | None = LANDCOVER,
) -> xr.DataArray:
    array = odc.geo.xr.wrap_xr(values, GeoBox(values.shape, transform, crs))
    array.attrs.clear()
    if crs is None:
        array.encoding.clear()  # names a coordinate that is not there
    return array.assign_attrs(legend=legend.to_json()) if legend else array


def write_raster(
    path: Path, values: NDArray[np.generic], transform: Affine = UTM, crs: str | None = "EPSG:32631", **options: object
) -> Path:
    bands = values if values.ndim == 3 else values[None]
    profile = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, crs=crs, **profile, **options) as raster:
        raster.write(bands)
        if values.dtype == np.uint8:
            raster.update_tags(GEOSEG_LEGEND=LANDCOVER.to_json())
    return path


def test_areas_per_class_are_the_pixel_counts_exactly() -> None:
    values = noise()
    table = vectorize(georeferenced(values), block=7)
    for c in LANDCOVER.classes:
        assert table.area_m2[table.class_name == c.name].sum() == (values == c.id).sum() * 0.25
    assert list(table.columns) == COLUMNS
    assert table.crs == pyproj.CRS("EPSG:32631")
    np.testing.assert_allclose(table.area_m2, table.geometry.area, rtol=1e-6)
    np.testing.assert_allclose(table.perimeter_m, table.geometry.length, rtol=1e-12)


def test_all_classes_together_are_a_valid_coverage() -> None:
    values = noise()
    values[values == 255] = 1
    table = vectorize(georeferenced(values), block=6)
    assert shapely.coverage_is_valid(table.geometry.values)
    assert shapely.is_valid(table.geometry.values).all()


def test_a_group_is_dissolved() -> None:
    values = noise()
    table = vectorize(georeferenced(values), classes=["vegetation", "water"])
    grouped = np.where(np.isin(values, (4, 5)), 4, values)
    assert set(table.class_name) == {"vegetation", "water"}
    assert set(table.class_id) == {4, 6}
    vegetation = table.geometry[table.class_name == "vegetation"]
    assert vegetation.union_all().equals(pixel_polygons(grouped, 4, UTM))
    assert vegetation.area.sum() == pytest.approx((grouped == 4).sum() * 0.25)


def test_small_polygons_are_left_out_after_joining() -> None:
    values = noise()
    whole = vectorize(georeferenced(values))
    large = vectorize(georeferenced(values), min_area_m2=2.0, block=2)
    assert 0 < len(large) < len(whole)
    kept = whole[whole.area_m2 >= 2.0].reset_index(drop=True)
    assert (kept.geometry.to_wkb() == large.geometry.to_wkb()).all()


def test_blocks_change_nothing() -> None:
    arrays = georeferenced(noise()), georeferenced(encode_confidence(np.random.default_rng(1).random((23, 31))))
    whole = vectorize(arrays[0], confidence=arrays[1], block=100)
    for block in (1, 5, 16):
        blockwise = vectorize(arrays[0], confidence=arrays[1], block=block)
        assert (blockwise.geometry.to_wkb() == whole.geometry.to_wkb()).all()
        assert blockwise.drop(columns="geometry").equals(whole.drop(columns="geometry"))


def test_confidence_is_the_mean_over_the_polygon() -> None:
    values = np.array([[1, 1, 2], [1, 1, 2]], np.uint8)
    stored = np.array([[200, 100, 255], [0, 255, 255]], np.uint8)
    table = vectorize(georeferenced(values), confidence=georeferenced(stored, legend=None))
    assert table.confidence[0] == pytest.approx(0.5)
    assert np.isnan(table.confidence[1])


def test_float_confidence_gives_the_same_mean() -> None:
    values = np.array([[1, 1], [1, 1]], np.uint8)
    confidence = np.array([[0.25, 0.5], [0.75, np.nan]], np.float32)
    table = vectorize(georeferenced(values), confidence=georeferenced(confidence, legend=None))
    assert table.confidence[0] == 0.5


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 24), st.sampled_from([0.0, 3.0]))
def test_the_low_confidence_is_the_tenth_percentile_for_any_blocks(seed: int, block: int, fill_holes: float) -> None:
    rng = np.random.default_rng(seed)
    values = noise(seed=seed)
    stored = np.where(rng.random(values.shape) < 0.1, 255, rng.integers(0, 201, values.shape)).astype(np.uint8)
    confidence = georeferenced(stored, legend=None)
    table = vectorize(georeferenced(values), confidence=confidence, block=block, fill_holes_m2=fill_holes)
    pixels = rasterio.features.rasterize(zip(table.geometry, table.index, strict=True), values.shape, -1, transform=UTM)
    for row in table.index:
        known = stored[(pixels == row) & (stored != 255)]
        expected = np.percentile(known, 10, method="inverted_cdf") / 200 if known.size else np.nan
        np.testing.assert_equal(table.confidence_p10[row], expected)
        np.testing.assert_allclose(table.confidence[row], known.mean() / 200 if known.size else np.nan)


def test_confidence_units_hold_both_ends_and_nodata() -> None:
    assert to_units(np.array([0, 200, 201, 255], np.uint8), None).tolist() == [0, 200, -1, -1]
    one = units_of_one(np.dtype("float32"))
    units = to_units(np.array([0, 1, np.nan, -1], np.float32), -1)
    assert units.tolist() == [0, one, -1, -1]
    assert to_levels(units, one).tolist() == [0, 200, UNKNOWN, UNKNOWN]
    assert to_levels(np.array([0, 200, -1], np.int32), 200).tolist() == [0, 200, UNKNOWN]


def test_a_lazy_class_map_is_computed_chunk_by_chunk_and_once() -> None:
    values = noise()
    computed = []

    def count(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
        computed.append(block.shape)
        return block

    lazy = da.from_array(values, chunks=(10, 9)).map_blocks(count, dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    class_map = georeferenced(values).copy(data=lazy)
    confidence = class_map.copy(data=lazy * 0 + 100).assign_attrs({})
    table = vectorize(class_map, confidence=confidence, block=10)
    assert len(computed) == 3 * 4
    assert (table.confidence == 0.5).all()
    assert (table.geometry.to_wkb() == vectorize(georeferenced(values)).geometry.to_wkb()).all()


def geod_of_polygons(polygons: list[shapely.Polygon], crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    geod = pyproj.Geod(ellps="WGS84")
    areas, lengths = [], []
    for polygon in polygons:
        lonlat = shapely.transform(polygon, lambda x, y: to_degrees.transform(x, y), interleaved=False)
        areas.append(abs(geod.geometry_area_perimeter(shapely.geometry.polygon.orient(lonlat))[0]))
        lengths.append(sum(geod.geometry_length(ring) for ring in (lonlat.exterior, *lonlat.interiors)))
    return np.array(areas), np.array(lengths)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(1e-4, 0, 11.5, 0, -1e-4, 48.1)),
        ("EPSG:3857", Affine(10, 0, 1_280_000, 0, -10, 6_130_000)),
        ("EPSG:3857", Affine(10, 0, 0, 0, -10, 0)),  # at the equator the sphere's scale is 1, the ellipsoid's is not
        ("EPSG:32631", Affine(10, 0, 1_500_000, 0, -10, 5_000_000)),  # far outside its zone
    ],
    ids=["degrees", "mercator", "mercator at the equator", "outside the zone"],
)
def test_areas_are_geodesic_where_the_scale_is_off(crs: str, transform: Affine) -> None:
    table = vectorize(georeferenced(noise(), transform, crs))
    areas, lengths = geod_of_polygons(list(table.geometry), crs)
    np.testing.assert_allclose(table.area_m2, areas, rtol=1e-6)
    np.testing.assert_allclose(table.perimeter_m, lengths, rtol=1e-6)


def test_long_edges_follow_the_parallel() -> None:
    """One degree squares at latitude 60: the zone between two parallels, not between two great circles."""
    table = vectorize(georeferenced(np.full((1, 8), 1, np.uint8), Affine(5, 0, 0, 0, -1, 61), "EPSG:4326"))
    strips = shapely.box(0, 60, 0.01, 61)
    area = geod_of_polygons([strips], "EPSG:4326")[0][0] * 4000
    assert table.area_m2[0] == pytest.approx(area, rel=1e-4)


def test_feet_become_metres() -> None:
    crs = "EPSG:2263"  # New York, US survey feet
    table = vectorize(georeferenced(np.ones((2, 2), np.uint8), Affine(10, 0, 990_000, 0, -10, 200_000), crs))
    foot = 1200 / 3937
    assert table.area_m2[0] == pytest.approx(400 * foot**2, rel=1e-12)
    assert table.perimeter_m[0] == pytest.approx(80 * foot, rel=1e-12)


@pytest.mark.parametrize(
    "transform",
    [Affine(0.5, 0, 400_000, 0, 0.5, 5_000_000), Affine(0.4, 0.3, 400_000, 0.3, -0.4, 5_000_000)],
    ids=["south-up", "rotated"],
)
def test_unusual_transforms_put_polygons_on_their_pixels(transform: Affine) -> None:
    values = noise((6, 7))
    table = vectorize(georeferenced(values, transform), block=3)
    for class_id in np.unique(values[values != 255]):
        union = table.geometry[table.class_id == class_id].union_all()
        assert union.symmetric_difference(pixel_polygons(values, class_id, transform)).area < 1e-6
    assert shapely.is_ccw(shapely.get_exterior_ring(table.geometry.values)).all()


def test_without_crs_areas_are_in_pixels() -> None:
    table = vectorize(xr.DataArray(np.array([[1, 1], [2, 1]], np.uint8), dims=("y", "x")))
    assert table.area_px.tolist() == [3, 1]
    assert table.class_name.tolist() == ["class_1", "class_2"]
    assert table.crs is None
    with pytest.raises(InputError, match="no CRS"):
        vectorize(xr.DataArray(np.ones((2, 2), np.uint8), dims=("y", "x")), min_area_m2=5)


def test_all_nodata_gives_an_empty_table_with_all_columns() -> None:
    table = vectorize(georeferenced(np.full((4, 5), 255, np.uint8)))
    assert len(table) == 0
    assert list(table.columns) == COLUMNS
    assert table.crs == pyproj.CRS("EPSG:32631")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "bool"])
def test_any_integer_dtype(dtype: str) -> None:
    values = np.array([[0, 1], [1, 1]], dtype)
    table = vectorize(georeferenced(values, legend=None))
    assert table.class_name.tolist() == ["class_0", "class_1"]


def test_ids_beyond_8_bits_and_their_nodata() -> None:
    values = np.array([[512, 512, -9999], [311, 512, 311]], np.int16)
    class_map = georeferenced(values, legend=None).assign_attrs(nodata=-9999)
    assert vectorize(class_map).class_id.tolist() == [512, 311, 311]
    assert vectorize(class_map, classes=["class_311"]).class_id.tolist() == [311, 311]


def test_ids_beyond_32_bits_are_refused() -> None:
    with pytest.raises(InputError, match="go up to 2147483647"):
        Coding.of(None, None, None).encode(np.array([[2**40]]))
    assert Coding.of(None, None, 2**40).encode(np.array([[2**40, 5]])).tolist() == [[BACKGROUND, 5]]


def test_values_that_the_legend_lacks_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = vectorize(georeferenced(np.array([[1, 9, 255]], np.uint8)))
    assert table.class_id.tolist() == [1]
    assert "9" in caplog.text
    assert "255" not in caplog.text


@pytest.mark.parametrize(
    ("values", "words"),
    [(np.zeros((3, 4), np.float32), "float32"), (np.zeros((3, 4, 5), np.uint8), r"expected \(y, x\)")],
)
def test_what_is_no_class_map_is_refused(values: NDArray[np.generic], words: str) -> None:
    dims = ("band", "y", "x")[-values.ndim :]
    with pytest.raises(InputError, match=words):
        vectorize(xr.DataArray(values, dims=dims))


def test_confidence_on_another_grid_is_refused() -> None:
    class_map = georeferenced(noise())
    with pytest.raises(InputError, match="23 x 30 px"):
        vectorize(class_map, confidence=class_map[:, 1:])
    moved = georeferenced(noise(), Affine(0.5, 0, 400_001, 0, -0.5, 5_000_000))
    with pytest.raises(InputError, match="400001"):
        vectorize(class_map, confidence=moved)


def test_unknown_classes_and_broken_legends_are_refused() -> None:
    with pytest.raises(InputError, match="'lava' is not in the legend"):
        vectorize(georeferenced(noise()), classes=["lava"])
    with pytest.raises(InputError, match="'lava' is not known"):
        vectorize(georeferenced(noise(), legend=None), classes=["lava"])
    with pytest.raises(InputError, match="cannot be read"):
        vectorize(georeferenced(noise()).assign_attrs(legend="{}"))
    with pytest.raises(InputError, match="not -1"):
        vectorize(georeferenced(noise()), min_area_m2=-1)


def test_files_and_arrays_give_the_same_polygons(tmp_path: Path) -> None:
    values, confidence = noise(), encode_confidence(np.random.default_rng(1).random((23, 31)))
    raster = write_raster(tmp_path / "cover.tif", values, nodata=255)
    confidence_raster = write_raster(tmp_path / "confidence.tif", confidence, nodata=255)
    done: list[tuple[int, int]] = []
    options = VectorOptions(confidence=confidence_raster, block=9)
    table = read_polygons(raster, options, lambda *at: done.append(at)).polygons
    expected = vectorize(georeferenced(values), confidence=georeferenced(confidence))
    assert (table.geometry.to_wkb() == expected.geometry.to_wkb()).all()
    assert table.drop(columns="geometry").equals(expected.drop(columns="geometry"))
    assert done[-1] == (values.size, values.size)


def test_a_file_is_vectorized_to_a_file_and_summed_up(tmp_path: Path) -> None:
    values = noise()
    raster = write_raster(tmp_path / "cover.tif", values, nodata=255)
    output = tmp_path / "polygons.gpkg"
    summary = vectorize_raster(raster, output, VectorOptions(classes=("vegetation", "water")))
    assert summary.path == output
    assert summary.unit == "m2"
    assert list(summary.counts) == ["vegetation", "water"]
    assert summary.areas["water"] == pytest.approx((values == 6).sum() * 0.25)
    with pytest.raises(InputError, match="exists"):
        vectorize_raster(raster, output)
    vectorize_raster(raster, output, overwrite=True)


def test_an_internal_mask_is_nodata(tmp_path: Path) -> None:
    path = tmp_path / "masked.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_raster(path, np.ones((4, 5), np.uint8))
        with rasterio.open(path, "r+") as raster:
            raster.write_mask(np.tile([True, True, False, True, True], (4, 1)))
    assert read_polygons(path, VectorOptions()).polygons.area_m2.tolist() == [2.0, 2.0]


def test_a_16_bit_raster_without_legend_and_crs(tmp_path: Path) -> None:
    with pytest.warns(NotGeoreferencedWarning):
        path = write_raster(tmp_path / "corine.tif", np.array([[311, 512]], np.uint16), Affine.identity(), None)
    table = read_polygons(path, VectorOptions())
    assert table.polygons.class_name.tolist() == ["class_311", "class_512"]
    assert table.polygons.area_px.tolist() == [1, 1]
    assert [s.name for s in table.selections] == ["class_311", "class_512"]


def test_files_that_are_no_class_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 bands of uint8"):
        read_polygons(write_raster(tmp_path / "rgb.tif", np.zeros((3, 4, 5), np.uint8)), VectorOptions())
    with pytest.raises(InputError, match="1 band of float32"):
        read_polygons(write_raster(tmp_path / "dem.tif", np.zeros((4, 5), np.float32)), VectorOptions())
    with pytest.raises(InputError, match="does not exist"):
        read_polygons(tmp_path / "nothing.tif", VectorOptions())


def test_a_confidence_file_on_another_grid_is_refused(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "cover.tif", noise())
    other = write_raster(tmp_path / "confidence.tif", np.zeros((5, 6), np.uint8))
    with pytest.raises(InputError, match="5 x 6 px, the class map 23 x 31"):
        read_polygons(raster, VectorOptions(confidence=other))


def test_the_transform_and_crs_of_a_file_are_kept_bit_for_bit(tmp_path: Path) -> None:
    transform = Affine(0.1 + 1e-12, 0, 400_000.1, 0, -0.3, 5_000_000.7)
    raster = write_raster(tmp_path / "cover.tif", np.ones((1, 1), np.uint8), transform)
    polygons = read_polygons(raster, VectorOptions()).polygons
    corner = (transform.a + transform.c, transform.e + transform.f)
    assert corner in polygons.geometry[0].exterior.coords
    assert CRS.from_user_input(polygons.crs) == CRS.from_epsg(32631)


def test_a_legend_of_ones_own(tmp_path: Path) -> None:
    legend = Legend(classes=(LegendClass(id=0, name="sea", color="#0000ff"),), nodata=1)
    table = vectorize(georeferenced(np.array([[0, 1]], np.uint8)), legend=legend)
    assert table.class_name.tolist() == ["sea"]
