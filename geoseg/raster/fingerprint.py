"""What identifies the pixels of a scene, without reading them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from rasterio.errors import RasterioError

from geoseg.raster.handles import dataset, is_local_file

if TYPE_CHECKING:
    from geoseg.raster.reader import SceneReader

HTTP_TIMEOUT_S = 10.0
_SIDECARS = (".ovr", ".aux.xml")  # overviews and statistics: viewers write them, and no pixel depends on them


def fingerprint(reader: SceneReader) -> dict[str, str]:
    """See SceneReader.fingerprint: sources with size and time or ETag, grid, bands, and what was stated."""
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
    }


def _source(path: str) -> dict[str, str]:
    """Of a source and, for a VRT or a mask beside it, of the files that it is made of."""
    if not is_local_file(path):
        return {"name": path, **_http_state(path)}
    return {"name": path} | {name: _file_state(name) for name in sorted(_files(path))}


def _files(path: str) -> set[str]:
    """The file itself, masks beside it, and what a VRT is made of, through VRTs of VRTs."""
    try:
        names = {name for name in dataset(path).files if not name.endswith(_SIDECARS)} - {path}
    except (RasterioError, OSError):
        names = set()
    nested = [_files(name) for name in names if name.lower().endswith(".vrt")]
    return {path}.union(names, *nested)


def _file_state(name: str) -> str:
    if not is_local_file(name):
        return "not a local file"
    status = Path(name).stat()
    return f"{status.st_size} bytes, mtime_ns {status.st_mtime_ns}"


def _http_state(path: str) -> dict[str, str]:
    """Size, ETag and date as the server tells them; empty where it does not, or for other protocols."""
    url = path.removeprefix("/vsicurl/")
    if not url.startswith(("http://", "https://")):
        return {}
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "geoseg"})
    try:
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as answer:
            return {
                name: answer.headers[name]
                for name in ("Content-Length", "ETag", "Last-Modified")
                if answer.headers[name]
            }
    except (urllib.error.URLError, OSError, ValueError):
        return {}
