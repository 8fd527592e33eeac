"""File to file: a scene to a land-cover GeoTIFF, and that to polygons. Read this first.

Nothing is computed here. Each function checks what it was given, settles what will be done, and calls the steps.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from affine import Affine

from geoseg.catalog import default_catalog, open_named_reader
from geoseg.errors import InputError
from geoseg.grid import Block, Window
from geoseg.inference.fit import check_gsd, normalization_for, used_bands
from geoseg.inference.plan import Plan, RunOptions
from geoseg.inference.predictor import Predictor
from geoseg.inference.run import run_blocks
from geoseg.inference.segment import Segmenter
from geoseg.models import Model, ModelCard, list_models, load_card, load_model
from geoseg.raster.aoi import AreaOfInterest, read_aoi
from geoseg.raster.cog import Layer, is_current, write_cog
from geoseg.raster.disk import check_disk_space, check_output
from geoseg.raster.georeference import Georef
from geoseg.raster.landcover import (
    confidence_layer,
    encode_confidence,
    landcover_layer,
    probabilities_layer,
    run_tags,
)
from geoseg.raster.layers import Source
from geoseg.raster.reader import SceneOptions, SceneReader
from geoseg.raster.staging import BlockLayout, BlockWriter, Staging, digest_of, discard_leftovers
from geoseg.vector import VectorOptions, VectorSummary, vectorize_raster

Scene = Source | Sequence[Source]
Progress = Callable[[str, int, int], None]  # step, pixels done, pixels in all


@dataclass
class RunSummary:
    """What a run did.

    Attributes:
        outputs: the files, finished.
        up_to_date: they were there already, made from the same scene, model and options.
        pixels: of the output.
        seconds: by step.
        blocks: computed now, by process id; those kept from an interrupted run are not among them.
    """

    outputs: list[Path]
    up_to_date: bool = False
    pixels: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    blocks: Counter[int] = field(default_factory=Counter)


def segment_file(
    scene: Scene,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model = "landcover-rgb",
    confidence: str | os.PathLike[str] | None = None,
    probabilities: str | os.PathLike[str] | None = None,
    reading: SceneOptions | None = None,
    run: RunOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RunSummary:
    """Segment a scene into a land-cover GeoTIFF (COG); an interrupted run goes on where it stopped.

    Args:
        scene: path, VRT, URL, `catalog.yaml#name`, or several files on one grid.
        output: the land-cover GeoTIFF.
        model: name or path of a bundle, or a loaded one.
        confidence: also write the probability of each pixel's class there, 0..200 = 0..1.
        probabilities: also write those of all classes there, a band each.
        reading: what the scene's files do not say.
        run: chip, halo, block, device and so on.
        overwrite: replace outputs that exist.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: the scene, the model, an option or an output cannot be used; nothing was written.
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    bundle = load_model(model)
    run = run or RunOptions()
    reader = _open(scene, reading or SceneOptions(), bundle, resample=run.resample)
    plan = Plan.of(reader.shape, bundle.card, run)
    aoi = None if run.aoi is None else read_aoi(run.aoi, shape=reader.shape, transform=reader.transform, crs=reader.crs)
    extent = Window(0, 0, *reader.shape) if aoi is None else aoi.window
    job = _Job(reader, bundle, plan, extent, aoi)
    layers = job.layers(Path(output), confidence, probabilities)
    if all(is_current(layer.path, job.digest) for layer in layers):
        discard_leftovers(layers[-1].path, job.digest)
        return RunSummary([layer.path for layer in layers], up_to_date=True, pixels=extent.area)
    _check_outputs(job, layers, overwrite)
    return _segment(job, layers, run.workers, overwrite, progress or _silent)


