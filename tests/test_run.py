"""Blocks as tasks: all once, few at a time, and the first failure ends it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from geoseg.errors import BlockError, GeosegError
from geoseg.grid import Block, ChipGrid, Window
from geoseg.inference.cluster import CPU_THREADS
from geoseg.inference.run import AHEAD, run_blocks

BLOCKS = list(ChipGrid((60, 70), 10, 0).blocks())


@dataclass(frozen=True)
class Fails:
    row: int

    def __call__(self, block: Block) -> int:
        if block.row == self.row:
            raise GeosegError("the disk is made of cheese")
        return os.getpid()


def area(block: Block) -> tuple[int, int]:
    return block.window.area, os.getpid()


def test_every_block_is_computed_once() -> None:
    seen: list[Block] = []
    run_blocks(area, BLOCKS, workers=1, finished=lambda block, result: seen.append(block))
    assert sorted(seen, key=lambda block: block.window) == BLOCKS


def test_the_result_belongs_to_its_block() -> None:
    def row_of(block: Block) -> int:
        return 10 * block.row + block.col

    found: dict[tuple[int, int], int] = {}
    run_blocks(row_of, BLOCKS, workers=1, finished=lambda block, n: found.update({(block.row, block.col): n}))
    assert found == {(block.row, block.col): 10 * block.row + block.col for block in BLOCKS}


def test_never_more_than_a_few_are_taken_ahead() -> None:
    taken = done = 0
    most = 0
    lock = threading.Lock()

    def source() -> Iterator[Block]:
        nonlocal taken
        for block in BLOCKS:
            taken += 1
            yield block

    def finished(block: Block, result: object) -> None:
        nonlocal done, most
        with lock:
            most = max(most, taken - done)
            done += 1

    run_blocks(area, source(), workers=1, finished=finished)
    assert done == len(BLOCKS)
    assert most <= AHEAD * CPU_THREADS


def test_a_failure_names_window_and_cause_and_stops() -> None:
    seen: list[Block] = []
    with pytest.raises(BlockError, match=r"rows 10:20, columns \d+:\d+ failed: the disk is made of cheese") as told:
        run_blocks(Fails(row=1), BLOCKS, workers=1, finished=lambda block, result: seen.append(block))
    assert isinstance(told.value.__cause__, GeosegError)
    assert len(seen) < len(BLOCKS) - 7


def test_an_error_of_the_observer_reaches_the_caller() -> None:
    def stop(block: Block, result: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_blocks(area, BLOCKS, workers=1, finished=stop)


def test_one_block_needs_no_more() -> None:
    seen: list[Block] = []
    run_blocks(area, [Block(0, 0, Window(0, 0, 1, 1))], workers=1, finished=lambda block, result: seen.append(block))
    assert len(seen) == 1
