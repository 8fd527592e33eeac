"""Labelled scenes: windows of pixels and label codes, from arrays or straight from files of any size.

Pixels come in the unit of a card's statistics: stored number * scale + offset, NaN where not measured.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.catalog import open_named_reader, resolve_labels
from geoseg.errors import InputError
from geoseg.grid import Window, windows_of
from geoseg.legend import Legend
from geoseg.raster.aoi import read_aoi
from geoseg.raster.labels import UNLABELLED, LabelReader, open_labels
from geoseg.raster.reader import SceneReader
from geoseg.training.config import LabelledSource
from geoseg.training.splits import Region, Sides, Site

CELL = 64  # pixels; the places of a class are indexed by squares of this size
BLOCK = 16 * CELL  # pixels a side that are looked at together
SCALES = {"uint8": 1 / 255, "uint16": 1e-4, "int16": 1e-4}  # of pixels whose scale nobody states
LOOKS = 64  # windows that band statistics are taken from, of CELL x CELL pixels and more
TAILS = (0.5, 99.5)  # percentiles of a band that count as its black and white

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class LabelledScene(Protocol):
    """What samples are cut from; picklable, and read from any process.

    Attributes:
        name: for people.
        shape: rows and columns.
        gsd_m: metres per pixel.
        extent: the pixels that may be labelled.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def gsd_m(self) -> float: ...

    @property
    def extent(self) -> Window: ...

    def read(self, window: Window) -> tuple[Floats, Codes]:
        """Pixels (band, height, width) and label codes (height, width) of a window inside the scene."""

    def read_labels(self, window: Window) -> Codes:
        """Label codes (height, width) alone."""


@dataclass(frozen=True, slots=True)
class ArrayScene:
    """A labelled scene in memory.

    Attributes:
        pixels: (band, height, width).
        labels: (height, width) of label codes, UNLABELLED where unknown.
        gsd_m: metres per pixel.
        scale: factor from stored number to the unit of the statistics.
        name: for people.
    """

    pixels: NDArray[np.generic]
    labels: Codes
    gsd_m: float
    scale: float = 1 / 255
    name: str = "scene in memory"

    def __post_init__(self) -> None:
        if self.pixels.shape[1:] != self.labels.shape:
            raise InputError(f"Pixels are {self.pixels.shape[1:]} and labels {self.labels.shape}; they must agree.")

    @property
    def shape(self) -> tuple[int, int]:
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def extent(self) -> Window:
        return Window(0, 0, *self.shape)

    def read(self, window: Window) -> tuple[Floats, Codes]:
        rows, cols = window.slices
        return np.multiply(self.pixels[:, rows, cols], self.scale, dtype=np.float32), self.labels[rows, cols]

    def read_labels(self, window: Window) -> Codes:
        rows, cols = window.slices
        return self.labels[rows, cols]


@dataclass(frozen=True, slots=True)
class ReaderScene:
    """A labelled scene in files, of which windows are read.

    Attributes:
        name: for people.
        reader: of its bands, in the network's order.
        labels: of it.
        scale: factor from stored number to the unit of the statistics.
        offset: added after the factor.
        only: labels count within all of these.
        never: labels within these do not count.
        unseen: pixels in it count as not measured.
        weight: how much more often than others its labelled pixels are drawn.
        place: that it belongs to.
    """

    name: str
    reader: SceneReader
    labels: LabelReader
    scale: float
    offset: float = 0.0
    only: tuple[Region, ...] = ()
    never: tuple[Region, ...] = ()
    unseen: Region | None = None
    weight: float = 1.0
    place: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        return self.reader.shape

    @property
    def gsd_m(self) -> float:
        assert self.reader.gsd_m is not None  # refused by `open_scene_of`
        return self.reader.gsd_m

    @property
    def extent(self) -> Window:
        return self.labels.extent

    @property
    def site(self) -> Site:
        files = tuple(file.path for file in self.reader.files)
        return Site(self.name, self.shape, self.reader.transform, self.reader.crs, files)

    def read(self, window: Window) -> tuple[Floats, Codes]:
        """As `LabelledScene.read`; a pixel that is not measured has no label.

        Raises:
            GeosegError: a file could not be read.
        """
        stored, valid = self.reader.read(window)
        if self.unseen is not None:
            valid &= ~self.unseen.mask(window)
        pixels = np.multiply(stored, self.scale, dtype=np.float32, casting="unsafe")
        pixels += np.float32(self.offset)
        pixels[:, ~valid] = np.nan
        codes = self.read_labels(window)
        codes[~measured(pixels)] = UNLABELLED
        return pixels, codes

    def read_labels(self, window: Window) -> Codes:
        codes = self.labels(window)
        for region in self.only:
            codes[~region.mask(window)] = UNLABELLED
        for region in self.never:
            codes[region.mask(window)] = UNLABELLED
        return codes

    def for_training(self, sides: Sides) -> ReaderScene:
        """What the split leaves for training; held-out pixels are not seen either."""
        return replace(self, never=(*self.never, sides.kept_from), unseen=sides.held)

    def for_validation(self, sides: Sides) -> ReaderScene:
        """What is held out."""
        return replace(self, only=(*self.only, sides.held))


