"""Labels: the same codes for any window, from rasters and polygons, in any CRS, and a plain word for what is wrong."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from builders import HALF_METRE
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS
from scene_files import UTM, write

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.legend import LANDCOVER
from geoseg.raster.labels import UNLABELLED, LabelCodes, LabelOptions, LabelReader, open_labels

SHAPE = (300, 340)
GRID: dict[str, Any] = {"shape": SHAPE, "transform": HALF_METRE, "crs": CRS.from_string(UTM)}
CODES = LabelCodes.of(LANDCOVER)
BUILDING, WATER, VEGETATION = (CODES.code(name) for name in ("building", "water", "vegetation"))


def labels(path: Path | str, grid: dict[str, Any] = GRID, **stated: Any) -> LabelReader:
    return open_labels(path, LANDCOVER, **grid, options=LabelOptions(**stated))


def everything(reader: LabelReader, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    return reader(Window(0, 0, *shape))


def classes(shape: tuple[int, int] = SHAPE, *, seed: int = 0) -> NDArray[np.uint8]:
    """(1, height, width) class ids 1..6 in patches, 255 here and there."""
    rows, cols = np.indices(shape)
    table = np.random.default_rng(seed).choice([1, 2, 3, 4, 5, 6, 255], (shape[0] // 7 + 1, shape[1] // 5 + 1))
    return table[rows // 7, cols // 5].astype(np.uint8)[None]


def codes_of(class_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(class_map == 255, UNLABELLED, class_map - 1)[0].astype(np.uint8)


def star(transform: Affine, *, center: tuple[float, float], reach: float, points: int = 9) -> shapely.Polygon:
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2, reach, reach / 3)
    return shapely.Polygon(
        [transform @ (center[0] + r * np.cos(a), center[1] + r * np.sin(a)) for a, r in zip(angles, radii, strict=True)]
    )


def polygon_file(path: Path, *, transform: Affine = HALF_METRE, crs: str | None = None) -> Path:
    """A star of buildings under one of water, and one of vegetation, in the columns class_name, class_id and kind."""
    shapes = [star(transform, center=at, reach=r) for at, r in (((90, 80), 75), ((130, 110), 60), ((270, 250), 120))]
    frame = gpd.GeoDataFrame(
        {"class_name": ["building", "water", "vegetation"], "class_id": [1, 6, 5], "kind": ["haus", "see", None]},
        geometry=shapes,
        crs=UTM,
    )
    frame = frame if crs is None else frame.to_crs(crs)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path, **({"SPATIAL_INDEX": "NO"} if path.suffix == ".fgb" else {}))  # an index sorts them
    return path


def burnt(shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    """What `polygon_file` means, by shapely: the class under each pixel's center."""
    rows, cols = np.indices(shape) + 0.5
    expected = np.full(shape, UNLABELLED, np.uint8)
    for code, at, reach in ((BUILDING, (90, 80), 75), (WATER, (130, 110), 60), (VEGETATION, (270, 250), 120)):
        expected[shapely.contains_xy(star(Affine.identity(), center=at, reach=reach), cols, rows)] = code
    return expected


def test_codes_are_classes_then_groups() -> None:
    assert CODES.names == (*LANDCOVER.names, "vegetation")
    assert CODES.members[VEGETATION] == (3, 4)
    with pytest.raises(InputError, match=r"'roof' is not in the legend; it has building, .*vegetation"):
        CODES.code("roof")


def test_a_class_raster_on_the_grid_is_read_as_it_is(tmp_path: Path) -> None:
    class_map = classes()
    reader = labels(write(tmp_path / "labels.tif", class_map, transform=HALF_METRE, nodata=255))
    assert np.array_equal(everything(reader), codes_of(class_map))
    assert reader.extent == Window(0, 0, *SHAPE)
    assert reader.told == ()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet", ".fgb"])
