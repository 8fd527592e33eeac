"""Blocks as dask tasks: a sliding window of them, in threads here or in processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol, TypeVar

import dask
import torch
from distributed import Client, Future, LocalCluster, as_completed

from geoseg.errors import BlockError
from geoseg.grid import Block

Result = TypeVar("Result", covariant=True)
AHEAD = 2  # blocks in the hands of the scheduler, per thread: one computed, one ready
THREADS = 2  # per process: one block is read or written while the network works on the other


class BlockTask(Protocol[Result]):
    """Computes one block; picklable, and safe in several threads."""

    def __call__(self, block: Block) -> Result: ...


def run_blocks(
    task: BlockTask[Result], blocks: Iterable[Block], *, workers: int, finished: Callable[[Block, Result], None]
) -> None:
    """Compute blocks in any order. The scheduler never holds more than a few, however large the scene.

    Args:
        task: computes one block.
        blocks: what to compute.
        workers: 1 for threads of this process; more for as many processes on this machine.
        finished: called here for each block when it is done.

    Raises:
        BlockError: a block failed; its window and the cause are in the message. No further block is started.
    """
    with _client(workers) as client:
        [shared] = client.scatter([task], broadcast=workers > 1, hash=False)
        waiting = iter(blocks)
        futures: dict[Future[Any], Block] = {}
        first = [_submit(client, shared, block, futures) for block in islice(waiting, AHEAD * THREADS * workers)]
        running = as_completed(first)
        for future in running:
            block = futures.pop(future)
            error = future.exception()
            if error is not None:
                client.cancel(list(futures))
                raise BlockError(f"The block at {block.window} failed: {error}") from error
            finished(block, future.result())
            for following in islice(waiting, 1):
                running.add(_submit(client, shared, following, futures))


def _submit(client: Client, shared: Future[Any], block: Block, futures: dict[Future[Any], Block]) -> Future[Any]:
    future = client.submit(_compute, shared, block, pure=False, key=f"block-{block.row}-{block.col}", retries=0)
    futures[future] = block
    return future


def _compute(task: BlockTask[Result], block: Block) -> Result:
    return task(block)


@contextmanager
def _client(workers: int) -> Iterator[Client]:
    """A cluster on this machine that no other machine can reach."""
    quiet = {
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.admin.log-format": "%(message)s",
    }
    loopback = "127.0.0.1:0"  # None would not turn the status pages off, but show them on every network
    with (
        dask.config.set(quiet),
        _no_chatter(),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=THREADS,
            processes=workers > 1,
            host="127.0.0.1" if workers > 1 else None,
            protocol="tcp://" if workers > 1 else "inproc://",
            dashboard_address=loopback,
            worker_dashboard_address=loopback,
            memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        if workers > 1:
            client.run(torch.set_num_threads, max(1, (os.cpu_count() or 1) // workers))
        yield client


@contextmanager
def _no_chatter() -> Iterator[None]:
    """distributed sets its loggers to INFO, which would reach the user; `silence_logs` misses the root's handlers."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
