"""Which files and bands make up a scene, and what the bands are called."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geoseg.errors import InputError
from geoseg.raster.bands import band_names, name_in_file_name
from geoseg.raster.files import BandFacts, FileFacts, absolute, look_at
from geoseg.raster.handles import is_remote
from geoseg.raster.reader import Band

Source = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class StatedBand:
    """One entry of `--bands`: a name for band `number`, of the scene (path None) or of a file."""

    name: str
    path: str | None
    number: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """The files of a scene: the first `scene_files` with all their bands, the rest with those that --bands names."""

    files: tuple[FileFacts, ...]
    scene_files: int
    stated: tuple[StatedBand, ...]

    def numbered(self) -> list[tuple[int, BandFacts]]:
        """Every band of every file with its file: the scene's bands come first, in the order that --bands counts."""
        return [(index, band) for index, one in enumerate(self.files) for band in one.bands]


def take_inventory(sources: Sequence[Source], bands: Mapping[str, str]) -> Inventory:
    """Look at every file that is given as the scene or named in `bands`."""
    stated = tuple(_parse(name, value, sources) for name, value in bands.items())
    named = [band.path for band in stated if band.path is not None]
    scene = list(dict.fromkeys(absolute(source) for source in sources))
    if named:
        scene = [path for path in scene if not Path(path).is_dir()]
    paths = scene + [path for path in dict.fromkeys(named) if path not in scene]
    if not paths:
        raise InputError("No file is given. Name a scene, or one file per band with --bands.")
    return Inventory(tuple(look_at(path) for path in paths), len(scene), stated)


def _parse(name: str, value: str, sources: Sequence[Source]) -> StatedBand:
    name, text = name.strip(), str(value).strip()
    if not name or not text:
        raise InputError(f"Bands are stated as name=number or name=file, not {name!r}={value!r}.")
    if text.isdigit():
        return StatedBand(name, None, int(text))
    found = _find(text, sources)
    head, _, tail = text.rpartition(":")
    if found is None and head and tail.isdigit():
        return StatedBand(name, _find(head, sources) or _beside(head, sources), int(tail))
    return StatedBand(name, found or _beside(text, sources), 1)


def _find(text: str, sources: Sequence[Source]) -> str | None:
    """The file `text`, as given or beside the scene, or None."""
    folders = [path if path.is_dir() else path.parent for path in (Path(source) for source in sources)]
    candidates = [Path(text), *(folder / text for folder in folders)]
    return next((absolute(path) for path in candidates if path.is_file()), None)


def _beside(text: str, sources: Sequence[Source]) -> str:
    """The address of `text` next to a scene on the network; else `text` as it is."""
    folders = [str(source).rpartition("/")[0] for source in sources if is_remote(str(source))]
    name = absolute(text)
    return f"{folders[0]}/{text}" if folders and not is_remote(name) and not Path(text).is_absolute() else name


def layers_of(inventory: Inventory, nodata: float | None) -> tuple[Band, ...]:
    """The bands of a scene, named; a band that only masks (alpha) is left out unless --bands names it.

    Args:
        nodata: what the user states, for all bands; None = as each file says.
    """
    stated = _stated_names(inventory)
    chosen = _chosen(inventory, stated)
    names = _names(inventory, chosen, stated)
    masked = {index for index, one in enumerate(inventory.files) if one.alpha and (index, one.alpha) not in stated}
    layers = tuple(
        Band(
            name,
            index,
            band.number,
            band.dtype,
            _storable(band.nodata if nodata is None else nodata, band.dtype),
            "" if band.mask == "alpha" and index not in masked else band.mask,
            band.scale,
            band.offset,
        )
        for (index, band), name in zip(chosen, names, strict=True)
    )
    _check_nodata(nodata, layers)
    return layers


def _stated_names(inventory: Inventory) -> dict[tuple[int, int], str]:
    """(file, band number) -> name."""
    names: dict[tuple[int, int], str] = {}
    for band in inventory.stated:
        key = _key(inventory, band)
        if key in names:
            raise InputError(f"--bands gives one band two names: {names[key]} and {band.name}. Name each band once.")
        names[key] = band.name
    return names


def _key(inventory: Inventory, band: StatedBand) -> tuple[int, int]:
    if band.path is not None:
        index = [one.path for one in inventory.files].index(band.path)
        count = len(inventory.files[index].bands)
        if not 1 <= band.number <= count:
            raise InputError(f"--bands {band.name} asks for band {band.number} of {band.path}, which has 1 to {count}.")
        return index, band.number
    numbered = [(index, one.number) for index, one in inventory.numbered() if index < inventory.scene_files]
    if not 1 <= band.number <= len(numbered):
        has = f"bands 1 to {len(numbered)}" if numbered else "no bands but those of the files that --bands names"
        raise InputError(f"--bands {band.name}={band.number} asks for band {band.number}, but the scene has {has}.")
    return numbered[band.number - 1]


def _chosen(inventory: Inventory, stated: Mapping[tuple[int, int], str]) -> list[tuple[int, BandFacts]]:
    """The bands that are read, with their files."""
    chosen = []
    for index, band in inventory.numbered():
        extra = index >= inventory.scene_files or band.number == inventory.files[index].alpha
        if not extra or (index, band.number) in stated:
            chosen.append((index, band))
    if not chosen:
        raise InputError(
            f"{inventory.files[0].path} has an alpha band only. Give a raster with at least one other band."
        )
    return chosen


def _names(
    inventory: Inventory, chosen: Sequence[tuple[int, BandFacts]], stated: Mapping[tuple[int, int], str]
) -> list[str]:
    """Names of the chosen bands: as stated, else from descriptions and colours; a stated name frees it elsewhere."""
    keys = [(index, band.number) for index, band in chosen]
    open_ones = [(index, band) for index, band in chosen if (index, band.number) not in stated]
    every = [(index, band.number) for index, band in inventory.numbered()]
    found = band_names(
        [_description(inventory, index, band) for index, band in open_ones],
        [band.color for _, band in open_ones],
        [every.index((index, band.number)) + 1 for index, band in open_ones],
        taken=tuple(stated.values()),
    )
    others = iter(found)
    return [stated[key] if key in stated else next(others) for key in keys]


def _description(inventory: Inventory, index: int, band: BandFacts) -> str | None:
    """What the file says of the band; of several one-band files, also the Sentinel-2 band in the file's name."""
    one = inventory.files[index]
    if band.description or len(inventory.files) == 1 or len(one.bands) > 1:
        return band.description
    return name_in_file_name(Path(one.path).stem)


def _storable(nodata: float | None, dtype: str) -> float | None:
    """The nodata value if a pixel of `dtype` can hold it, else None: then no pixel is it."""
    if nodata is None:
        return None
    kind = np.dtype(dtype)
    if kind.kind == "f":  # float32's least number, written with few digits, may lie beyond it
        return float(np.clip(nodata, np.finfo(kind).min, np.finfo(kind).max)) if math.isfinite(nodata) else nodata
    limits = np.iinfo(kind)
    return nodata if math.isfinite(nodata) and nodata == int(nodata) and limits.min <= nodata <= limits.max else None


def _check_nodata(nodata: float | None, layers: Sequence[Band]) -> None:
    if nodata is None or any(band.nodata is not None for band in layers):
        return
    dtype = np.dtype(layers[0].dtype)
    limits = np.iinfo(dtype)
    raise InputError(
        f"No pixel of dtype {dtype} can be the nodata value {nodata:g}; "
        f"state a whole number from {limits.min} to {limits.max}."
    )