@pytest.mark.parametrize("crs", [None, "EPSG:4326"])
def test_polygons_are_burnt_where_centers_lie_within_the_later_over_the_earlier(
    tmp_path: Path, suffix: str, crs: str | None
) -> None:
    reader = labels(polygon_file(tmp_path / f"labels{suffix}", crs=crs or ("EPSG:4326" if "json" in suffix else None)))
    expected = burnt()
    assert {BUILDING, WATER, VEGETATION} <= set(np.unique(expected))
    assert (everything(reader) != expected).sum() <= 3  # centers on an edge, and GeoJSON's seven digits
    rows, cols = np.nonzero(expected != UNLABELLED)
    assert reader.extent.row <= rows.min()
    assert reader.extent.col_stop >= cols.max()


@pytest.mark.parametrize("kind", ["raster", "other_crs", "gpkg", "geojson"])
@given(data=st.data())
@settings(max_examples=12)
def test_any_window_is_a_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    reader = READERS.get(kind) or READERS.setdefault(kind, _reader(tmp_path_factory.mktemp(kind), kind))
    whole = WHOLES.get(kind)
    if whole is None:
        whole = WHOLES[kind] = np.pad(everything(reader), 50, constant_values=UNLABELLED)
    row, col = data.draw(st.integers(-50, SHAPE[0] + 20)), data.draw(st.integers(-50, SHAPE[1] + 20))
    window = Window(row, col, data.draw(st.integers(0, 30)), data.draw(st.integers(1, 30)))
    assert np.array_equal(reader(window), whole[window.shifted(50, 50).slices])


READERS: dict[str, LabelReader] = {}
WHOLES: dict[str, NDArray[np.uint8]] = {}


def _reader(folder: Path, kind: str) -> LabelReader:
    if kind == "raster":
        finer = Affine(0.13, 0, 499_990, 0, -0.13, 5_000_010)
        return labels(write(folder / "labels.tif", classes((1300, 1100)), transform=finer, nodata=255))
    if kind == "other_crs":
        return labels(write(folder / "labels.tif", classes((200, 220)), transform=_lonlat(), crs="EPSG:4326"))
    return labels(polygon_file(folder / f"labels.{kind}", crs="EPSG:3857" if kind == "gpkg" else "EPSG:4326"))


def _lonlat() -> Affine:
    x, y = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(500_000, 5_000_000)
    return Affine(1e-5, 0, x, 0, -7e-6, y)


def test_labels_in_another_crs_give_the_value_at_each_center(tmp_path: Path) -> None:
    class_map = classes((200, 220))
    reader = labels(write(tmp_path / "labels.tif", class_map, transform=_lonlat(), crs="EPSG:4326", nodata=255))
    rows, cols = np.indices(SHAPE) + 0.5
    x, y = HALF_METRE @ (cols, rows)
    lon, lat = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(x, y)
    at = ~_lonlat() @ (np.asarray(lon), np.asarray(lat))
    there = np.floor(at[1]).astype(int), np.floor(at[0]).astype(int)
    inside = (there[0] >= 0) & (there[0] < 200) & (there[1] >= 0) & (there[1] < 220)
    known = codes_of(class_map)[there[0].clip(0, 199), there[1].clip(0, 219)]
    expected = np.where(inside, known, UNLABELLED)
    assert np.array_equal(everything(reader), expected)
    assert any("EPSG:4326" in sentence for sentence in reader.told)


def test_coarser_labels_that_nest_are_repeated(tmp_path: Path) -> None:
    class_map = classes((100, 90))
    coarse = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    reader = labels(write(tmp_path / "labels.tif", class_map, transform=coarse, nodata=255))
    repeated = np.kron(codes_of(class_map), np.ones((4, 4), np.uint8))[: SHAPE[0], : SHAPE[1]]
    assert np.array_equal(everything(reader), repeated)
    assert reader.told == ()


def test_a_reader_is_small_when_pickled_and_reads_the_same(tmp_path: Path) -> None:
    for path in (
        polygon_file(tmp_path / "labels.gpkg"),
        write(tmp_path / "labels.tif", classes(), transform=HALF_METRE, nodata=255),
    ):
        reader = labels(path)
        packed = pickle.dumps(reader)
        assert len(packed) < 20_000
        assert np.array_equal(everything(pickle.loads(packed)), everything(reader))


