"""A report of change that needs nothing beside it: one HTML file of one or more pairs of dates, the same as JSON."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from geoseg.catalog import open_named_reader
from geoseg.change.areas import Estimate
from geoseg.change.dates import Date, Dates
from geoseg.change.detect import ChangeOptions, Matrix
from geoseg.change.run import Compared
from geoseg.grid import Window
from geoseg.legend import Legend
from geoseg.raster.disk import disk_errors, publish_bytes
from geoseg.raster.ground import ground_sample_distance
from geoseg.raster.landcover import read_legend
from geoseg.view.side_by_side import class_map_of, painted, panel, scale_bar, scene_colors

MOST_PX = 700  # along the longer side of a map
HECTARE = 1e4
LARGE_M2 = 1e6  # from here on areas are told in hectares
SANKEY = (720, 360)
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2rem .6rem;text-align:right}
th{font-weight:600}thead th{border-bottom:1px solid #999}tbody th{text-align:left}
td.same{color:#888}img{max-width:100%}svg{margin-top:1rem;max-width:100%}"""


def write_report(pairs: Sequence[Compared], path: Path) -> list[Path]:
    """Write one HTML for all pairs and, beside it, the JSON.

    Raises:
        GeosegError: a file cannot be read or written.
    """
    reports = [ChangeReport(pair) for pair in pairs]
    told = [report.figures() for report in reports]
    figures = path.with_suffix(".json")
    with disk_errors("writing the report", path.parent):
        publish_bytes(figures, json.dumps(told[0] if len(told) == 1 else {"pairs": told}, indent=1).encode())
        publish_bytes(path, _page(reports).encode())
    return [path, figures]


def _page(reports: Sequence[ChangeReport]) -> str:
    title = html.escape(reports[0].title if len(reports) == 1 else f"Change of {len(reports)} pairs of dates")
    parts = [report.section() for report in reports]
    if len(reports) > 1:
        rows = "".join(
            f'<tr><th><a href="#pair{number}">{html.escape(report.title)}</a></th><td>{report.changed}</td></tr>'
            for number, report in enumerate(reports, 1)
        )
        parts = [f'<div id="pair{number}">{part}</div>' for number, part in enumerate(parts, 1)]
        parts.insert(0, f"<h1>{title}</h1><table><tbody>{rows}</tbody></table>")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    return f"{head}<style>{_STYLE}</style><body>{''.join(parts)}</body></html>"


