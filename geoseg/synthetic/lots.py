"""Blocks between roads, and lots inside blocks.

In street coordinates (u, v) blocks are rectangles between irregular lines, and lots divide a block evenly. Tables hold
one row per block and one per lot near the window; a pixel needs only the index of its lot. A table's rows depend on the
block's place in the world, never on the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np
from numpy.typing import NDArray

from geoseg.synthetic.noise import F32, Ints, hashed, stream
from geoseg.synthetic.place import Place

Index = NDArray[np.intp]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]

TRACK_M = 1.9  # half width of the unpaved roads between fields and woods
_BLOCK_U, _BLOCK_V = 270.0, 210.0
_ROWS, _COLS = 12, 24  # most lots in a block
_LOTS = _ROWS * _COLS


class Use(IntEnum):
    """What a block is used for."""

    WOOD = 0
    PARK = auto()
    BARE = auto()
    HOMES = auto()
    TRADE = auto()
    FARM = auto()


class Kind(IntEnum):
    """What a lot is."""

    WOOD = 0
    PARK = auto()
    BARE = auto()
    HOUSE = auto()
    VACANT = auto()
    HALL = auto()
    FIELD = auto()
    VINES = auto()


# by use: size of a lot along and away from the street, half width of the streets inside; metres
_PITCH_U = np.array([150, 400, 160, 19.5, 92, 88], np.float32)
_PITCH_V = np.array([150, 400, 130, 29, 78, 105], np.float32)
_STREET = np.array([0, 0, 0, 3.0, 4.0, 1.4], np.float32)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Columns of blocks between road lines in u, each divided by road lines in v of its own.

    Attributes:
        first: column and row of the first block.
        line_u, half_u: (columns + 1,) position of the roads between columns, and half their width.
        line_v, half_v: (columns, rows + 1) the same inside each column.
        use: (columns, rows) of `Use`.
        river: (columns, rows) whether the river may touch the block.
    """

    first: tuple[int, int]
    line_u: F32
    half_u: F32
    line_v: F32
    half_v: F32
    use: Bytes
    river: Bools

    @classmethod
    def around(cls, place: Place, u: F32, v: F32) -> Blocks:
        """Every block that holds one of the positions, and one more below in v, whose use decides on a road."""
        i = np.arange(math.floor(u.min() / _BLOCK_U) - 1, math.floor(u.max() / _BLOCK_U) + 3)
        j = np.arange(math.floor(v.min() / _BLOCK_V) - 2, math.floor(v.max() / _BLOCK_V) + 3)
        ij = i[:-1, None], j
        line_u = ((i + 0.55 * place.rand("line u", i)) * _BLOCK_U).astype(np.float32)
        line_v = ((j + 0.55 * place.rand("line v", *ij)) * _BLOCK_V).astype(np.float32)
        wide = place.rand("road u", i)
        half_u = np.select([wide < 0.15, wide < 0.6], [7.5, 4.6], 3.6).astype(np.float32)
        half_v = np.where(place.rand("road v", *ij) < 0.4, 3.9, 3.1).astype(np.float32)
        middle_u = np.broadcast_to((line_u[:-1, None] + line_u[1:, None]) / 2, (i.size - 1, j.size - 1))
        middle_v = (line_v[:, :-1] + line_v[:, 1:]) / 2
        distance = place.river(middle_u.ravel(), middle_v.ravel())[0].reshape(middle_u.shape)
        use = _block_use(place, (i[:-1, None], j[:-1]), (middle_u, middle_v), distance)
        rural = ~np.isin(use, (Use.HOMES, Use.TRADE))
        half_v[:, 1:-1][rural[:, 1:] & rural[:, :-1]] = TRACK_M
        reach = (line_u[1:] - line_u[:-1])[:, None] / 2 + (line_v[:, 1:] - line_v[:, :-1]) / 2 + 80
        return cls((int(i[0]), int(j[0])), line_u, half_u, line_v, half_v, use, distance < reach)

    @property
    def shape(self) -> tuple[int, int]:
        return self.use.shape[0], self.use.shape[1]

    def locate(self, u: F32, v: F32) -> tuple[Index, Road]:
        """Flat index of the block at each position, and the nearest road around it."""
        lines, halves, width = self.line_v.ravel(), self.half_v.ravel(), self.line_v.shape[1]
        i = np.floor(u * np.float32(1 / _BLOCK_U)).astype(np.intp) - self.first[0]
        i -= u < self.line_u[i]
        at = np.floor(v * np.float32(1 / _BLOCK_V)).astype(np.intp) - self.first[1] + i * width
        at -= v < lines[at]
        left, right = u - self.line_u[i], self.line_u[i + 1] - u
        up, down = v - lines[at], lines[at + 1] - v
        half_u = self.half_u[i + (right <= left)]
        half_v = halves[at + (down <= up)]
        du, dv = np.minimum(left, right), np.minimum(up, down)
        through = du - half_u < dv - half_v
        half = np.where(through, half_u, half_v)
        block = at - i  # each column has one line more than blocks
        return block, Road(np.where(through, du, dv), half, np.where(through, v, u), through)


