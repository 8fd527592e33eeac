"""File to file: a scene to a land-cover GeoTIFF, and that to polygons. Read this first; dates are in `over_time`.

Nothing is computed here. Each function checks what it was given, settles what will be done, and calls the steps.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.errors import InputError
from geoseg.raster.cog import Layer, is_current, write_cog
from geoseg.raster.disk import check_disk_space, check_named, check_output, work_folder
from geoseg.raster.staging import Staging, canonical_json, digest_of, discard_leftovers

if TYPE_CHECKING:  # torch and numba load where they are needed
    from geoseg.inference.job import BlockSink, Job, Scene
    from geoseg.inference.plan import Plan, RunOptions
    from geoseg.inference.seams import Seams
    from geoseg.models import Model
    from geoseg.raster.reader import SceneOptions
    from geoseg.training.pseudo import Kept
    from geoseg.vector import VectorOptions, VectorRun, VectorSummary
    from geoseg.vector.staged import StagedTraces

log = logging.getLogger(__name__)
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
        seams: how far chips disagree beside their seams; None where nothing was computed.
    """

    outputs: list[Path]
    up_to_date: bool = False
    pixels: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    blocks: Counter[int] = field(default_factory=Counter)
    seams: Seams | None = None


def segment_file(
    scene: Scene,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model = "landcover-rgb",
    confidence: str | os.PathLike[str] | None = None,
    probabilities: str | os.PathLike[str] | None = None,
    polygons: str | os.PathLike[str] | None = None,
    drawing: VectorOptions | None = None,
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
        polygons: also write the land cover's polygons there, those that `vectorize_file` would; blocks are traced while
            others are computed.
        drawing: classes and shapes of the polygons; their confidence is the one that is written.
        reading: what the scene's files do not say.
        run: chip, halo, block, device and so on.
        overwrite: replace outputs that exist.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: the scene, the model, an option or an output cannot be used; nothing was written.
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    check_named(output, confidence, probabilities, polygons)
    kept = confidence is not None, probabilities is not None
    job, run = _job(scene, model, reading, run, kept)
    layers = job.layers(Path(output), confidence, probabilities)
    is_done = all(is_current(layer.path, job.digest) for layer in layers)
    drawn = None if polygons is None else _polygons_of(job, polygons, drawing, confidence)
    if drawn is not None:
        drawn.check(overwrite=overwrite, inputs=[*(layer.path for layer in layers), *job.inputs])
    if is_done:
        discard_leftovers(layers[-1].path, job.digest)
        summary = RunSummary([layer.path for layer in layers], up_to_date=True, pixels=job.extent.area)
        if drawn is not None and drawn.made is None:
            with drawn.staged(overwrite=overwrite, store=run.staging) as traces:
                _draw(drawn, traces, layers, summary, progress or _silent)
    else:
        _check_outputs(job, layers, overwrite)
        tracing = nullcontext() if drawn is None else drawn.staged(overwrite=overwrite, store=run.staging)
        with tracing as traces:
            summary = _segment(
                job, layers, run, overwrite, progress or _silent, None if traces is None else traces.task
            )
            if drawn is not None and traces is not None:
                _draw(drawn, traces, layers, summary, progress or _silent)
    summary.outputs += [] if drawn is None else [drawn.output]
    return summary


@dataclass(frozen=True, slots=True)
class Forecast:
    """What `segment_file` would do.

    Attributes:
        shape: rows and columns of the output.
        plan: chips, blocks, device, precision and engine.
        chips: number of them.
        blocks: number of them.
        memory_bytes: expected peak of the resident memory of all processes on this machine.
        seconds: expected, from one chip timed now; None where another machine computes.
        output_bytes: of all layers before compression.
        pool: the model sees means of pool x pool pixels.
    """

    shape: tuple[int, int]
    plan: Plan
    chips: int
    blocks: int
    memory_bytes: int
    seconds: float | None
    output_bytes: int
    pool: int = 1

    @property
    def extra_pixels(self) -> float:
        """Pixels computed more than once or beyond the scene, as a share of the scene's."""
        return self.plan.computed_pixels / (self.plan.grid.shape[0] * self.plan.grid.shape[1]) - 1


def plan_file(
    scene: Scene,
    *,
    output: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | Model = "landcover-rgb",
    confidence: bool = False,
    probabilities: bool = False,
    reading: SceneOptions | None = None,
    run: RunOptions | None = None,
    calibrate: bool = True,
) -> Forecast:
    """What segmenting a scene would take; nothing is written.

    Args:
        scene: as for `segment_file`.
        output: where the run would write, one that is there being replaced; None where that is not settled.
        model: as for `segment_file`.
        confidence: whether it would be written.
        probabilities: whether they would be written.
        reading: as for `segment_file`.
        run: as for `segment_file`.
        calibrate: time one chip from the middle of what is written.

    Raises:
        InputError: the scene, the model, an option or the output cannot be used.
    """
    job, run = _job(scene, model, reading, run, (confidence, probabilities))
    extent = job.extent
    if output is not None:
        check_output(Path(output), overwrite=True, inputs=job.inputs)
        check_disk_space(Path(output), raster_bytes=extent.area * job.load.layers)
    seconds = job.seconds_of_a_chip() if calibrate and run.scheduler is None else None
    chips = len(job.plan.grid.cores(extent))
    return Forecast(
        extent.shape,
        job.plan,
        chips,
        prod(job.layout.count),
        job.plan.memory(job.model, job.load).total,
        None if seconds is None else seconds * chips,
        extent.area * job.load.layers,
        job.pool,
    )


def vectorize_file(
    landcover: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: VectorOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VectorSummary:
    """Trace a class raster as polygons, block by block; an interrupted run goes on where it stopped.

    Args:
        landcover: class raster, as written by `segment_file`; others with integer classes work too.
        output: .gpkg, .parquet, .fgb or .geojson.
        options: classes, shapes and columns; see `VectorOptions`.
        overwrite: replace an output that exists, or, where polygons are appended, those of the same origin.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: the raster, a class or the output cannot be used; nothing was written.
        GeosegError: reading or writing failed; blocks that were traced are kept.
    """
    from geoseg.vector import vectorize_raster

    check_named(output)
    told = partial(progress or _silent, "vectorize")
    return vectorize_raster(os.fspath(landcover), Path(output), options, overwrite=overwrite, progress=told)


@dataclass
class PseudoLabels:
    """What `pseudo_label` did.

    Attributes:
        output: the class raster, finished.
        kept: pixels by class.
        up_to_date: it was there already, made from the same scene, model, options and thresholds.
    """

    output: Path
    kept: Kept
    up_to_date: bool = False


def pseudo_label(
    scene: Scene,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model,
    threshold: float = 0.9,
    thresholds: Mapping[str, float] | None = None,
    reading: SceneOptions | None = None,
    run: RunOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PseudoLabels:
    """Label a scene with a model where the model is sure; `geoseg train` takes the result as labels.

    The class raster has the model's legend, the scene's grid, and nodata wherever the probability of the class is below
    its threshold. An interrupted run goes on where it stopped.

    Args:
        scene: as for `segment_file`.
        output: GeoTIFF (COG) of class ids; its tags say how many pixels of each class were kept.
        model: name or path of a bundle, or a loaded one.
        threshold: least probability of a label.
        thresholds: in its place, of classes and groups by name.
        reading: what the scene's files do not say.
        run: as for `segment_file`.
        overwrite: replace an output that exists.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: the scene, the model, a threshold, an option or the output cannot be used; nothing was written.
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    from geoseg.models import load_model
    from geoseg.training.pseudo import least_confidence, read_kept, write_pseudo_labels

    check_named(output)
    output, loaded, told = Path(output), load_model(model), progress or _silent
    legend = loaded.card.legend
    least = least_confidence(legend, threshold, thresholds or {})
    job, run = _job(scene, loaded, reading, run, (True, False))
    parts = {**job.parts, "thresholds": {entry.name: least[entry.id] for entry in legend.classes}}
    if is_current(output, digest_of(parts)):
        return PseudoLabels(output, read_kept(output), up_to_date=True)
    tags = {**job.tags, "GEOSEG_THRESHOLDS": canonical_json(parts["thresholds"])}
    layer = Layer("labels", output, ("pseudo-label",), legend=legend, tags=tags)
    _check_outputs(job, [layer], overwrite)
    with work_folder(output) as folder:
        cover, confidence = folder / "landcover.tif", folder / "confidence.tif"
        segment_file(
            scene, cover, model=loaded, confidence=confidence, reading=reading, run=run, overwrite=True, progress=told
        )
        kept = write_pseudo_labels(
            cover,
            confidence,
            layer,
            georef=job.georef,
            least=least,
            parts=parts,
            overwrite=overwrite,
            progress=partial(told, "keep"),
        )
    if not any(kept.predicted):
        log.warning("Nothing of the scene is measured, so that %s has no label; look at it with geoseg info.", output)
    elif not any(kept.kept):
        log.warning("No pixel of %s is sure enough to be a label; give a lower threshold.", output)
    return PseudoLabels(output, kept)


def check_scene(
    scene: Scene,
    *,
    model: str | os.PathLike[str] | Model,
    reading: SceneOptions | None = None,
    run: RunOptions | None = None,
) -> None:
    """Raise the InputError that segmenting a scene would raise, if any."""
    _job(scene, model, reading, run, (False, False))


def _job(
    scene: Scene,
    model: str | os.PathLike[str] | Model,
    reading: SceneOptions | None,
    run: RunOptions | None,
    kept: tuple[bool, bool],
) -> tuple[Job, RunOptions]:
    from geoseg.inference.job import Job
    from geoseg.inference.plan import RunOptions
    from geoseg.models import load_model
    from geoseg.raster.reader import SceneOptions

    run = run or RunOptions()
    return Job.of(scene, load_model(model), reading or SceneOptions(), run, kept=kept), run


def _polygons_of(
    job: Job,
    polygons: str | os.PathLike[str],
    drawing: VectorOptions | None,
    confidence: str | os.PathLike[str] | None,
) -> VectorRun:
    from geoseg.vector import VectorOptions
    from geoseg.vector.segmented import run_of_segmenting

    shown = None if confidence is None else Path(confidence)
    return run_of_segmenting(job, Path(polygons), replace(drawing or VectorOptions(), confidence=shown))


def _draw(drawn: VectorRun, traces: StagedTraces, layers: list[Layer], summary: RunSummary, progress: Progress) -> None:
    """Write the polygons of a finished land cover; what is not traced yet is read from it."""
    from geoseg.vector.sources import FileSource

    started = time.perf_counter()
    source = FileSource.of(layers[-1].path, drawn.job.options.confidence)
    drawn.write(traces, source, partial(progress, "vectorize"))
    summary.seconds["vectorize"], summary.up_to_date = time.perf_counter() - started, False


def _segment(
    job: Job, layers: list[Layer], run: RunOptions, overwrite: bool, progress: Progress, also: BlockSink | None
) -> RunSummary:
    from geoseg.inference.job import SegmentBlock
    from geoseg.inference.remaining import compute_remaining
    from geoseg.inference.seams import Seams, warn_of

    started = time.perf_counter()
    summary = RunSummary([layer.path for layer in layers], pixels=job.extent.area)
    layout = job.layout
    with Staging.open(
        layers[-1].path, job.parts, layout, machine=job.machine, overwrite=overwrite, store=run.staging
    ) as staging:
        task = SegmentBlock(job.reader, job.segmenter, staging.writer(), job.aoi, also)
        summary.blocks += compute_remaining(job, staging, task, run, partial(progress, "segment"))
        summary.seconds["segment"] = time.perf_counter() - started
        summary.seams = Seams.of_notes(staging.notes().values())
        measured = {"GEOSEG_SEAMS": canonical_json(summary.seams.to_tag())}
        for layer in layers:
            if not is_current(layer.path, job.digest):
                tagged = replace(layer, tags={**layer.tags, **measured})
                write_cog(staging, tagged, job.georef, threads=os.cpu_count() or 1)
        staging.discard()
    summary.seconds["write"] = time.perf_counter() - started - summary.seconds["segment"]
    warn_of(summary.seams, job.model.card)
    return summary


def _check_outputs(job: Job, layers: list[Layer], overwrite: bool) -> None:
    sources = job.inputs
    for layer in layers:
        others = [other.path for other in layers if other is not layer]
        if len({layer.path.resolve(), *(path.resolve() for path in others)}) < len(layers):
            raise InputError(f"Two outputs have the same name {layer.path}; give each its own.")
        current = is_current(layer.path, job.digest)
        check_output(layer.path, overwrite=overwrite or current, inputs=sources)
        check_disk_space(layer.path, raster_bytes=job.extent.area * len(layer.bands))
    bands = sum(len(layer.bands) for layer in layers)
    check_disk_space(layers[-1].path, raster_bytes=job.extent.area * bands)  # all blocks are staged there


def _silent(step: str, done: int, total: int) -> None:
    """No progress is shown."""
