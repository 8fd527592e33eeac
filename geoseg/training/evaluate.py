"""Agreement with reference labels: of arrays (`Confusion`), and of scenes and land-cover files (`Trial`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoseg.catalog import open_named_reader
from geoseg.errors import InputError
from geoseg.inference.job import Job, Scene
from geoseg.inference.plan import RunOptions
from geoseg.legend import Legend
from geoseg.models import Model
from geoseg.raster.aoi import AreaOfInterest, read_aoi
from geoseg.raster.cog import is_current
from geoseg.raster.disk import check_disk_space, check_output
from geoseg.raster.labels import LabelOptions, LabelReader, open_labels
from geoseg.raster.landcover import read_legend
from geoseg.raster.reader import SceneOptions, SceneReader
from geoseg.raster.remote import plain_name
from geoseg.raster.staging import digest_of
from geoseg.training.boundary import Targets, check_distance
from geoseg.training.calibrate import calibrate, parts_of
from geoseg.training.compare import AreaLabels, Cells, Comparison, Survey, survey
from geoseg.training.predict import Believed, Orders, predicted
from geoseg.training.report import Evaluation, Setting

MANY = 64  # classes; a legend of more is cut down to those that occur


@dataclass
class Confusion:
    """Counts of (reference, predicted) pairs, added up over blocks in any order.

    Attributes:
        names: one per class.
        counts: (reference, predicted) int64.
    """

    names: Sequence[str]
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.names), len(self.names)), np.int64)

    def add(self, reference: ArrayLike, predicted: ArrayLike) -> None:
        """Count pixels; where either index is negative or beyond the last class, the pixel is left out.

        Args:
            reference: class indices (0-based, in the order of `names`), any shape.
            predicted: the same.

        Raises:
            InputError: the shapes differ.
        """
        reference, predicted = np.asarray(reference), np.asarray(predicted)
        if reference.shape != predicted.shape:
            raise InputError(f"Reference is {reference.shape} and prediction {predicted.shape}; they must agree.")
        classes = len(self.names)
        known = (reference >= 0) & (reference < classes) & (predicted >= 0) & (predicted < classes)
        pairs = reference[known].astype(np.int64) * classes + predicted[known]
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def iou(self) -> dict[str, float]:
        """Intersection over union by class (Jaccard 1912); NaN for a class that neither side has."""
        hit = np.diag(self.counts).astype(float)
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        with np.errstate(invalid="ignore"):
            return dict(zip(self.names, (float(v) for v in hit / union), strict=True))

    def overall_accuracy(self) -> float:
        """Share of pixels that agree."""
        return float(np.diag(self.counts).sum() / max(1, self.counts.sum()))


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How to compare.

    Attributes:
        labels: what the label file does not say.
        aoi: vector file; only labels within its polygons count.
        distance_px: within which boundaries agree.
        distance_m: the same in metres, in place of pixels.
        cell_px: side of the cells that confidence intervals are worked out from; None for 256 px or more.
        seed: of the resampling.
    """

    labels: LabelOptions = field(default_factory=LabelOptions)
    aoi: str | Path | None = None
    distance_px: float = 2.0
    distance_m: float | None = None
    cell_px: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_distance(self.distance_px)
        if self.seed < 0:
            raise InputError(f"A seed is 0 or more, not {self.seed}.")
        if self.cell_px is not None and self.cell_px < 1:
            raise InputError(f"The cells of confidence intervals have a side of 1 px or more, not {self.cell_px}.")

    def distance(self, gsd_m: float | None) -> float:
        """In pixels of that size.

        Raises:
            InputError: metres are stated and the size of a pixel is not known, or it is larger.
        """
        if self.distance_m is None:
            return self.distance_px
        if gsd_m is None:
            raise InputError(
                f"A boundary distance of {self.distance_m:g} m needs the size of a pixel, which the scene does not "
                "tell; state it with --gsd, or the distance in pixels with --distance."
            )
        check_distance(self.distance_m / gsd_m)
        return self.distance_m / gsd_m