def test_values_mean_what_the_user_says(tmp_path: Path) -> None:
    class_map = classes()
    there = np.where(class_map == 6, 13, np.where(class_map == 255, 0, class_map * 10)).astype(np.int16)
    path = write(tmp_path / "labels.tif", there, transform=HALF_METRE)
    meanings = {str(10 * entry.id): entry.name for entry in LANDCOVER.classes if entry.id != 6} | {"13": "water"}
    assert np.array_equal(everything(labels(path, meanings=meanings, ignore=("0",))), codes_of(class_map))
    with pytest.raises(InputError, match=r"label 0, .*--ignore 0"):
        everything(labels(path, meanings=meanings))
    grouped = everything(labels(path, meanings=meanings | {"40": "vegetation"}, ignore=("0",)))
    assert np.array_equal(grouped == VEGETATION, class_map[0] == 4)


def test_names_that_a_raster_gives_count_more_than_its_ids(tmp_path: Path) -> None:
    class_map = classes()
    swapped = np.array([0, 6, 2, 3, 4, 5, 1, *[255] * 249], np.uint8)[class_map]
    names = ("water", "paved", "bare", "tree", "low_vegetation", "building")
    renamed = [c.model_copy(update={"name": n}) for c, n in zip(LANDCOVER.classes, names, strict=True)]
    legend = LANDCOVER.model_copy(update={"classes": tuple(renamed)})
    path = write(tmp_path / "labels.tif", swapped, transform=HALF_METRE, nodata=255)
    with rasterio.open(path, "r+") as file:
        file.update_tags(GEOSEG_LEGEND=legend.to_json())
    assert np.array_equal(everything(labels(path)), codes_of(class_map))


def test_columns_of_numbers_and_of_foreign_words(tmp_path: Path) -> None:
    path = polygon_file(tmp_path / "labels.gpkg")
    ids = everything(labels(path, column="class_id"))
    assert np.array_equal(ids == CODES.code("low_vegetation"), everything(labels(path)) == VEGETATION)
    words = everything(labels(path, column="kind", meanings={"haus": "building"}, ignore=("see",)))
    assert set(np.unique(words)) == {BUILDING, UNLABELLED}
    assert (words[burnt() == WATER] == UNLABELLED).all()  # ignored polygons cover what lies below


def test_what_no_polygon_covers_is_what_the_user_says(tmp_path: Path) -> None:
    path = polygon_file(tmp_path / "labels.gpkg")
    expected = everything(labels(path))
    grass = labels(path, elsewhere="low_vegetation")
    found = everything(grass)
    assert np.array_equal(found, np.where(expected == UNLABELLED, CODES.code("low_vegetation"), expected))
    assert grass.extent == Window(0, 0, *SHAPE)
    assert (grass(Window(-5, -5, 5, 5)) == UNLABELLED).all()
    kinds = {"column": "kind", "meanings": {"haus": "building"}, "ignore": ("see",), "elsewhere": "other"}
    reader = labels(path, **kinds)
    other = reader.codes.code("other")
    assert reader.codes.members[other] == (1, 2, 3, 4, 5)  # all but buildings
    found = everything(reader)
    assert np.array_equal(found == other, expected == UNLABELLED)  # not what is ignored, nor what has no class
    with pytest.raises(InputError, match="--elsewhere is for polygons"):
        labels(write(tmp_path / "labels.tif", classes(), transform=HALF_METRE), elsewhere="water")


def test_a_mask_is_a_class_and_other(tmp_path: Path) -> None:
    mask = (classes() == 1).astype(np.uint8)
    reader = labels(write(tmp_path / "mask.tif", mask, transform=HALF_METRE), meanings={"1": "building", "0": "other"})
    assert np.array_equal(everything(reader) == BUILDING, mask[0] == 1)
    assert (everything(reader)[mask[0] == 0] == reader.codes.code("other")).all()
    with pytest.raises(InputError, match="all classes of the legend"):
        labels(
            tmp_path / "mask.tif", meanings={str(i): c.name for i, c in enumerate(LANDCOVER.classes)} | {"9": "other"}
        )


