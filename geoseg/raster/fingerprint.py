"""What identifies the pixels of a scene, reading next to none of them.

Sizes and dates miss a file that was replaced within the clock's tick, or whose date was set back; a few sampled
windows notice it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from geoseg.grid.window import Window
from geoseg.raster.cog import run_digest
from geoseg.raster.handles import dataset, gdal_settings, is_local_file, is_remote
from geoseg.raster.remote import plain_name, remote_state

if TYPE_CHECKING:
    from geoseg.raster.reader import SceneReader

SAMPLES = 12
SAMPLE_PX = 32
_REQUESTS = 16  # at once, of the state of remote files
_SIDECARS = (".ovr", ".aux.xml")  # overviews and statistics: viewers write them, and no pixel depends on them
_PLASTIC = (0.7548776662466927, 0.5698402909980532)  # steps of an evenly spread sequence in two dimensions (R2)


def fingerprint(reader: SceneReader) -> dict[str, str]:
    """See SceneReader.fingerprint: sources with size and time or ETag, grid, bands, what was stated, sampled pixels."""
    paths = [file.path for file in reader.files] + ([reader.valid_mask.path] if reader.valid_mask else [])
    used = {band.file for band in reader.layers}
    parts = {
        f"source {index}": json.dumps(_source(path))
        for index, path in enumerate(paths)
        if index in used or index >= len(reader.files)
    }
    crs = reader.crs
    return parts | {
        "shape": f"{reader.shape[0]} x {reader.shape[1]}",
        "transform": json.dumps([float(number) for number in reader.transform[:6]]),
        "crs": crs.to_wkt() if crs is not None else "none",
        "dtype": reader.dtype,
        "bands": json.dumps(
            [[band.name, band.file, band.number, repr(band.nodata), band.mask] for band in reader.layers]
        ),
        "scale": repr(reader.stated.scale),
        "offset": repr(reader.stated.offset),
        "gsd_m": repr(reader.gsd_m),
        "zoom": repr(float(reader.zoom)),
        "sampled pixels": _sampled(replace(reader, zoom=1.0)),
    }


def file_identity(path: str) -> dict[str, str]:
    """What identifies the pixels of one raster file: the run that made it, if that is known, else as of a scene."""
    with gdal_settings(path):
        raster = dataset(path)
        tags, shape = raster.tags(), raster.shape
    digest = None if is_remote(path) else run_digest(Path(path))
    if digest is not None:
        return {"run": digest, "layer": tags.get("GEOSEG_LAYER", "")}
    sampled = hashlib.sha256()
    with gdal_settings(path):
        for window in sample_windows(shape):
            sampled.update(raster.read(window=RasterioWindow(window.col, window.row, window.width, window.height)))
    return {"source": json.dumps(_source(path)), "tags": json.dumps(tags), "sampled pixels": sampled.hexdigest()}


def _sampled(reader: SceneReader) -> str:
    """sha256 of stored values and validity in a few small windows."""
    digest = hashlib.sha256()
    for window in sample_windows(reader.shape):
        pixels = reader.read(window)
        digest.update(pixels.values.tobytes())
        digest.update(pixels.valid.tobytes())
    return digest.hexdigest()


def sample_windows(shape: tuple[int, int]) -> list[Window]:
    """Up to `SAMPLES` windows of `SAMPLE_PX`, from top to bottom: center, corners, and places spread between."""
    height, width = (min(SAMPLE_PX, size) for size in shape)
    places = {
        (int(down * (shape[0] - height)), int(right * (shape[1] - width))) for down, right in _places()
    }  # shares of the free space
    return [Window(row, col, height, width) for row, col in sorted(places)]


def _places() -> Iterator[tuple[float, float]]:
    yield 0.5, 0.5
    yield from ((down, right) for down in (0.0, 1.0) for right in (0.0, 1.0))
    for step in range(1, SAMPLES - 4):
        yield step * _PLASTIC[0] % 1, step * _PLASTIC[1] % 1


def _source(path: str) -> dict[str, str]:
    """State of a source and, for a VRT or a mask beside it, of the files that it is made of."""
    names = sorted(_files(path))
    with ThreadPoolExecutor(_REQUESTS) as pool:
        states = list(pool.map(_state, names))
    return {"name": plain_name(path)} | dict(zip(map(plain_name, names), states, strict=True))


def _files(path: str) -> set[str]:
    """The file itself, masks beside it, and what a VRT is made of, through VRTs of VRTs."""
    try:
        with gdal_settings(path):
            parts = {name for name in dataset(path).files if not name.endswith(_SIDECARS)}
    except (RasterioError, OSError):
        parts = set()
    parts = {name for name in parts if plain_name(name) != plain_name(path)}
    nested = [_files(name) for name in parts if name.lower().endswith(".vrt")]
    return {path}.union(parts, *nested)


def _state(name: str) -> str:
    if is_local_file(name):
        status = Path(name).stat()
        return f"{status.st_size} bytes, mtime_ns {status.st_mtime_ns}"
    if is_remote(name):
        return ", ".join(f"{key} {text}" for key, text in remote_state(name).items()) or "nothing told"
    return "not a local file"
