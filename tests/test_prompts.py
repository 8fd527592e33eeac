"""Prompts on scenes whose objects are known: where they lie, what they are, and what is computed for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
import xarray as xr
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from prompt_networks import SameColor, prompt_card, tiny_promptable
from rasterio.features import rasterize
from scene_files import write
from shapely.geometry import Polygon

import geoseg
from geoseg.errors import InputError
from geoseg.prompts import Answer, PromptSegmenter
from geoseg.prompts.cache import EmbeddingCache
from geoseg.prompts.chips import ChipAt, Lattice
from geoseg.raster.reader import SceneOptions

UTM = "EPSG:32631"
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
SOUTH_UP = Affine(0.5, 0, 500_000, 0, 0.5, 5_000_000)
TURNED = Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
GROUND, RED, BLUE = (90, 120, 60), (220, 30, 30), (20, 40, 200)


def scene(path: Path, shape: tuple[int, int] = (150, 170), *, transform: Affine = NORTH_UP, **profile: object) -> Path:
    """A red object across several chips of 64 pixels, and two blue ones; on multiples of 4, to be exact from afar."""
    pixels = np.empty((3, *shape), np.uint8)
    pixels[:] = np.array(GROUND)[:, None, None]
    paint(pixels, RED, slice(40, 52), slice(20, 128))
    paint(pixels, RED, slice(40, 112), slice(120, 128))
    paint(pixels, BLUE, slice(8, 16), slice(4, 24))
    paint(pixels, BLUE, slice(128, 140), slice(40, 52))
    write(path, pixels, descriptions=("red", "green", "blue"), transform=transform, crs=UTM, **profile)
    return path


def paint(pixels: np.ndarray, color: tuple[int, int, int], rows: slice, cols: slice) -> None:
    pixels[:, rows, cols] = np.array(color)[:, None, None]


def opened(path: Path, network: SameColor | None = None, **options: object) -> PromptSegmenter:
    return PromptSegmenter.of(str(path), network or SameColor(), **options)


def lonlat(transform: Affine, row: float, col: float) -> tuple[float, float]:
    return pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(*(transform @ (col, row)))


def on_grid(polygon: Polygon, transform: Affine, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centers lie within, by rasterio."""
    return rasterize([polygon], shape, transform=transform).astype(bool)


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, TURNED], ids=["north up", "south up", "turned"])
def test_the_object_under_a_point_in_degrees(tmp_path: Path, transform: Affine) -> None:
    answer = opened(scene(tmp_path / "s.tif", transform=transform)).point(*lonlat(transform, 134.5, 44.5))
    corners = [transform @ (col, row) for row, col in ((128, 40), (128, 52), (140, 52), (140, 40))]
    assert answer.best.polygon.normalize().equals_exact(Polygon(corners).normalize(), 1e-6)
    assert answer.best.polygon.exterior.is_ccw
    assert answer.best.area == pytest.approx(144 * 0.25)
    assert answer.best.is_whole


def test_a_box_in_another_crs_is_the_one_on_the_ground(tmp_path: Path) -> None:
    segmenter = opened(scene(tmp_path / "s.tif", transform=TURNED))
    corners = [TURNED @ (col, row) for row, col in ((7, 3), (7, 25), (17, 25), (17, 3))]
    x, y = pyproj.Transformer.from_crs(UTM, "EPSG:3857", always_xy=True).transform(*np.array(corners).T)
    answer = segmenter.box(x.min(), y.min(), x.max(), y.max(), crs="EPSG:3857")
    assert answer.best.area == pytest.approx(160 * 0.25)
    top, left, bottom, right = answer.asked.box
    assert 0 <= top < 7
    assert 0 <= left < 3
    assert bottom > 17
    assert right > 25