@dataclass(frozen=True, slots=True)
class Road:
    """The nearest main road, at each position: distance from its middle, half width, place along it; metres."""

    distance: F32
    half: F32
    along: F32
    through: Bools  # crosses the river


@dataclass(frozen=True, slots=True)
class Lots:
    """One row per lot: blocks x 12 x 24, flat, many of them unused.

    Attributes:
        per_u, per_v: (blocks,) lots per metre.
        street: (blocks,) half width of the streets inside.
        key: random bits of each lot.
        kind: of `Kind`.
        dice: (12, lots) random numbers of each lot.
        half_a, half_b: half the lot's size along its street and away from it.
        center_u, center_v: its middle.
        axes: (4, lots) aa, ab, ba, bb: a = aa du + ab dv, b = ba du + bb dv, with the bend's shear undone.
    """

    blocks: Blocks
    per_u: F32
    per_v: F32
    street: F32
    key: Words
    kind: Bytes
    dice: F32
    half_a: F32
    half_b: F32
    center_u: F32
    center_v: F32
    axes: F32

    @classmethod
    def around(cls, place: Place, u: F32, v: F32) -> Lots:
        blocks = Blocks.around(place, u, v)
        use = blocks.use.ravel()
        low_u, low_v = np.repeat(blocks.line_u[:-1], blocks.shape[1]), blocks.line_v[:, :-1].ravel()
        size_u, size_v = np.repeat(np.diff(blocks.line_u), blocks.shape[1]), np.diff(blocks.line_v).ravel()
        cols = np.clip(np.round(size_u / _PITCH_U[use]), 1, _COLS)
        rows = np.clip(2 * np.round(size_v / _PITCH_V[use] / 2), 2, _ROWS)
        rows[use == Use.PARK] = 1
        per_u, per_v = (cols / size_u).astype(np.float32), (rows / size_v).astype(np.float32)
        row, col = np.arange(_ROWS)[:, None], np.arange(_COLS)
        shape = (use.size, _ROWS, _COLS)
        center_u = np.broadcast_to(_first(low_u) + (col + np.float32(0.5)) / _first(per_u), shape).ravel()
        center_v = np.broadcast_to(_first(low_v) + (row + np.float32(0.5)) / _first(per_v), shape).ravel()
        key = _lot_keys(place, blocks)
        kind, dice = _lot_kinds(place, np.repeat(use, _LOTS), key)
        facing = np.broadcast_to(1 - 2 * (row % 2), shape).ravel()
        axes = _axes(place, center_u, center_v, facing)
        half_a, half_b = (np.repeat((0.5 / per).astype(np.float32), _LOTS) for per in (per_u, per_v))
        street = _STREET[use]
        return cls(blocks, per_u, per_v, street, key, kind, dice, half_a, half_b, center_u, center_v, axes)

    def locate(self, block: Index, u: F32, v: F32) -> tuple[Index, F32]:
        """Index of each position's lot, and the distance from the middle of the nearest street inside the block."""
        low_u = np.repeat(self.blocks.line_u[:-1], self.blocks.shape[1])
        per_v = self.per_v[block]
        col = ((u - low_u[block]) * self.per_u[block]).astype(np.intp)
        across = (v - (self.blocks.line_v[:, :-1].ravel())[block]) * per_v
        row = across.astype(np.intp)
        np.clip(col, 0, _COLS - 1, out=col)
        np.clip(row, 0, _ROWS - 1, out=row)
        across *= np.float32(0.5)  # streets run between pairs of rows
        across -= np.floor(across)
        street = np.minimum(across, np.float32(1) - across)
        street *= np.float32(2) / per_v
        return (block * _ROWS + row) * _COLS + col, street

    @property
    def block_key(self) -> Words:
        return self.key[::_LOTS]