def open_scene_of(source: LabelledSource, bands: Sequence[str], legend: Legend, *, apart: bool = False) -> ReaderScene:
    """A scene of a config with its labels; nothing but headers and polygons is read.

    Args:
        source: of the config.
        bands: that the network sees.
        legend: of the classes.
        apart: whether polygons that touch are to be told apart in the labels.

    Raises:
        InputError: scene, labels or regions cannot be used, they miss each other, or the size of a pixel is unknown.
    """
    named = source.scene if isinstance(source.scene, str) else list(source.scene)
    name = named if isinstance(named, str) else named[0]
    reader = open_named_reader(named, source.reading).select(bands)
    if reader.gsd_m is None:
        raise InputError(f"The size of a pixel of {name} is not known; state gsd_m, in metres, beside the scene.")
    shape, transform, crs = reader.shape, reader.transform, reader.crs
    told, truth = replace(source.label_options, apart=apart), _truth_of(source)
    labels = open_labels(truth, legend, shape=shape, transform=transform, crs=crs, options=told)
    only, never = (regions_of(path, reader) for path in (source.aoi, source.ignore_regions))
    place = source.place or Path(name).stem
    scale, offset = scale_of(reader), reader.offset or 0.0
    return ReaderScene(name, reader, labels, scale, offset, only, never, weight=source.weight, place=place)


def _truth_of(source: LabelledSource) -> str | os.PathLike[str]:
    """The file of its labels.

    Raises:
        InputError: none is stated, neither there nor in a catalogue.
    """
    truth = resolve_labels(source.labels or (source.scene if isinstance(source.scene, str) else ""))
    if source.labels is None and truth in ("", source.scene):
        raise InputError(
            f"Scene {source.scene} has no labels: state labels beside it, or give it under `unlabelled` if it has none."
        )
    return truth


def regions_of(path: str | None, reader: SceneReader) -> tuple[Region, ...]:
    """The polygons of a vector file on a scene's grid; none where no file is given.

    Raises:
        InputError: the file cannot be used, or misses the scene.
    """
    if path is None:
        return ()
    return (Region.of_aoi(read_aoi(path, shape=reader.shape, transform=reader.transform, crs=reader.crs)),)


def scale_of(reader: SceneReader) -> float:
    """Factor from stored number to the unit of the statistics."""
    return reader.scale if reader.scale is not None else SCALES.get(reader.dtype, 1.0)


def measured(pixels: Floats) -> NDArray[np.bool_]:
    """(height, width): whether a pixel (band, height, width) is measured in all bands."""
    return np.asarray(np.isfinite(pixels).all(0))


class LabelCells(NamedTuple):
    """Where a scene is labelled, by squares of CELL pixels.

    Attributes:
        where: (cell, 2) row and column in units of CELL.
        pixels: (cell, code) labelled pixels.
    """

    where: NDArray[np.int32]
    pixels: NDArray[np.uint16]

    @property
    def totals(self) -> NDArray[np.int64]:
        """(code,) labelled pixels."""
        totals: NDArray[np.int64] = self.pixels.sum(0, dtype=np.int64)
        return totals

    def places(self, code: int | None = None) -> NDArray[np.int32]:
        """Cells of which a code, or any label, covers at least a fiftieth."""
        covered = self.pixels.sum(1) if code is None else self.pixels[:, code]
        return self.where[covered > 0.02 * CELL**2]