@dataclass(frozen=True)
class Trial:
    """One evaluation, settled before it starts: labels are read and found good, nothing is predicted yet.

    Attributes:
        reader: of the scene, as the model wants it, or of the land cover.
        labels: of it, within the area of interest.
        surveyed: what the labels hold.
        options: how to compare.
        job: of the model on the part that may be labelled; None where a land cover is judged.
        source: file name of the labels.
    """

    reader: SceneReader
    labels: AreaLabels
    surveyed: Survey
    options: EvaluateOptions
    job: Job | None
    source: str

    @classmethod
    def of_model(
        cls,
        scene: Scene,
        labels: str | os.PathLike[str],
        model: Model,
        *,
        reading: SceneOptions,
        run: RunOptions,
        options: EvaluateOptions,
    ) -> Trial:
        """A model on a scene.

        Raises:
            InputError: scene, labels, area of interest or an option cannot be used, or nothing is labelled.
        """
        job = Job.of(scene, model, reading, replace(run, aoi=options.aoi), kept=(False, True))
        found = AreaLabels(_open(labels, model.card.legend, job.reader, options), job.aoi)
        surveyed = _surveyed(found, labels, options)
        job = replace(job, extent=job.extent.intersection(found.extent))
        return cls(job.reader, found, surveyed, options, job, Path(labels).name)

    @classmethod
    def of_landcover(
        cls, landcover: str | os.PathLike[str], labels: str | os.PathLike[str], *, options: EvaluateOptions
    ) -> Trial:
        """A class map that is there already.

        Raises:
            InputError: land cover, labels, area of interest or an option cannot be used, or nothing is labelled.
        """
        reader = open_named_reader(str(landcover))
        if len(reader.bands) > 1:
            raise InputError(
                f"{landcover} has {len(reader.bands)} bands, so it is no land cover; say which model is to be judged "
                "on it with --model."
            )
        aoi = _aoi(reader, options)
        legend = read_legend(Path(landcover))
        if len(legend.classes) > MANY:
            legend = _cut_down(legend, landcover, labels, reader, options)
        found = AreaLabels(_open(labels, legend, reader, options), aoi)
        surveyed = _surveyed(found, labels, options)
        return cls(reader, found, surveyed, options, None, Path(labels).name)

    @property
    def setting(self) -> Setting:
        cells = Cells.of(self.labels.extent, self.options.cell_px)
        distance = self.options.distance(self.reader.gsd_m)
        return Setting(distance, cells.side, self.reader.gsd_m, self.options.seed)

    @property
    def parts(self) -> dict[str, Any]:
        """Everything that the scores depend on."""
        judged = {"scene": self.reader.fingerprint()} if self.job is None else self.job.parts
        setting = self.setting
        return {
            **judged,
            "labels": {"digest": self.surveyed.digest, "names": list(self.labels.labels.codes.names)},
            "setting": [setting.distance_px, setting.cell_px, setting.seed],
            "geoseg": version("geoseg"),
        }

    @property
    def digest(self) -> str:
        return digest_of(self.parts)

    @property
    def subject(self) -> dict[str, Any]:
        names = sorted({Path(plain_name(file.path)).name for file in self.reader.files})
        found: dict[str, Any] = {"scene": ", ".join(names), "labels": self.source}
        if self.options.aoi is not None:
            found["aoi"] = Path(self.options.aoi).name
        if self.job is not None:
            found |= {"model": self.job.model.card.name, "model_digest": self.job.model.digest}
        return {**found, "digest": self.digest}

    @contextmanager
    def evaluated(
        self, landcover: Path, run: RunOptions, *, overwrite: bool, progress: Callable[[str, int, int], None]
    ) -> Iterator[Evaluation]:
        """Predict if need be, compare, and work out the scores; what was staged goes when the caller is done.

        Args:
            landcover: where a model's class map of the labelled part is written.
            run: workers and so on.
            overwrite: replace what is there.
            progress: called with step, pixels done and pixels in all.

        Raises:
            InputError: no labelled pixel has a prediction.
            GeosegError: reading, computing or writing failed; finished blocks are kept.
        """
        if self.job is None:
            yield self._compared(self.reader.files[0].path, None, progress)
            return
        check_output(
            landcover,
            overwrite=overwrite or is_current(landcover, self.digest),
            inputs=[file.path for file in self.reader.files],
        )
        check_disk_space(landcover, raster_bytes=self.job.extent.area)
        labelled = int(self.surveyed.pixels.sum())
        orders = Orders(landcover, self.parts, run, labelled, self.setting.cell_px, self._told_apart, overwrite)
        with predicted(self.job, self.labels, orders, lambda *done: progress("segment", *done)) as believed:
            yield self._compared(landcover, believed, progress)

    @property
    def _told_apart(self) -> NDArray[np.intp]:
        codes = self.labels.labels.codes
        held = [own for own, pixels in zip(codes.members, self.surveyed.pixels, strict=True) if pixels]
        return parts_of(held, len(codes.legend.classes))

    @property
    def _temperature(self) -> float:
        return 1.0 if self.job is None else self.job.model.card.temperature

    def _compared(
        self, landcover: str | Path, believed: Believed | None, progress: Callable[[str, int, int], None]
    ) -> Evaluation:
        codes, extent = self.labels.labels.codes, self.labels.extent
        predictions = _open(landcover, codes.legend, self.reader, EvaluateOptions())
        targets, setting = Targets(codes.members, len(codes.legend.classes)), self.setting
        comparison = Comparison(self.labels, predictions, targets, setting.distance_px, Cells(extent, setting.cell_px))
        tally = comparison.whole(progress=lambda done: progress("compare", done, extent.area))
        if not tally.cells:
            raise InputError(
                f"None of the {tally.unpredicted} labelled pixels has a prediction: the scene is nodata there. "
                "Compare the places with geoseg info, or state --nodata if the scene's own is wrong."
            )
        return Evaluation.of(
            codes,
            tally,
            setting,
            subject=self.subject,
            told=self.labels.labels.told,
            reliability=None if believed is None else believed.reliability,
            calibration=None if believed is None else calibrate(believed.sample, applied=self._temperature),
        )


