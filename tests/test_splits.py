"""What is held out is never trained on: no pixel on both sides, whatever the grids of the scenes."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from scipy.ndimage import binary_dilation

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.training.splits import Site, by_blocks, by_polygons, by_scenes, sides_of

UTM = CRS.from_epsg(32631)
GRID = Affine(1, 0, 500_000, 0, -1, 5_000_000)
CELL = 16


def site(name: str = "a", shape: tuple[int, int] = (96, 128), transform: Affine = GRID, crs: CRS | None = UTM) -> Site:
    return Site(name, shape, transform, crs, (f"{name}.tif",))


def all_cells(shape: tuple[int, int]) -> np.ndarray:
    return np.argwhere(np.ones((shape[0] // CELL, shape[1] // CELL), bool))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([16, 32, 48]),
    st.floats(0.1, 0.6),
    st.integers(0, 20),
    st.integers(0, 5),
)
def test_no_pixel_is_on_both_sides_and_the_buffer_is_kept(block: int, share: float, buffer: int, seed: int) -> None:
    """Against SciPy's dilation of the held-out pixels."""
    one = site()
    cells = all_cells(one.shape)
    pixels = np.random.default_rng(seed).integers(0, CELL**2, (len(cells), 3))
    held = by_blocks([cells], [pixels], cell_px=CELL, block_px=block, share=share, seed=seed)
    [sides] = sides_of([one], held, buffer_px=buffer)
    whole = Window(0, 0, *one.shape)
    out, away = sides.held.mask(whole), sides.kept_from.mask(whole)
    assert 0 < out.sum() < out.size
    assert not (out & ~away).any()
    rows, cols = np.indices((2 * buffer + 3,) * 2) - buffer - 1
    disc = np.hypot(rows, cols) <= buffer - 1
    assert not (binary_dilation(out, disc) & ~away).any() if buffer > 1 else True
    far = ~binary_dilation(out, np.hypot(rows, cols) <= buffer + 1)
    assert not (away & far).any()


def test_about_the_share_of_every_class_is_held_out() -> None:
    one = site(shape=(512, 512))
    cells = all_cells(one.shape)
    pixels = np.random.default_rng(0).integers(0, 200, (len(cells), 4)) * (np.arange(4) < 3)
    [held] = by_blocks([cells], [pixels], cell_px=CELL, block_px=64, share=0.25, seed=0)
    assert len(held) == 16
    inside = shapely.contains(shapely.union_all(held), shapely.points(cells[:, ::-1] * CELL + CELL / 2))
    shares = pixels[inside][:, :3].sum(0) / pixels[:, :3].sum(0)
    assert np.abs(shares - 0.25).max() < 0.03


def test_what_is_held_out_on_one_scene_is_held_out_on_another_of_the_same_ground() -> None:
    """Another CRS, resolution and extent; the pixels of both are compared on the ground."""
    first = site()
    frame = gpd.GeoSeries([shapely.box(500_000, 4_999_904, 500_128, 5_000_000)], crs=32631).to_crs(3857)
    west, _, _, north = frame.total_bounds
    second = site("b", (90, 120), Affine(2.1, 0, west - 20, 0, -2.1, north + 20), CRS.from_epsg(3857))
    held = [np.array([shapely.box(32, 32, 64, 64)]), np.array([])]
    sides = sides_of([first, second], held, buffer_px=0)
    out = sides[1].held.mask(Window(0, 0, *second.shape))
    assert out.any()
    rows, cols = np.nonzero(out)
    x, y = second.transform @ (cols + 0.5, rows + 0.5)
    there = gpd.GeoSeries(gpd.points_from_xy(x, y), crs=3857).to_crs(32631)
    local = np.column_stack(~GRID @ (there.x.to_numpy(), there.y.to_numpy()))
    assert (local > 31.5).all()
    assert (local < 64.5).all()


def test_scenes_of_the_same_ground_are_refused_on_two_sides() -> None:
    near = site("b", transform=GRID @ Affine.translation(64, 0))
    far = site("c", transform=GRID @ Affine.translation(128, 0))
    extents = [Window(0, 0, 96, 128)] * 2
    with pytest.raises(InputError, match=r"a \(role: train\) and b \(role: validate\) show the same ground"):
        by_scenes([site(), near], extents, [False, True])
    held = by_scenes([site(), far], extents, [False, True])  # they touch
    assert [len(own) for own in held] == [0, 1]


def test_polygons_name_the_places(tmp_path: Path) -> None:
    place = gpd.GeoDataFrame(geometry=[shapely.box(500_010, 4_999_960, 500_050, 4_999_990)], crs=32631)
    place.to_crs(4326).to_file(tmp_path / "held.gpkg")
    held = by_polygons([site()], str(tmp_path / "held.gpkg"))
    [sides] = sides_of([site()], held, buffer_px=0)
    expected = np.zeros((96, 128), bool)
    expected[10:40, 10:50] = True
    assert (sides.held.mask(Window(0, 0, 96, 128)) != expected).sum() < 20
    elsewhere = site("far", transform=Affine(1, 0, 100_000, 0, -1, 5_000_000))
    with pytest.raises(InputError, match=r"No polygon of .* lies on a scene"):
        by_polygons([elsewhere], str(tmp_path / "held.gpkg"))


def test_one_block_cannot_be_split() -> None:
    with pytest.raises(InputError, match="needs two blocks"):
        by_blocks([all_cells((32, 32))], [np.ones((4, 2), int)], cell_px=CELL, block_px=64, share=0.2, seed=0)
