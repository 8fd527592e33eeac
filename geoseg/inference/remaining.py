"""The blocks of a job that no earlier run has staged: what land cover, evaluations and detections share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from geoseg.grid import Block
from geoseg.inference.job import Job
from geoseg.inference.plan import RunOptions
from geoseg.raster.staging import Staging

if TYPE_CHECKING:
    from geoseg.inference.run import BlockTask

Progress = Callable[[int, int], None]  # pixels done and pixels in all


def compute_remaining(
    job: Job, staging: Staging, task: BlockTask[int], run: RunOptions, progress: Progress
) -> Counter[int]:
    """Compute and stage them.

    Args:
        job: what is computed.
        staging: where finished blocks are.
        task: computes and stages one block, and returns the process it ran in.
        run: workers and scheduler.
        progress: called before the first block and after each.

    Returns:
        Blocks computed now, by process id.

    Raises:
        GeosegError: reading, computing or staging failed; finished blocks are kept.
    """
    from geoseg.inference.run import run_blocks  # distributed takes a second to import

    kept, blocks = staging.done(), Counter[int]()
    done = sum(staging.layout.window(block).area for block in kept)
    progress(done, job.extent.area)

    def finished(block: Block, process: int) -> None:
        nonlocal done
        done += block.window.area
        blocks[process] += 1
        progress(done, job.extent.area)

    if remaining := list(job.remaining(kept)):
        run_blocks(
            task,
            remaining,
            workers=min(run.workers, len(remaining)),
            finished=finished,
            scheduler=run.scheduler,
            backend=job.plan.backend,
        )
    return blocks
