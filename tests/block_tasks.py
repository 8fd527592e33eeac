"""Tasks for worker processes, which import this file and no test."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from geoseg.grid import Block

_alive = 0
_lock = threading.Lock()


@dataclass(frozen=True)
class Counts:
    """Takes its time, and tells which process it ran in and how many of its blocks were alive there at once."""

    seconds: float = 0.05

    def __call__(self, block: Block) -> tuple[int, int]:
        global _alive
        with _lock:
            _alive += 1
            now = _alive
        time.sleep(self.seconds)
        with _lock:
            _alive -= 1
        return os.getpid(), now


@dataclass(frozen=True)
class Kills:
    """One block kills the process that computes it, slowly enough for its neighbours to be hit too."""

    block: tuple[int, int]

    def __call__(self, block: Block) -> int:
        time.sleep(0.1)
        if (block.row, block.col) == self.block:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()


@dataclass(frozen=True)
class Sleeps:
    """Says in a folder that it began, and would take a minute."""

    folder: Path

    def __call__(self, block: Block) -> int:
        (self.folder / str(os.getpid())).touch()
        time.sleep(60)
        return os.getpid()
