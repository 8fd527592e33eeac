"""Random numbers that depend on a position alone: the same for every window that contains it."""

from __future__ import annotations

import zlib
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.integer[Any]]


def stream(seed: int, name: str) -> int:
    """Key of one stream of random numbers; streams of other names are independent of it."""
    return zlib.crc32(f"{seed}/{name}".encode())


def hashed(key: int, *coords: Ints) -> NDArray[np.uint32]:
    """32 random bits for integer coordinates that broadcast together."""
    bits = _mix(coords[0].astype(np.uint32) + np.uint32(key))
    for coord in coords[1:]:
        bits = _mix(bits * np.uint32(31) + coord.astype(np.uint32))
    return bits


def uniform(key: int, *coords: Ints) -> F32:
    """Numbers in [0, 1) for integer coordinates that broadcast together."""
    numbers = (hashed(key, *coords) >> np.uint32(8)).astype(np.float32)
    numbers *= np.float32(2**-24)
    return numbers


def value_noise(key: int, x: Floats, y: Floats, scale: float) -> F32:
    """Smooth noise in [-1, 1] whose bumps are `scale` wide, at x (1, columns) and y (rows, 1), or at points (n,)."""
    col, fx = _cell(x, scale)
    row, fy = _cell(y, scale)
    rows = np.arange(row.min(), row.max() + 2)
    cols = np.arange(col.min(), col.max() + 2)
    table = uniform(key, rows[:, None], cols[None, :]) * np.float32(2) - np.float32(1)
    row, col = row - rows[0], col - cols[0]
    if x.ndim == 1:
        left = _between(table[row, col], table[row + 1, col], fy)
        right = _between(table[row, col + 1], table[row + 1, col + 1], fy)
        return _between(left, right, fx)
    # the same sums, in the same order, with the work along rows done once per column of the lattice
    lines = _between(table[row.ravel()], table[row.ravel() + 1], fy)
    value: F32 = np.take(np.diff(lines, axis=1), col.ravel(), axis=1)
    value *= fx
    value += np.take(lines, col.ravel(), axis=1)
    return value


def _mix(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The finalizer 'lowbias32' of https://github.com/skeeto/hash-prospector, in place."""
    bits ^= bits >> np.uint32(16)
    bits *= np.uint32(0x7FEB352D)
    bits ^= bits >> np.uint32(15)
    bits *= np.uint32(0x846CA68B)
    bits ^= bits >> np.uint32(16)
    return bits


def _cell(values: Floats, scale: float) -> tuple[NDArray[np.int64], F32]:
    """Lattice cell of each value, and the eased position inside it."""
    scaled = values.astype(np.float64) / scale
    cell = np.floor(scaled)
    part = (scaled - cell).astype(np.float32)
    return cell.astype(np.int64), part * part * (np.float32(3) - np.float32(2) * part)


def _between(a: F32, b: F32, part: F32) -> F32:
    return a + part * (b - a)
