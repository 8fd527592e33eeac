"""One GDAL handle per thread and file, opened when first needed.

GDAL handles may not be shared between threads, nor survive a fork, nor be pickled. So a reader holds paths only and
asks here for the handle of the thread that is reading. Each thread keeps the handles that it used last, at most
`MAX_HANDLES`; a file that was replaced on disk since is opened anew.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio.env import get_gdal_config, getenv, hasenv, set_gdal_config
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from geoseg.errors import GeosegError
from geoseg.grid.window import Window
from geoseg.raster.georeference import ignore_not_georeferenced

MAX_HANDLES = 32
GDAL_CACHE_BYTES = 256 * 2**20  # of decoded pixels, for all files of a process; GDAL's own default is 5 % of the RAM

REMOTE_SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing of the server's folder, no guessing of sidecar files
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_MULTIRANGE": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "VSI_CACHE": "TRUE",
}
LOCAL_SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE",  # masks and georeference may lie beside the file
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",  # else the missing half of a cut JPEG reads as gray
}

_REMOTE = re.compile(
    r"^(\w+\+)*(https?|ftp|s3|gs|az|adls|oss|swift|hdfs)(\+\w+)*://|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs)\b"
)

_local = threading.local()


def is_remote(path: str) -> bool:
    """Whether GDAL reads `path` over the network."""
    return _REMOTE.search(path) is not None


def is_local_file(path: str) -> bool:
    return not is_remote(path) and os.path.exists(path)  # noqa: PTH110  (names that Path would normalize stay as given)


def limit_gdal_cache() -> int:
    """Bound GDAL's cache of decoded pixels in this process, unless the user has set GDAL_CACHEMAX; returns the bound.

    The environment variable counts, and so does an enclosing `rasterio.Env`. The bound is of the process, not of a
    thread, so it is set for good and not while a file is read.
    """
    stated = "GDAL_CACHEMAX" in os.environ or (hasenv() and "GDAL_CACHEMAX" in getenv())
    if not stated and get_gdal_config("GDAL_CACHEMAX") != GDAL_CACHE_BYTES:
        set_gdal_config("GDAL_CACHEMAX", GDAL_CACHE_BYTES)
    return int(get_gdal_config("GDAL_CACHEMAX"))


def gdal_settings(path: str) -> rasterio.Env:
    """GDAL's settings while `path` is opened or read; they hold for this thread only."""
    limit_gdal_cache()
    settings = REMOTE_SETTINGS if is_remote(path) else LOCAL_SETTINGS
    return rasterio.Env(**{name: value for name, value in settings.items() if name not in os.environ})


def open_dataset(path: str) -> DatasetReader:
    """A new handle for `path`; rasterio's errors pass through."""
    # A local file goes in as Path: its name may hold '#', ':' or '!', which rasterio would read as a URL.
    target: str | Path = Path(path) if is_local_file(path) else path
    with ignore_not_georeferenced(), gdal_settings(path):  # scene.py says it once, in the user's words
        return rasterio.open(target)


def dataset(path: str) -> DatasetReader:
    """This thread's handle for `path`."""
    if getattr(_local, "pid", None) != os.getpid():  # after a fork the parent's handles share its file offsets
        _local.pid, _local.handles = os.getpid(), OrderedDict()
    handles: OrderedDict[str, tuple[tuple[int, int], DatasetReader]] = _local.handles
    state = _state(path)
    if path in handles and handles[path][0] == state:
        handles.move_to_end(path)
        return handles[path][1]
    if path in handles:
        handles.pop(path)[1].close()
    handles[path] = state, open_dataset(path)
    while len(handles) > MAX_HANDLES:
        handles.popitem(last=False)[1][1].close()
    return handles[path][1]


def _state(path: str) -> tuple[int, int]:
    """Size and time of the last change of a local file, whatever its date is set to; zeros for all that is not one."""
    try:
        status = os.stat(path) if not is_remote(path) else None  # noqa: PTH116
    except (OSError, ValueError):
        status = None
    return (status.st_size, status.st_ctime_ns) if status else (0, 0)


@contextmanager
def reading(path: str, window: Window) -> Iterator[DatasetReader]:
    """This thread's handle; what fails inside is a GeosegError with window, file and GDAL's words."""
    try:
        with gdal_settings(path):
            yield dataset(path)
    except (RasterioError, OSError, MemoryError) as error:
        raise GeosegError(f"Reading {window} of {path} failed: {gdal_message(error)}") from error


def gdal_message(error: BaseException) -> str:
    """GDAL's own words: the innermost cause, without rasterio's 'See previous exception for details'."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text if text.endswith(".") else text + "."