def test_an_object_is_followed_beyond_its_chip(tmp_path: Path) -> None:
    network = SameColor()
    answer = opened(scene(tmp_path / "s.tif"), network).point(*lonlat(NORTH_UP, 45.5, 30.5))
    found = on_grid(answer.best.polygon, NORTH_UP, (150, 170))
    truth = np.zeros((150, 170), bool)
    truth[40:52, 20:128] = truth[40:112, 120:128] = True
    assert answer.reply.at.level == 2
    assert answer.best.is_whole
    assert (found != truth).sum() <= 8  # corners, which are rounded from afar
    assert network.embedded == 3


def test_an_object_beyond_what_is_looked_at_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg.prompts.chips.WIDEST_PX", 64)
    answer = opened(scene(tmp_path / "s.tif")).point(*lonlat(NORTH_UP, 45.5, 70.5))
    assert answer.reply.at.level == 0
    assert not answer.best.is_whole


def test_a_second_click_embeds_nothing(tmp_path: Path) -> None:
    network = SameColor()
    segmenter = opened(scene(tmp_path / "s.tif"), network)
    first = segmenter.point(*lonlat(NORTH_UP, 10.5, 10.5))
    segmenter.point(*lonlat(NORTH_UP, 12.5, 20.5))
    first.refine(*lonlat(NORTH_UP, 30.5, 30.5), positive=False)
    assert network.embedded == 1
    other = SameColor()
    opened(scene(tmp_path / "s.tif") and tmp_path / "s.tif", other, cache_gb=0).point(*lonlat(NORTH_UP, 10.5, 10.5))
    assert other.embedded == 1


def test_embeddings_on_disk_are_of_one_scene_and_one_model(tmp_path: Path) -> None:
    path = scene(tmp_path / "s.tif")
    point = lonlat(NORTH_UP, 10.5, 10.5)
    embedded = []
    for digest, options in (("a", {}), ("a", {}), ("b", {}), ("a", {"reading": SceneOptions(nodata=1)})):
        network = SameColor(digest=digest + str(tmp_path))
        opened(path, network, **options).point(*point)
        embedded.append(network.embedded)
    scene(path, transform=SOUTH_UP)
    network = SameColor(digest="a" + str(tmp_path))
    opened(path, network).point(*lonlat(SOUTH_UP, 10.5, 10.5))
    assert [*embedded, network.embedded] == [1, 0, 1, 1, 1]


def test_the_cache_on_disk_stays_within_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
    one = 64 * 64 * 3 * 2
    segmenter = opened(scene(tmp_path / "s.tif"), cache_gb=2.5 * one / 1e9)
    for row, col in ((10, 10), (134, 45), (10, 160), (100, 10)):
        segmenter.point(*lonlat(NORTH_UP, row + 0.5, col + 0.5))
    files = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == 2
    damaged = files[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    network = SameColor()
    again = opened(tmp_path / "s.tif", network)
    for row, col in ((10, 10), (134, 45), (10, 160), (100, 10)):
        again.point(*lonlat(NORTH_UP, row + 0.5, col + 0.5))
    assert network.embedded >= 3


def test_a_cache_that_cannot_be_written_is_done_without_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "taken"))
    network = SameColor()
    segmenter = opened(scene(tmp_path / "s.tif"), network)
    assert segmenter.point(*lonlat(NORTH_UP, 134.5, 44.5)).best.area == 36
    assert segmenter.point(*lonlat(NORTH_UP, 10.5, 10.5)).best.area == 40
    assert network.embedded == 2
    assert caplog.text.count("set GEOSEG_CACHE") == 1


def test_a_cache_that_can_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
    opened(scene(tmp_path / "s.tif")).point(*lonlat(NORTH_UP, 10.5, 10.5))
    monkeypatch.setattr(os, "utime", refused)
    network = SameColor()
    opened(tmp_path / "s.tif", network).point(*lonlat(NORTH_UP, 10.5, 10.5))
    assert network.embedded == 0


def fill(cache: EmbeddingCache, cols: Iterable[int], size: int) -> None:
    for col in cols:
        cache.get(ChipAt(0, 0, col), lambda: {"a": np.zeros(size, np.uint8)})