def _open(path: str | os.PathLike[str], legend: Legend, reader: SceneReader, options: EvaluateOptions) -> LabelReader:
    return open_labels(
        path, legend, shape=reader.shape, transform=reader.transform, crs=reader.crs, options=options.labels
    )


def _aoi(reader: SceneReader, options: EvaluateOptions) -> AreaOfInterest | None:
    if options.aoi is None:
        return None
    return read_aoi(options.aoi, shape=reader.shape, transform=reader.transform, crs=reader.crs)


def _surveyed(labels: AreaLabels, path: str | os.PathLike[str], options: EvaluateOptions) -> Survey:
    """What the labels hold.

    Raises:
        InputError: nothing.
    """
    found = survey(labels)
    if not found.pixels.any():
        where = "on the scene" if options.aoi is None else f"of the scene within {options.aoi}"
        raise InputError(
            f"The labels {path} say nothing {where}: no pixel there has a class. Compare their places with geoseg info"
            f"{' and --ignore with the values in them' if options.labels.ignore else ''}."
        )
    return found


def _cut_down(
    legend: Legend,
    landcover: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    reader: SceneReader,
    options: EvaluateOptions,
) -> Legend:
    """The classes that occur on either side; a land cover without names has all that there could be."""
    plain = replace(options, labels=options.labels.without_other())
    sides = (landcover, EvaluateOptions()), (labels, plain)
    occurring = sum(survey(AreaLabels(_open(path, legend, reader, how), None)).pixels for path, how in sides)
    kept = tuple(entry for entry, pixels in zip(legend.classes, np.asarray(occurring), strict=False) if pixels)
    return legend.model_copy(update={"classes": kept})
