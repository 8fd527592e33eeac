"""Trees on a jittered grid. A crown never reaches farther than the four cells around a pixel's corner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from geoseg.synthetic.canvas import Canvas
from geoseg.synthetic.ground import draw_ground
from geoseg.synthetic.lots import Index
from geoseg.synthetic.materials import M
from geoseg.synthetic.noise import F32, Floats, Ints
from geoseg.synthetic.place import Place

_CELL_M = 7.0  # trunks stand at 0.25 to 0.75 of it; crowns of up to 0.75 of it are seen whole
_RAGGED = 0.25
_WIDEST = 0.70  # of the cell: with the ragged edge, just under 0.75

# what grows where: share of cells with a tree, size of the crown
_GROWS = {
    M.SCRUB: (0.95, 1.0),
    M.LAWN: (0.40, 0.8),
    M.MEADOW: (0.035, 0.9),
    M.SOIL: (0.08, 0.7),
    M.SAND: (0.012, 0.6),
}
_SHARE, _SIZE = (np.array([_GROWS.get(m, (0.0, 0.1))[k] for m in M], np.float32) for k in (0, 1))


@dataclass(frozen=True, slots=True)
class _Trees:
    """One tree per cell (rows, columns); `top` is 0 where none stands."""

    first: tuple[int, int]
    x: F32
    y: F32
    per_radius2: F32
    top: F32
    species: F32
    shade: F32

    @classmethod
    def around(cls, place: Place, x: Floats, y: Floats) -> _Trees:
        rows, cols = _cells(y), _cells(x)
        dice = [place.rand(f"tree {n}", rows[:, None], cols) for n in range(5)]
        trunk_x = ((cols + 0.25 + 0.5 * dice[0]) * _CELL_M).astype(np.float32)
        trunk_y = ((rows[:, None] + 0.25 + 0.5 * dice[1]) * _CELL_M).astype(np.float32)
        below = draw_ground(place, trunk_x.ravel(), trunk_y.ravel()).material.reshape(trunk_x.shape)
        grove = 0.5 + 0.5 * place.noise("grove", trunk_x.ravel(), trunk_y.ravel(), 60).reshape(trunk_x.shape)
        share = _SHARE[below] * np.where(below == M.SCRUB, 1, 2 * grove)
        stands = dice[2] < share * np.where(below == M.LAWN, 1, 1 - 0.8 * place.aridity)
        spread = dice[3] ** np.where(below == M.SCRUB, np.float32(0.4), np.float32(1.2))
        radius = _CELL_M * (0.2 + (_WIDEST - 0.2) * spread) * _SIZE[below]
        top = np.where(stands, 2.5 + 1.7 * radius * (0.8 + 0.4 * dice[4]), 0)
        species = np.clip(M.TREE_BROAD + np.floor(1.4 * grove + 1.5 * dice[4] + 0.1), M.TREE_BROAD, M.TREE_PALE)
        tables = (trunk_x, trunk_y, 1 / radius**2, top, species, 0.85 + 0.3 * dice[0])
        return cls((int(rows[0]), int(cols[0])), *(t.astype(np.float32) for t in tables))


def grow_trees(canvas: Canvas, x: Floats, y: Floats) -> None:
    """Draw the trees over the ground at x (1, columns) and y (rows, 1)."""
    trees = _Trees.around(canvas.place, x, y)
    if not trees.top.any():
        return
    leaf = np.float32(0.6) * canvas.place.noise("leaf", x, y, 2.1)
    leaf += np.float32(0.5) * canvas.place.noise("twig", x, y, 0.9)
    height, tree = _crowns(trees, x, y, leaf)
    at = np.flatnonzero(height > np.maximum(0.7 * canvas.height, 1))
    tree = tree[at]
    canvas.put(at, trees.species.ravel()[tree].astype(np.uint8), height[at])
    shade = trees.shade.ravel()[tree]
    canvas.tint[at] = shade * (1 + np.float32(0.12) * leaf.ravel()[at])
    canvas.warm[at] = np.float32(2.5) * (shade - 1)


def _crowns(trees: _Trees, x: Floats, y: Floats, leaf: F32) -> tuple[F32, Index]:
    """Height of the highest crown at each pixel, 0 where there is none, and which tree it is; flat."""
    col0 = np.floor(x.ravel() / _CELL_M - 0.5).astype(np.intp) - trees.first[1]
    row0 = np.floor(y.ravel() / _CELL_M - 0.5).astype(np.intp) - trees.first[0]
    x, y = x.astype(np.float32), y.astype(np.float32)
    ragged = np.float32(1 - _RAGGED / 2) + np.float32(_RAGGED) * leaf
    np.minimum(ragged, np.float32((0.75 / _WIDEST) ** 2), out=ragged)
    best, which = np.zeros_like(leaf), np.zeros(leaf.shape, np.int32)
    for row, col in ((row0 + dr, col0 + dc) for dr in (0, 1) for dc in (0, 1)):
        dx, dy = x - _spread(trees.x, row, col), y - _spread(trees.y, row, col)
        dx *= dx
        dy *= dy
        dx += dy
        dx *= _spread(trees.per_radius2, row, col)
        dome = np.subtract(ragged, dx, out=dx)
        crown = np.float32(0.28) * dome
        crown += np.float32(0.72)
        crown *= _spread(trees.top, row, col)
        higher = (dome > 0) & (crown > best)
        np.copyto(best, crown, where=higher)
        np.copyto(which, (row * trees.x.shape[1])[:, None] + col, where=higher, casting="same_kind")
    return best.ravel(), which.ravel().astype(np.intp)


def _spread(table: F32, row: Index, col: Index) -> F32:
    return np.take(table[row], col, axis=1)


def _cells(values: Floats) -> Ints:
    return np.arange(math.floor(values.min() / _CELL_M) - 1, math.floor(values.max() / _CELL_M) + 3)