def test_what_other_runs_deleted_or_left_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path))
    folder = tmp_path / "prompts" / "other"
    folder.mkdir(parents=True)
    (folder / "0-0-0.safetensors").symlink_to(tmp_path / "gone")  # listed, and not there when it is looked at
    for name in (".left.tmp", ".now.tmp"):
        (folder / name).write_bytes(b"half")
    os.utime(folder / ".left.tmp", (time.time() - 100_000,) * 2)
    fill(EmbeddingCache("digest"), [0], 100)
    assert len(list((tmp_path / "prompts" / "digest").iterdir())) == 1
    assert not (folder / ".left.tmp").exists()
    assert (folder / ".now.tmp").exists()


def test_the_cache_is_seldom_listed_and_keeps_what_was_used_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    glob = Path.glob

    def noted(folder: Path, pattern: str) -> Iterator[Path]:
        listed.append(pattern)
        return glob(folder, pattern)

    monkeypatch.setattr(Path, "glob", noted)
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path))
    limit = 80 * 1100
    cache = EmbeddingCache("digest", limit / 1e9)
    fill(cache, range(150), 1000)
    for file in tmp_path.rglob("*.safetensors"):
        os.utime(file, (0, 0))
    fill(cache, range(150, 200), 1000)
    assert 0 < listed.count("*/*.safetensors") < 40
    files = list(tmp_path.rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= limit
    assert {f"0-0-{col}.safetensors" for col in range(150, 200)} <= {file.name for file in files}


def test_nodata_is_never_part_of_an_object(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    pixels = np.full((3, 64, 64), 100, np.uint8)
    pixels[:, 20:24, :] = 0
    write(path, pixels, descriptions=("red", "green", "blue"), transform=NORTH_UP, crs=UTM, nodata=0)
    network = SameColor(tolerance=10)
    answer = opened(path, network).point(*lonlat(NORTH_UP, 40.5, 40.5))
    found = on_grid(answer.best.polygon, NORTH_UP, (64, 64))
    assert found[24:].all()
    assert not found[:24].any()  # beyond the nodata lies another part, without a click on it
    with pytest.raises(InputError, match="nodata"):
        opened(path, network).point(*lonlat(NORTH_UP, 21.5, 40.5))


def test_candidates_come_by_score_and_a_point_beside_takes_away(tmp_path: Path) -> None:
    segmenter = opened(scene(tmp_path / "s.tif"))
    answer = segmenter.points([lonlat(NORTH_UP, 10.5, 10.5), lonlat(NORTH_UP, 134.5, 44.5)])
    assert [one.score for one in answer.candidates] == pytest.approx([0.9, 0.5])
    assert answer.candidates[1].area > answer.candidates[0].area
    assert answer.best.area == pytest.approx(160 * 0.25, abs=1)  # the larger of the two parts that were clicked on
    assert answer.mask().pixels.sum() == answer.best.area * 4
    without = answer.refine(*lonlat(NORTH_UP, 10.5, 12.5), positive=False)
    assert without.best.area == pytest.approx(144 * 0.25, abs=1)
    with pytest.raises(InputError, match="Candidate 2"):
        answer.refine(*lonlat(NORTH_UP, 10.5, 12.5), candidate=2)


def test_many_objects_are_those_asked_one_by_one_and_batches_are_bounded(tmp_path: Path) -> None:
    network = SameColor()
    segmenter = opened(scene(tmp_path / "s.tif"), network)
    rng = np.random.default_rng(0)
    points = rng.uniform((0, 0), (150, 170), (300, 2))
    asked = [segmenter.points([lonlat(NORTH_UP, *point)]).asked for point in points[:40]]
    together = dict(segmenter.ask(asked * 8))
    assert len(together) == 320
    assert network.largest_batch == 16
    for number, point in enumerate(points[:40]):
        alone = segmenter.point(*lonlat(NORTH_UP, *point)).best
        assert together[number].polygon.equals(alone.polygon)
    assert network.embedded <= len(Lattice((150, 170), 64).all_of(0)) + 9 + 4


def test_what_a_text_names_is_found_once_and_whole(tmp_path: Path) -> None:
    segmenter = opened(scene(tmp_path / "s.tif"))
    assert sorted(segmenter.text("20,40,200")["area_m2"]) == [36, 40]
    red = segmenter.text("220,30,30")
    assert len(red) == 1
    assert red["area_m2"][0] == pytest.approx(0.25 * (108 * 12 + 60 * 8), abs=2)
    assert len(segmenter.text("1,2,3")) == 0
    with pytest.raises(InputError, match="names nothing"):
        segmenter.text(" ")


def test_without_a_crs_coordinates_are_those_of_the_transform(tmp_path: Path) -> None:
    path = scene(tmp_path / "s.tif")
    write(path, np.full((3, 64, 64), 9, np.uint8), descriptions=("red", "green", "blue"), transform=NORTH_UP, crs=None)
    segmenter = opened(path)
    assert segmenter.point(500_001, 4_999_999, crs=None).best.area == 64 * 64
    with pytest.raises(InputError, match="no CRS"):
        segmenter.point(3, 45)
    assert "area_px" in segmenter.table([])


def test_points_and_boxes_that_cannot_be_used(tmp_path: Path) -> None:
    segmenter = opened(scene(tmp_path / "s.tif"))
    inside = lonlat(NORTH_UP, 10.5, 10.5)
    with pytest.raises(InputError, match=r"lies off the scene \(1 of 2"):
        segmenter.points([inside, (100.0, 1.0)])
    with pytest.raises(InputError, match="beside it alone"):
        segmenter.points([inside], [False])
    with pytest.raises(InputError, match="one label for each"):
        segmenter.points([inside], [True, False])
    with pytest.raises(InputError, match="has no area"):
        segmenter.box(3, 45, 3, 46)
    with pytest.raises(InputError, match="lies off the scene"):
        segmenter.box(8, 45, 9, 46)
    with pytest.raises(InputError, match="EPSG:123"):
        segmenter.point(*inside, crs="EPSG:123")
    for size in (-1, np.nan, np.inf, 1e300):
        with pytest.raises(InputError, match=r"0 GB or more, not .*give what the disk has to spare"):
            geoseg.prompt(tmp_path / "s.tif", tiny_promptable(), cache_gb=size)


def test_points_are_seen_at_the_models_own_pixel_size_and_boxes_as_fine_as_they_are(tmp_path: Path) -> None:
    network = SameColor()
    network.card = prompt_card(64, gsd_m=1.0, pool_to_m=0.5)
    segmenter = opened(scene(tmp_path / "s.tif"), network)
    x, y = NORTH_UP @ (44.5, 134.5)
    assert segmenter.point(x, y, crs=None).reply.at.level == 1
    assert segmenter.box(x - 2, y - 2, x + 2, y + 2, crs=None).reply.at.level == 0
    network.card = prompt_card(64, gsd_m=1.0)
    assert opened(tmp_path / "s.tif", network).point(x, y, crs=None).reply.at.level == 0


def test_chips_hold_what_they_are_around() -> None:
    for shape in ((1, 1), (64, 64), (65, 200), (1000, 130)):
        lattice = Lattice(shape, 64, 2)
        covered = np.zeros(shape, bool)
        for at in lattice.all_of(0):
            covered[lattice.window(at).clipped(shape).slices] = True
        assert covered.all()
        for row, col in ((0, 0), (shape[0] - 0.5, shape[1] - 0.5), (shape[0] / 2, shape[1] / 2)):
            for level in range(lattice.top_level + 1):
                window = lattice.window(lattice.around(level, row, col))
                assert window.row <= row < window.row_stop
                assert window.col <= col < window.col_stop
        last = lattice.window(lattice.around(lattice.top_level, 0, 0))
        assert last.clipped(shape).shape == shape
    assert Lattice((1000, 1000), 64).level_for(10, 60) == 1
    assert [Lattice(shape, 64, first=2).point_level for shape in ((1000, 1000), (90, 90))] == [2, 1]
    assert Lattice((1000, 1000), 64).window(ChipAt(1, 1, 2)).slices == (slice(64, 192), slice(128, 256))


def test_polygons_are_valid_where_a_mask_touches_itself(tmp_path: Path) -> None:
    pixels = np.zeros((3, 64, 64), np.uint8)
    rows, cols = np.indices((64, 64))
    pixels[:, ((rows // 4 + cols // 4) % 2 == 0) | (rows < 4)] = 200
    write(tmp_path / "s.tif", pixels, descriptions=("red", "green", "blue"), transform=NORTH_UP, crs=UTM)
    found = opened(tmp_path / "s.tif").point(*lonlat(NORTH_UP, 1.5, 1.5)).best.polygon
    assert shapely.is_valid(found)


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, TURNED], ids=["north up", "south up", "turned"])
@pytest.mark.parametrize("kind", ["lazy", "in memory"])
def test_an_array_is_answered_as_its_file_is(tmp_path: Path, transform: Affine, kind: str) -> None:
    path = scene(tmp_path / "s.tif", transform=transform)
    array = geoseg.open_scene(path) if kind == "lazy" else geoseg.open_scene(path).compute()
    network = SameColor()
    network.card = prompt_card(64, gsd_m=1.0, pool_to_m=0.5)
    file, here = (PromptSegmenter.of(source, network) for source in (str(path), array))
    assert here.place == file.place
    for row, col in ((134.5, 44.5), (45.5, 30.5), (75.5, 75.5)):
        point = lonlat(transform, row, col)
        one, other = file.point(*point), here.point(*point)
        assert_same(one, other)
        assert_same(one.refine(*lonlat(transform, 10.5, 12.5)), other.refine(*lonlat(transform, 10.5, 12.5)))
    corners = np.array([lonlat(transform, row, col) for row, col in ((7, 3), (7, 25), (17, 25), (17, 3))])
    assert_same(file.box(*corners.min(0), *corners.max(0)), here.box(*corners.min(0), *corners.max(0)))
    assert_geodataframe_equal(file.everything(), here.everything())


def assert_same(one: Answer, other: Answer) -> None:
    assert one.best.polygon.equals_exact(other.best.polygon, 0)
    assert (one.best.score, one.best.area, one.reply.at) == (other.best.score, other.best.area, other.reply.at)


def test_of_a_lazy_array_only_the_chips_that_are_looked_at_are_computed(tmp_path: Path) -> None:
    computed: list[tuple[int, ...]] = []

    def noted(block: np.ndarray) -> np.ndarray:
        computed.append(block.shape)
        return block

    array = geoseg.open_scene(scene(tmp_path / "s.tif")).chunk({"y": 64, "x": 64})
    array = array.copy(data=array.data.map_blocks(noted, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)))
    network = SameColor()
    segmenter = geoseg.prompt(array, network)
    computed.clear()
    segmenter.point(*lonlat(NORTH_UP, 10.5, 10.5))
    segmenter.point(*lonlat(NORTH_UP, 12.5, 20.5))
    assert computed == [(3, 64, 64)]
    assert network.embedded == 1


def test_arrays_say_what_is_not_measured_and_how_they_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    pixels = np.full((3, 64, 64), 100, np.uint8)
    pixels[:, 20:24, :] = 0
    write(path, pixels, descriptions=("red", "green", "blue"), transform=NORTH_UP, crs=UTM, nodata=0)
    file, here = (geoseg.prompt(source, SameColor(tolerance=10)) for source in (path, geoseg.open_scene(path)))
    point = lonlat(NORTH_UP, 40.5, 40.5)
    assert_same(file.point(*point), here.point(*point))
    with pytest.raises(InputError, match="nodata"):
        here.point(*lonlat(NORTH_UP, 21.5, 40.5))
    real = geoseg.open_scene(path).astype(np.float32).assign_attrs(scale=1 / 255, offset=0.0)
    assert_same(geoseg.prompt(real, SameColor(tolerance=10)).point(*point), file.point(*point))
    with pytest.raises(InputError, match="none of them y and x"):
        geoseg.prompt(xr.DataArray(np.zeros((3, 4, 5), np.uint8)), SameColor())
