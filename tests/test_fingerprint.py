"""What a run is bound to: a scene that changed is noticed, whatever its files say of themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from moto_server import SECRET, s3_server
from numpy.typing import NDArray
from rasterio.shutil import copy as copy_raster
from scene_files import ramp, write

from geoseg.errors import GeosegError
from geoseg.raster import remote
from geoseg.raster.fingerprint import SAMPLE_PX, sample_windows
from geoseg.raster.remote import plain_name, remote_state
from geoseg.raster.scene import SceneOptions, open_reader


@given(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)))
def test_samples_lie_inside_with_center_and_corners_among_them(shape: tuple[int, int]) -> None:
    windows = sample_windows(shape)
    assert all(window.clipped(shape) == window and max(window.shape) <= SAMPLE_PX for window in windows)
    assert len(set(windows)) == len(windows) <= 12
    for row, col in ((0, 0), (0, shape[1] - 1), (shape[0] - 1, 0), (shape[0] - 1, shape[1] - 1)):
        assert any(w.row <= row < w.row_stop and w.col <= col < w.col_stop for w in windows)
    center = shape[0] // 2, shape[1] // 2
    assert any(w.row <= center[0] <= w.row_stop and w.col <= center[1] <= w.col_stop for w in windows)
    if min(shape) > 10_000:
        assert len(windows) == 12
        assert len({(4 * w.row // shape[0], 4 * w.col // shape[1]) for w in windows}) >= 10


def fingerprint(path: Path, **options: Any) -> dict[str, str]:
    """By a thread of its own, which has no file open; a run that goes on is a process of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: open_reader(path, SceneOptions(**options)).fingerprint()).result()


def put_back(path: Path, values: NDArray[Any], **profile: Any) -> None:
    """Replace pixels by others in a file of the same size and date."""
    before = path.stat()
    write(path, values, **profile)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_file_replaced_with_the_same_size_and_date_is_noticed(tmp_path: Path) -> None:
    path, values = tmp_path / "a.tif", ramp(3, 300, 400)
    write(path, values)
    copy_raster(str(path), str(tmp_path / "b.vrt"), driver="VRT")
    first = {name: fingerprint(tmp_path / name) for name in ("a.tif", "b.vrt")}
    put_back(path, values)
    assert fingerprint(path) == first["a.tif"]
    changed = values.copy()
    changed[1, 150, 200] += 1
    put_back(path, changed)
    for name, before in first.items():
        after = fingerprint(tmp_path / name)
        assert {key for key in before if before[key] != after[key]} == {"sampled pixels"}


def test_only_the_bands_that_are_used_count(tmp_path: Path) -> None:
    path, values = tmp_path / "a.tif", ramp(3, 60, 70)
    write(path, values, descriptions=("red", "green", "blue"))
    reader = open_reader(path)
    first = reader.select(["red", "blue"]).fingerprint()
    values[1] += 1
    put_back(path, values, descriptions=("red", "green", "blue"))
    assert open_reader(path).select(["red", "blue"]).fingerprint() == first


def test_validity_counts_too(tmp_path: Path) -> None:
    path, mask = write(tmp_path / "a.tif", ramp(1, 50, 50)), tmp_path / "mask.tif"
    valid = np.ones((1, 50, 50), np.uint8)
    write(mask, valid)
    first = fingerprint(path, valid_mask=str(mask))
    put_back(mask, 1 - valid)
    assert fingerprint(path, valid_mask=str(mask)) != first


def test_a_huge_mosaic_is_sampled_at_once(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", ramp(1, 64, 64))
    source = (
        f'<SimpleSource><SourceFilename>{tmp_path}/a.tif</SourceFilename><SourceBand>1</SourceBand><SrcRect xOff="0" '
        'yOff="0" xSize="64" ySize="64"/><DstRect xOff="49968" yOff="49968" xSize="64" ySize="64"/></SimpleSource>'
    )
    (tmp_path / "huge.vrt").write_text(
        '<VRTDataset rasterXSize="100000" rasterYSize="100000"><SRS>EPSG:32631</SRS><GeoTransform>5e5, 10, 0, 5e6, 0, '
        f'-10</GeoTransform><VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand></VRTDataset>'
    )
    first = fingerprint(tmp_path / "huge.vrt")
    assert str(tmp_path / "a.tif") in first["source 0"]
    put_back(tmp_path / "a.tif", ramp(1, 64, 64) + 1)
    assert fingerprint(tmp_path / "huge.vrt")["sampled pixels"] != first["sampled pixels"]


def test_a_scene_that_cannot_be_read_has_no_fingerprint(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(1, 300, 300), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    reader, data = open_reader(path), bytearray(path.read_bytes())
    middle = data.find(b"\x78", len(data) // 2)
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(GeosegError, match=r"Reading rows .* failed"):
        reader.fingerprint()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("https://host/a.tif?sig=secret&x=1", "https://host/a.tif"),
        ("/vsicurl/https://host/a.tif", "https://host/a.tif"),
        ("https://user:secret@host/a.tif", "https://host/a.tif"),
        ("/vsis3/bucket/a/b.tif", "s3://bucket/a/b.tif"),
        ("s3://bucket/a/b.tif", "s3://bucket/a/b.tif"),
        ("some/a?b.tif", "some/a?b.tif"),
    ],
)
def test_names_hold_no_secret(path: str, name: str) -> None:
    assert plain_name(path) == name


# --- on S3 ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as system, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_S3_ENDPOINT", os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"))
        patch.setenv("AWS_HTTPS", "NO")
        patch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
        yield system


def etag(source: str) -> str:
    return source.partition("ETag ")[2].partition(",")[0]


@pytest.mark.parametrize("name", ["s3://bucket/a b.tif", "/vsis3/bucket/a b.tif"])
def test_a_scene_on_s3_is_bound_to_its_etag(s3: Any, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.tif", ramp(1, 300, 300))
    s3.put_file(str(path), "bucket/a b.tif")
    first = open_reader(name).fingerprint()
    assert etag(first["source 0"]).strip('"\\') == s3.info("bucket/a b.tif")["ETag"].strip('"')
    assert SECRET not in str(first)
    assert open_reader(name).fingerprint()["sampled pixels"] == open_reader(path).fingerprint()["sampled pixels"]
    s3.put_file(str(write(path, ramp(1, 300, 300) + 1)), "bucket/a b.tif")
    assert etag(open_reader(name).fingerprint()["source 0"]) != etag(first["source 0"])


def test_a_vrt_is_bound_to_the_etags_of_its_sources(s3: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(1, 64, 64), transform=Affine(1, 0, 5e5, 0, -1, 5e6))
    s3.put_file(str(path), "bucket/part.tif")
    copy_raster("/vsis3/bucket/part.tif", str(tmp_path / "b.vrt"), driver="VRT")
    first = open_reader(tmp_path / "b.vrt").fingerprint()["source 0"]
    assert "s3://bucket/part.tif" in first
    s3.put_file(str(write(path, ramp(1, 64, 64) + 1)), "bucket/part.tif")
    assert open_reader(tmp_path / "b.vrt").fingerprint()["source 0"] != first


def test_without_credentials_or_s3fs_a_public_object_still_tells_its_etag(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.pipe_file("bucket/public.tif", b"content", ACL="public-read")
    signed = remote_state("s3://bucket/public.tif")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    unsigned = remote_state("s3://bucket/public.tif")
    assert unsigned["ETag"] == signed["ETag"]
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.5)
    monkeypatch.setenv("AWS_S3_ENDPOINT", "127.0.0.1:9")
    assert remote_state("s3://bucket/public.tif") == {}
