"""An evaluation as a folder: report.json, report.md, and pictures of who is taken for whom, how sure, and where."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geoseg.catalog import resolve_labels
from geoseg.errors import InputError
from geoseg.inference.job import Scene
from geoseg.inference.plan import RunOptions
from geoseg.models import Model, load_model
from geoseg.raster.disk import disk_errors, publish_bytes
from geoseg.raster.reader import SceneOptions
from geoseg.training.calibrate import BINS, Reliability
from geoseg.training.compare import Tally
from geoseg.training.evaluate import EvaluateOptions, Trial
from geoseg.training.report import Evaluation

Progress = Callable[[str, int, int], None]  # step, pixels done, pixels in all
REPORT = "report.json"  # published last: where it is, all is there
ANNOTATED = 16  # classes up to which shares are written into the confusion matrix


@dataclass(frozen=True, slots=True)
class EvaluateSummary:
    """What `evaluate_file` did.

    Attributes:
        folder: with the reports and pictures.
        evaluation: all scores; None where they were there already.
        report: what report.json says.
    """

    folder: Path
    evaluation: Evaluation | None
    report: dict[str, object]

    @property
    def up_to_date(self) -> bool:
        return self.evaluation is None


def evaluate_file(
    scene: Scene,
    labels: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model | None = None,
    options: EvaluateOptions | None = None,
    reading: SceneOptions | None = None,
    run: RunOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EvaluateSummary:
    """Compare a model on a scene, or a land cover, with labels; an interrupted run goes on where it stopped.

    Only what is labelled is segmented and compared. The folder gets report.json, report.md, pictures, and for a model
    landcover.tif of the labelled part.

    Args:
        scene: as for `segment_file`; without a model, a land-cover GeoTIFF.
        labels: class raster or vector file, see `geoseg.raster.labels.open_labels`, or `catalog.yaml#name`.
        folder: for the outputs; it is made if need be.
        model: name or path of a bundle, or a loaded one; None where the scene is a land cover.
        options: how to compare.
        reading: what the scene's files do not say.
        run: chip, halo, block, device and so on.
        overwrite: replace an evaluation that is there.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: scene, labels, model or an option cannot be used, or the folder holds another evaluation.
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    options, run, folder = options or EvaluateOptions(), run or RunOptions(), Path(folder)
    trial = _trial(scene, labels, model, options, reading or SceneOptions(), run)
    report = _report_in(folder)
    if report is not None and report.get("digest") == trial.digest:
        return EvaluateSummary(folder, None, report)
    if report is not None and not overwrite:
        raise InputError(f"{folder} holds another evaluation; give another folder, or --overwrite to replace it.")
    with disk_errors("making the folder of the evaluation", folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
    landcover = folder / "landcover.tif"
    with trial.evaluated(landcover, run, overwrite=overwrite, progress=progress or _silent) as evaluation:
        (folder / REPORT).unlink(missing_ok=True)
        for name, content in _files(evaluation):
            publish_bytes(folder / name, content)
    return EvaluateSummary(folder, evaluation, evaluation.to_dict())


def draw_confusion(evaluation: Evaluation) -> bytes:
    """PNG: of the pixels with each label, the share of each prediction."""
    return draw_shares(evaluation.confusion, evaluation.codes.names, evaluation.codes.legend.names)


def draw_shares(counts: NDArray[np.int64], codes: Sequence[str], predictions: Sequence[str]) -> bytes:
    """PNG of a confusion matrix (label, prediction): shares of each label's pixels; labels without any are left out."""
    labelled = counts.sum(1) > 0
    names = [name for name, kept in zip(codes, labelled, strict=True) if kept]
    shares = counts[labelled] / counts[labelled].sum(1, keepdims=True)
    figure = Figure(figsize=(2.5 + 0.65 * len(predictions), 2 + 0.55 * len(names)), dpi=120)
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(predictions)), predictions, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="label")
    if len(predictions) <= ANNOTATED:
        for (row, col), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "black"
            axes.text(col, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=color)
    figure.colorbar(shown, label="share of the label's pixels")
    return figure_as_png(figure)


def draw_reliability(found: Reliability) -> bytes:
    """PNG: how often predictions of each confidence are right, and how many there are."""
    figure = Figure(figsize=(5, 6), dpi=120)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    centers = (np.arange(BINS) + 0.5) / BINS
    upper.bar(centers, np.nan_to_num(found.accuracy), width=0.9 / BINS, color="#2b8cbe", label="right")
    upper.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", label="as sure as right")
    upper.plot(found.confidence, found.accuracy, "o", markersize=3, color="#d7301f", label="mean confidence")
    upper.set(ylabel="share that is right", ylim=(0, 1), title=f"expected calibration error {found.ece:.3f}")
    upper.legend(loc="upper left", fontsize=8)
    lower.bar(centers, found.pixels / max(1, found.pixels.sum()), width=0.9 / BINS, color="#8c8c8c")
    lower.set(xlabel="confidence", ylabel="share of pixels", xlim=(0, 1))
    return figure_as_png(figure)


def draw_errors(tally: Tally) -> bytes:
    """PNG: the share of wrong pixels, place by place; gray where nothing is compared."""
    total = tally.right + tally.wrong
    with np.errstate(invalid="ignore"):
        share = np.where(total > 0, tally.wrong / total, np.nan)
    height, width = share.shape
    figure = Figure(figsize=(8, min(16, max(3, 8 * height / width))), dpi=120)
    axes = figure.subplots()
    axes.set_facecolor("#d9d9d9")
    shown = axes.imshow(share, cmap="inferno", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[], title="where predictions are wrong")
    figure.colorbar(shown, label="share of wrong pixels", shrink=0.8)
    return figure_as_png(figure)


def _trial(
    scene: Scene,
    labels: str | os.PathLike[str],
    model: str | os.PathLike[str] | Model | None,
    options: EvaluateOptions,
    reading: SceneOptions,
    run: RunOptions,
) -> Trial:
    labels = resolve_labels(labels)
    if model is not None:
        loaded = model if isinstance(model, Model) else load_model(model)
        return Trial.of_model(scene, labels, loaded, reading=reading, run=run, options=options)
    if not isinstance(scene, str | os.PathLike):
        raise InputError(f"A land cover is one file, not {len(scene)}; say which model is to be judged with --model.")
    return Trial.of_landcover(scene, labels, options=options)


def _files(evaluation: Evaluation) -> Iterator[tuple[str, bytes]]:
    """Names and contents; the report last."""
    figures = {"confusion.png": draw_confusion(evaluation), "errors.png": draw_errors(evaluation.tally)}
    if evaluation.reliability is not None and evaluation.reliability.pixels.any():
        figures["reliability.png"] = draw_reliability(evaluation.reliability)
    yield from figures.items()
    yield "report.md", evaluation.to_markdown(tuple(figures)).encode()
    yield REPORT, evaluation.to_json().encode()


def _report_in(folder: Path) -> dict[str, object] | None:
    """The report of an evaluation that was finished in a folder."""
    try:
        report = json.loads((folder / REPORT).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / REPORT} is there and no report of ours; give another folder.") from error
    return report if isinstance(report, dict) else {}


def figure_as_png(figure: Figure, *, bottom: float = 0.0) -> bytes:
    """The same bytes for the same figure; its lowest share is left for a legend."""
    FigureCanvasAgg(figure)
    figure.tight_layout(rect=(0, bottom, 1, 1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _silent(step: str, done: int, total: int) -> None:
    """No progress is shown."""