def survey(scene: LabelledScene, codes: int = UNLABELLED) -> LabelCells:
    """Read all labels of a scene once.

    Args:
        scene: the scene.
        codes: label codes there are.

    Raises:
        InputError: a label value is not known.
        GeosegError: a file could not be read.
    """
    first = scene.extent.row // BLOCK * BLOCK, scene.extent.col // BLOCK * BLOCK
    shape = scene.extent.row_stop - first[0], scene.extent.col_stop - first[1]
    where, pixels = [np.empty((0, 2), np.int32)], [np.empty((0, codes), np.uint16)]
    for window in windows_of(shape, BLOCK):
        placed = window.shifted(*first)
        found = _count(scene.read_labels(placed), codes)
        rows, cols = np.nonzero(found.any(-1))
        where.append(np.column_stack([rows + placed.row // CELL, cols + placed.col // CELL]).astype(np.int32))
        pixels.append(found[rows, cols])
    return LabelCells(np.concatenate(where), np.concatenate(pixels))


def _count(labels: Codes, codes: int) -> NDArray[np.uint16]:
    """(row, column, code) labelled pixels of the cells of a window that starts on a cell."""
    rows, cols = (-(-length // CELL) for length in labels.shape)
    number = np.arange(labels.shape[0])[:, None] // CELL * cols + np.arange(labels.shape[1]) // CELL
    known = labels != UNLABELLED
    flat = np.bincount(number[known] * codes + labels[known], minlength=rows * cols * codes)
    return flat.reshape(rows, cols, codes).astype(np.uint16)


class BandStatistics(NamedTuple):
    """Of scaled pixels, each with one number per band.

    Attributes:
        mean: of what was looked at.
        std: likewise; never 0.
        levels: what counts as black and as white when colors are changed.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: tuple[tuple[float, float], ...]


def band_statistics(scenes: Sequence[LabelledScene], cells: Sequence[LabelCells], *, seed: int = 0) -> BandStatistics:
    """Of labelled places drawn at random over all scenes.

    Raises:
        InputError: a band holds nothing but one value, or nothing is measured where labels are.
    """
    rng = np.random.default_rng(seed)
    table = np.concatenate([np.insert(one.where, 0, index, axis=1) for index, one in enumerate(cells)])
    drawn = table[rng.permutation(len(table))[:LOOKS]]
    parts = [_look(scenes[scene], int(row), int(col)) for scene, row, col in drawn]
    pixels = np.concatenate(parts, axis=1) if parts else np.empty((0, 0), np.float32)
    if not pixels.size:
        names = ", ".join(scene.name for scene in scenes)
        raise InputError(
            f"Nothing is measured where {names} is labelled: it is nodata there. Compare scene and labels with geoseg "
            "info, or state nodata if the scene's own is wrong."
        )
    low, high = np.percentile(pixels, TAILS, axis=1)
    reach = np.maximum(high - low, np.finfo(np.float32).eps)  # of what lies further out, nodata that is not declared
    pixels = pixels.clip(*((end[:, None]).astype(np.float32) for end in (low - reach, high + reach)))
    mean, std = pixels.mean(1, dtype=np.float64), pixels.std(1, dtype=np.float64)
    return BandStatistics(
        tuple(float(f"{value:.4g}") for value in mean),
        tuple(float(f"{value:.4g}") or 1.0 for value in std),
        tuple((float(a), float(b) if b > a else float(a) + 1) for a, b in zip(low, high, strict=True)),
    )


def _look(scene: LabelledScene, row: int, col: int) -> Floats:
    """(band, pixel): what is measured around a cell."""
    pixels, _ = scene.read(Window(row * CELL, col * CELL, CELL, CELL).padded(CELL // 2).clipped(scene.shape))
    return pixels[:, measured(pixels)]


def check_same_unit(scenes: Sequence[ReaderScene]) -> None:
    """Refuse scenes of which some say what unit their numbers are in and some do not.

    Raises:
        InputError: see there.
    """
    stated = [scene.reader.scale is not None for scene in scenes]
    if any(stated) and not all(stated):
        knows, not_ = scenes[stated.index(True)], scenes[stated.index(False)]
        raise InputError(
            f"{knows.name} has a scale ({knows.scale:g}) and {not_.name} ({not_.reader.dtype}) has none, so that they "
            "may be in different units; state scale beside each scene that has none."
        )
