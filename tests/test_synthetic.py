from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from scipy import ndimage

from geoseg.errors import InputError
from geoseg.grid.window import Window
from geoseg.legend import LANDCOVER
from geoseg.synthetic import SyntheticScene, write_scene
from geoseg.synthetic.ground import draw_ground
from geoseg.synthetic.light import Light
from geoseg.synthetic.materials import LABEL, M
from geoseg.synthetic.noise import value_noise
from geoseg.synthetic.place import Place

ID = {c.name: c.id for c in LANDCOVER.classes}
SHAPE = (173, 211)


@cache
def whole(seed: int, gsd_m: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    return SyntheticScene(SHAPE, seed, gsd_m).read()


@st.composite
def windows(draw: st.DrawFn) -> Window:
    row, col = draw(st.integers(0, SHAPE[0] - 1)), draw(st.integers(0, SHAPE[1] - 1))
    return Window(row, col, draw(st.integers(1, SHAPE[0] - row)), draw(st.integers(1, SHAPE[1] - col)))


def test_sports_grounds_are_blue_or_dark_and_not_water() -> None:
    side = np.arange(0, 900, 1.5)
    ground = draw_ground(Place.of(3, 0, 1.5), side[None, :], side[:, None])
    for material, label in ((M.TURF, "low_vegetation"), (M.COURT, "paved")):
        assert (ground.material == material).sum() * 1.5**2 > 1000  # square metres
        assert LABEL[material] == ID[label]
    assert (ground.height[np.isin(ground.material, (M.TURF, M.COURT))] == 0).all()


@settings(max_examples=20, deadline=None)
@given(windows(), st.sampled_from([0, 3, 4]), st.sampled_from([0.3, 0.7]))
def test_a_window_read_alone_has_the_pixels_of_the_whole(window: Window, seed: int, gsd_m: float) -> None:
    pixels, labels = SyntheticScene(SHAPE, seed, gsd_m).read(window)
    rows, cols = window.slices
    all_pixels, all_labels = whole(seed, gsd_m)
    assert np.array_equal(pixels, all_pixels[:, rows, cols])
    assert np.array_equal(labels, all_labels[rows, cols])


def test_a_window_larger_than_one_part_is_seamless() -> None:
    scene = SyntheticScene((30, 1100), 5)
    pixels, labels = scene.read()
    right_pixels, right_labels = scene.read(Window(0, 1000, 30, 100))
    assert np.array_equal(pixels[:, :, 1000:], right_pixels)
    assert np.array_equal(labels[:, 1000:], right_labels)


def test_windows_agree_far_from_the_origin_of_a_huge_scene() -> None:
    scene = SyntheticScene((10**6, 10**6), 1)
    pixels, labels = scene.read(Window(999_900, 999_800, 100, 200))
    part, part_labels = scene.read(Window(999_940, 999_870, 30, 41))
    assert np.array_equal(part, pixels[:, 40:70, 70:111])
    assert np.array_equal(part_labels, labels[40:70, 70:111])


def test_noise_is_the_same_on_a_grid_and_at_points() -> None:
    x, y = np.arange(-20.0, 30.0, 0.7)[None, :], np.arange(-9.0, 12.0, 0.7)[:, None]
    xs, ys = (a.ravel() for a in np.broadcast_arrays(x, y))
    assert np.array_equal(value_noise(7, x, y, 4.3).ravel(), value_noise(7, xs, ys, 4.3))


def test_the_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    again = SyntheticScene(SHAPE, 0, 0.7).read()
    assert all(np.array_equal(a, b) for a, b in zip(whole(0), again, strict=True))
    assert not np.array_equal(whole(0)[1], whole(1)[1])


def test_pixel_size_changes_only_the_sampling() -> None:
    fine = SyntheticScene((360, 360), 3, 0.5).read()[1]
    coarse = SyntheticScene((120, 120), 3, 1.5).read()[1]
    assert np.array_equal(fine[1::3, 1::3], coarse)


@pytest.mark.parametrize("seed", [1, 2027])
def test_every_class_of_the_legend_occurs(seed: int) -> None:
    labels = SyntheticScene((512, 512), seed, 3.0).read()[1]
    assert set(np.unique(labels)) == set(LANDCOVER.ids)


@pytest.mark.parametrize("seed", range(1, 7))
def test_plants_are_greener_than_all_else_and_water_darkest_in_nir(seed: int) -> None:
    pixels, labels = SyntheticScene((400, 400), seed, 4.0).read()
    red, nir = pixels[0].astype(float), pixels[3].astype(float)
    ndvi = (nir - red) / (nir + red)
    found = [c for c in LANDCOVER.classes if (labels == c.id).sum() > 50]
    greenness = {c.name: np.median(ndvi[labels == c.id]) for c in found}
    brightness = {c.name: np.median(nir[labels == c.id]) for c in found}
    assert greenness["tree"] > max(greenness[c.name] for c in found if c.group != "vegetation")
    assert greenness["low_vegetation"] > max(greenness[c.name] for c in found if c.group != "vegetation")
    assert brightness["water"] == min(brightness.values())


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_taller_than_what_shadows_are_computed_for(seed: int) -> None:
    from geoseg.synthetic import light
    from geoseg.synthetic.ground import draw_ground
    from geoseg.synthetic.trees import grow_trees

    x, y = np.arange(0, 1500.0, 3)[None, :], np.arange(0, 1500.0, 3)[:, None]
    canvas = draw_ground(Place.of(seed, 0, 3.0), x, y)
    grow_trees(canvas, x, y)
    assert 8 < canvas.height.max() < light._TALLEST_M


def test_the_sun_shines_from_one_side_and_shadows_fall_on_the_other() -> None:
    from geoseg.synthetic.light import sunlight

    light = Light.of(Place.of(0, 0, 1.0), 0)
    light = replace(light, sun=(-0.6, 0.0, 0.8))  # from the west
    height = np.zeros((11, 31), np.float32)
    height[5, 10] = 8
    lit = sunlight(height, light, 1.0)
    assert (lit[5, 12:16] == 0).all()  # 8 m cast a shadow of 6 m
    assert (lit[5, :9] == 1).all()
    assert (lit[5, 18:] == 1).all()
    assert (np.delete(lit, (4, 5, 6), axis=0) == 1).all()


@cache
def pair() -> tuple[SyntheticScene, SyntheticScene, np.ndarray, np.ndarray]:
    before = SyntheticScene((600, 600), 2027, 1.5)
    after = before.later(3)
    return before, after, before.read()[1], after.read()[1]


def test_later_builds_and_removes_buildings_and_resizes_ponds() -> None:
    _, _, before, after = pair()
    for name in ("building", "water"):
        was, now = before == ID[name], after == ID[name]
        assert 0 < (now & ~was).sum() < now.sum()
        assert 0 < (was & ~now).sum() < was.sum()
    assert 0.002 < (before != after).mean() < 0.15


def test_later_changes_pixels_only_near_changed_labels() -> None:
    before, after, labels_before, labels_after = pair()
    same_light = replace(after, season=before.season)
    pixels = (before.read()[0] != same_light.read()[0]).any(axis=0)
    changed, reach = labels_before != labels_after, round(35 / 1.5)
    near = ndimage.binary_dilation(changed, np.ones((3, 3), bool), iterations=reach, border_value=1)
    assert pixels.any()
    assert not (pixels & ~near).any()


def test_later_shows_another_light_and_depends_on_its_seed() -> None:
    before, after, _, labels_after = pair()
    same_content = replace(before, season=after.season)
    assert (same_content.read()[0] != before.read()[0]).mean() > 0.5
    assert np.array_equal(same_content.read()[1], before.read()[1])
    assert not np.array_equal(before.later(4).read()[1], labels_after)
    assert np.array_equal(before.later(3).read()[1], labels_after)


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (41, 1)])
def test_tiny_scenes_are_corners_of_larger_ones(shape: tuple[int, int]) -> None:
    pixels, labels = SyntheticScene(shape, 3, 0.7).read()
    assert np.array_equal(pixels, whole(3)[0][:, : shape[0], : shape[1]])
    assert np.array_equal(labels, whole(3)[1][: shape[0], : shape[1]])


