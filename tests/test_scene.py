from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import dask
import numpy as np
import odc.geo.xr
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from scene_files import AT, ramp, write

from geoseg.catalog import open_scene
from geoseg.errors import InputError
from geoseg.grid.window import Window
from geoseg.raster.arrays import geobox_of
from geoseg.raster.reader import SceneReader
from geoseg.raster.scene import SceneOptions, open_reader, scene_info

# odc-geo multiplies transforms by *, which affine 3 discourages
pytestmark = pytest.mark.filterwarnings("ignore:Use .@. matmul:PendingDeprecationWarning")

TRANSFORMS = {
    "north_up": Affine(0.2, 0, 5e5 + 1 / 3, 0, -0.2, 5e6 + 1 / 7),
    "south_up": Affine(0.2, 0, 5e5 + 1 / 3, 0, 0.2, 5e6 + 1 / 7),
    "rotated": Affine(0.3, 0.1, 4e5 + 1 / 7, 0.1, -0.3, 5e6),
    "not_square": Affine(1 / 3, 0, 4e5, 0, -1 / 7, 5e6),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("crs", ["EPSG:32631", None])
def test_odc_and_rioxarray_recover_the_geobox(tmp_path: Path, transform: Affine, crs: str | None) -> None:
    path = write(tmp_path / "a.tif", ramp(), transform=transform, crs=crs)
    scene = open_scene(path)
    assert scene.dims == ("band", "y", "x")
    assert list(scene.band.values) == ["red", "green", "blue"]
    assert geobox_of(scene) == GeoBox((37, 53), transform, crs)
    assert geobox_of(scene).affine == transform
    assert crs is None or scene.odc.geobox.affine == transform
    assert scene.rio.transform() == transform
    assert scene.rio.crs == (rasterio.CRS.from_string(crs) if crs else None)
    part = geobox_of(scene.isel(y=slice(3, 9), x=slice(5, 20)))
    assert part.affine == transform @ Affine.translation(5, 3)


def test_geographic_scenes_have_y_and_x_too(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path / "a.tif", ramp(), crs="EPSG:4326", transform=Affine(1e-4, 0, 3, 0, -1e-4, 50)))
    assert scene.dims == ("band", "y", "x")
    assert scene.odc.geobox.crs == "EPSG:4326"
    assert 8 < scene.attrs["gsd_m"] < 11


def test_one_pixel_is_a_scene(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path / "a.tif", ramp(1, 1, 1)))
    assert scene.odc.geobox.affine == AT
    assert scene.compute().shape == (1, 1, 1)