def test_scenes_on_turned_and_south_up_grids(tmp_path: Path) -> None:
    for number, transform in enumerate([Affine(0.4, 0.3, 5e5, 0.3, -0.4, 5e6), Affine(0.5, 0, 3e5, 0, 0.5, 5e6)]):
        path = polygon_file(tmp_path / f"{number}.gpkg", transform=transform)
        found = everything(labels(path, GRID | {"transform": transform}))
        assert (found != burnt()).sum() <= 3


def test_neither_has_a_crs(tmp_path: Path) -> None:
    grid = GRID | {"transform": Affine.identity(), "crs": None}
    path = write(tmp_path / "labels.tif", classes(), transform=Affine.identity(), crs=None, nodata=255)
    assert np.array_equal(everything(labels(path, grid)), codes_of(classes()))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: p / "gone.gpkg", "do not exist"),
        (lambda p: p / "gone.tif", "does not exist"),
        (lambda p: write(p / "a.tif", classes(), transform=Affine(0.5, 0, 6e5, 0, -0.5, 5e6)), "outside the scene"),
        (lambda p: write(p / "a.tif", classes(), transform=HALF_METRE, crs=None), "has no CRS.*gdal_edit"),
        (lambda p: write(p / "a.tif", classes().astype("float32"), transform=HALF_METRE), "class map has one band"),
        (lambda p: polygon_file(p / "a.gpkg", transform=Affine(0.5, 0, 6e5, 0, -0.5, 5e6)), "outside the scene"),
        (lambda p: _points(p / "a.gpkg"), "holds no polygon"),
        (lambda p: _of(p / "a.gpkg", ["roof", "lake"]), r"labels roof, lake, .*--map roof=building.*--ignore roof"),
        (lambda p: _of(p / "a.gpkg", [7, 1]), r"the label 7, .*--map 7="),
        (lambda p: _of(p / "a.gpkg", [None, None]), "is empty"),
        (lambda p: _of(p / "a.gpkg", [1], column="kind"), "neither column class_name nor class_id; it has kind"),
        (lambda p: _two_layers(p / "a.gpkg"), r"has 2 layers \(one, two\); name one, for example .*a.gpkg:one"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, make: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        labels(make(tmp_path))


def test_a_missing_column_and_a_class_that_is_not_there_are_told(tmp_path: Path) -> None:
    path = polygon_file(tmp_path / "labels.gpkg")
    with pytest.raises(InputError, match="has no column roof; it has class_name"):
        labels(path, column="roof")
    with pytest.raises(InputError, match="'lake' is not in the legend"):
        labels(path, meanings={"see": "lake"})
    with pytest.raises(InputError, match="no layer 'two'"):
        labels(f"{path}:two")


def test_one_layer_of_several_is_named(tmp_path: Path) -> None:
    assert set(np.unique(everything(labels(f"{_two_layers(tmp_path / 'a.gpkg')}:two")))) == {BUILDING, UNLABELLED}


def _of(path: Path, values: list[Any], column: str | None = None) -> Path:
    name = column or ("class_id" if any(isinstance(value, int) for value in values) else "class_name")
    shapes = [star(HALF_METRE, center=(50 + 90 * i, 60), reach=40) for i in range(len(values))]
    gpd.GeoDataFrame({name: values}, geometry=shapes, crs=UTM).to_file(path)
    return path


def _points(path: Path) -> Path:
    frame = gpd.GeoDataFrame({"class_name": ["water"]}, geometry=[shapely.Point(500_010, 4_999_990)], crs=UTM)
    frame.to_file(path)
    return path


def _two_layers(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for layer in ("one", "two"):
            frame = gpd.GeoDataFrame(
                {"class_name": ["building"]}, geometry=[star(HALF_METRE, center=(50, 60), reach=40)], crs=UTM
            )
            pyogrio.write_dataframe(frame, path, layer=layer)
    return path
