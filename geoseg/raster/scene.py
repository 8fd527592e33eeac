"""open_reader: from a path, a URL or several files to a scene.

source, options ──look──▶ facts of each file ──place──▶ files on one grid ──name──▶ bands ──▶ SceneReader
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from geoseg.raster.files import FileFacts, look_at
from geoseg.raster.ground import ground_sample_distance
from geoseg.raster.layers import Source, layers_of, take_inventory
from geoseg.raster.place import check_same_grid, finest, place
from geoseg.raster.reader import Pixels, PlacedFile, SceneOptions, SceneReader

__all__ = ["Pixels", "SceneOptions", "SceneReader", "open_reader", "scene_info"]

_log = logging.getLogger(__name__)

_AS_THE_FILES_SAY = SceneOptions()


def open_reader(source: Source | Sequence[Source], options: SceneOptions = _AS_THE_FILES_SAY) -> SceneReader:
    """A scene from a file, a VRT, a URL, or several of them on one grid.

    Args:
        source: path or address; a list where bands lie in several files; or a folder with the files of `options.bands`.
        options: what the user states.

    Raises:
        InputError: what is given cannot be read as one scene; the message says why and what to do.
    """
    sources: list[Source] = [source] if isinstance(source, str | os.PathLike) else list(source)
    inventory = take_inventory(sources, options.bands or {})
    grid = finest(inventory.files)
    files = tuple(place(one, grid) for one in inventory.files)
    layers = layers_of(inventory, options.nodata)
    if grid.crs is None and options.gsd_m is None:
        _say_no_crs(grid.path)
    return SceneReader(
        files=files,
        layers=layers,
        native_shape=grid.shape,
        native_transform=grid.transform,
        crs=grid.crs,
        block_shape=grid.block_shape,
        native_gsd_m=options.gsd_m or ground_sample_distance(grid.shape, grid.transform, grid.crs),
        stated=replace(options, bands=None),  # now in the layers
        valid_mask=_placed_mask(options.valid_mask, grid),
    )


def _placed_mask(path: str | None, grid: FileFacts) -> PlacedFile | None:
    if path is None:
        return None
    mask = look_at(path)
    check_same_grid(mask, grid)
    return place(grid, grid).at(mask.path)


@functools.lru_cache(maxsize=256)
def _say_no_crs(path: str) -> None:
    """Warn once per file and process."""
    _log.warning(
        "%s has no CRS: areas will be in pixels. State the ground sample distance with --gsd if it matters.", path
    )


def scene_info(reader: SceneReader) -> dict[str, Any]:
    """What `geoseg info` prints: size, georeference, resolution, bands and masks, all JSON-able."""
    box = reader.geobox.boundingbox
    return {
        "files": [file.path for file in reader.files],
        "rows": reader.shape[0],
        "columns": reader.shape[1],
        "dtype": reader.dtype,
        "crs": reader.crs.to_string() if reader.crs else None,
        "transform": [float(number) for number in reader.transform[:6]],
        "bounds": [float(number) for number in (box.left, box.bottom, box.right, box.top)],
        "gsd_m": reader.gsd_m,
        "block": list(reader.block_shape),
        "has_mask": reader.has_mask,
        "bands": [_band_info(reader, index) for index in range(len(reader.layers))],
    }


def _band_info(reader: SceneReader, index: int) -> dict[str, Any]:
    band = reader.layers[index]
    return {
        "name": band.name,
        "file": reader.files[band.file].path,
        "number": band.number,
        "dtype": band.dtype,
        "nodata": band.nodata,
        "mask": band.mask or None,
        "scale": band.scale,
        "offset": band.offset,
    }
