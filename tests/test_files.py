"""Bad input is refused in plain words; odd names are not bad input."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.shutil import copy as copy_raster
from scene_files import AT, ramp, write

from geoseg.errors import GeosegError, InputError
from geoseg.grid.window import Window
from geoseg.raster.scene import open_reader

LAYOUTS = [
    {},
    {"tiled": True, "blockxsize": 16, "blockysize": 16},
    {"BIGTIFF": "YES"},
    {"ENDIANNESS": "BIG"},
    {"driver": "COG"},
]


def header(width: int, height: int, *, strips: int, stored: int) -> bytes:
    """A TIFF of one directory and no pixels, whose strip table has `strips` entries at byte `stored`."""
    rows = -(-height // strips)
    fields = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, stored),
        (277, 1),
        (278, rows),
        (279, stored),
    ]
    counts = {273: strips, 279: strips}
    entries = b"".join(struct.pack("<HHII", tag, 4, counts.get(tag, 1), value) for tag, value in fields)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4)


def refused(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        open_reader(path)
    message = str(caught.value)
    assert message.count("\n") == 0
    return message


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "a.tif does not exist" in refused(tmp_path / "a.tif")
    assert "is a folder" in refused(tmp_path)


def test_files_that_only_are_called_tif(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"")
    assert "is empty (0 bytes)" in refused(path)
    path.write_text("\n<!DOCTYPE html><html><body>Not found</body></html>")
    assert "is a web page (HTML)" in refused(path)
    path.write_bytes(bytes(1000))
    assert "not a raster that GDAL can read" in refused(path)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_truncated_tiff_is_refused_when_opened(tmp_path: Path, layout: dict[str, object]) -> None:
    data = write(tmp_path / "a.tif", ramp(3, 100, 100), **layout).read_bytes()
    open_reader(tmp_path / "a.tif")
    cut = tmp_path / "cut.tif"
    for kept in (len(data) - 1100, len(data) // 2, len(data) // 10):
        cut.write_bytes(data[:kept])
        message = refused(cut)
        assert f"it has only {kept} bytes" in message or "damaged" in message


@pytest.mark.parametrize("start", [b"II*\0" + struct.pack("<I", 5000), b"MM\0+" + struct.pack(">HHQ", 8, 0, 5000)])
def test_a_tiff_cut_before_its_directory_is_refused_with_both_numbers(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(start + bytes(1000))
    message = refused(path)
    assert f"would begin at byte 5000; it has only {len(start) + 1000} bytes" in message
    assert "copy or download it again" in message


@pytest.mark.parametrize(("strips", "stored"), [(1, 100), (1, 8), (1, 2**31), (500_000, 8), (1_000_000, 4_000)])
def test_a_header_without_pixels_is_refused(tmp_path: Path, strips: int, stored: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(header(1_000_000, 1_000_000, strips=strips, stored=stored))
    message = refused(path)
    assert "claims 1000000 x 1000000 px" in message
    assert "only 122 bytes" in message


def test_a_sparse_file_without_one_pixel_is_refused_unless_it_says_nodata(tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "width": 500, "height": 500, "count": 1, "dtype": "uint8", "SPARSE_OK": True}
    for name, nodata in (("a.tif", None), ("b.tif", 0)):
        with rasterio.open(tmp_path / name, "w", crs="EPSG:32631", transform=AT, nodata=nodata, **profile):
            pass
    assert "no pixel is stored" in refused(tmp_path / "a.tif")
    assert not open_reader(tmp_path / "b.tif").read(Window(0, 0, 500, 500)).valid.any()


@pytest.mark.parametrize(("driver", "name"), [("PNG", "a.png"), ("JPEG", "a.jpg")])
def test_a_cut_image_never_reads_as_whole(tmp_path: Path, driver: str, name: str) -> None:
    data = write(tmp_path / name, ramp(3, 200, 200), driver=driver, crs=None, transform=None).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(GeosegError, match=r"cut off|Premature end"):
        open_reader(tmp_path / name).read(Window(0, 0, 200, 200))


def test_a_vrt_of_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp())
    copy_raster(str(path), str(tmp_path / "a.vrt"), driver="VRT")
    assert open_reader(tmp_path / "a.vrt").shape == (37, 53)
    path.unlink()
    assert "a.tif, which does not exist" in refused(tmp_path / "a.vrt")


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    assert "complex pixels (band 1, 2)" in refused(write(tmp_path / "a.tif", ramp(2).astype("complex64")))


def test_ground_control_points_alone_are_refused_with_the_gdalwarp_line(tmp_path: Path) -> None:
    points = [GroundControlPoint(row, col, 3 + col / 10, 50 - row / 9) for row in (0, 30) for col in (0, 20, 50)]
    path = tmp_path / "my scene.tif"
    write(path, ramp(), crs="EPSG:4326", transform=None, gcps=points)
    message = refused(path)
    assert "only 6 ground control points" in message
    assert "gdalwarp -t_srs EPSG:4326 -r bilinear 'my scene.tif' warped.tif" in message


def test_a_camera_model_alone_is_refused_with_the_gdalwarp_line(tmp_path: Path) -> None:
    one = [1.0] + [0.0] * 19
    model = RPC(
        height_off=0.0, height_scale=1.0, lat_off=50.0, lat_scale=0.1, line_off=20.0, line_scale=20.0, long_off=3.0,
        long_scale=0.1, samp_off=25.0, samp_scale=25.0, line_num_coeff=one, line_den_coeff=one, samp_num_coeff=one,
        samp_den_coeff=one, err_bias=None, err_rand=None,
    )  # fmt: skip
    path = write(tmp_path / "a.tif", ramp(), crs=None, transform=None, rpcs=model)
    assert "gdalwarp -rpc -t_srs EPSG:4326 -r bilinear 'a.tif' warped.tif" in refused(path)


def test_a_file_of_several_rasters_lists_them(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    layers = {name: (("y", "x"), np.ones((5, 6))) for name in ("ndvi", "ndwi")}
    xr.Dataset(layers).to_netcdf(tmp_path / "a.nc", engine="scipy")
    message = refused(tmp_path / "a.nc")
    assert "holds 2 rasters" in message
    assert message.endswith(":ndwi")
    assert open_reader(message.rpartition(", ")[2]).shape == (5, 6)


@pytest.mark.parametrize(
    "name",
    [
        "a b.tif",
        "ü#1.tif",
        "a:1.tif",
        "zip:a.tif",
        "x!y.tif",
        "q?s=1.tif",
        "[b]{c}.tif",
        "http:a.tif",
        "%20.tif",
        "a.tif:2",
    ],
)
def test_odd_names_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    values = ramp()
    write(tmp_path / "plain.tif", values).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path / name, str(tmp_path / name), name):
        reader = open_reader(source)
        np.testing.assert_array_equal(reader.read(Window(0, 0, *reader.shape)).values, values)
    monkeypatch.chdir(tmp_path.parent)  # the reader does not depend on the folder it was opened in
    assert reader.read(Window(0, 0, 1, 1)).values.shape == (3, 1, 1)


def test_a_georeference_beside_the_file_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", ramp(), driver="PNG", crs=None, transform=None)
    (tmp_path / "a.pgw").write_text("0.5\n0\n0\n-0.5\n100.25\n199.75\n")
    assert open_reader(path).transform == Affine(0.5, 0, 100, 0, -0.5, 200)
