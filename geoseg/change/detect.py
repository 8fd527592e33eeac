"""Two dates on one grid to a raster of transitions, block by block; a run that was interrupted goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from geoseg.catalog import open_named_reader
from geoseg.change.transitions import (
    Transitions,
    compare_classes,
    compare_joint,
    compare_posteriors,
    indices_of,
    reach_px,
    too_small,
    transition_legend,
)
from geoseg.errors import GeosegError, InputError
from geoseg.grid import Block, Window
from geoseg.inference.run import BlockTask, run_blocks
from geoseg.legend import Legend
from geoseg.raster.blocks import BlockLayout
from geoseg.raster.cog import Layer, is_current, write_cog
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.landcover import CONFIDENCE_ONE, decode_confidence, encode_confidence, run_tags
from geoseg.raster.reader import SceneOptions
from geoseg.raster.staging import BlockWriter, Staging, digest_of
from geoseg.vector.measure import Ground, local_frames

BLOCK = 1024
PRIOR = 0.2  # found on two NAIP sites: benchmarks/change.py


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """What counts as change.

    Attributes:
        prior: share of pixels that are expected to change; where probabilities of both dates are known.
        threshold: of the probability of change.
        min_area_m2: changed parts that are smaller do not count.
        min_width_m: nor do parts narrower than this, such as slivers along borders.
    """

    prior: float = PRIOR
    threshold: float = 0.5
    min_area_m2: float = 0.0
    min_width_m: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prior", "threshold"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise InputError(f"The {name} of change lies between 0 and 1, not at {value}.")
        for name, unit in (("min_area_m2", "square metres"), ("min_width_m", "metres")):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                raise InputError(f"{name} is 0 {unit} or more, not {value}.")

    def least_px(self, pixel_m2: float | None) -> int:
        """The minimum mapping unit in pixels.

        Raises:
            InputError: it is in metres and the size of a pixel is not known.
        """
        return max(1, int(np.ceil(self.min_area_m2 / _known(self.min_area_m2, pixel_m2) - 1e-9)))

    def width_px(self, pixel_m2: float | None) -> int:
        """The least width in pixels."""
        side = float(np.sqrt(_known(self.min_width_m, pixel_m2)))
        return max(1, round(self.min_width_m / side))


@dataclass(frozen=True)
class ChangeJob:
    """All that a raster of transitions depends on.

    Attributes:
        before: class map of the first date, or probabilities of its classes, on the grid.
        after: likewise of the second date.
        grid: of both and of the output.
        legend: of both.
        options: what counts as change.
        is_posterior: whether the files hold probabilities.
        pairs: where both files are one with the probabilities of pairs of classes, what they are.
        masks: of both dates, 0 where the ground is hidden; None where nothing tells.
        made_from: names and digests of what the files come from.
    """

    before: Path
    after: Path
    grid: Georef
    legend: Legend
    options: ChangeOptions
    is_posterior: bool
    pairs: tuple[tuple[int, int], ...] | None = None
    masks: tuple[Path | None, Path | None] = (None, None)
    made_from: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def ground(self) -> Ground:
        return ground_of(self.grid)

    @cached_property
    def limits(self) -> tuple[int, int]:
        """Least pixels and least width of a changed part."""
        middle = Window(self.grid.shape[0] // 2, self.grid.shape[1] // 2, 1, 1)
        pixel_m2 = None if self.ground.crs is None else float(self.row_areas(middle)[0])
        return self.options.least_px(pixel_m2), self.options.width_px(pixel_m2)

    @cached_property
    def parts(self) -> dict[str, Any]:
        files = [path for path in (self.before, self.after, *self.masks) if path is not None]
        return {
            "dates": dict(self.made_from),
            "files": [open_named_reader(str(path), SceneOptions()).fingerprint() for path in files],
            "grid": [*self.grid.shape, *self.grid.transform[:6], str(self.grid.crs)],
            "options": self.tags["GEOSEG_OPTIONS"],
            "version": self.tags["GEOSEG_VERSION"],
        }

    @property
    def tags(self) -> dict[str, str]:
        least, width = self.limits
        stated: dict[str, float] = {"min_pixels": least, "min_width": width}
        if self.is_posterior:
            stated |= {"threshold": self.options.threshold}
        if self.is_posterior and self.pairs is None:
            stated |= {"prior": self.options.prior}
        dates = " to ".join(self.made_from[name] for name in ("before", "after") if name in self.made_from)
        model, digest = (self.made_from.get(name, "") for name in ("model", "digest"))
        return run_tags(model=model, model_digest=digest, scene=dates, options=stated)

    def row_areas(self, window: Window) -> NDArray[np.float64]:
        """See `row_areas`."""
        return row_areas(self.ground, window)

    def read(self, window: Window) -> Transitions:
        """Transitions of a window inside the grid, before small parts are taken out.

        Raises:
            GeosegError: a file cannot be read.
        """
        if self.is_posterior:
            return self._posterior(window).hidden(self._hidden(window))
        maps = zip((self.before, self.after), self.masks, strict=True)
        return compare_classes(*(map_indices(path, mask, self.legend, window) for path, mask in maps))

    def _posterior(self, window: Window) -> Transitions:
        prior, threshold = self.options.prior, self.options.threshold
        before = decode_confidence(read_pixels(self.before, window, all_bands=True))
        if self.pairs is not None:
            return compare_joint(before, self.pairs, threshold=threshold)
        after = decode_confidence(read_pixels(self.after, window, all_bands=True))
        return compare_posteriors(before, after, prior=prior, threshold=threshold)

    def _hidden(self, window: Window) -> NDArray[np.bool_]:
        """Where a mask says so: a network that sees both dates has seen the clouds."""
        hidden = np.zeros(window.shape, np.bool_)
        for mask in self.masks:
            if mask is not None:
                hidden |= read_pixels(mask, window, all_bands=False)[0] == 0
        return hidden

    def transitions(self, window: Window) -> Transitions:
        """Transitions of a window, which do not depend on how the grid is cut into windows."""
        least, width = self.limits
        around = window.padded(reach_px(least_px=least, width_px=width)).clipped(self.grid.shape)
        found = self.read(around)
        found = found.without(too_small(found.changed, least_px=least, width_px=width))
        rows, cols = window.relative_to(around).slices
        return Transitions(found.before[rows, cols], found.after[rows, cols], found.probability[rows, cols])


def ground_of(grid: Georef) -> Ground:
    """The grid as something to measure on."""
    crs = None if grid.crs is None else pyproj.CRS.from_wkt(grid.crs.to_wkt())
    return Ground(grid.shape, grid.transform, crs)


def row_areas(ground: Ground, window: Window) -> NDArray[np.float64]:
    """(height,) square metres of a pixel in each row, at the middle of the window; 1 without a CRS."""
    rows = np.arange(window.row, window.row_stop)
    if ground.crs is None:
        return np.ones(len(rows))
    middle = np.full(len(rows), window.col + window.width / 2)
    areas: NDArray[np.float64] = np.abs(np.linalg.det(local_frames(ground, rows + 0.5, middle)))
    return areas


@dataclass(frozen=True)
class CompareBlock:
    """One block from the files of both dates to the staging folder, with a note of its transitions."""

    job: ChangeJob
    writer: BlockWriter

    def __call__(self, block: Block) -> int:
        """Compare and stage a block; returns the process id."""
        found = self.job.transitions(block.window)
        layers = {"change": found.codes(), "probability": encode_confidence(found.probability)}
        classes = len(self.job.legend.classes)
        known = found.before >= 0
        pairs = (found.before.astype(np.int64) * classes + found.after)[known]
        areas = np.broadcast_to(self.job.row_areas(block.window)[:, None], known.shape)[known]
        counts, sums = (np.bincount(pairs, weights, classes**2) for weights in (None, areas))
        self.writer.write((block.row, block.col), layers, {"pixels": counts.tolist(), "m2": sums.tolist()})
        return os.getpid()


@dataclass(frozen=True, slots=True)
class Matrix:
    """From each class (rows) to each class (columns).

    Attributes:
        names: of the classes.
        pixels: (from, to).
        m2: (from, to) square metres; pixels where there is no CRS.
    """

    names: tuple[str, ...]
    pixels: NDArray[np.int64]
    m2: NDArray[np.float64]

    def to_json(self) -> str:
        told = {"classes": list(self.names), "pixels": self.pixels.tolist(), "m2": self.m2.round(3).tolist()}
        return json.dumps(told)

    @classmethod
    def from_json(cls, text: str) -> Matrix:
        told = json.loads(text)
        return cls(tuple(told["classes"]), np.array(told["pixels"], np.int64), np.array(told["m2"]))


def write_change(
    job: ChangeJob,
    output: Path,
    probability: Path | None,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None],
) -> Matrix:
    """Write the transitions, and the probability of change where asked for.

    Args:
        job: what to compare.
        output: GeoTIFF (COG) of codes, with their legend and the transition matrix in its tags.
        probability: GeoTIFF of the probability of change, 0..200 = 0..1.
        workers: processes.
        overwrite: throw staged blocks of another run away.
        progress: called with pixels done and pixels in all.

    Raises:
        GeosegError: reading or writing failed; finished blocks are kept.
    """
    layers = [Layer("change", output, ("transition",), legend=transition_legend(job.legend), tags=job.tags)]
    if probability is not None:
        told = Layer("probability", probability, ("probability of change",), scale=1 / CONFIDENCE_ONE, tags=job.tags)
        layers.insert(0, told)
    layout = BlockLayout(job.grid.shape, (BLOCK, BLOCK), {"change": 1, "probability": 1})
    with Staging.open(output, job.parts, layout, overwrite=overwrite) as staging:
        compute_blocks(staging, CompareBlock(job, staging.writer()), workers=workers, progress=progress)
        matrix = _matrix(staging.notes().values(), job.legend)
        for layer in layers:
            tagged = Layer(
                layer.name,
                layer.path,
                layer.bands,
                layer.legend,
                layer.scale,
                {**layer.tags, "GEOSEG_TRANSITIONS": matrix.to_json()},
            )
            write_cog(staging, tagged, job.grid, threads=os.cpu_count() or 1)
        staging.discard()
    return matrix


def compute_blocks(
    staging: Staging, task: BlockTask[int], *, workers: int, progress: Callable[[int, int], None]
) -> None:
    """Compute the blocks that are not staged yet; progress is called with pixels done and pixels in all."""
    layout, kept = staging.layout, staging.done()
    done, total = sum(layout.window(block).area for block in kept), layout.shape[0] * layout.shape[1]
    progress(done, total)

    def finished(block: Block, process: int) -> None:
        nonlocal done
        done += block.window.area
        progress(done, total)

    remaining = [Block(*index, layout.window(index)) for index in layout.blocks if index not in kept]
    if remaining:
        run_blocks(task, remaining, workers=min(workers, len(remaining)), finished=finished)


def read_matrix(path: str | Path) -> Matrix:
    """The transition matrix in the tags of a raster of transitions.

    Raises:
        InputError: the file cannot be opened, or is no such raster.
    """
    with suppress(RasterioError, ValueError, KeyError), ignore_not_georeferenced(), rasterio.open(path) as raster:
        return Matrix.from_json(raster.tags()["GEOSEG_TRANSITIONS"])
    raise InputError(f"{path} is no raster of transitions; give the output of geoseg change.")


def is_done(job: ChangeJob, paths: list[Path]) -> bool:
    """Whether the files are there, made of the same dates with the same options."""
    return all(is_current(path, digest_of(job.parts)) for path in paths)


def _matrix(notes: Any, legend: Legend) -> Matrix:
    classes = len(legend.classes)
    kept = list(notes)
    pixels, m2 = (np.sum([note[name] for note in kept], axis=0).reshape(classes, classes) for name in ("pixels", "m2"))
    return Matrix(legend.names, pixels.astype(np.int64), m2)


def map_indices(path: Path, mask: Path | None, legend: Legend, window: Window) -> NDArray[np.int16]:
    """Indices of the classes in a window of a class map, -1 where unknown or where a mask is 0."""
    indices = indices_of(read_pixels(path, window, all_bands=False)[0], legend)
    if mask is not None:
        indices[read_pixels(mask, window, all_bands=False)[0] == 0] = -1
    return indices


def read_pixels(path: Path, window: Window, *, all_bands: bool) -> NDArray[np.uint8]:
    """(band, height, width) of a window inside a raster: its first band, or all.

    Raises:
        GeosegError: it cannot be read.
    """
    inside = RasterioWindow(window.col, window.row, window.width, window.height)
    try:
        with ignore_not_georeferenced(), rasterio.open(path) as raster:
            values: NDArray[np.uint8] = raster.read(None if all_bands else [1], window=inside)
    except RasterioError as error:
        raise GeosegError(f"{path} could not be read at {window}: {error}") from error
    return values


def _known(asked: float, pixel_m2: float | None) -> float:
    if asked and pixel_m2 is None:
        raise InputError(
            "A least area or width of change was asked for in metres, but the dates have no CRS; leave it out, or give "
            "them one (gdal_edit.py -a_srs EPSG:...)."
        )
    return pixel_m2 or 1.0
