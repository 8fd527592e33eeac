"""Class maps and confidences as files: their encoding, their layers, their legend."""

from __future__ import annotations

import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from pydantic import ValidationError
from rasterio._err import CPLE_BaseError  # what rasterio.shutil.copy raises; it has no public name
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile

from geoseg.errors import InputError
from geoseg.legend import NODATA, Legend, LegendClass
from geoseg.raster.cog import Layer, write_cog
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.handles import limit_gdal_cache
from geoseg.raster.staging import canonical_json

__all__ = [
    "CONFIDENCE_ONE",
    "Georef",
    "Layer",
    "confidence_layer",
    "decode_confidence",
    "encode_confidence",
    "landcover_layer",
    "probabilities_layer",
    "read_legend",
    "run_tags",
    "write_cog",
]

CONFIDENCE_ONE = 200


def encode_confidence(confidence: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Values 0..1 to 0..200, rounded to the nearest; NaN to nodata. Values a little outside 0..1 are clipped."""
    steps = np.asarray(confidence, dtype=np.float32) * np.float32(CONFIDENCE_ONE)
    steps = np.clip(np.rint(steps), 0, CONFIDENCE_ONE)
    return np.where(np.isnan(steps), np.float32(NODATA), steps).astype(np.uint8)


def decode_confidence(stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The inverse of `encode_confidence`, to within 0.0025; nodata to NaN."""
    values = stored.astype(np.float32) / np.float32(CONFIDENCE_ONE)
    return np.where(stored == NODATA, np.float32(np.nan), values)


def landcover_layer(path: Path, legend: Legend, tags: Mapping[str, str]) -> Layer:
    return Layer("landcover", path, ("land cover class",), legend=legend, tags=tags)


def confidence_layer(path: Path, tags: Mapping[str, str]) -> Layer:
    return Layer("confidence", path, ("confidence",), scale=1 / CONFIDENCE_ONE, tags=tags)


def probabilities_layer(path: Path, legend: Legend, tags: Mapping[str, str]) -> Layer:
    return Layer("probabilities", path, legend.names, scale=1 / CONFIDENCE_ONE, tags=tags)


def run_tags(*, model: str, model_digest: str, scene: str, options: Mapping[str, Any]) -> dict[str, str]:
    """The tags that tell how a file was made. `options` must hold no time, path, worker or block count."""
    return {
        "GEOSEG_VERSION": version("geoseg"),
        "GEOSEG_MODEL": model,
        "GEOSEG_MODEL_DIGEST": model_digest,
        "GEOSEG_SCENE": scene,
        "GEOSEG_OPTIONS": canonical_json(options),
    }


def read_legend(path: str | Path) -> Legend:
    """The legend of a class raster.

    Ours is in the tags. Else the named categories are the classes, in the colours of the colour table; where no
    category is named, every id but nodata is a class `class_<id>`, present in the pixels or not.

    Raises:
        InputError: the file cannot be opened, or is no class map.
    """
    limit_gdal_cache()
    try:
        with ignore_not_georeferenced(), rasterio.open(path) as raster:
            _check_class_map(path, raster)
            text = raster.tags().get("GEOSEG_LEGEND")
            return Legend.from_json(text) if text else _foreign_legend(raster)
    except (RasterioError, CPLE_BaseError) as error:
        raise InputError(f"Cannot open {path} as a class raster: {error}") from error
    except ValidationError as error:
        raise InputError(f"The legend in the tags of {path} cannot be read: {error.errors()[0]['msg']}.") from error


def _check_class_map(path: str | Path, raster: DatasetReader) -> None:
    dtype = np.dtype(raster.dtypes[0])
    if raster.count != 1 or dtype.kind not in "iu":
        raise InputError(
            f"{path} has {raster.count} band{'s' if raster.count > 1 else ''} of {dtype}; a class map has one band of "
            "integers: give the output of `geoseg segment`, or extract the band of class ids."
        )


def _foreign_legend(raster: DatasetReader) -> Legend:
    nodata = raster.nodata
    nodata = int(nodata) if nodata is not None and nodata in range(256) else NODATA
    names, colors = _categories(raster)
    if not names.keys() - {nodata}:
        names = {i: f"class_{i}" for i in range(255)}
    classes = tuple(
        LegendClass(id=i, name=name, color=colors.get(i) or _generic_color(i))
        for i, name in sorted(_unique(names).items())
        if i != nodata
    )
    return Legend(classes=classes, nodata=nodata)


def _categories(raster: DatasetReader) -> tuple[dict[int, str], dict[int, str]]:
    """Names and colours by class id. A VRT copy says them in one form, whatever the format of the raster."""
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(raster, memory.name, driver="VRT")
        band = ET.fromstring(memory.read()).find("VRTRasterBand")
    categories = [] if band is None else band.findall("CategoryNames/Category")
    entries = [] if band is None else band.findall("ColorTable/Entry")
    names = {i: entry.text.strip() for i, entry in enumerate(categories[:255]) if entry.text and entry.text.strip()}
    colors = {
        i: "#{:02x}{:02x}{:02x}".format(*(int(entry.get(channel, "0")) & 255 for channel in ("c1", "c2", "c3")))
        for i, entry in enumerate(entries[:255])
    }
    return names, colors


def _unique(names: Mapping[int, str]) -> dict[int, str]:
    """Names in the letters that a legend allows; a name that is taken gets its id."""
    unique: dict[int, str] = {}
    for i, given in names.items():
        name = _plain(given) or f"class_{i}"
        while name in unique.values():
            name = f"{name[:58]}_{i}"
        unique[i] = name
    return unique


def _plain(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_ .\-]+", "_", ascii_name).lstrip("_ .-")[:63]


def _generic_color(class_id: int) -> str:
    """Colours that differ between neighbouring ids; the same id has the same colour everywhere."""
    red, green, blue = (
        (class_id * 97 + 40) % 200 + 40,
        (class_id * 57 + 90) % 200 + 40,
        (class_id * 31 + 150) % 200 + 40,
    )
    return f"#{red:02x}{green:02x}{blue:02x}"
