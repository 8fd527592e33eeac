"""Traced blocks that survive a crash: kept as bytes in a staging folder, until the polygons are written."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.raster.blocks import Block, BlockLayout, BlockWriter
from geoseg.raster.staging import Staging
from geoseg.vector.blocks import (
    BlockPixels,
    LoneTrace,
    Progress,
    block_errors,
    trace_alone,
    trace_seams,
)
from geoseg.vector.confidence import to_units
from geoseg.vector.job import VectorJob
from geoseg.vector.levels import Levels
from geoseg.vector.runs import Components
from geoseg.vector.sources import Source, SourcePixels
from geoseg.vector.threads import THREADS, in_threads
from geoseg.vector.trace import Arcs, BlockTrace, Borders

LAYER = "traces.npz"
PATIENCE_S = 2.0  # what is traced within it is soon traced again, and is staged only if there is more to do
_PARTS = {"arcs": Arcs, "components": Components, "borders": Borders, "levels": Levels}


def trace_layout(shape: tuple[int, int], block: int) -> BlockLayout:
    """How a raster is cut where nothing else says so."""
    return BlockLayout(shape, (block, block), {LAYER: 1})


@dataclass(frozen=True)
class TraceBlock:
    """Traces one block and stages what it finds; picklable, and safe in several threads.

    Attributes:
        job: which values get polygons.
        writer: of the staging folder.
    """

    job: VectorJob
    writer: BlockWriter

    def __call__(self, block: Block, class_map: NDArray[np.uint8], confidence: NDArray[np.uint8] | None = None) -> None:
        """Trace pixels as a land cover and its confidence have them."""
        units = None if confidence is None else to_units(confidence, None)
        self.stage(block, self.trace(block, SourcePixels(class_map, None, units)))

    def trace(self, block: Block, pixels: SourcePixels) -> LoneTrace:
        layout = self.writer.layout
        return trace_alone(self.job.encode(pixels), layout.window(block), layout.shape)

    def stage(self, block: Block, lone: LoneTrace) -> None:
        unknown = sorted(self.job.coding.unknown)
        self.writer.write_contents(block, {LAYER: to_bytes(lone)}, {"unknown": unknown} if unknown else None)


@dataclass
class Patience:
    """Holds blocks back from staging until some time has passed; safe in several threads.

    Attributes:
        stage: what keeps a block.
        until: on the monotonic clock.
    """

    stage: Callable[[Block, LoneTrace], None]
    until: float = field(default_factory=lambda: time.monotonic() + PATIENCE_S)
    _held: list[tuple[Block, LoneTrace]] = field(default_factory=list)

    def keep(self, block: Block, lone: LoneTrace) -> None:
        self._held.append((block, lone))
        if time.monotonic() >= self.until:
            self.flush()

    def flush(self) -> None:
        while self._held:
            try:
                one = self._held.pop()
            except IndexError:  # another thread was faster
                return
            self.stage(*one)


@dataclass(frozen=True)
class StagedTraces:
    """The traces of one raster, some of them from an earlier run or from other processes.

    Attributes:
        job: which values get polygons.
        staging: of the polygons' file.
    """

    job: VectorJob
    staging: Staging

    @property
    def task(self) -> TraceBlock:
        return TraceBlock(self.job, self.staging.writer())

    def traces(self, source: Source, progress: Progress) -> Iterator[BlockTrace]:
        """Those of all blocks, each pixel that is not traced yet read once, and then of the seams."""
        layout, total = self.staging.layout, self.job.ground.shape[0] * self.job.ground.shape[1]
        alone: list[LoneTrace] = []
        done = 0
        for lone in self._alone(source):
            done += lone.window.area
            progress(done, total)
            if lone.inner is not None:
                yield lone.inner
            alone.append(lone._replace(inner=None))
        yield from trace_seams(alone, layout.shape)

    def _alone(self, source: Source) -> Iterator[LoneTrace]:
        staging, task = self.staging, self.task
        finished = staging.done()
        for note in staging.notes().values():
            self.job.coding.unknown.update(note.get("unknown", ()))
        for block, content in staging.contents(LAYER):
            yield from_bytes(content, staging.layout.window(block))
        remaining = (block for block in staging.layout.blocks if block not in finished)
        patience = Patience(task.stage)

        def work(block: Block) -> LoneTrace:
            window = staging.layout.window(block)
            with block_errors(window):
                pixels = source.read(window)
            lone = task.trace(block, pixels)
            patience.keep(block, lone)
            return lone

        try:
            yield from in_threads(work, remaining, self.job.options.workers or THREADS)
        except (Exception, KeyboardInterrupt):
            patience.flush()
            raise


def to_bytes(lone: LoneTrace) -> bytes:
    """One block's trace, for `from_bytes`."""
    arrays: dict[str, NDArray[Any]] = {"bottom": lone.bottom, "right": lone.right}
    for name, pixels in (("top", lone.top), ("left", lone.left)):
        arrays |= _named(name, pixels)
    if lone.inner is not None:
        arrays["window"] = np.array([lone.inner.window.row, lone.inner.window.col])
        for name in _PARTS:
            part = getattr(lone.inner, name)
            arrays |= {} if part is None else _named(name, part)
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(content: bytes, window: Window) -> LoneTrace:
    """The trace of the block at `window`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    inner = None
    if "window" in arrays:
        row, col = arrays["window"].tolist()
        place = Window(row, col, window.row_stop - row, window.col_stop - col)
        arcs, components, borders, levels = (_part(kind, name, arrays) for name, kind in _PARTS.items())
        inner = BlockTrace(place, arcs, components, borders, levels)
    top, left = (_part(BlockPixels, name, arrays) for name in ("top", "left"))
    return LoneTrace(window, inner, top, left, arrays["bottom"], arrays["right"])


def _named(name: str, part: Iterable[Any]) -> dict[str, NDArray[Any]]:
    fields = part._fields  # type: ignore[attr-defined]
    return {f"{name}.{field}": array for field, array in zip(fields, part, strict=True) if array is not None}


def _part(kind: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """A named tuple from its arrays; None where it has none of them."""
    found = {field: arrays.get(f"{name}.{field}") for field in kind._fields}
    return None if all(array is None for array in found.values()) else kind(**found)
