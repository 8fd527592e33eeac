"""A scene in the light of another as a VRT file over its own: any reader opens it, no pixel is stored twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from geoseg.catalog import open_named_reader
from geoseg.change.radiometry import Curve, Method, Radiometry, as_stored, find_radiometry, stored_range
from geoseg.errors import GeosegError, InputError
from geoseg.raster.disk import disk_errors, publish_bytes
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.reader import SceneOptions
from geoseg.raster.vrt import georeference_xml

_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}
_WHOLE = 256  # knots of a line of bytes: one for each, so that GDAL's arithmetic is ours


def match_light(
    reference: str, path: str, vrt: Path, readings: tuple[SceneOptions, SceneOptions], method: Method
) -> tuple[Path, Radiometry]:
    """A VRT of a scene in the light of another on the same grid; `readings` say what the files of both do not.

    Raises:
        InputError: they store numbers of two kinds, share no band, or too few pixels are alike.
    """
    pairs = zip((reference, path), readings, strict=True)
    wanted, given = (open_named_reader(one, reading) for one, reading in pairs)
    names = tuple(name for name in given.bands if name in wanted.bands)
    kinds = [{layer.dtype for layer in reader.layers if layer.name in names} for reader in (wanted, given)]
    if not names or kinds[0] != kinds[1]:
        told = [f"{', '.join(reader.bands)} ({reader.dtype})" for reader in (wanted, given)]
        raise InputError(f"Radiometry needs the same bands, stored alike, on both dates: {told[0]} and {told[1]}.")
    if any(layer.file for layer in given.layers):
        raise InputError(f"Radiometry needs all bands of {Path(path).name} in one file; put them into a VRT.")
    found = find_radiometry(
        wanted.select(names).read, given.select(names).read, wanted.shape, bands=names, method=method
    )
    layers = {layer.name: layer for layer in given.layers}
    curves = {layers[name].number: curve for name, curve in zip(names, found.curves, strict=True)}
    first = wanted.select(names).layers[0]
    with disk_errors("putting dates in one light", vrt.parent.parent):
        vrt.parent.mkdir(parents=True, exist_ok=True)
        return write_matched(path, vrt, Relit(curves, first.scale, first.offset, readings[1].nodata)), found


class Relit(NamedTuple):
    """What becomes of the bands of a raster.

    Attributes:
        curves: by 1-based number of the band; other bands stay as they are.
        scale: of those bands: value = pixel * scale + offset.
        offset: see `scale`.
        nodata: stored value that means "not measured" in those bands; None for what the file says.
    """

    curves: Mapping[int, Curve]
    scale: float
    offset: float
    nodata: float | None


def write_matched(path: str | Path, vrt: Path, relit: Relit) -> Path:
    """A VRT of a raster whose bands went through curves.

    Args:
        path: of the raster.
        vrt: the file to write.
        relit: what becomes of its bands.

    Raises:
        GeosegError: the raster cannot be read or the VRT not be written.
    """
    try:
        with ignore_not_georeferenced(), rasterio.open(path) as source:
            text = "\n".join(_xml(source, Path(path).absolute() if Path(path).exists() else path, relit))
    except (RasterioError, OSError) as error:
        raise GeosegError(f"{path} could not be put in another light: {error}") from error
    if not vrt.is_file() or vrt.read_text(encoding="utf-8") != text:  # a run that goes on finds its file untouched
        publish_bytes(vrt, text.encode())
    return vrt


def _xml(source: rasterio.DatasetReader, path: str | Path, relit: Relit) -> Iterator[str]:
    yield f'<VRTDataset rasterXSize="{source.width}" rasterYSize="{source.height}">'
    yield from georeference_xml(Georef(source.shape, source.transform, source.crs))
    for number in source.indexes:
        kind, nodata = source.dtypes[number - 1], source.nodatavals[number - 1]
        scale, offset = source.scales[number - 1], source.offsets[number - 1]
        if number in relit.curves:
            scale, offset = relit.scale, relit.offset
            nodata = nodata if relit.nodata is None else relit.nodata
        yield f'<VRTRasterBand dataType="{_TYPES[kind]}" band="{number}">'
        if told := source.descriptions[number - 1]:
            yield f"<Description>{escape(told)}</Description>"
        if nodata is not None:
            yield f"<NoDataValue>{nodata!r}</NoDataValue>"
        yield f"<ColorInterp>{_NAMES.get(source.colorinterp[number - 1], 'Undefined')}</ColorInterp>"
        yield f"<Offset>{offset!r}</Offset><Scale>{scale!r}</Scale>"
        yield from _source(path, str(number), relit.curves.get(number), np.dtype(kind), nodata)
        yield "</VRTRasterBand>"
    if MaskFlags.per_dataset in source.mask_flag_enums[0] and MaskFlags.alpha not in source.mask_flag_enums[0]:
        yield '<MaskBand><VRTRasterBand dataType="Byte">'
        yield from _source(path, "mask,1", None, np.dtype(np.uint8), None)
        yield "</VRTRasterBand></MaskBand>"
    yield "</VRTDataset>"


def _source(
    path: str | Path, band: str, curve: Curve | None, dtype: np.dtype[np.generic], nodata: float | None
) -> Iterator[str]:
    kind = "SimpleSource" if curve is None else "ComplexSource"
    yield f'<{kind}><SourceFilename relativeToVRT="0">{escape(str(path))}</SourceFilename>'
    yield f"<SourceBand>{band}</SourceBand>"
    if curve is not None:
        if nodata is not None:
            yield f"<NODATA>{nodata!r}</NODATA>"
        yield from _steps(curve, dtype, nodata)
    yield f"</{kind}>"


def _steps(curve: Curve, dtype: np.dtype[np.generic], nodata: float | None) -> Iterator[str]:
    """What GDAL reckons: a line, or a table with straight lines between."""
    if dtype.kind == "f" and not np.isnan(curve.gain):
        yield f"<ScaleOffset>{curve.offset!r}</ScaleOffset><ScaleRatio>{curve.gain!r}</ScaleRatio>"
        return
    at, values = curve.at, curve.values
    if dtype.itemsize == 1:
        low, high = stored_range(dtype, None)
        at = np.linspace(low, high, _WHOLE)
        values = as_stored(curve(at), dtype, nodata).astype(np.float64)
    elif not np.isnan(curve.gain):
        low, high = stored_range(dtype, nodata)
        values = np.array([low, high])
        at = (values - curve.offset) / curve.gain
    elif dtype.kind in "ui":
        values = values.clip(*stored_range(dtype, nodata))
    pairs = ",".join(f"{float(a)!r}:{float(v)!r}" for a, v in zip(at, values, strict=True))
    yield f"<LUT>{pairs}</LUT>"


_NAMES = {
    ColorInterp.gray: "Gray",
    ColorInterp.red: "Red",
    ColorInterp.green: "Green",
    ColorInterp.blue: "Blue",
    ColorInterp.alpha: "Alpha",
}