class Recorder:
    """Stands in for SceneReader.read and keeps the windows and bands that were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[tuple[str, ...], Window]] = []
        read = SceneReader.read

        def record(reader: SceneReader, window: Window) -> Any:
            self.asked.append((reader.bands, window))
            return read(reader, window)

        monkeypatch.setattr(SceneReader, "read", record)


def test_a_slice_reads_its_window_and_bands_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = ramp(3, 100, 120)
    scene = open_reader(write(tmp_path / "a.tif", values)).to_xarray(chunks=(40, 50))
    recorder = Recorder(monkeypatch)
    part = scene.isel(y=slice(10, 20), x=slice(45, 60))
    assert not recorder.asked
    np.testing.assert_array_equal(part.sel(band="green").values, values[1, 10:20, 45:60])
    assert sorted(window for _, window in recorder.asked) == [Window(10, 45, 10, 5), Window(10, 50, 10, 10)]
    recorder.asked.clear()
    scene.isel(band=1, y=slice(0, 2), x=slice(3)).compute()
    assert recorder.asked == [(("green",), Window(0, 0, 2, 3))]


def test_any_indexing_equals_numpy(tmp_path: Path) -> None:
    values = ramp(3, 40, 50)
    data = open_reader(write(tmp_path / "a.tif", values)).to_xarray(chunks=16).data
    for key in (
        np.s_[:, ::-1, 3:40:4],
        np.s_[[2, 0], 5:6, -7:],
        np.s_[1, 7],
        np.s_[:, [3, 30, 4], 9],
        np.s_[:, 5:5, :],
        np.s_[..., -1],
        np.s_[:, :, np.arange(50) % 7 == 0],
    ):
        np.testing.assert_array_equal(data[key].compute(), values[key])


def test_tasks_carry_a_reader_and_a_window_only(tmp_path: Path) -> None:
    scene = open_reader(write(tmp_path / "a.tif", ramp(3, 400, 400))).to_xarray(chunks=100)
    graph = dict(scene.data.__dask_graph__())
    assert len(graph) == 16
    assert len(pickle.dumps(graph)) < 16 * 4000
    with dask.config.set(scheduler="processes", num_workers=1):
        assert int(scene.isel(x=slice(0, 5)).max().compute()) == int(scene.isel(x=slice(0, 5)).values.max())


def test_chunks_are_whole_blocks_near_2048(tmp_path: Path) -> None:
    tiled = open_reader(write(tmp_path / "a.tif", ramp(1, 600, 5000), tiled=True, blockxsize=768, blockysize=256))
    assert tiled.to_xarray().data.chunks == ((1,), (600,), (2304, 2304, 392))
    striped = open_reader(write(tmp_path / "b.tif", ramp(1, 3000, 30), blockysize=1))
    assert striped.to_xarray().data.chunks == ((1,), (2048, 952), (30,))


def test_what_is_measured_is_a_lazy_coordinate(tmp_path: Path) -> None:
    values = ramp()
    values[1, 4:8, 9] = 0
    scene = open_scene(write(tmp_path / "a.tif", values, nodata=0))
    assert dask.is_dask_collection(scene.coords["valid"].data)
    np.testing.assert_array_equal(scene.coords["valid"].values, (values != 0).all(axis=0))
    assert scene.rio.nodata == 0
    assert "valid" not in open_scene(write(tmp_path / "b.tif", values)).coords


def test_what_is_stated_is_in_the_attributes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp())
    scene = open_scene(path, bands={"nir": "1"}, nodata=9, scale=0.5, offset=-1.0, gsd_m=3.0)
    assert scene.attrs == {"gsd_m": 3.0, "scale": 0.5, "offset": -1.0, "_FillValue": 9}
    assert list(scene.band.values) == ["nir", "green", "blue"]
    assert open_scene(path).attrs == {"gsd_m": 10.0}


def test_without_crs_it_reads_and_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.jpg", ramp(), driver="JPEG", crs=None, transform=None)
    with caplog.at_level(logging.WARNING, "geoseg"):
        assert open_reader(path).gsd_m is None
        assert open_reader(path, SceneOptions(gsd_m=0.5)).gsd_m == 0.5
    assert [
        record.getMessage().count("has no CRS") for record in caplog.records if record.name.startswith("geoseg")
    ] == [1]


def test_info_is_plain_and_complete(tmp_path: Path) -> None:
    info = scene_info(open_reader(write(tmp_path / "a.tif", ramp(), nodata=0)))
    assert json.loads(json.dumps(info)) == info
    assert (info["rows"], info["columns"], info["crs"], info["gsd_m"]) == (37, 53, "EPSG:32631", 10.0)
    assert info["bounds"] == [500_000, 4_999_630, 500_530, 5_000_000]
    assert [band["name"] for band in info["bands"]] == ["red", "green", "blue"]


# --- a DataArray as scene ------------------------------------------------------------------------------------------


def test_a_rioxarray_scene_gets_the_same_form(tmp_path: Path) -> None:
    values = ramp()
    values[0, 1, 1] = 0
    path = write(tmp_path / "a.tif", values, nodata=0, descriptions=["red", "green", "nir"])
    for chunks in (None, {"x": 20, "y": 20}):
        with rioxarray.open_rasterio(path, chunks=chunks) as opened:
            scene = open_scene(opened)
            ours = open_scene(path)
            assert list(scene.band.values) == ["red", "green", "nir"]
            assert scene.odc.geobox == ours.odc.geobox
            assert scene.attrs == ours.attrs
            np.testing.assert_array_equal(scene.values, ours.values)
            np.testing.assert_array_equal(scene.valid.values, ours.valid.values)
            assert dask.is_dask_collection(scene.data) == (chunks is not None)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_our_own_scene_passes_unchanged(tmp_path: Path, transform: Affine) -> None:
    scene = open_scene(write(tmp_path / "a.tif", ramp(), transform=transform, nodata=9))
    again = open_scene(scene)
    assert geobox_of(again) == geobox_of(scene)
    assert again.attrs == scene.attrs
    xr.testing.assert_equal(again.compute(), scene.compute())


def test_a_plane_a_date_and_other_names_are_understood(tmp_path: Path) -> None:
    geobox = GeoBox((4, 5), Affine(1e-3, 0, 3, 0, -1e-3, 50), "EPSG:4326")
    plane = odc.geo.xr.wrap_xr(np.arange(20, dtype="float32").reshape(4, 5), geobox)
    assert plane.dims == ("latitude", "longitude")
    scene = open_scene(plane.expand_dims("time"), bands={"nir": "1"}, gsd_m=100.0)
    assert scene.dims == ("band", "y", "x")
    assert scene.odc.geobox == geobox
    assert list(scene.band.values) == ["nir"]
    assert scene.attrs == {"gsd_m": 100.0}
    last = xr.concat([plane, plane], "band").transpose(..., "band")
    assert open_scene(last).shape == (2, 4, 5)


def test_a_valid_mask_and_nodata_can_be_stated_for_a_data_array(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path / "a.tif", ramp()))
    mask = np.ones((1, 37, 53), np.uint8)
    mask[:, :10] = 0
    path = str(write(tmp_path / "m.tif", mask))
    found = open_scene(scene, valid_mask=path, nodata=int(scene[0, 20, 20])).valid.values
    np.testing.assert_array_equal(found, (mask[0] != 0) & (ramp() != ramp()[0, 20, 20]).all(axis=0))
    with pytest.raises(InputError, match="has 37 x 53 pixels and 1 bands, the scene has 20 x 53"):
        open_scene(scene.isel(y=slice(20)), valid_mask=path)


def test_data_arrays_that_are_no_scene_are_refused(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path / "a.tif", ramp()))
    crooked = scene.isel(y=[0, 1, 5, 6])
    cases = {
        "no evenly spaced y and x": xr.DataArray(np.zeros((3, 4, 5)), dims=("band", "y", "x")),
        "no evenly spaced": crooked,
        "none of them y and x": xr.DataArray(np.zeros((3, 4)), dims=("a", "b")),
        "has 2 dates; choose one": xr.concat([scene, scene], "time").isel(band=0),
        "one date": xr.concat([scene, scene], "time"),
        "dtype complex128": scene + 1j,
        "dtype bool": scene > 3,
    }
    for message, array in cases.items():
        with pytest.raises(InputError, match=message):
            open_scene(array)
    with pytest.raises(InputError, match="numbers from 1 to 3, not nir=b"):
        open_scene(scene, bands={"nir": "b.tif"})


# --- real imagery --------------------------------------------------------------------------------------------------


def test_an_orthophoto_with_its_near_infrared(shared_data: Path) -> None:
    folder = shared_data / "flair"
    reader = open_reader(folder / "zone_B_rgb.tif", SceneOptions(bands={"nir": "zone_B_nir.tif"}))
    assert reader.shape == (10240, 2560)
    assert reader.bands == ("red", "green", "blue", "nir")
    assert reader.gsd_m == pytest.approx(0.2, rel=1e-9)
    assert reader.block_shape == (512, 512)
    assert not reader.has_mask
    window = Window(5000, 1000, 100, 120)
    with rasterio.open(folder / "zone_B_nir.tif") as file:
        expected = file.read(1, window=rasterio.windows.Window(1000, 5000, 120, 100))
    np.testing.assert_array_equal(reader.read(window).values[3], expected)


def test_a_coast_by_sentinel_2_names(shared_data: Path) -> None:
    path = shared_data / "stacks" / "s2_cape_lookout" / "s2_20181013_B01-B08.tif"
    reader = open_reader(path, SceneOptions(nodata=255))
    assert reader.bands[:4] == ("coastal", "blue", "green", "red")
    assert reader.select(["green", "red", "nir"]).bands == ("green", "red", "nir")
    assert 8 < (reader.gsd_m or 0) < 8.5
    valid = reader.select(["green", "nir"]).read(Window(0, 0, *reader.shape)).valid
    assert 0.68 < valid.mean() < 0.69


def test_a_band_called_alpha_that_holds_near_infrared(shared_data: Path) -> None:
    path = shared_data / "stacks" / "naip_cottonwood" / "20100629.tif"
    reader = open_reader(path)
    assert reader.bands == ("red", "green", "blue", "band_4")
    assert reader.read(Window(0, 0, *reader.shape)).valid.all()
    assert open_reader(path, SceneOptions(bands={"nir": "4"})).bands[3] == "nir"


@pytest.mark.parametrize(
    ("name", "shape", "gsd_m"),
    [
        ("dubai/tile1_009.jpg", (644, 797), None),
        ("hls_worldcover/t041.tif", (128, 128), None),
        ("stacks/s2_ftw_pair/two_windows.tif", (379, 578), 10.0),
        ("stacks/s2_slovenia_5dates/ref_scene_0.tif", (101, 100), 9.996),
        ("stacks/landsat_river/1985.tif", (377, 697), 89.2),
        ("oam_buildings/zanzibar_0_rgb.tif", (2048, 4096), 0.148),
    ],
)
def test_each_kind_of_file_opens(shared_data: Path, name: str, shape: tuple[int, int], gsd_m: float | None) -> None:
    reader = open_reader(shared_data / name)
    assert reader.shape == shape
    assert reader.gsd_m == (None if gsd_m is None else pytest.approx(gsd_m, rel=1e-3))
    pixels = reader.read(Window(0, 0, 64, 64))
    assert pixels.values.shape == (len(reader.bands), 64, 64)
    assert pixels.valid.all()
