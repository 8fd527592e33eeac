"""Blocks as dask tasks: a sliding window of them over the workers of a cluster."""

from __future__ import annotations

import operator
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol, TypeVar

from distributed import CancelledError, Future, KilledWorker

from geoseg.errors import BlockError, GeosegError
from geoseg.grid import Block, Window
from geoseg.inference.cluster import open_cluster
from geoseg.inference.crew import Crew
from geoseg.inference.machine import threads_of
from geoseg.inference.predictor import Backend

Result = TypeVar("Result", covariant=True)
AHEAD = 2  # blocks in the hands of a worker, per thread: one computed, one ready
LOOK_SECONDS = 1.0  # between looks at who is there
PATIENCE_SECONDS = 120.0  # without a worker, until the run ends: time for a new one to start and to load torch
DEATHS = 3  # workers that a block may outlive; it has the last one to itself


class BlockTask(Protocol[Result]):
    """Computes one block; picklable, and safe in several threads. What it returns is small: it goes to the client."""

    def __call__(self, block: Block) -> Result: ...


def run_blocks(
    task: BlockTask[Result],
    blocks: Iterable[Block],
    *,
    workers: int,
    finished: Callable[[Block, Result], None],
    scheduler: str | None = None,
    backend: Backend | None = None,
) -> None:
    """Compute blocks in any order. The scheduler never holds more than a few, however large the scene.

    Args:
        task: computes one block.
        blocks: what to compute.
        workers: 1 for threads of this process; more for as many processes on this machine.
        finished: called here for each block when it is done.
        scheduler: address (tcp://host:port, tls://host:port) or scheduler file of a running dask cluster to use
            instead; its own workers count then.
        backend: what the task computes with: its workers must be of one kind; None for torch on the CPU.

    Raises:
        InputError: the cluster cannot be used.
        BlockError: a block failed, or killed its workers; its window and the cause are in the message. No further block
            is started.
        GeosegError: the scheduler or all workers are gone.
    """
    backend = backend or Backend("cpu", "float32")
    with open_cluster(scheduler, workers=workers, threads=threads_of(backend.device)) as cluster:
        _Run(Crew(cluster, backend), task, blocks, finished).to_the_end()


class _Given(NamedTuple):
    block: Block
    worker: str


class _Run:
    """Gives each block to one worker, and to another one when that worker dies.

    Which worker computes a block is settled here, not left to the scheduler: only workers of the crew may, none may
    hold more than its share, and a task must not wait for a worker that never comes back.
    """

    def __init__(
        self, crew: Crew, task: BlockTask[Any], blocks: Iterable[Block], finished: Callable[[Block, Any], None]
    ) -> None:
        self.crew, self.client, self.task, self.finished = crew, crew.cluster.client, task, finished
        self.fresh = iter(blocks)
        self.again: list[Block] = []  # whose worker died
        self.suspects: list[Block] = []  # whose workers died again and again: they wait until they can run alone
        self.deaths: Counter[Block] = Counter()
        self.given: dict[Future[Any], _Given] = {}
        self.arrived: SimpleQueue[Future[Any]] = SimpleQueue()
        self.shared: Future[Any] | None = None
        self.looked, self.seen = -LOOK_SECONDS, time.monotonic()

    def to_the_end(self) -> None:
        """Until all blocks are computed."""
        self._look()
        while not self._give() or self.given:
            with suppress(Empty):
                self._take(self.arrived.get(timeout=LOOK_SECONDS))
            self._look()

    def _look(self) -> None:
        """See who came and who went, once in a while."""
        if time.monotonic() < self.looked + LOOK_SECONDS:
            return
        self.crew.update()
        self.looked = time.monotonic()
        for future, (_, worker) in list(self.given.items()):
            if worker not in self.crew.threads or future.status in ("lost", "cancelled"):
                self._lost(future)
        if self.crew.threads:
            self.seen = self.looked
            self._share()
        elif self.looked > self.seen + PATIENCE_SECONDS:
            raise GeosegError(
                f"All workers of {self.crew.cluster.name} are gone, and none came for {PATIENCE_SECONDS:.0f} s. "
                "Start workers and run the same again; finished blocks are kept."
            )

    def _share(self) -> None:
        """The task with its network goes to each worker once; one that joins fetches it from another."""
        if self.shared is not None and self.shared.status == "finished":
            return
        self.shared = None  # it went with the only worker that had it: dask drops copies that nothing waits for
        with suppress(TimeoutError, OSError):  # the workers went too; the next look will tell
            [self.shared] = self.client.scatter(
                [_Travelling(self.task)], workers=list(self.crew.threads), broadcast=True, hash=False
            )

    def _give(self) -> bool:
        """Fill each worker's share, the idlest first; whether there is nothing left to give."""
        if self.shared is None:
            return False
        room = {worker: AHEAD * threads for worker, threads in self.crew.threads.items()}
        for _, worker in self.given.values():
            room[worker] = room.get(worker, 0) - 1
        while room and room[worker := max(room, key=room.__getitem__)] > 0:
            block = self._next()
            if block is None:
                return True
            room[worker] -= 1
            numbers = (block.row, block.col, *astuple(block.window))
            future = self.client.submit(operator.call, self.shared, *numbers, workers=[worker], pure=False, retries=0)
            self.given[future] = _Given(block, worker)
            future.add_done_callback(self.arrived.put)
        return False

    def _next(self) -> Block | None:
        block = self.again.pop() if self.again else next(self.fresh, None)
        if block is None and self.suspects and not self.given:
            return self.suspects.pop()
        return block

    def _take(self, future: Future[Any]) -> None:
        """A block that is done, one way or another."""
        if future not in self.given:
            return  # given to another worker meanwhile
        block = self.given[future].block
        if future.status == "finished":
            try:
                result = future.result(timeout=LOOK_SECONDS)
            except (TimeoutError, CancelledError, OSError):  # the worker died with the result, or is busy
                self.arrived.put(future)
                return
            del self.given[future]
            self.finished(block, result)
        elif future.status == "error" and not isinstance(error := future.exception(), KilledWorker):
            raise BlockError(f"The block at {block.window} failed: {error}") from error
        else:
            self._lost(future)

    def _lost(self, future: Future[Any]) -> None:
        """A block whose worker died. Those that were in the same worker are suspects too, until each runs alone."""
        self.crew.update()  # the dead worker gets no more, and a scheduler that is gone is no block's fault
        block, worker = self.given.pop(future)
        if worker in self.crew.threads and future.status != "error":  # the task itself was lost, with another worker
            self.again.append(block)
            self._share()
            return
        self.deaths[block] += 1
        if self.deaths[block] >= DEATHS:
            raise BlockError(
                f"The block at {block.window} failed: {DEATHS} workers died with it, the last one while it had no "
                "other. Too little memory? Try a smaller --block or --chip, or fewer --workers."
            )
        (self.suspects if self.deaths[block] == DEATHS - 1 else self.again).append(block)


@dataclass(frozen=True)
class _Travelling:
    """A task that takes a block as numbers.

    Submitted functions and arguments are also loaded by the scheduler, which so needs neither geoseg nor, half a minute
    of silence, torch.
    """

    task: BlockTask[Any]

    def __call__(self, row: int, col: int, *window: int) -> Any:
        return self.task(Block(row, col, Window(*window)))
