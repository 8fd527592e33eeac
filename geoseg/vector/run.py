"""One class raster to one file of polygons: what it depends on, its traced blocks, and the end that writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from geoseg.grid import Window
from geoseg.raster.blocks import BlockLayout
from geoseg.raster.files import absolute
from geoseg.raster.fingerprint import file_identity
from geoseg.raster.landcover import read_legend
from geoseg.raster.staging import Staging, digest_of, discard_leftovers
from geoseg.vector.append import append_content, check_append
from geoseg.vector.blocks import BlockPixels, Blocks, Progress, trace_blocks
from geoseg.vector.export import Content, check_crs_fits, check_vector_output, write_content
from geoseg.vector.job import VectorJob
from geoseg.vector.made_by import Made, made_by
from geoseg.vector.options import VectorOptions
from geoseg.vector.origin import Origin
from geoseg.vector.partition import Partition, check_partitioned_output, write_partitions
from geoseg.vector.sources import FileSource, Source
from geoseg.vector.staged import StagedTraces, trace_layout
from geoseg.vector.table import Piece, PolygonTable
from geoseg.vector.zonal import check_statistics, statistics


@dataclass(frozen=True, slots=True)
class VectorSummary:
    """What was written.

    Attributes:
        path: the file.
        counts: polygons of each class, by name.
        areas: sum of their areas, by name, in `unit`.
        unit: "m2", or "px" where there is no CRS.
        regularized: polygons that were to get straight walls.
        fallbacks: those of them that would have fitted poorly, and were simplified only.
        up_to_date: the file was there already, made from the same rasters with the same options.
    """

    path: Path
    counts: dict[str, int]
    areas: dict[str, float]
    unit: str
    regularized: int = 0
    fallbacks: int = 0
    up_to_date: bool = False


@dataclass(frozen=True)
class VectorRun:
    """What one file of polygons is made of.

    Attributes:
        job: what is to be done.
        output: the file.
        identities: of the class raster and, where there is one, the confidence.
        origin: what the class raster was made from.
        layout: the blocks that are traced.
    """

    job: VectorJob
    output: Path
    identities: Mapping[str, Any]
    origin: Origin
    layout: BlockLayout

    @classmethod
    def of_file(cls, path: str | Path, output: Path, options: VectorOptions) -> Self:
        """For a class raster that is there.

        Raises:
            InputError: the raster, the confidence, a class or an option cannot be used.
        """
        source = FileSource.of(path, options.confidence)
        legend = read_legend(path) if options.legend is None else options.legend
        job = VectorJob.of(
            source.ground, options, legend=legend, nodata=source.nodata, confidence_one=source.confidence_one
        )
        identities = {"class raster": file_identity(absolute(path))}
        if options.confidence is not None:
            identities["confidence"] = file_identity(absolute(options.confidence))
        layout = trace_layout(source.ground.shape, options.block)
        return cls(job, output, identities, Origin.of(path, options.date), layout)

    @cached_property
    def parts(self) -> dict[str, Any]:
        """What the traces of blocks depend on."""
        coding = self.job.coding
        chosen = None if coding.selections is None else [asdict(one) for one in coding.selections]
        told = {"classes": chosen, "nodata": coding.nodata, "rest": coding.rest, "known": sorted(coding.known)}
        return {**self.identities, "options": told, "versions": {"geoseg": version("geoseg")}}

    @cached_property
    def digest(self) -> str:
        """Of all that the file depends on."""
        options = self.job.options
        stats = [file_identity(absolute(path)) for path in options.stats]
        told = {**options.told, "stats": stats, "origin": str(self.origin), "format": self.output.suffix.lower()}
        return digest_of({"traces": self.parts, "options": told})

    @property
    def made(self) -> VectorSummary | None:
        """What was written, if the file is there already."""
        if not self.output.exists():
            return None
        runs = made_by(self.output)
        mine = [run for run in runs if run.digest == self.digest]
        if not mine or (len(runs) > 1 and not self.job.options.append):
            return None
        discard_leftovers(self.output, digest_of(self.parts))
        return _summary(self.output, mine[0], up_to_date=True)

    def check(self, *, overwrite: bool, inputs: Iterable[str | Path]) -> None:
        """Refuse what would be found wrong after hours of computing.

        Raises:
            InputError: with the remedy.
        """
        options, ground = self.job.options, self.job.ground
        overwrite = overwrite or self.made is not None
        check_statistics(options.stats, ground)
        if options.partition is not None:
            Partition.parse(options.partition)
            check_partitioned_output(self.output, overwrite=overwrite)
            return
        used = [*inputs, *options.stats, *([] if options.confidence is None else [options.confidence])]
        check_vector_output(self.output, overwrite=overwrite or options.append, inputs=used)
        check_crs_fits(self.output, ground.crs)
        if options.append:
            check_append(self._content(self.job.empty_table()), self.output, self.origin, replace=overwrite)

    @contextmanager
    def staged(self, *, overwrite: bool, store: str | None = None) -> Iterator[StagedTraces]:
        """Go on with the blocks that an earlier run traced, or begin; nobody else writes the file meanwhile."""
        with Staging.open(self.output, self.parts, self.layout, overwrite=overwrite, store=store) as staging:
            yield StagedTraces(self.job, staging)

    def write(self, traces: StagedTraces, source: Source, progress: Progress | None = None) -> VectorSummary:
        """Trace what is not traced yet, join, shape, and write the file."""
        layout = self.layout
        cut = Blocks(*(_edges(layout, axis) for axis in (0, 1)))

        def read(window: Window) -> BlockPixels:
            return self.job.encode(source.read(window))

        table = self.job.table(traces.traces(source, progress or _silent), read, lambda other: trace_blocks(other, cut))
        with traces.staging.work_folder(self.output) as folder:
            made = self._write(table, folder)
        traces.staging.discard()
        return _summary(self.output, made)

    def _write(self, table: PolygonTable, folder: Path) -> Made:
        options = self.job.options
        made = _made(self.digest, table)
        content = replace(self._content(table), runs=[made])
        if options.partition is not None:
            write_partitions(content, self.output, Partition.parse(options.partition), folder)
        elif options.append:
            before = made_by(self.output) if self.output.exists() else []
            append_content(replace(content, runs=[*before, made]), self.output, self.origin, folder)
        else:
            write_content(content, self.output, folder)
        return made

    def _content(self, table: PolygonTable) -> Content:
        options = self.job.options

        def pieces(name: str | None) -> Iterator[Piece]:
            for piece in table.pieces(name):
                told = piece.with_columns(self.origin.columns_of(len(piece.columns)))
                yield told.with_columns(statistics(piece.frame, options.stats)) if options.stats else told

        kind = "MultiPolygon" if options.connectivity == 8 else "Polygon"
        return Content(pieces, table.crs, table.selections, options.single_layer, kind)


def _edges(layout: BlockLayout, axis: int) -> tuple[int, ...]:
    """First row (column) of each block, and the raster's height (width)."""
    corners = [layout.window((i, 0) if axis == 0 else (0, i)) for i in range(layout.count[axis])]
    return (*((one.row, one.col)[axis] for one in corners), layout.shape[axis])


def _made(digest: str, table: PolygonTable) -> Made:
    unit = "m2" if "area_m2" in table.attributes else "px"
    names, areas = table.attributes["class_name"], table.attributes[f"area_{unit}"]
    of_class = {selection.name: names == selection.name for selection in table.selections}
    return Made(
        digest,
        counts={name: int(rows.sum()) for name, rows in of_class.items()},
        areas={name: float(areas[rows].sum()) for name, rows in of_class.items()},
        unit=unit,
        regularized=table.regularized,
        fallbacks=table.fallbacks,
    )


def _summary(path: Path, made: Made, *, up_to_date: bool = False) -> VectorSummary:
    told = {name: value for name, value in asdict(made).items() if name != "digest"}
    return VectorSummary(path, **told, up_to_date=up_to_date)


def _silent(done: int, total: int) -> None:
    """No progress is shown."""
