"""What people hand in by mistake when they compare dates: exit code 2, one sentence with both numbers, no file."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from builders import write_rgb
from numpy.typing import NDArray
from test_bad_input import Case
from test_bad_input import case as case
from test_change import UTM, class_map
from test_vectorize import write_raster

from geoseg.legend import LANDCOVER

FAR = UTM @ Affine.translation(10_000, 0)


class Maps:
    """Two class maps that go together, and the commands."""

    def __init__(self, case: Case) -> None:
        self.case, self.folder = case, case.folder
        self.one, self.two = self.map("lc_2016.tif", class_map(1)), self.map("lc_2020.tif", class_map(2))
        self.output = case.output.parent / "change.tif"

    def map(
        self, name: str, values: NDArray[np.uint8], transform: Affine = UTM, crs: str | None = "EPSG:32631"
    ) -> Path:
        return write_raster(self.folder / name, values, transform, crs)

    def change(self, *dates: object, also: tuple[object, ...] = ()) -> tuple[int, str]:
        return self.case.run("change", *(dates or (self.one, self.two)), "-o", self.output, *also)

    def stack(self, *dates: object, also: tuple[object, ...] = ()) -> tuple[int, str]:
        given = dates or (self.one, self.two)
        return self.case.run("stack", *given, "-o", self.case.output.parent / "stack", *also)

    def refused(self, *dates: object, also: tuple[object, ...] = (), words: tuple[str, ...]) -> None:
        """By both commands."""
        for command in (self.change, self.stack):
            self.case.refused(command(*dates, also=also), *words)


@pytest.fixture
def maps(case: Case) -> Maps:
    return Maps(case)


def test_good_dates_pass(maps: Maps) -> None:
    assert maps.change()[0] == 0
    assert maps.stack()[0] == 0


def test_no_overlap(maps: Maps) -> None:
    far = maps.map("lc_2021.tif", class_map(2), FAR)
    maps.refused(maps.one, far, words=("do not overlap", "x 400000 to 400240", "x 420000 to 420240"))


def test_no_crs_on_one_date(maps: Maps) -> None:
    bare = maps.map("lc_2021.tif", class_map(2), crs=None)
    maps.refused(maps.one, bare, words=("lc_2021.tif has no CRS", "-a_srs"))


def test_different_legends(maps: Maps) -> None:
    with rasterio.open(maps.two, "r+") as raster:
        raster.update_tags(GEOSEG_LEGEND=LANDCOVER.to_json().replace('"water"', '"lake"'))
    maps.refused(words=("The legends differ", "lc_2016.tif has building", "water", "lake"))


def test_a_scene_and_a_map(maps: Maps) -> None:
    maps.refused(maps.one, maps.case.scene, words=("lc_2016.tif is a class map", "scene.tif is not", "--maps"))


def test_dates_in_the_wrong_order(maps: Maps) -> None:
    words = ("wrong order", "lc_2020.tif is of 2020", "lc_2016.tif", "of 2016", "--times")
    maps.refused(maps.two, maps.one, words=words)
    maps.refused(also=("--times", "2020,2016"), words=("wrong order", "of 2020", "of 2016"))
    assert maps.change(maps.two, maps.one, also=("--times", "1,2"))[0] == 0


@pytest.mark.parametrize(
    ("times", "words"),
    [("2016", ("2 dates and 1 times",)), ("2016,soon", ("'soon'",)), ("2016-13,2017", ("'2016-13'",))],
)
def test_times_that_are_none(maps: Maps, times: str, words: tuple[str, ...]) -> None:
    maps.refused(also=("--times", times), words=words)


def test_one_date_all_cloud(maps: Maps, caplog: pytest.LogCaptureFixture) -> None:
    cloud = maps.map("lc_2021.tif", np.full((90, 120), 255, np.uint8))
    words = ("No pixel is known on both dates", "10,800", "lc_2016.tif shows 10,800", "lc_2021.tif 0", "less cloud")
    maps.case.refused(maps.change(maps.one, cloud), *words)
    assert maps.stack(maps.one, cloud)[0] == 0  # a stack has other dates
    assert "Date 2021 shows 0 of 10800 pixels" in caplog.text


def test_scenes_of_which_a_mask_hides_all(maps: Maps) -> None:
    scene = write_rgb(maps.folder / "later.tif", (40, 44), seed=1)
    mask = maps.folder / "mask.tif"
    with rasterio.open(scene) as raster, rasterio.open(mask, "w", **(raster.profile | {"count": 1})) as out:
        out.write(np.zeros((1, 40, 44), np.uint8))
    also = ("--masks", f"-,{mask}", "--model", maps.case.model)
    said = maps.change(maps.case.scene, scene, also=also)
    maps.case.refused(said, "scene.tif shows 1,760 and later.tif 0")


def test_a_mask_of_another_place(maps: Maps) -> None:
    """In another CRS; both extents are told."""
    there = maps.map("mask.tif", np.ones((90, 120), np.uint8), Affine(1e-5, 0, 3, 0, -1e-5, 43), "EPSG:4326")
    words = ("mask.tif lies elsewhere", "x 3 to 3.0012", "EPSG:4326", "x 400000 to 400240", "EPSG:32631")
    maps.refused(also=("--masks", f"-,{there}"), words=words)


def test_more_than_2000_dates(maps: Maps) -> None:
    maps.case.refused(maps.stack(*[maps.one] * 2001), "2 to 254 dates, not 2001", "2000")
    maps.case.refused(maps.stack(maps.one), "2 to 254 dates, not 1")


@pytest.mark.parametrize(
    ("also", "words"),
    [
        (("--masks", "a.tif"), ("2 dates and 1 masks",)),
        (("--masks", "-,gone.tif"), ("gone.tif",)),
        (("--qa-band", 1), ("bits or values",)),
        (("--qa-bits", "1,2"), ("QA band", "number")),
        (("--qa-band", 7, "--qa-bits", "1"), ("has 1 bands", "QA band 7")),
        (("--qa-band", 1, "--qa-bits", "40"), ("0 to 31", "40")),
        (("--qa-band", 1, "--qa-bits", "cloud"), ("--qa-bits", "'cloud'")),
        (("--radiometry", "sift"), ("none, mad, histogram", "'sift'")),
        (("--radiometry", "mad"), ("no light", "--radiometry")),
        (("--coregister",), ("do not tell a shift", "--coregister")),
        (("--resolution", 0), ("positive", "0")),
        (("--extent", "all"), ("intersection or union", "'all'")),
        (("--scenes", "--maps"), ("exclude each other",)),
        (("--aoi", "gone.gpkg"), ("gone.gpkg", "does not exist")),
    ],
)
def test_option_values(maps: Maps, also: tuple[object, ...], words: tuple[str, ...]) -> None:
    maps.refused(also=also, words=words)


def test_flags_are_whole_numbers(maps: Maps) -> None:
    place = {"transform": UTM, "crs": "EPSG:32631", "width": 120, "height": 90}
    scene = maps.folder / "s_2021.tif"
    with rasterio.open(scene, "w", "GTiff", dtype="float32", count=1, **place) as raster:
        raster.write(np.ones((1, 90, 120), np.float32))
    maps.refused(scene, scene, also=("--qa-band", 1, "--qa-bits", 1), words=("Band 1", "float32", "whole numbers"))


def test_pairs_that_do_not_pair(maps: Maps) -> None:
    maps.case.refused(maps.change(maps.one), "two dates or more, not 1")
    maps.case.refused(maps.change(maps.one, maps.two, maps.one, also=("--pairs",)), "an even number", "3")
    twice = (maps.one, maps.two, maps.one, maps.two)
    maps.case.refused(maps.change(*twice, also=("--pairs",)), "names of their own", "lc_2016_to_lc_2020")


def test_several_pairs_need_a_folder(maps: Maps) -> None:
    """Not one named like a raster, and of their polygons the suffix alone."""
    three = (maps.one, maps.two, maps.map("lc_2024.tif", class_map(3)))
    maps.case.refused(maps.change(*three), "change.tif is named like a file", "name of a folder")
    maps.output = maps.output.with_suffix("")
    for given in (maps.output / "poly.gpkg", "poly.gpkg", "gpkg"):
        words = ("2 pairs", "--polygons is the suffix", ".gpkg", str(given))
        maps.case.refused(maps.change(*three, also=("--polygons", given)), *words)


@pytest.mark.parametrize("where", ["file", "stack.tif", "file/in/it", "/proc/out", "/proc"])
def test_a_stack_where_no_folder_can_be(maps: Maps, where: str) -> None:
    (maps.folder / "file").touch()
    code, told = maps.case.run("stack", maps.one, maps.two, "-o", maps.folder / where)
    assert code == 2
    assert str(maps.folder / where) in told
    assert any(remedy in told for remedy in ("give the name of a folder", "choose another"))
    assert "Finished blocks" not in told


def test_a_bad_pair_is_told_before_the_others_are_compared(maps: Maps) -> None:
    far = maps.map("lc_2021.tif", class_map(2), FAR)
    maps.output = maps.output.with_suffix("")
    maps.case.refused(maps.change(maps.one, maps.two, far), "do not overlap")


def test_a_pair_that_fails_later_leaves_the_others_as_they_are(maps: Maps) -> None:
    cloud = maps.map("lc_2021.tif", np.full((90, 120), 255, np.uint8))
    maps.output = maps.output.with_suffix("")
    code, told = maps.change(maps.one, maps.two, cloud)
    assert code == 2
    assert "No pixel is known" in told
    assert (maps.output / "lc_2016_to_lc_2020.tif").is_file()


def points(maps: Maps, where: list[tuple[float, float]], classes: list[str]) -> Path:
    path = maps.folder / "points.gpkg"
    given = gpd.GeoDataFrame({"reference": classes}, geometry=[shapely.Point(*at) for at in where], crs="EPSG:32631")
    given.to_file(path)
    return path


def test_reference_points_outside(maps: Maps) -> None:
    given = points(maps, [(400_001, 4_999_999), (399_000, 4_999_999)], ["water"] * 2)
    maps.case.refused(maps.case.run("area", maps.one, "--reference", given), "1 of 2 points", "lie outside", "lc_2016")


def test_strata_with_no_sample(maps: Maps) -> None:
    """All points lie in one class of the map; the others have none."""
    values = class_map(1)
    rows, cols = np.nonzero(values == values[0, 0])
    where = [(400_000 + 2 * c + 1, 5_000_000 - 2 * r - 1) for r, c in list(zip(rows, cols, strict=True))[:5]]
    given = points(maps, where, ["water"] * 5)
    maps.case.refused(maps.case.run("area", maps.one, "--reference", given), "0 sampled", "2 or more", "merge it")


def test_points_for_each_pair(maps: Maps) -> None:
    given = points(maps, [(400_001, 4_999_999)], ["unchanged"])
    also = ("--reference", given, "--reference", given)
    maps.case.refused(maps.change(also=also), "1 pair of dates and 2 files of points")
    three = (maps.one, maps.two, maps.map("lc_2024.tif", class_map(3)))
    maps.case.refused(maps.change(*three, also=also[:2]), "2 pairs and 1 files of points")
