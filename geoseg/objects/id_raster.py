"""Ids as a GeoTIFF of uint32, and the table of what each id is, as Parquet beside it: `ids.tif` and `ids.parquet`."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import GeosegError, InputError
from geoseg.grid import Window
from geoseg.grid.window import windows_of
from geoseg.objects.paint import BLOCK
from geoseg.raster.cog import Layer, publish_cog, run_digest
from geoseg.raster.disk import disk_errors, publish_bytes
from geoseg.raster.georeference import Georef, ignore_not_georeferenced

TILE = 512

_RUN = b"GEOSEG_RUN"  # in the table's metadata: digest of the run, as the raster has it

Progress = Callable[[int, int], None]  # pixels done and pixels in all
Paint = Callable[[Window], NDArray[np.uint32]]


def table_path(raster: Path) -> Path:
    """Where the table of a raster of ids is."""
    return raster.with_suffix(".parquet")


def write_ids(
    layer: Layer, paint: Paint, georef: Georef, *, nodata: int, digest: str, folder: Path, progress: Progress
) -> None:
    """Write a raster of ids window by window; it appears whole or not at all.

    Args:
        layer: where it goes, and its tags.
        paint: ids of a window.
        georef: of the raster.
        nodata: the id that means none.
        digest: of the run, for `is_current`.
        folder: for what is unfinished, on the file system of the output.
        progress: called after each window.

    Raises:
        GeosegError: it could not be written.
    """
    plain = folder / "ids.tif"
    with disk_errors(f"writing {layer.path.name}", layer.path.parent):
        try:
            _write_plain(plain, layer, paint, georef, nodata, progress)
        except RasterioError as error:
            raise GeosegError(f"{layer.path} could not be written: {error}") from error
        publish_cog(plain, layer, georef, digest, threads=os.cpu_count() or 1)


def _write_plain(plain: Path, layer: Layer, paint: Paint, georef: Georef, nodata: int, progress: Progress) -> None:
    height, width = georef.shape
    place = {"transform": georef.transform} if georef.has_transform else {}
    tiled = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "zlevel": 1}
    done = 0
    with (
        ignore_not_georeferenced(),
        rasterio.open(
            plain,
            "w",
            driver="GTiff",
            dtype="uint32",
            count=1,
            height=height,
            width=width,
            crs=georef.crs,
            nodata=nodata,
            sparse_ok=True,
            bigtiff="if_safer",
            **place,
            **tiled,
        ) as raster,
    ):
        raster.update_tags(**layer.all_tags)
        raster.set_band_description(1, layer.bands[0])
        for window in windows_of(georef.shape, BLOCK):
            raster.write(paint(window), 1, window=RasterioWindow(window.col, window.row, window.width, window.height))
            done += window.area
            progress(done, height * width)


def write_table(path: Path, table: pd.DataFrame, meta: Mapping[str, str], *, digest: str) -> None:
    """Write a table of ids as Parquet; it appears whole or not at all, and is known by the digest of its run."""
    columns = pa.Table.from_pandas(table, preserve_index=False)
    told = {**(columns.schema.metadata or {}), **meta, _RUN: digest}
    content = io.BytesIO()
    pq.write_table(columns.replace_schema_metadata(told), content)
    with disk_errors(f"writing {path.name}", path.parent):
        publish_bytes(path, content.getvalue())


def is_table_of(raster: Path, digest: str) -> bool:
    """Whether the table beside a raster of ids is of the run with this digest."""
    return _run_of(table_path(raster)) == digest


def _run_of(table: Path) -> str | None:
    try:
        told = (pq.read_schema(table).metadata or {}).get(_RUN)
    except (OSError, pa.ArrowException):
        return None
    return None if told is None else told.decode()


def read_table(raster: Path) -> pd.DataFrame:
    """The table of a raster of ids.

    Raises:
        InputError: it is missing, no such table, or of another run than the raster.
    """
    path = table_path(raster)
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise InputError(
            f"{raster} has no table {path.name} beside it, which says what each id is; keep the two files together."
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table of ids: {error}") from error
    made_by = run_digest(raster), _run_of(path)
    if None not in made_by and len(set(made_by)) > 1:
        raise InputError(
            f"{raster} and {path.name} are of two runs: one was stopped between them, or a file was moved; make them "
            "again with --overwrite."
        )
    missing = sorted({"id", "class_id", "class_name"} - set(table.columns))
    if missing:
        raise InputError(f"{path} has no column {missing[0]}; it has {', '.join(map(str, table.columns))}.")
    return table
