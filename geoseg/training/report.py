"""Evaluation: all scores of one comparison with their intervals, as JSON and as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.raster.labels import LabelCodes
from geoseg.training import boundary, metrics
from geoseg.training.boundary import Targets
from geoseg.training.calibrate import Calibration, Reliability
from geoseg.training.compare import Tally

FEW_CELLS = 20  # with fewer an interval says little
RESAMPLES = 1000
PER_CLASS = {
    "iou": "IoU",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "boundary_f": "boundary F",
    "boundary_iou": "boundary IoU",
}
OVERALL = {
    "overall_accuracy": "overall accuracy",
    "mean_iou": "mean IoU",
    "mean_f1": "mean F1",
    "mean_boundary_f": "mean boundary F",
    "mean_boundary_iou": "mean boundary IoU",
}


@dataclass(frozen=True, slots=True)
class Score:
    """A score and the bounds of its 95 % confidence interval; NaN where unknown."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        return {name: _rounded(getattr(self, name)) for name in ("value", "low", "high")}

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "-"
        return f"{self.value:.3f}" + (f" ({self.low:.3f} to {self.high:.3f})" if math.isfinite(self.low) else "")


@dataclass(frozen=True, slots=True)
class Setting:
    """How an evaluation was done.

    Attributes:
        distance_px: within which boundaries agree.
        cell_px: side of the cells that intervals are worked out from.
        gsd_m: size of a pixel in metres, None where unknown.
        seed: of the resampling.
    """

    distance_px: float
    cell_px: int
    gsd_m: float | None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well predictions agree with labels.

    Attributes:
        codes: what labels may say.
        tally: what was counted.
        setting: how.
        by_class: scores of each class and group that is labelled.
        overall: scores over all labelled pixels, and means of classes.
        subject: what was compared: scene, labels, model and so on, as JSON-able values.
        told: what a reader of the scores should know, as sentences.
        reliability: of the model's probabilities, None without a model.
        calibration: likewise.
    """

    codes: LabelCodes
    tally: Tally
    setting: Setting
    by_class: Mapping[str, Mapping[str, Score]]
    overall: Mapping[str, Score]
    subject: Mapping[str, Any]
    told: Sequence[str] = ()
    reliability: Reliability | None = None
    calibration: Calibration | None = None

    @classmethod
    def of(
        cls,
        codes: LabelCodes,
        tally: Tally,
        setting: Setting,
        *,
        subject: Mapping[str, Any],
        told: Sequence[str] = (),
        reliability: Reliability | None = None,
        calibration: Calibration | None = None,
    ) -> Evaluation:
        """Work out scores and intervals from counts; there must be a pixel with label and prediction."""
        by_class, overall = _scored(codes, tally, setting.seed)
        notes = [*told, *_notes(codes, tally, setting, calibration)]
        return cls(codes, tally, setting, by_class, overall, subject, notes, reliability, calibration)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(code, channel) pixels by label and prediction."""
        total: NDArray[np.int64] = self.tally.stacked()[0].sum(0)
        return total

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-able values, but for the map of errors."""
        counts = self.confusion
        document: dict[str, Any] = {
            "format": "geoseg-evaluation/1",
            **self.subject,
            "pixels": {"compared": int(counts.sum()), "labelled_without_prediction": self.tally.unpredicted},
            "overall": {name: score.to_dict() for name, score in self.overall.items()},
            "classes": {
                name: {what: score.to_dict() for what, score in scores.items()}
                for name, scores in self.by_class.items()
            },
            "confusion": {
                "labels": list(self.codes.names),
                "predictions": list(self.codes.legend.names),
                "counts": counts.tolist(),
            },
            "boundary_distance_px": self.setting.distance_px,
            "intervals": {
                "level": 0.95,
                "method": "percentile block bootstrap",
                "cell_px": self.setting.cell_px,
                "cells": len(self.tally.cells),
                "resamples": RESAMPLES,
                "seed": self.setting.seed,
            },
            "notes": list(self.told),
        }
        if self.reliability is not None:
            document["reliability"] = _reliability(self.reliability)
        if self.calibration is not None:
            document["calibration"] = self.calibration.to_card()
        return document

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_markdown(self, figures: Sequence[str] = ()) -> str:
        """Tables for people.

        Args:
            figures: file names of pictures beside it.
        """
        return "\n".join([*self._opening(), *self._tables(), *(f"![{name}]({name})\n" for name in figures)])

    def _opening(self) -> Iterator[str]:
        yield f"# {self.subject.get('model') or 'Land cover'} against {self.subject.get('labels', 'labels')}\n"
        for what in ("scene", "labels", "aoi", "model"):
            if self.subject.get(what):
                yield f"- {what}: {self.subject[what]}"
        yield f"- pixels compared: {int(self.confusion.sum())}"
        for name, score in self.overall.items():
            yield f"- {OVERALL[name]}: {score}"
        if self.reliability is not None:
            yield f"- expected calibration error: {self.reliability.ece:.3f}"
        if self.calibration is not None:
            found = self.calibration
            yield (
                f"- temperature {found.temperature:.3g} for the card: calibration error {found.ece_before:.3f} before, "
                f"{found.ece_after:.3f} after"
            )
        yield "\nIn brackets: 95 % confidence intervals by block bootstrap.\n"

    def _tables(self) -> Iterator[str]:
        yield f"| class | {' | '.join(PER_CLASS.values())} |"
        yield f"|---|{'---|' * len(PER_CLASS)}"
        for name, scores in self.by_class.items():
            yield f"| {name} | {' | '.join(str(scores[what]) for what in PER_CLASS)} |"
        yield "\nPixels by label (rows) and prediction (columns):\n"
        yield f"| | {' | '.join(self.codes.legend.names)} |"
        yield f"|---|{'---:|' * len(self.codes.legend.names)}"
        for name, row in zip(self.codes.names, self.confusion, strict=True):
            if row.any():
                yield f"| {name} | {' | '.join(str(count) for count in row)} |"
        yield "\nTo know:\n"
        yield from (f"- {sentence}" for sentence in self.told)
        yield ""


def _scored(codes: LabelCodes, tally: Tally, seed: int) -> tuple[dict[str, dict[str, Score]], dict[str, Score]]:
    """Scores by class and overall, with their intervals."""
    targets = Targets(codes.members, len(codes.legend.classes))
    counts, edges = tally.stacked()
    chosen = metrics.averaged(counts.sum(0), targets)

    def areas(summed: NDArray[np.float64]) -> NDArray[np.float64]:
        found = metrics.hits(summed, targets)
        columns = [found.iou, found.f1, found.precision, found.recall]
        means = [metrics.overall_accuracy(summed, targets), *(metrics.mean(column, chosen) for column in columns[:2])]
        return np.concatenate([*columns, np.stack(means, -1)], axis=-1)

    def lines(summed: NDArray[np.float64]) -> NDArray[np.float64]:
        columns = boundary.scores(summed)
        means = [metrics.mean(column, chosen) for column in columns]
        return np.concatenate([*columns, np.stack(means, -1)], axis=-1)

    size = len(codes.names)
    by_area, by_line = _with_intervals(counts, areas, seed), _with_intervals(edges, lines, seed)
    columns = [by_area[i : i + size] for i in range(0, 4 * size, size)]
    columns += [by_line[i : i + size] for i in range(0, 2 * size, size)]
    found = metrics.hits(counts.sum(0), targets)
    by_class = {
        name: {what: column[i] for what, column in zip(PER_CLASS, columns, strict=True)}
        for i, name in enumerate(codes.names)
        if found.found[i] + found.missed[i] > 0
    }
    overall = [*by_area[4 * size :], *by_line[2 * size :]]
    return by_class, dict(zip(OVERALL, overall, strict=True))


def _with_intervals(cells: NDArray[np.int64], statistic: Any, seed: int) -> list[Score]:
    values = statistic(cells.sum(0).astype(np.float64))
    low, high = metrics.bootstrap(cells, statistic, resamples=RESAMPLES, seed=seed)
    return [Score(*map(float, triple)) for triple in zip(values, low, high, strict=True)]


def _notes(codes: LabelCodes, tally: Tally, setting: Setting, calibration: Calibration | None) -> Iterator[str]:
    """What a reader of the scores should know."""
    counts = tally.stacked()[0].sum(0)
    labelled = counts.sum(1)
    present = [name for name, pixels in zip(codes.names, labelled, strict=True) if pixels]
    classes = len(codes.legend.classes)
    if len(present) == 1:
        yield (
            f"All labels are {present[0]}: recall says how much of it is found, but precision, IoU, F1 and overall "
            "accuracy cannot show what was wrongly taken for it. Label other classes too, or say what lies elsewhere."
        )
    partial = [name for name, pixels in zip(codes.names[classes:], labelled[classes:], strict=True) if pixels]
    hidden = {channel for i in range(classes, len(codes.names)) if labelled[i] for channel in codes.members[i]}
    absent = [name for i, name in enumerate(codes.legend.names) if not labelled[i] and i not in hidden]
    if absent:
        yield f"No pixel is labelled {', '.join(absent)}; these have no scores and are in no mean."
    if partial:
        yield f"Pixels labelled {', '.join(partial)} are right where any class of the group is predicted."
    if tally.unpredicted:
        yield f"{tally.unpredicted} labelled pixels have no prediction (nodata) and are left out."
    metres = "" if setting.gsd_m is None else f" ({setting.distance_px * setting.gsd_m:.3g} m)"
    yield (
        f"Boundaries agree within {setting.distance_px:g} px{metres}: boundary F-score of Csurka et al. (2013), from "
        "pixels of the whole scene, and boundary IoU of Cheng et al. (2021). Pixels nearer than that to where labels "
        "end are left out."
    )
    cells = len(tally.cells)
    size = f"{cells} cell{'s' if cells > 1 else ''} of {setting.cell_px} px"
    if cells == 1:
        yield f"All compared pixels lie in {size}, so that there are no confidence intervals; label more places."
    elif cells < FEW_CELLS:
        yield f"Confidence intervals come from {size} only: they are rough, and rather too narrow. Label more places."
    else:
        yield f"Confidence intervals come from {size}, each taken as one draw."
    if partial and calibration is not None:
        yield "Calibration is that of classes which labels tell apart; those of a labelled group count as one."
    if calibration is not None and calibration.ece_after >= calibration.ece_before:
        yield "A temperature does not lower the calibration error here; leave the model's as it is."
    if calibration is not None and not calibration.held_out:
        yield "The calibration error after was measured on the pixels that the temperature was fitted to."


def _reliability(found: Reliability) -> dict[str, Any]:
    bins = zip(found.pixels, found.confidence, found.accuracy, strict=True)
    return {
        "expected_calibration_error": _rounded(found.ece),
        "bins": [{"pixels": int(n), "confidence": _rounded(c), "accuracy": _rounded(a)} for n, c, a in bins],
    }


def _rounded(value: float) -> float | None:
    """To six digits; None where unknown, as JSON has no NaN."""
    return round(float(value), 6) if math.isfinite(value) else None
