"""geoseg area: accuracy and areas of a class map, with confidence intervals, from reference points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from geoseg.change.areas import Estimate
    from geoseg.change.reference import AreaSummary


def area(
    class_map: Annotated[Path, typer.Argument(help="Land cover or change, as a class raster.")],
    reference: Annotated[
        str, typer.Option("--reference", help="Labelled points, as from `geoseg sample`: FILE, or FILE:LAYER.")
    ],
    column: Annotated[str, typer.Option(help="Column of the true class.")] = "reference",
    strata: Annotated[
        Path | None, typer.Option(help="Class raster that the points were drawn from, if not CLASS_MAP.")
    ] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the intervals.")] = 0.95,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print accuracies and areas with confidence intervals; counting the map's pixels would repeat its errors."""
    from geoseg.change.reference import estimate_from_points

    summary = estimate_from_points(class_map, reference, column=column, strata=strata)
    typer.echo(json.dumps(summary.to_dict(confidence), indent=1) if as_json else text_of(summary, confidence))


def text_of(summary: AreaSummary, confidence: float) -> str:
    """Accuracies and areas as a table."""
    report, unit = summary.report, summary.unit
    width = max(len(name) for name in report.classes)
    head = f"{'':<{width}}  {'user':>13}  {'producer':>13}  {'area, ' + unit:>25}"
    lines = [
        f"{name:<{width}}  {_pm(users, confidence, 2):>13}  {_pm(producers, confidence, 2):>13}  "
        f"{_pm(found, confidence, summary.digits):>25}"
        for name, users, producers, found in zip(
            report.classes, report.users, report.producers, summary.areas(), strict=True
        )
    ]
    overall = f"overall accuracy {_pm(report.overall, confidence, 3)} ({100 * confidence:g} % confidence)"
    return "\n".join([head, *lines, overall, *summary.told])


def _pm(one: Estimate, confidence: float, digits: int) -> str:
    if one.value != one.value:
        return "unknown"
    return f"{one.value:,.{digits}f} ± {one.half_width(confidence):,.{digits}f}"
