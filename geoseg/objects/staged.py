"""Blocks of a scene computed and staged: what the land cover of a run and the detections of a network share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.inference.job import Job
from geoseg.inference.plan import RunOptions
from geoseg.inference.remaining import Progress, compute_remaining
from geoseg.raster.blocks import BlockLayout
from geoseg.raster.cog import Layer, is_current, write_cog
from geoseg.raster.staging import BlockWriter, Staging, digest_of

if TYPE_CHECKING:
    from geoseg.inference.run import BlockTask


@dataclass(frozen=True, slots=True)
class Orders:
    """How the blocks of a job are to be computed.

    Attributes:
        output: the last file of the run; its staging folder is beside it.
        parts: everything that pixels and notes depend on.
        layout: how the scene is cut, and the layers.
        run: workers and so on.
        overwrite: throw staged blocks of another run away.
    """

    output: Path
    parts: Mapping[str, Any]
    layout: BlockLayout
    run: RunOptions
    overwrite: bool


@contextmanager
def computed(
    job: Job, orders: Orders, task_of: Callable[[BlockWriter], BlockTask[int]], progress: Progress
) -> Iterator[Staging]:
    """All blocks, staged; they go when the caller is done.

    Args:
        job: what is computed.
        orders: how.
        task_of: the task for a block, which writes it.
        progress: called after each block.

    Raises:
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    run = orders.run
    with Staging.open(
        orders.output, orders.parts, orders.layout, machine=job.machine, overwrite=orders.overwrite, store=run.staging
    ) as staging:
        compute_remaining(job, staging, task_of(staging.writer()), run, progress)
        yield staging
        staging.discard()


def write_layers(staging: Staging, layers: Sequence[Layer], job: Job, parts: Mapping[str, Any]) -> None:
    """The layers of staged blocks as COGs, but for those that are there already."""
    digest = digest_of(parts)
    for layer in layers:
        if not is_current(layer.path, digest):
            write_cog(staging, layer, job.georef, threads=os.cpu_count() or 1)
