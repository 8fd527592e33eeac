"""SceneReader: a scene as a small value that any thread or process can read windows from.

A scene is a grid, the files that fill it, and a list of bands, each in one of the files. The files of one scene may
differ in resolution (Sentinel-2: 10, 20 and 60 m); `Axis` says where their pixels lie on the scene's grid.

Reading goes: files -> bands on the native grid, valid where every used file measured -> (if `resampled`) other grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import InputError
from geoseg.grid.window import Window
from geoseg.raster.handles import reading
from geoseg.raster.resample import Axis, gather
from geoseg.raster.window_reader import Bools, Pixels, Values, WindowReader, needed_window, taps_of

__all__ = ["Band", "Pixels", "PlacedFile", "SceneOptions", "SceneReader"]

if TYPE_CHECKING:
    import xarray as xr
    from rasterio.io import DatasetReader


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """What the user states that the files do not say; None = as the files say.

    Attributes:
        bands: name -> band number of the scene ("1"), or a file of its own ("B04.jp2", "nir.tif:1").
        nodata: stored value that means "not measured", in place of the files' own.
        valid_mask: raster on the scene's grid, 0 = not measured.
        scale: value = pixel * scale + offset.
        offset: see `scale`.
        gsd_m: ground sample distance in metres, where the file has none or a wrong one.
    """

    bands: Mapping[str, str] | None = None
    nodata: float | None = None
    valid_mask: str | None = None
    scale: float | None = None
    offset: float | None = None
    gsd_m: float | None = None

    def __post_init__(self) -> None:
        if self.gsd_m is not None and not (math.isfinite(self.gsd_m) and self.gsd_m > 0):
            raise InputError(f"The ground sample distance is a positive number of metres, not {self.gsd_m}.")
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale != 0):
            raise InputError(f"The scale is a number other than 0, not {self.scale}.")
        if self.offset is not None and not math.isfinite(self.offset):
            raise InputError(f"The offset is a finite number, not {self.offset}.")


@dataclass(frozen=True, slots=True)
class Band:
    """One band of a scene.

    Attributes:
        name: as `--bands` and model cards call it.
        file: index into the scene's files.
        number: 1-based band of that file.
        dtype: of the stored numbers.
        nodata: stored value that means "not measured"; None = all are measured.
        mask: `alpha`, `file`, `band` or empty: which of GDAL's masks counts.
        scale: of the file: value = pixel * scale + offset.
        offset: see `scale`.
    """

    name: str
    file: int
    number: int
    dtype: str
    nodata: float | None = None
    mask: str = ""
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A file and where its rows and columns lie on the scene's native grid."""

    path: str
    rows: Axis
    cols: Axis

    def at(self, path: str) -> PlacedFile:
        """Another file at the same place."""
        return replace(self, path=path)


