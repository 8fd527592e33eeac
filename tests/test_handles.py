from __future__ import annotations

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scene_files import ramp, write

from geoseg.catalog import open_scene
from geoseg.errors import InputError
from geoseg.grid.window import Window
from geoseg.raster import handles
from geoseg.raster.scene import SceneOptions, open_reader


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with range requests, and counts the bytes it gave."""

    given: list[int]

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        data = path.read_bytes() if path.is_file() else None
        if data is None:
            self.send_error(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = (int(asked[1]), int(asked[2] or len(data) - 1) + 1) if asked else (0, len(data))
        part = data[start:stop]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"first"')
        self.end_headers()
        self.given.append(len(part))
        self.wfile.write(part)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("ETag", '"first"')
        self.send_header("Content-Length", str(Path(self.translate_path(self.path)).stat().st_size))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[int]]]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    given: list[int] = []
    handler = type("Handler", (Ranges,), {"given": given})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path))
    ) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_address[1]}", given
        http_server.shutdown()
        thread.join()


def test_only_the_asked_window_comes_over_the_network(tmp_path: Path, server: tuple[str, list[int]]) -> None:
    address, given = server
    values = np.random.default_rng(0).integers(1, 255, (3, 1500, 1500), np.uint8)
    write(tmp_path / "a.tif", values, tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    reader = open_reader(f"{address}/a.tif")
    window = Window(700, 900, 50, 60)
    np.testing.assert_array_equal(reader.read(window).values, values[(slice(None), *window.slices)])
    assert 0 < sum(given) < 0.1 * (tmp_path / "a.tif").stat().st_size
    before = sum(given)
    scene = open_scene(f"{address}/a.tif").isel(band=[2, 0], y=slice(100, 120), x=slice(30, 300, 3))
    assert sum(given) == before, "opening a scene reads no pixels"
    np.testing.assert_array_equal(scene.values, values[[2, 0], 100:120, 30:300:3])
    assert sum(given) - before < 0.1 * (tmp_path / "a.tif").stat().st_size


def test_band_files_beside_a_scene_on_the_network(tmp_path: Path, server: tuple[str, list[int]]) -> None:
    address, _ = server
    write(tmp_path / "rgb.tif", ramp(3))
    write(tmp_path / "nir.tif", ramp(1))
    reader = open_reader(f"{address}/rgb.tif", SceneOptions(bands={"nir": "nir.tif"}))
    assert reader.bands == ("red", "green", "blue", "nir")
    assert reader.read(Window(0, 0, 2, 2)).values.shape == (4, 2, 2)
    assert "first" in reader.fingerprint()["source 0"]


def test_what_is_no_raster_on_the_network_is_refused(tmp_path: Path, server: tuple[str, list[int]]) -> None:
    address, _ = server
    (tmp_path / "page.tif").write_text("<html></html>")
    for name in ("gone.tif", "page.tif"):
        with pytest.raises(InputError, match=f"{address}/{name} cannot be read as a raster: "):
            open_reader(f"{address}/{name}")


def test_a_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp())
    reader = open_reader(path)
    first = reader.read(Window(0, 0, 5, 5)).values
    write(tmp_path / "b.tif", ramp() + 1).replace(path)
    np.testing.assert_array_equal(reader.read(Window(0, 0, 5, 5)).values, first + 1)


def test_a_thread_keeps_few_handles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "MAX_HANDLES", 3)
    paths = [str(write(tmp_path / f"{number}.tif", ramp())) for number in range(6)]
    opened = [handles.dataset(path) for path in paths]
    assert [one.closed for one in opened] == [True] * 3 + [False] * 3
    assert handles.dataset(paths[4]) is opened[4]


def test_each_thread_has_a_handle_of_its_own(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.tif", ramp()))
    found = []
    thread = threading.Thread(target=lambda: found.append(handles.dataset(path)))
    thread.start()
    thread.join()
    assert found[0] is not handles.dataset(path)


def test_settings_hold_only_while_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp())
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE") as env:
        open_reader(path)
        assert env.options["GDAL_DISABLE_READDIR_ON_OPEN"] == "TRUE"
        assert rasterio.env.getenv()["GDAL_DISABLE_READDIR_ON_OPEN"] == "TRUE"


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("https://host/a.tif", True),
        ("s3://bucket/a.tif", True),
        ("/vsicurl/https://host/a.tif", True),
        ("/vsizip//vsicurl/https://host/a.zip/a.tif", True),
        ("zip+https://host/a.zip!a.tif", True),
        ("a.tif", False),
        ("http:a.tif", False),
        ("/vsimem/a.tif", False),
    ],
)
def test_remote_paths_are_told_by_their_form(path: str, remote: bool) -> None:
    assert handles.is_remote(path) is remote
    assert handles.gdal_settings(path).options["GDAL_DISABLE_READDIR_ON_OPEN"] == ("EMPTY_DIR" if remote else "FALSE")


def cache_limit(code: str, **environment: str) -> int:
    """What a fresh process answers."""
    script = f"from geoseg.raster import handles\n{code}\nprint(handles.limit_gdal_cache())"
    env = {name: text for name, text in os.environ.items() if name != "GDAL_CACHEMAX"} | environment
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=env)
    return int(done.stdout)


def test_the_cache_of_gdal_is_bounded_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp())
    read = f"handles.dataset({str(path)!r})\nfrom rasterio.env import get_gdal_config as get\n"
    assert cache_limit(f"{read}assert get('GDAL_CACHEMAX') == handles.GDAL_CACHE_BYTES") == 256 * 2**20
    assert cache_limit("", GDAL_CACHEMAX="64") == 64 * 2**20
    assert cache_limit("import rasterio; rasterio.Env(GDAL_CACHEMAX=10**8).__enter__()") == 10**8


def test_settings_of_the_environment_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "GDAL_DISABLE_READDIR_ON_OPEN", "TRUE")
    assert "GDAL_DISABLE_READDIR_ON_OPEN" not in handles.gdal_settings("https://host/a.tif").options
