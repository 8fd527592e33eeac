"""From staged blocks to a cloud-optimized GeoTIFF, which appears whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # what rasterio.shutil.copy raises; it has no public name
from rasterio.crs import CRS
from rasterio.errors import RasterioError, RasterioIOError

from geoseg.errors import GeosegError
from geoseg.legend import NODATA, Legend
from geoseg.raster.disk import disk_error, disk_errors, publish_file
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.handles import limit_gdal_cache
from geoseg.raster.staging import Staging
from geoseg.raster.tiff import stored_extent
from geoseg.raster.vrt import Bands, write_mosaic

logger = logging.getLogger(__name__)

_RUN_DOMAIN = "GEOSEG_RUN"
_SAMPLE = 2**20
_NOT_XML = re.compile(r"[^\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Layer:
    """One output file.

    Attributes:
        name: of the layer, in the staging folder and in the tag GEOSEG_LAYER: "landcover", "confidence", "labels",
            "instances", "panoptic" and so on.
        path: where the file goes.
        bands: a description for each band.
        legend: class names and colours of a class map; None for measurements.
        scale: real value of a pixel value of 1; None for class ids.
        tags: what the file says of its making; no time, path, worker or block count, which would differ between
            equal runs.
        is_of_ids: pixels are ids of objects.
    """

    name: str
    path: Path
    bands: tuple[str, ...]
    legend: Legend | None = None
    scale: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    is_of_ids: bool = False

    @property
    def overview_resampling(self) -> str:
        """Classes are counted, measurements averaged, which both leave nodata out; of ids one is taken."""
        if self.is_of_ids:
            return "NEAREST"  # MODE counts in float32, which large ids do not fit in
        return "AVERAGE" if self.legend is None else "MODE"

    @property
    def all_tags(self) -> dict[str, str]:
        legend = {} if self.legend is None else {"GEOSEG_LEGEND": self.legend.to_json()}
        tags = {**self.tags, "GEOSEG_LAYER": self.name, **legend}
        return {key: _NOT_XML.sub("?", value).strip() for key, value in tags.items() if value.strip()}


def write_cog(staging: Staging, layer: Layer, georef: Georef, *, threads: int = 1) -> None:
    """Copy the staged blocks of one layer into a COG and put it in its place.

    The bytes depend on pixels, georeference and tags only: not on how the scene was cut in blocks, nor on `threads`.

    Args:
        staging: the run; all its blocks must be finished.
        layer: what to write, and where.
        georef: the scene's; nothing is invented where it is unknown.
        threads: compression threads.

    Raises:
        GeosegError: a block is missing, or the file could not be written; finished blocks are kept.
    """
    if (staging.layout.layers[layer.name], staging.layout.shape) != (len(layer.bands), georef.shape):
        raise ValueError(f"staged are {staging.layout}, not {len(layer.bands)} bands of {georef.shape}")
    staging.check_complete()
    with disk_errors(f"writing {layer.path.name}", layer.path.parent), staging.work_folder(layer.path) as folder:
        bands = Bands(layer.bands, layer.legend, layer.scale, NODATA if layer.legend is None else layer.legend.nodata)
        mosaic = write_mosaic(staging, layer.name, bands, georef=georef, tags=layer.all_tags, folder=folder)
        publish_cog(mosaic, layer, georef, staging.digest, threads=threads)


def publish_cog(raster: Path, layer: Layer, georef: Georef, digest: str, *, threads: int = 1) -> None:
    """Copy a raster in a work folder into a COG, check it, and put it in its place, so that `is_current` knows it.

    Args:
        raster: what to copy; the COG is made beside it.
        layer: what it is, and where it goes.
        georef: of it.
        digest: of the run that made it.
        threads: compression threads.

    Raises:
        GeosegError: the file could not be written.
    """
    cog = raster.with_name("cog.tif")
    try:
        _copy(raster, cog, layer, threads)
        _keep_crs(cog, georef)
        _check_copy(cog, layer, georef)
    except (RasterioError, CPLE_BaseError, SystemError) as error:  # SystemError: GDAL failed and did not say why
        raise disk_error(f"writing {layer.path.name}", layer.path.parent, error) from error
    _publish(cog, layer.path, digest)


def is_current(path: Path, digest: str) -> bool:
    """True where `path` is the finished output of the run with this digest (see `Staging.digest`)."""
    return run_digest(path) == digest


def run_digest(path: Path) -> str | None:
    """Digest of the run that `path` is the finished output of; None where it is not, or was changed since."""
    if not (path.is_file() and (sidecar := _sidecar(path)).is_file()):
        return None
    try:
        domain = ET.fromstring(sidecar.read_bytes()).find(f"Metadata[@domain='{_RUN_DOMAIN}']")
    except ET.ParseError:
        return None
    found = {} if domain is None else {item.get("key"): item.text for item in domain}
    return found.get("DIGEST") if found.get("TIFF") == _fingerprint(path) else None


def _copy(mosaic: Path, cog: Path, layer: Layer, threads: int) -> None:
    limit_gdal_cache()
    with rasterio.Env(), ignore_not_georeferenced():
        rasterio.shutil.copy(
            mosaic,
            cog,
            driver="COG",
            COMPRESS="DEFLATE",
            PREDICTOR="NO",
            BLOCKSIZE=512,
            BIGTIFF="IF_SAFER",
            SPARSE_OK=True,  # tiles of nodata take no space; every level has the nodata value, so that they read as it
            OVERVIEW_RESAMPLING=layer.overview_resampling,
            NUM_THREADS=threads,
        )


def _keep_crs(cog: Path, georef: Georef) -> None:
    """Put the CRS in the sidecar where the keys of a GeoTIFF lose part of it; GDAL prefers what is there."""
    if georef.crs is None or _crs_of(cog) == georef.crs:
        return
    root = _sidecar_root(cog)
    element = ET.Element("SRS")
    element.text = georef.crs.to_wkt(version="WKT2_2019")
    root.insert(0, element)
    _write_sidecar(cog, root)
    if _crs_of(cog) != georef.crs:
        logger.warning("GeoTIFF cannot hold every detail of the CRS %s", element.text)


def _crs_of(path: Path) -> CRS | None:
    with ignore_not_georeferenced(), rasterio.open(path) as raster:
        return raster.crs


def _check_copy(cog: Path, layer: Layer, georef: Georef) -> None:
    """Read back what GDAL may lose without a word: the end of the file, the last tile, the transform, the tags."""
    extent = stored_extent(cog)
    if extent is None or extent.end > extent.file_size:
        raise RasterioIOError("GDAL did not write all of it, and did not say why")
    with ignore_not_georeferenced(), rasterio.open(cog) as raster:
        _, last = max(raster.block_windows(1), key=lambda item: item[0])
        raster.read(window=last)
        found = (raster.shape, raster.count, raster.transform)
        tags = raster.tags()
    expected = (georef.shape, len(layer.bands), georef.transform)
    for name, before, after in zip(("shape", "band count", "transform"), expected, found, strict=True):
        if before != after:
            raise GeosegError(f"The {name} of {layer.path} would be {after!r}, not {before!r} as the scene has it.")
    lost = sorted(key for key, value in layer.all_tags.items() if tags.get(key) != value)
    if lost:
        logger.warning("%s could not hold the tags %s", layer.path, ", ".join(lost))


def _publish(cog: Path, path: Path, digest: str) -> None:
    """Sidecar first, TIFF last; leftovers of an older file of that name would be taken for the new one's."""
    _name_run(cog, digest)
    publish_file(_sidecar(cog), _sidecar(path))
    for suffix in (".ovr", ".msk"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    publish_file(cog, path)


def _name_run(cog: Path, digest: str) -> None:
    """Say in the sidecar which run it belongs to. Not in the TIFF: files of equal scenes shall be equal."""
    domain = ET.Element("Metadata", domain=_RUN_DOMAIN)
    for key, value in (("DIGEST", digest), ("TIFF", _fingerprint(cog))):
        ET.SubElement(domain, "MDI", key=key).text = value
    root = _sidecar_root(cog)
    root.insert(0, domain)
    _write_sidecar(cog, root)


def _sidecar_root(cog: Path) -> ET.Element:
    sidecar = _sidecar(cog)
    return ET.fromstring(sidecar.read_bytes()) if sidecar.exists() else ET.Element("PAMDataset")


def _write_sidecar(cog: Path, root: ET.Element) -> None:
    ET.indent(root)
    _sidecar(cog).write_text(ET.tostring(root, encoding="unicode") + "\n", encoding="utf-8")


def _fingerprint(path: Path) -> str:
    """sha256 of size, first and last MiB: header, tags and tile sizes are at the start of a COG."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".aux.xml")