def _first(values: F32) -> F32:
    return values[:, None, None]


def _block_use(place: Place, ij: tuple[Ints, Ints], uv: tuple[F32, F32], river_m: F32) -> Bytes:
    dice, here = place.rand("use", *ij), place.rand("urban here", *ij)
    region = place.noise("urban", uv[0].ravel(), uv[1].ravel(), 1100).reshape(river_m.shape)
    urban = 0.5 + 0.5 * region + 0.35 * (here - 0.5)
    dry = place.aridity
    town = np.select([dice < 0.66, dice < 0.86, dice < 0.93], [Use.HOMES, Use.TRADE, Use.PARK], Use.BARE)
    share = [dice < 0.3 * (1 - dry), dice < 0.42 - 0.2 * dry, dice < 0.44 + 0.45 * dry**2]
    land = np.select(share, [Use.WOOD, Use.PARK, Use.BARE], Use.FARM)
    use = np.where(urban > 1 - place.town, town, land)
    shore = np.where(dice < 0.5, Use.BARE if place.is_dry else Use.PARK, Use.FARM)
    return np.where((river_m < 150) & (use != Use.WOOD), shore, use).astype(np.uint8)


def _lot_keys(place: Place, blocks: Blocks) -> Words:
    i, j = blocks.first[0] + np.arange(blocks.shape[0]), blocks.first[1] + np.arange(blocks.shape[1])
    row, col = np.arange(_ROWS)[:, None], np.arange(_COLS)
    return hashed(stream(place.seed, "lot"), i[:, None, None, None], j[:, None, None], row, col).ravel()


def _lot_kinds(place: Place, use: Bytes, key: Words) -> tuple[Bytes, F32]:
    """What each lot is at the date that `place.revision` names, and its dice (number 2 of a park sizes its pond)."""
    dice = np.stack([place.rand(f"dice {n}", key) for n in range(12)])
    built = dice[0] > 0.14
    if place.revision:
        change = place.rand(f"change {place.revision}", key)
        built = np.where(built, change > 0.07, change < 0.55)
        dice[2] = np.where((use == Use.PARK) & (change < 0.7), change / np.float32(0.7), dice[2])
    home, hall = np.where(built, Kind.HOUSE, Kind.VACANT), np.where(built, Kind.HALL, Kind.VACANT)
    farm = np.where(dice[1] < 0.78, Kind.FIELD, Kind.VINES)
    kind = np.choose(use, [Kind.WOOD, Kind.PARK, Kind.BARE, home, hall, farm])
    return kind.astype(np.uint8), dice


def _axes(place: Place, u: F32, v: F32, facing: Ints) -> F32:
    """Turn the bend around each lot into a pure rotation, so that what is drawn there keeps its right angles."""
    x, y = place.unbend(u, v)
    step = 4.0
    (u0, v0), (ux, vx), (uy, vy) = place.bend(x, y), place.bend(x + step, y), place.bend(x, y + step)
    j11, j12, j21, j22 = (ux - u0) / step, (uy - u0) / step, (vx - v0) / step, (vy - v0) / step
    det, turn = j11 * j22 - j12 * j21, np.arctan2(j21 - j12, j11 + j22)
    c, s = np.cos(turn), np.sin(turn)
    a = (c * j22 + s * j21) / det, (-c * j12 - s * j11) / det
    b = (s * j22 - c * j21) / det * facing, (c * j11 - s * j12) / det * facing
    return np.stack([*a, *b]).astype(np.float32)
