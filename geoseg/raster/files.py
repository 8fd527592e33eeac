"""What GDAL says of one file, and a plain word for each way in which it may be unusable."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from geoseg.errors import InputError
from geoseg.raster.handles import dataset, gdal_message, gdal_settings, is_local_file, is_remote
from geoseg.raster.tiff import Extent, directory_start, stored_extent

_GDAL_NAME = re.compile(
    r"^(/vsi|<|[A-Za-z][A-Za-z0-9_]+:|\w+(\+\w+)*://)"
)  # read by GDAL without being a file: NETCDF:..., URLs
_AGAIN = "The file is cut off or damaged: copy or download it again."


@dataclass(frozen=True, slots=True)
class BandFacts:
    """One band: its number in the file (1-based), and what GDAL says of it.

    `mask` says which of GDAL's masks counts: `alpha`, `file` (inside the file, or a .msk beside it), `band` where each
    band has its own, else empty; a nodata value is compared by the reader, exactly, and not through GDAL's mask.
    """

    number: int
    dtype: str
    description: str | None
    color: str
    nodata: float | None
    mask: str
    scale: float
    offset: float


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One raster file: where it lies and which bands it has."""

    path: str
    driver: str
    shape: tuple[int, int]
    transform: Affine
    crs: CRS | None
    block_shape: tuple[int, int]
    bands: tuple[BandFacts, ...]

    @property
    def alpha(self) -> int | None:
        """Number of the band that says which pixels are measured, where GDAL takes it so.

        GDAL calls the fourth of four uint8 bands alpha unless told otherwise, so a description ("nir") counts more.
        """
        if not any(band.mask == "alpha" for band in self.bands):
            return None
        silent = (band for band in self.bands if band.color == "alpha" and _may_be_alpha(band.description))
        return next((band.number for band in silent), None)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the four corners in CRS units."""
        rows, cols = self.shape
        corners = [self.transform @ at for at in ((0, 0), (cols, 0), (0, rows), (cols, rows))]
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        return min(xs), min(ys), max(xs), max(ys)


def _may_be_alpha(description: str | None) -> bool:
    return not description or any(word in description.lower() for word in ("alpha", "mask", "opacity", "band 4"))


def look_at(path: str | os.PathLike[str]) -> FileFacts:
    """Open `path` and read its header; InputError in plain words where it is no usable raster."""
    name = absolute(path)
    _check_is_file(name)
    with gdal_settings(name):
        try:
            opened = dataset(name)
        except (RasterioError, OSError) as error:
            raise InputError(_not_a_raster(name, error)) from error
        _check_has_bands(opened, name)
        _check_is_placed(opened, name)
        if is_local_file(name):
            _check_is_whole(opened, name)
        return _facts(opened, name)


def absolute(path: str | os.PathLike[str]) -> str:
    """The name that any process finds: local files by their absolute path, all else as given."""
    name = os.fspath(path)
    if is_remote(name) or (_GDAL_NAME.match(name) and not Path(name).exists()):
        return name
    return str(Path(name).expanduser().absolute())


def _check_is_file(name: str) -> None:
    if is_remote(name) or (_GDAL_NAME.match(name) and not Path(name).exists()):
        return
    path = Path(name)
    if not path.exists():
        raise InputError(f"{name} does not exist. Check the path.")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{name} is empty (0 bytes). Download or copy it again.")


def _not_a_raster(name: str, error: BaseException) -> str:
    if is_remote(name):
        return f"{name} cannot be read as a raster: {gdal_message(error)} Check the address and your access to it."
    path = Path(name)
    if path.is_dir():
        return f"{name} is a folder, not a raster file. Name the file, or one file per band with --bands."
    if path.is_file() and not os.access(path, os.R_OK):
        return f"{name} may not be read: permission denied."
    if path.is_file() and _is_html(path):
        return f"{name} is a web page (HTML), not a raster. The download probably failed: fetch the file again."
    start = directory_start(path) if path.is_file() else None
    if start is not None and start >= path.stat().st_size:
        return (
            f"{name} ends before its directory, which would begin at byte {start}; it has only {path.stat().st_size} "
            f"bytes. {_AGAIN}"
        )
    return (
        f"{name} is not a raster that GDAL can read, or it is damaged: {gdal_message(error)} Copy or download it "
        "again, or convert it to GeoTIFF with a tool that reads it."
    )


def _is_html(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))


def _check_has_bands(opened: DatasetReader, name: str) -> None:
    if opened.count > 0 and opened.width > 0 and opened.height > 0:
        complex_bands = [
            str(number) for number, dtype in zip(opened.indexes, opened.dtypes, strict=True) if "complex" in dtype
        ]
        if complex_bands:
            raise InputError(
                f"{name} has complex pixels (band {', '.join(complex_bands)}); geoseg reads integers and real numbers. "
                "Convert it to amplitude or intensity first."
            )
        return
    parts = opened.subdatasets
    if parts:
        raise InputError(
            f"{name} holds {len(parts)} rasters; name one of them, quoted: {', '.join(parts[:12])}"
            + (", ..." if len(parts) > 12 else "")
        )
    raise InputError(f"{name} has no bands. Give a raster with at least one.")


def _check_is_placed(opened: DatasetReader, name: str) -> None:
    """Refuse a raster whose place is known by ground control points or a camera model only."""
    if opened.transform != Affine.identity():
        return
    points, points_crs = opened.gcps
    target = points_crs.to_string() if points_crs else "EPSG:4326"
    if len(target) > 20:
        target = "EPSG:4326"
    local = Path(name).name if is_local_file(name) else name
    if points:
        how, option = f"{len(points)} ground control points", f"-t_srs {target}"
    elif opened.rpcs is not None:
        how, option = "rational polynomial coefficients (RPC)", "-rpc -t_srs EPSG:4326"
    elif opened.tags(ns="GEOLOCATION"):
        how, option = "geolocation arrays", "-geoloc -t_srs EPSG:4326"
    else:
        return
    raise InputError(
        f"{name} has no grid of its own, only {how}. Warp it first: gdalwarp {option} -r bilinear '{local}' warped.tif"
    )


def _check_is_whole(opened: DatasetReader, name: str) -> None:
    """Refuse what GDAL opens although a part is missing, as far as it shows without reading pixels."""
    path = Path(name)
    if opened.driver == "PNG" and b"IEND" not in _tail(path):
        raise InputError(f"{name} ends before its last pixel. {_AGAIN}")
    if opened.driver == "VRT":
        gone = [
            part
            for part in opened.files
            if not is_remote(part) and not part.startswith("/vsi") and not Path(part).exists()
        ]
        if gone:
            raise InputError(
                f"{name} refers to {gone[0]}, which does not exist ({len(gone)} such files). Put it there."
            )
    extent = stored_extent(path) if opened.driver == "GTiff" else None
    if extent is not None:
        _check_extent(opened, name, extent)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read()


def _check_extent(opened: DatasetReader, name: str, extent: Extent) -> None:
    claim = f"{name} claims {opened.width} x {opened.height} px"
    if extent.stored == 0 and opened.nodata is None:  # with nodata it is honestly empty
        raise InputError(f"{claim}, but no pixel is stored in its {extent.file_size} bytes. {_AGAIN}")
    needed = extent.end
    if opened.compression is None and extent.stored == extent.blocks:
        bits = int(opened.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(opened.dtypes[0]).itemsize))
        needed = max(needed, opened.width * opened.height * opened.count * bits // 8)
    if needed > extent.file_size:
        raise InputError(f"{claim} in {needed} bytes, but it has only {extent.file_size} bytes. {_AGAIN}")


def _facts(opened: DatasetReader, name: str) -> FileFacts:
    columns = zip(
        opened.indexes,
        opened.dtypes,
        opened.descriptions,
        opened.colorinterp,
        opened.nodatavals,
        opened.mask_flag_enums,
        opened.scales,
        opened.offsets,
        strict=True,
    )
    bands = tuple(
        BandFacts(number, str(dtype), description, color.name, nodata, _mask(flags), float(scale), float(offset))
        for number, dtype, description, color, nodata, flags, scale, offset in columns
    )
    return FileFacts(
        path=name,
        driver=str(opened.driver),
        shape=(int(opened.height), int(opened.width)),
        transform=opened.transform,
        crs=opened.crs or None,
        block_shape=tuple(opened.block_shapes[0]),
        bands=bands,
    )


def _mask(flags: Sequence[MaskFlags]) -> str:
    if MaskFlags.alpha in flags:
        return "alpha"
    if MaskFlags.per_dataset in flags:
        return "file"
    return "" if MaskFlags.all_valid in flags or MaskFlags.nodata in flags else "band"