@dataclass(frozen=True, slots=True)
class SceneReader(WindowReader):
    """A scene: read windows of it from any thread or process. Build it with `open_reader`.

    It holds paths and numbers only, so that it can be pickled; files are opened by each thread when it first reads.

    Attributes:
        files: the files that hold the bands.
        layers: the bands, in the order in which they are read.
        native_shape: (rows, columns) of the scene's own grid.
        native_transform: of the scene's own grid.
        crs: coordinate reference system, None where unknown.
        block_shape: (rows, columns) of the blocks in which the files store pixels.
        native_gsd_m: ground sample distance of the native grid in metres, None where unknown.
        stated: what the user stated.
        valid_mask: raster on the native grid, 0 = not measured.
        zoom: native pixels per pixel, 1 unless `resampled`.
    """

    files: tuple[PlacedFile, ...]
    layers: tuple[Band, ...]
    native_shape: tuple[int, int]
    native_transform: Affine
    crs: CRS | None
    block_shape: tuple[int, int]
    native_gsd_m: float | None = None
    stated: SceneOptions = SceneOptions()
    valid_mask: PlacedFile | None = None
    zoom: float = 1.0

    @property
    def bands(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.layers)

    @property
    def dtype(self) -> str:
        """The smallest dtype that holds every band exactly."""
        return str(np.result_type(*(np.dtype(band.dtype) for band in self.layers)))

    @property
    def has_mask(self) -> bool:
        """Whether any pixel may be not measured; a band of real numbers may hold NaN."""
        rows, cols = self.native_shape
        used = {band.file for band in self.layers}
        return (
            self.valid_mask is not None
            or any(band.mask or band.nodata is not None or np.dtype(band.dtype).kind == "f" for band in self.layers)
            or not all(self.files[index].rows.covers(rows) and self.files[index].cols.covers(cols) for index in used)
        )

    @property
    def scale(self) -> float | None:
        """As stated, else as the files say; None = the stored numbers are the values."""
        return self._scaling()[0]

    @property
    def offset(self) -> float | None:
        return self._scaling()[1]

    def _scaling(self) -> tuple[float | None, float | None]:
        found = {(band.scale, band.offset) for band in self.layers}
        if len(found) > 1 and self.stated.scale is None:
            listed = ", ".join(f"{band.name} {band.scale:g} and {band.offset:g}" for band in self.layers)
            raise InputError(
                f"The bands have different scales and offsets ({listed}); one pair is needed. "
                "Choose bands that share it, or state it with --scale and --offset."
            )
        scale, offset = found.pop() if len(found) == 1 else (1.0, 0.0)
        if self.stated.scale is not None or self.stated.offset is not None:
            return (
                self.stated.scale if self.stated.scale is not None else scale,
                self.stated.offset
                if self.stated.offset is not None
                else (offset if self.stated.scale is None else 0.0),
            )
        return (None, None) if (scale, offset) == (1.0, 0.0) else (scale, offset)

    def select(self, names: Sequence[str]) -> SceneReader:
        """These bands in this order.

        Raises:
            InputError: a name is not there, or comes twice.
        """
        by_name = {band.name: band for band in self.layers}
        missing = [name for name in names if name not in by_name]
        if missing:
            alpha = any(band.mask == "alpha" for band in self.layers)
            raise InputError(
                f"The scene has no band {', '.join(missing)}; it has {', '.join(self.bands)}"
                f"{', and one called alpha that counts as mask' if alpha else ''}. "
                f"Say which one it is with --bands, for example --bands {missing[0]}={len(self.layers) + alpha}."
            )
        if not names or len(set(names)) != len(names):
            raise InputError(f"Name at least one band, and each once, not {', '.join(names) or 'none'}.")
        return replace(self, layers=tuple(by_name[name] for name in names))

    def zoomed(self, zoom: float) -> SceneReader:
        return replace(self, zoom=zoom)

    def _read_native(self, window: Window) -> Pixels:
        values, valid = self._read_files(window)
        if self.valid_mask is not None:
            valid &= _read_valid_mask(self.valid_mask, window)
        return Pixels(values, valid)

    def _read_files(self, window: Window) -> Pixels:
        """Bands that share file and dtype are read in one go."""
        groups: dict[tuple[int, str], list[int]] = {}
        for position, band in enumerate(self.layers):
            groups.setdefault((band.file, band.dtype), []).append(position)
        if len(groups) == 1:
            return _read_file(self.files[self.layers[0].file], self.layers, window)
        values = np.empty((len(self.layers), *window.shape), self.dtype)
        valid = np.ones(window.shape, np.bool_)
        for (file, _), positions in groups.items():
            part = _read_file(self.files[file], [self.layers[position] for position in positions], window)
            values[positions] = part.values
            valid &= part.valid
        return Pixels(values, valid)

    def to_xarray(self, chunks: int | tuple[int, int] | None = None) -> xr.DataArray:
        """A lazy DataArray (band, y, x) whose chunks each read one window.

        Args:
            chunks: side, or rows and columns, of a chunk; by default about 2048, in whole blocks of the file.
        """
        from geoseg.raster.lazy import to_xarray

        return to_xarray(self, chunks)

    def fingerprint(self) -> dict[str, str]:
        """What identifies the scene's pixels, as JSON-able text: for the digest of a run."""
        from geoseg.raster.fingerprint import fingerprint

        return fingerprint(self)


def _read_file(file: PlacedFile, bands: Sequence[Band], window: Window) -> Pixels:
    """Bands of one file and dtype on the scene's grid."""
    needed = needed_window(file.rows, file.cols, window)
    if needed.is_empty:  # the file stops short of this part
        return Pixels(np.zeros((len(bands), *window.shape), bands[0].dtype), np.zeros(window.shape, np.bool_))
    with reading(file.path, needed) as opened:
        stored = opened.read([band.number for band in bands], window=_to_rasterio(needed))
        valid = np.ones(needed.shape, np.bool_)
        for part in _masks(opened, bands, stored, needed):
            valid &= part
    if file.rows.is_identity and file.cols.is_identity and needed.shape == window.shape:
        return Pixels(stored, valid)
    return Pixels(*gather(stored, valid, taps_of(file.rows, file.cols, window, needed)))


def _masks(opened: DatasetReader, bands: Sequence[Band], stored: Values, window: Window) -> Iterator[Bools]:
    """Each reason for which a pixel may be not measured, as (height, width) of what remains."""
    by_file = [band.number for band in bands if band.mask in ("alpha", "file")][:1]
    for number in by_file + [band.number for band in bands if band.mask == "band"]:
        yield opened.read_masks(number, window=_to_rasterio(window)) != 0
    for band, values in zip(bands, stored, strict=True):
        if values.dtype.kind == "f":
            yield np.isfinite(values)
        if band.nodata is not None and math.isfinite(band.nodata):
            yield values != values.dtype.type(band.nodata)


def _read_valid_mask(file: PlacedFile, window: Window) -> Bools:
    with reading(file.path, window) as opened:
        stored = opened.read(1, window=_to_rasterio(window))
    measured: Bools = stored != 0
    return measured & np.isfinite(stored) if stored.dtype.kind == "f" else measured


def _to_rasterio(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col, window.row, window.width, window.height)