def vectorize_file(
    landcover: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    confidence: str | os.PathLike[str] | None = None,
    min_area_m2: float = 0.0,
    single_layer: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VectorSummary:
    """Trace a class raster as polygons, block by block; the result does not depend on the blocks.

    Args:
        landcover: class raster, as written by `segment_file`; others with integer classes work too.
        output: .gpkg, .parquet, .fgb or .geojson.
        classes: names of classes and groups, which are dissolved; None for all classes.
        confidence: raster on the same grid, for the mean of each polygon.
        min_area_m2: leave out smaller polygons.
        single_layer: one layer for all classes, where the format has layers.
        overwrite: replace an output that exists.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: the raster, a class or the output cannot be used; nothing was written.
        GeosegError: reading or writing failed.
    """
    names = None if classes is None else tuple(classes)
    shown = None if confidence is None else Path(confidence)
    options = VectorOptions(names, None, shown, min_area_m2, single_layer, overwrite)
    return vectorize_raster(Path(landcover), Path(output), options, partial(progress or _silent, "vectorize"))


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the demo: its name, what it wrote, and how long it took."""

    name: str
    output: Path
    seconds: float


def run_demo(folder: str | os.PathLike[str], *, small: bool = False, progress: Progress | None = None) -> list[Step]:
    """The main job on the catalogue's demo scene: land cover, confidence, polygons and a picture in a folder.

    Outputs of an earlier demo in that folder are replaced.
    """
    from geoseg.view import draw_side_by_side

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    landcover, confidence = folder / "landcover.tif", folder / "confidence.tif"
    polygons, picture = folder / "polygons.gpkg", folder / "demo.png"
    steps: list[Step] = []

    def timed(name: str, output: Path, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        steps.append(Step(name, output, time.perf_counter() - started))
        return result

    scene = f"{default_catalog()}#{'demo_small' if small else 'demo'}"
    reader = timed("scene", folder, lambda: open_named_reader(scene))
    steps[0] = replace(steps[0], output=Path(reader.files[0].path))
    timed(
        "segment",
        landcover,
        lambda: segment_file(scene, landcover, confidence=confidence, overwrite=True, progress=progress),
    )
    timed(
        "vectorize",
        polygons,
        lambda: vectorize_file(
            landcover,
            polygons,
            classes=["building", "water", "vegetation"],
            confidence=confidence,
            overwrite=True,
            progress=progress,
        ),
    )
    timed("picture", picture, lambda: draw_side_by_side(reader, landcover, polygons, picture))
    return steps


def fitting_models(reader: SceneReader) -> dict[str, str]:
    """For each known model an empty text where it fits the scene as it is, else the reason why not."""
    return {name: _reason(load_card(path), reader) for name, path in list_models().items()}


def _reason(card: ModelCard, reader: SceneReader) -> str:
    try:
        normalization_for(card, used_bands(card, reader.bands), reader.dtype, scale=reader.scale, offset=reader.offset)
        if reader.gsd_m is not None:
            check_gsd(card, reader.gsd_m)
    except InputError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class _Job:
    """All that the pixels of a run depend on, and its digest."""

    reader: SceneReader
    model: Model
    plan: Plan
    extent: Window
    aoi: AreaOfInterest | None

    @property
    def stated(self) -> dict[str, Any]:
        """What the user said of the scene and the area."""
        given = {name: value for name, value in _plain(self.reader.stated).items() if value is not None}
        if "valid_mask" in given:
            given["valid_mask"] = Path(given["valid_mask"]).name  # its pixels are in the scene's fingerprint
        return {**given, **({} if self.aoi is None else {"aoi": self.aoi.digest})}

    @property
    def parts(self) -> dict[str, Any]:
        tags = self.tags
        return {
            "model": {"name": self.model.card.name, "digest": self.model.digest},
            "scene": self.reader.fingerprint(),
            "options": {**self.plan.options, **self.stated},
            "versions": {"geoseg": tags["GEOSEG_VERSION"]},
        }

    @property
    def digest(self) -> str:
        return digest_of(self.parts)

    @property
    def tags(self) -> dict[str, str]:
        names = sorted({Path(file.path).name for file in self.reader.files})
        return run_tags(
            model=self.model.card.name,
            model_digest=self.model.digest,
            scene=", ".join(names),
            options={**self.plan.told, **self.stated},
        )

    @property
    def georef(self) -> Georef:
        """The output's; the scene's own transform, bit for bit, unless an area of interest cuts it."""
        moved = self.reader.transform
        if (self.extent.row, self.extent.col) != (0, 0):
            moved = moved @ Affine.translation(self.extent.col, self.extent.row)
        return Georef(self.extent.shape, moved, self.reader.crs)

    def layers(
        self, output: Path, confidence: str | os.PathLike[str] | None, probabilities: str | os.PathLike[str] | None
    ) -> list[Layer]:
        """The files to write; the land cover last, so that it says that all are there."""
        legend = self.model.card.legend
        layers = []
        if confidence is not None:
            layers.append(confidence_layer(Path(confidence), self.tags))
        if probabilities is not None:
            layers.append(probabilities_layer(Path(probabilities), legend, self.tags))
        return [*layers, landcover_layer(output, legend, self.tags)]


@dataclass(frozen=True)
class _SegmentBlock:
    """One block from the scene's file to the staging folder; holds paths and numbers, never pixels."""

    reader: SceneReader
    segmenter: Segmenter
    writer: BlockWriter
    aoi: AreaOfInterest | None

    def __call__(self, block: Block) -> int:
        """Compute and stage a block; returns the process id."""
        keep = None if self.aoi is None else self.aoi.mask(block.window)
        cover = self.segmenter(block.window, self.reader.read, keep)
        layers = {"landcover": cover.class_map, "confidence": encode_confidence(cover.confidence)}
        if cover.probabilities is not None:
            layers["probabilities"] = encode_confidence(cover.probabilities)
        self.writer.write((block.row, block.col), {name: layers[name] for name in self.writer.layout.layers})
        return os.getpid()


def _open(scene: Scene, reading: SceneOptions, model: Model, *, resample: bool) -> SceneReader:
    """The scene as the model wants it: its bands in order, its resolution within range."""
    reader = open_named_reader(scene, reading)
    reader = reader.select(used_bands(model.card, reader.bands))
    low, high = model.card.gsd_range_m
    if resample and reader.gsd_m is not None and not low <= reader.gsd_m <= high:
        reader = reader.resampled(model.card.gsd_m)
    check_gsd(model.card, reader.gsd_m)
    return reader


def _segment(job: _Job, layers: list[Layer], workers: int, overwrite: bool, progress: Progress) -> RunSummary:
    started = time.perf_counter()
    summary = RunSummary([layer.path for layer in layers], pixels=job.extent.area)
    card, reader = job.model.card, job.reader
    normalization = normalization_for(card, reader.bands, reader.dtype, scale=reader.scale, offset=reader.offset)
    wanted = {layer.name: len(layer.bands) for layer in layers}
    segmenter = Segmenter(
        job.plan.grid, normalization, Predictor(job.model, job.plan.backend), "probabilities" in wanted
    )
    side = job.plan.grid.block_side
    phase = job.extent.row % side, job.extent.col % side
    layout = BlockLayout(job.extent.shape, (side, side), wanted, phase)
    with Staging.open(layers[-1].path, job.parts, layout, overwrite=overwrite) as staging:
        task = _SegmentBlock(reader, segmenter, staging.writer(), job.aoi)
        done = _pixels(layout, staging.done())

        def finished(block: Block, process: int) -> None:
            nonlocal done
            done += block.window.area
            summary.blocks[process] += 1
            progress("segment", done, job.extent.area)

        progress("segment", done, job.extent.area)
        remaining = list(_remaining(layout, staging.done(), job.extent))
        if remaining:
            run_blocks(task, remaining, workers=min(workers, len(remaining)), finished=finished)
        summary.seconds["segment"] = time.perf_counter() - started
        for layer in layers:
            if not is_current(layer.path, job.digest):
                write_cog(staging, layer, job.georef, threads=os.cpu_count() or 1)
        staging.discard()
    summary.seconds["write"] = time.perf_counter() - started - summary.seconds["segment"]
    return summary


def _remaining(layout: BlockLayout, done: set[tuple[int, int]], extent: Window) -> Iterator[Block]:
    for row, col in layout.blocks:
        if (row, col) not in done:
            yield Block(row, col, layout.window((row, col)).shifted(extent.row, extent.col))


def _pixels(layout: BlockLayout, blocks: set[tuple[int, int]]) -> int:
    return sum(layout.window(block).area for block in blocks)


def _check_outputs(job: _Job, layers: list[Layer], overwrite: bool) -> None:
    mask = job.reader.stated.valid_mask
    sources = [*(file.path for file in job.reader.files), *([mask] if mask else [])]
    for layer in layers:
        others = [other.path for other in layers if other is not layer]
        if len({layer.path.resolve(), *(path.resolve() for path in others)}) < len(layers):
            raise InputError(f"Two outputs have the same name {layer.path}; give each its own.")
        current = is_current(layer.path, job.digest)
        check_output(layer.path, overwrite=overwrite or current, inputs=sources)
        check_disk_space(layer.path, raster_bytes=job.extent.area * len(layer.bands))
    bands = sum(len(layer.bands) for layer in layers)
    check_disk_space(layers[-1].path, raster_bytes=job.extent.area * bands)  # all blocks are staged there


def _plain(options: SceneOptions) -> dict[str, Any]:
    names = ("bands", "nodata", "valid_mask", "scale", "offset", "gsd_m")
    return {name: getattr(options, name) for name in names}


def _silent(step: str, done: int, total: int) -> None:
    """No progress is shown."""