@dataclass(frozen=True)
class ChangeReport:
    """What a report tells of one pair of dates."""

    pair: Compared

    @property
    def dates(self) -> Dates:
        return self.pair.dates

    @property
    def legend(self) -> Legend:
        return self.pair.job.legend

    @property
    def matrix(self) -> Matrix:
        return self.pair.matrix

    @property
    def options(self) -> ChangeOptions:
        return self.pair.job.options

    @property
    def title(self) -> str:
        before, after = (
            date.name if date.time is None else f"{date.name} ({date.time})"
            for date in (self.dates.before, self.dates.after)
        )
        return f"Change from {before} to {after}"

    @property
    def changed(self) -> str:
        unit, size = self.unit
        total = self.matrix.m2.sum() / size
        changed = total - np.trace(self.matrix.m2) / size
        share = f" ({changed / total:.1%})" if total else ""
        return f"{changed:,.2f} {unit} of {total:,.2f} {unit} changed{share}"

    @property
    def unit(self) -> tuple[str, float]:
        """Of areas: its name, and how many of the matrix's it holds."""
        if self.dates.grid.crs is None:
            return "px", 1.0
        return ("ha", HECTARE) if self.matrix.m2.sum() >= LARGE_M2 else ("m²", 1.0)

    def figures(self) -> dict[str, object]:
        """All numbers, JSON-able; areas in square metres, or pixels where there is no CRS."""
        grid, matrix = self.dates.grid, self.matrix
        before, after = self.dates.before, self.dates.after
        shift, light, areas = after.shift, after.radiometry, self.pair.areas
        known = int(matrix.pixels.sum())
        return {
            "before": before.given,
            "after": after.given,
            "times": [before.time, after.time],
            "grid": {
                "rows": grid.shape[0],
                "columns": grid.shape[1],
                "transform": [float(number) for number in grid.transform[:6]],
                "crs": grid.crs.to_string() if grid.crs else None,
            },
            "shift_px": None
            if shift is None
            else {
                "rows": shift.rows,
                "columns": shift.cols,
                "spread": shift.spread,
                "corrected": after.is_corrected,
            },
            "radiometry": None if light is None else light.to_dict(),
            "classes": list(matrix.names),
            "pixels": matrix.pixels.tolist(),
            "areas": matrix.m2.round(3).tolist(),
            "estimated": None if areas is None else areas.to_dict(),
            "unknown_pixels": self.dates.pixels - known,
            "options": {
                "prior": None if self.dates.are_maps else self.options.prior,
                "threshold": None if self.dates.are_maps else self.options.threshold,
                "min_area_m2": self.options.min_area_m2,
                "min_width_m": self.options.min_width_m,
            },
        }

    def section(self) -> str:
        """Of the page, with its pictures inside."""
        unit, size = self.unit
        colors = [entry.color for entry in self.legend.classes]
        parts = [
            f"<h1>{html.escape(self.title)}</h1>",
            f"<p>{self.changed}.</p>",
            f'<img alt="Before, after, and what changed" src="data:image/png;base64,{self._maps()}">',
            "<h2>From and to</h2>",
            f"<p>Areas in {unit}, counted on the map; rows are classes before, columns classes after.</p>",
            self._table(),
            sankey(self.matrix.m2 / size, self.matrix.names, colors),
            "<h2>Areas with confidence intervals</h2>",
            self._estimated(),
            "<h2>Grid and alignment</h2>",
            f"<p>{html.escape(self._aligned())}</p>",
            "<h2>Left out</h2>",
            f"<p>{html.escape(self._left_out())}</p>",
        ]
        return "".join(parts)

    def _estimated(self) -> str:
        """By reference points: what is there, and how sure that is."""
        areas = self.pair.areas
        if areas is None:
            return (
                "<p>Counted areas repeat the errors of the map. Label a sample (<code>geoseg sample</code>) and give "
                "it to <code>--reference</code> for areas with confidence intervals.</p>"
            )
        report, unit = areas.report, areas.unit
        per_pixel = 1.0 if areas.pixel_m2 is None else areas.pixel_m2 / HECTARE
        head = f"<th>mapped, {unit}</th><th>area, {unit}</th><th>95 % interval</th><th>user's</th><th>producer's</th>"
        rows = []
        columns = zip(report.classes, areas.areas(), report.users, report.producers, strict=True)
        for name, area, users, producers in columns:
            low, high = area.interval()
            mapped = areas.mapped_pixels.get(name, 0) * per_pixel
            told = [f"{value:,.{areas.digits}f}" for value in (mapped, area.value, low, high)]
            cells = [*told[:2], " to ".join(told[2:]), _pm(users), _pm(producers)]
            rows.append(f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
        text = " ".join(
            (
                f"Estimated from {int(report.counts.sum())} reference points (Olofsson et al. 2014, Stehman 2014); "
                f"overall accuracy {_pm(report.overall)}.",
                *areas.told,
            )
        )
        table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        return f"<p>{html.escape(text)}</p>{table}"

    def _maps(self) -> str:
        window = Window(0, 0, *self.dates.grid.shape)
        step = max(1, -(-max(window.shape) // MOST_PX))
        grid, legend = self.dates.grid, read_legend(self.pair.outputs.change)
        codes = class_map_of(self.pair.outputs.change, window, step)
        pictures = [self._picture(date, window, step) for date in (self.dates.before, self.dates.after)]
        figure = Figure(figsize=(15, 15 * window.height / window.width / 3 + 0.9), dpi=110)
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, 3)
        titles = (self.dates.before.name, self.dates.after.name, "what changed pixels became")
        for one, picture, title in zip(axes, [*pictures, painted(codes, legend)], titles, strict=True):
            panel(one, picture, title, window)
        scale_bar(axes[0], ground_sample_distance(grid.shape, grid.transform, grid.crs), window)
        patches = [Patch(color=entry.color, label=entry.name) for entry in self.legend.classes]
        figure.legend(handles=patches, loc="lower center", ncols=max(1, len(patches)), frameon=False)
        figure.tight_layout(rect=(0, 0.06, 1, 1))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        return base64.b64encode(buffer.getvalue()).decode()

    def _picture(self, date: Date, window: Window, step: int) -> NDArray[np.uint8]:
        if self.dates.legend is not None:
            return painted(class_map_of(Path(date.path), window, step), self.dates.legend)
        return scene_colors(open_named_reader(date.path, self.dates.reading), window, step)

    def _table(self) -> str:
        _, size = self.unit
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.matrix.names)
        rows = []
        for i, name in enumerate(self.matrix.names):
            cells = "".join(
                f"<td{' class=same' if i == j else ''}>{area / size:,.2f}</td>"
                for j, area in enumerate(self.matrix.m2[i])
            )
            rows.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
        return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def _aligned(self) -> str:
        grid, after = self.dates.grid, self.dates.after
        shift = after.shift
        told = f"{grid.shape[1]} x {grid.shape[0]} px, {grid.crs or 'no CRS'}."
        if self.dates.are_maps:
            return f"{told} Class maps do not tell a shift."
        light = "" if after.radiometry is None else f" In the light of the first by {after.radiometry.told()}."
        if shift is None:
            return f"{told} No part of the dates tells a shift.{light}"
        size = ground_sample_distance(grid.shape, grid.transform, grid.crs)
        length = float(np.hypot(shift.rows, shift.cols))
        metres = "" if size is None else f" ({length * size:.2f} m, spread {shift.spread * size:.2f} m)"
        state = "corrected" if after.is_corrected else "not corrected"
        return f"{told} The second date lies {length:.2f} px{metres} beside the first, {state}.{light}"

    def _left_out(self) -> str:
        total = self.dates.pixels
        unknown = total - int(self.matrix.pixels.sum())
        where = "" if self.dates.aoi is None else " within the area of interest"
        told = [f"{unknown:,} of {total:,} pixels{where} are not known on both dates"]
        clouds = self.dates.options.clouds
        for number, date in enumerate((self.dates.before, self.dates.after)):
            if clouds.qa_band is not None or clouds.mask_of(number) is not None:
                told.append(f"clouds of {date.name} are masked")
        if self.options.min_area_m2:
            told.append(f"changes smaller than {self.options.min_area_m2:g} m² do not count")
        if self.options.min_width_m:
            told.append(f"nor do those narrower than {self.options.min_width_m:g} m")
        return "; ".join(told) + "."


def _pm(one: Estimate) -> str:
    return "unknown" if one.value != one.value else f"{one.value:.2f} ± {one.half_width():.2f}"


def sankey(areas: NDArray[np.float64], names: Sequence[str], colors: Sequence[str]) -> str:
    """What became what as bands from left to right, as SVG; what stayed what it was is left out.

    Args:
        areas: (from, to).
        names: of the classes.
        colors: of the classes, as #rrggbb.
    """
    moved = areas * (1 - np.eye(len(areas)))
    total = float(moved.sum())
    if total <= 0:
        return "<p>Nothing changed.</p>"
    width, height = SANKEY
    gap, bar, label = 10.0, 14.0, 120.0
    scale = (height - gap * len(names)) / total
    tops = [np.concatenate([[0.0], np.cumsum(moved.sum(axis) * scale + gap)])[:-1] for axis in (1, 0)]
    at = [top.copy() for top in tops]
    shapes = []
    left, right = label + bar, width - label - bar
    middle = (left + right) / 2
    for i, j in zip(*np.nonzero(moved), strict=True):
        thick = float(moved[i, j] * scale)
        start, stop = float(at[0][i]) + thick / 2, float(at[1][j]) + thick / 2
        at[0][i] += thick
        at[1][j] += thick
        curve = f"M{left:.1f},{start:.2f}C{middle:.1f},{start:.2f} {middle:.1f},{stop:.2f} {right:.1f},{stop:.2f}"
        told = html.escape(f"{names[i]} to {names[j]}: {moved[i, j]:,.2f}")
        shapes.append(
            f'<path d="{curve}" fill="none" stroke="{colors[j]}" stroke-opacity=".55" '
            f'stroke-width="{max(thick, 0.5):.2f}"><title>{told}</title></path>'
        )
    for side, x, text, anchor in ((0, label, label - 6, "end"), (1, right, right + bar + 6, "start")):
        for k, area in enumerate(moved.sum(1 - side)):
            if area > 0:
                tall = float(area * scale)
                middle_y = tops[side][k] + tall / 2
                shapes.append(
                    f'<rect x="{x:.1f}" y="{tops[side][k]:.2f}" width="{bar}" height="{max(tall, 1):.2f}" '
                    f'fill="{colors[k]}"/><text x="{text:.1f}" y="{middle_y + 5:.2f}" font-size="14" '
                    f'text-anchor="{anchor}">{html.escape(names[k])}</text>'
                )
    return f'<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(shapes)}</svg>'