def test_an_empty_window_has_no_pixels() -> None:
    pixels, labels = SyntheticScene((4, 4)).read(Window(2, 2, 0, 2))
    assert pixels.shape == (4, 0, 2)
    assert labels.shape == (0, 2)


@pytest.mark.parametrize("window", [Window(-1, 0, 2, 2), Window(3, 3, 2, 1), Window(9, 9, 1, 1)])
def test_windows_outside_the_scene_are_refused(window: Window) -> None:
    with pytest.raises(InputError, match="not inside the scene of 4 x 4"):
        SyntheticScene((4, 4)).read(window)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"shape": (0, 3)}, "0 x 3"), ({"gsd_m": 9.0}, "0.05 to 5 m, not 9 m"), ({"seed": -2}, "not -2")],
)
def test_nonsense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SyntheticScene(**{"shape": (3, 3), **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [64, 100, 1024])
def test_files_hold_what_read_gives(tmp_path: Path, block: int) -> None:
    scene = SyntheticScene(SHAPE, 3, 0.7)
    write_scene(scene, tmp_path / "scene.tif", labels=tmp_path / "labels.tif", block=block)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.tif", "scene.tif"]
    pixels, labels = whole(3)
    with rasterio.open(tmp_path / "scene.tif") as image:
        assert np.array_equal(image.read(), pixels)
        assert image.descriptions == ("red", "green", "blue", "nir")
        assert image.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
        assert image.transform == scene.transform
        assert image.crs == "EPSG:32631"
        assert image.dataset_mask().all()
    with rasterio.open(tmp_path / "labels.tif") as classes:
        assert np.array_equal(classes.read(1), labels)
        assert classes.nodata == LANDCOVER.nodata
        assert {i: classes.colormap(1)[i] for i in LANDCOVER.ids} == LANDCOVER.colormap()


def test_a_missing_folder_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_scene(SyntheticScene((8, 8)), tmp_path / "scene.tif", labels=tmp_path / "none" / "labels.tif")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scene.tif"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SyntheticScene, "read", fail)
    with pytest.raises(KeyboardInterrupt):
        write_scene(SyntheticScene((8, 8)), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]
