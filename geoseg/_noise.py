"""Random numbers that depend on a position alone: the same for every window that contains it."""

from __future__ import annotations

import zlib
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

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


def uniform(key: int, *coords: Ints) -> NDArray[np.float32]:
    """Numbers in [0, 1) for integer coordinates that broadcast together."""
    return (hashed(key, *coords) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def value_noise(key: int, x: Floats, y: Floats, scale: float) -> NDArray[np.float32]:
    """Smooth noise in [-1, 1] whose bumps are `scale` wide, at x (1, columns) and y (rows, 1), or at points (n,)."""
    col, fx = _cell(x, scale)
    row, fy = _cell(y, scale)
    first_row, first_col = row.min(), col.min()
    rows = np.arange(first_row, row.max() + 2)
    cols = np.arange(first_col, col.max() + 2)
    table = uniform(key, rows[:, None], cols[None, :]) * np.float32(2) - np.float32(1)
    row, col = row - first_row, col - first_col
    if x.ndim == 1:
        left = _lerp(table[row, col], table[row + 1, col], fy)
        right = _lerp(table[row, col + 1], table[row + 1, col + 1], fy)
        return _lerp(left, right, fx)
    lines = _lerp(table[row.ravel()], table[row.ravel() + 1], fy)
    value = np.take(np.diff(lines, axis=1), col.ravel(), axis=1)
    value *= fx
    value += np.take(lines, col.ravel(), axis=1)
    return value


def _mix(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The 'lowbias32' finalizer of https://github.com/skeeto/hash-prospector."""
    bits ^= bits >> np.uint32(16)
    bits *= np.uint32(0x7FEB352D)
    bits ^= bits >> np.uint32(15)
    bits *= np.uint32(0x846CA68B)
    bits ^= bits >> np.uint32(16)
    return bits


def _cell(values: Floats, scale: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Lattice cell of each value, and the eased position inside it."""
    scaled = values.astype(np.float64) / scale
    cell = np.floor(scaled)
    part = (scaled - cell).astype(np.float32)
    return cell.astype(np.int64), part * part * (np.float32(3) - np.float32(2) * part)


def _lerp(a: NDArray[np.float32], b: NDArray[np.float32], t: NDArray[np.float32]) -> NDArray[np.float32]:
    return a + t * (b - a)
