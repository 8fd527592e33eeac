"""Work in several threads: compiled loops, GDAL and GEOS let others run meanwhile."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = min(4, os.cpu_count() or 1)  # each block in work costs memory, and joining takes its time on one core
Given = TypeVar("Given")
Result = TypeVar("Result")


def in_threads(work: Callable[[Given], Result], given: Iterable[Given], threads: int) -> Iterator[Result]:
    """Results in order, a few at a time in the making."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for one in given:
                waiting.append(pool.submit(work, one))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
