"""geoseg.segment: xarray in, xarray out; what is asked for is computed, and nothing else."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pytest
import xarray as xr
from affine import Affine
from builders import HALF_METRE, pixels_of, read_band, small_model, tiny_model, write_rgb
from numpy.typing import NDArray

import geoseg
from geoseg.errors import InputError
from geoseg.inference import RunOptions
from geoseg.legend import Legend
from geoseg.raster.reader import SceneReader

RUN = RunOptions(device="cpu", precision="float32", chip=96, block=32)


def array_of(pixels: NDArray[Any], *, south_up: bool = False) -> xr.DataArray:
    """(band, y, x) with coordinates of half a metre."""
    _, height, width = pixels.shape
    y = 5_000_000 - 0.5 * (np.arange(height) + 0.5)
    coords = {
        "band": ["red", "green", "blue"],
        "y": y[::-1] if south_up else y,
        "x": 500_000 + 0.5 * (np.arange(width) + 0.5),
    }
    flipped = pixels[:, ::-1] if south_up else pixels
    return xr.DataArray(flipped, dims=("band", "y", "x"), coords=coords).odc.assign_crs("EPSG:32631")


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rgb(tmp_path_factory.mktemp("scene") / "scene.tif", (90, 75))


@pytest.fixture(scope="module")
def cover_file(scene_file: Path) -> Path:
    output = scene_file.with_name("cover.tif")
    geoseg.segment_file(
        scene_file, output, model=tiny_model(), run=RUN, confidence=scene_file.with_name("confidence.tif")
    )
    return output


def test_the_array_path_equals_the_file_path(scene_file: Path, cover_file: Path) -> None:
    cover = geoseg.segment(geoseg.open_scene(scene_file), tiny_model(), run=RUN, probabilities=True)
    assert dask.is_dask_collection(cover)
    assert (cover.class_map.dtype, cover.confidence.dtype) == (np.uint8, np.float32)
    computed = cover.compute(scheduler="threads")
    assert np.array_equal(computed.class_map, read_band(cover_file))
    confidence = read_band(cover_file.with_name("confidence.tif"))
    assert np.array_equal(np.rint(computed.confidence * 200), confidence)
    assert np.array_equal(computed.probabilities.max("class"), computed.confidence)
    np.testing.assert_allclose(computed.probabilities.sum("class"), 1, atol=1e-6)
    assert list(computed["class"].values) == list(tiny_model().card.legend.names)


def test_the_result_knows_its_place_and_legend(scene_file: Path) -> None:
    cover = geoseg.segment(geoseg.open_scene(scene_file), tiny_model(), run=RUN)
    assert cover.class_map.odc.geobox.affine == HALF_METRE
    assert cover.class_map.odc.geobox.crs == "EPSG:32631"
    assert Legend.from_json(cover.class_map.attrs["legend"]) == tiny_model().card.legend


def test_only_what_is_asked_for_is_read_and_computed(scene_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows, chips = [], []
    network, read = tiny_model().network, SceneReader.read

    def count(reader: SceneReader, window: Any) -> Any:
        windows.append(window)
        return read(reader, window)

    monkeypatch.setattr(SceneReader, "read", count)
    hook = network.register_forward_hook(lambda *_: chips.append(1))
    try:
        scene = geoseg.open_scene(scene_file)
        cover = geoseg.segment(scene, tiny_model(), run=replace(RUN, engine="torch"))  # whose calls the hook sees
        assert not windows
        part = cover.class_map.isel(y=slice(0, 20), x=slice(40, 60)).compute(scheduler="synchronous")
    finally:
        hook.remove()
    assert part.shape == (20, 20)
    assert len(chips) == 1  # the one block in which the part lies
    assert windows


def test_few_chunks_are_read_for_one_block() -> None:
    """A lazy array from elsewhere: the chunks that the block and its halo touch, and no other."""
    touched = []
    pixels = pixels_of((256, 256))

    def load(block_info: Any = None) -> NDArray[np.uint8]:
        (_, (r0, r1), (c0, c1)) = block_info[None]["array-location"]
        touched.append((r0, c0))
        return pixels[:, r0:r1, c0:c1]

    lazy = dask.array.map_blocks(
        load, chunks=((3,), (32,) * 8, (32,) * 8), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    scene = array_of(pixels).copy(data=lazy)
    cover = geoseg.segment(scene, tiny_model(), run=RUN)
    touched.clear()
    cover.class_map[128:160, 96:128].compute(scheduler="synchronous")
    assert set(touched) == {(r, c) for r in (96, 128, 160) for c in (64, 96, 128)}
    assert len(touched) == 9


@pytest.mark.parametrize("backed_by", ["numpy", "dask"])
def test_south_up_is_the_same_scene_upside_down_in_memory(backed_by: str) -> None:
    pixels = pixels_of((60, 50))
    north, south = (array_of(pixels if not up else pixels[:, ::-1], south_up=up) for up in (False, True))
    assert np.array_equal(north.data, south.data)
    assert south.y[0] < south.y[-1]
    if backed_by == "dask":
        north, south = north.chunk({"y": 17, "x": 23}), south.chunk({"y": 17, "x": 23})
    covers = [geoseg.segment(scene, tiny_model(), run=RUN).compute(scheduler="threads") for scene in (north, south)]
    assert np.array_equal(covers[0].class_map.data, covers[1].class_map.data)  # the network sees stored rows
    assert np.array_equal(covers[1].class_map.y, south.y)
    assert covers[1].class_map.odc.geobox.affine == Affine(0.5, 0, 500_000, 0, 0.5, 4_999_970)


def test_an_array_of_numbers_is_the_file(cover_file: Path) -> None:
    cover = geoseg.segment(array_of(pixels_of((90, 75))), tiny_model(), run=RUN).compute(scheduler="threads")
    assert np.array_equal(cover.class_map, read_band(cover_file))


def test_bands_are_found_by_name_in_any_order(cover_file: Path) -> None:
    scene = array_of(pixels_of((90, 75))).sel(band=["blue", "red", "green"])
    cover = geoseg.segment(scene, tiny_model(), run=RUN).class_map.compute(scheduler="threads")
    assert np.array_equal(cover, read_band(cover_file))


def test_nodata_of_an_array_stays_nodata() -> None:
    pixels = pixels_of((40, 40)).clip(1)
    pixels[:, 5:9, 11:30] = 0
    scene = array_of(pixels).assign_attrs(_FillValue=0)
    cover = geoseg.segment(scene, tiny_model(), run=RUN).compute(scheduler="threads")
    hole = (pixels == 0).all(0)
    assert np.array_equal(cover.class_map == 255, hole)
    assert np.array_equal(np.isnan(cover.confidence), hole)


def test_polygons_follow(scene_file: Path) -> None:
    cover = geoseg.segment(geoseg.open_scene(scene_file), tiny_model(), run=RUN)
    polygons = geoseg.vectorize(cover.class_map)
    class_map = cover.class_map.compute(scheduler="threads")
    assert polygons.area.sum() == pytest.approx(class_map.size * 0.25)
    assert set(polygons.class_name) <= set(tiny_model().card.legend.names)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda scene: scene.isel(band=[0, 1]), "needs band blue; the scene has red, green.*--bands"),
        (lambda scene: scene.astype(np.int16), r"int16; model small knows uint8.*--scale"),
        (lambda scene: scene.assign_coords(x=scene.x * 40, y=scene.y * 40), r"20 m; .* 0\.2 to 1 m"),
        (lambda scene: scene.isel(y=0, drop=True), "none of them y and x"),
    ],
)
def test_what_does_not_fit_is_refused(change: Any, told: str) -> None:
    scene = change(array_of(pixels_of((20, 20))))
    with pytest.raises(InputError, match=told):
        geoseg.segment(scene, small_model())


def test_a_segmenter_travels_between_processes() -> None:
    """Its pickle holds weights and numbers; the answer after the journey is the same."""
    from builders import RGB

    from geoseg.grid import ChipGrid, Window
    from geoseg.inference import Backend, Predictor, Segmenter
    from geoseg.raster.reader import Pixels

    pixels = pixels_of((32, 32))
    grid = ChipGrid.of((32, 32), chip=96, halo=32, output_stride=4)
    segmenter = Segmenter(grid, RGB, Predictor(tiny_model(), Backend("cpu", "float32")))
    again = pickle.loads(pickle.dumps(segmenter))

    def read(window: Window) -> Pixels:
        rows, cols = window.slices
        return Pixels(pixels[:, rows, cols], np.ones(window.shape, np.bool_))

    whole = Window(0, 0, 32, 32)
    assert np.array_equal(again(whole, read).confidence, segmenter(whole, read).confidence)


def test_an_array_takes_no_area_of_interest(scene_file: Path) -> None:
    with pytest.raises(InputError, match="clip it first"):
        geoseg.segment(geoseg.open_scene(scene_file), tiny_model(), run=replace(RUN, aoi="area.gpkg"))
