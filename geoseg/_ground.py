"""The invented place: blocks between roads, lots inside blocks, and what stands or grows on each lot.

Everything is a function of a position in metres and of the seed, so that any window can be computed alone. Coordinates
(x, y) are turned and gently bent to (u, v), in which the blocks are rectangles. Tables, one row per lot near the
window, hold what a lot is; per pixel, only the lot's index is computed, the tables looked up, and the lot's content
drawn in its own metric coordinates (a along the street, b away from it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import IntEnum, auto

import numpy as np
from numpy.typing import NDArray

from geoseg._noise import Floats, Ints, hashed, stream, uniform, value_noise

F32 = NDArray[np.float32]
Index = NDArray[np.intp]

BLOCK_U, BLOCK_V = 270.0, 210.0
MAX_ROWS, MAX_COLS = 12, 24
RIVER_PERIOD = 2300.0
WARP, WARP_SCALE = 48.0, 520.0


class M(IntEnum):
    """Materials: what a pixel shows. The order is that of the table in `synthetic`."""

    ASPHALT = 0
    STREET = auto()
    PAVING = auto()
    DIRT = auto()
    SOIL = auto()
    SAND = auto()
    PLOWED = auto()
    LAWN = auto()
    MEADOW = auto()
    CROP = auto()
    RIPE = auto()
    VINE = auto()
    VINE_SOIL = auto()
    SCRUB = auto()
    HEDGE = auto()
    WATER = auto()
    POOL = auto()
    ROOF_TILE = auto()
    ROOF_BROWN = auto()
    ROOF_SLATE = auto()
    ROOF_GREY = auto()
    ROOF_WHITE = auto()
    ROOF_RED = auto()
    ROOF_SOLAR = auto()
    CAR_WHITE = auto()
    CAR_DARK = auto()
    CAR_RED = auto()
    CAR_BLUE = auto()
    TREE_BROAD = auto()
    TREE_CONIFER = auto()
    TREE_PALE = auto()


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


class Use(IntEnum):
    """What a block between roads is used for."""

    WOOD = 0
    PARK = auto()
    BARE = auto()
    HOMES = auto()
    TRADE = auto()
    FARM = auto()


PITCH_U = np.array([150, 400, 160, 19.5, 92, 88], np.float32)
PITCH_V = np.array([150, 400, 130, 29, 78, 105], np.float32)
STREET = np.array([0, 0, 0, 3.0, 4.0, 1.4], np.float32)
HOUSE_ROOFS = np.array([M.ROOF_TILE, M.ROOF_TILE, M.ROOF_BROWN, M.ROOF_SLATE, M.ROOF_GREY, M.ROOF_WHITE], np.uint8)
HALL_ROOFS = np.array([M.ROOF_WHITE, M.ROOF_WHITE, M.ROOF_GREY, M.ROOF_GREY, M.ROOF_RED, M.ROOF_SOLAR], np.uint8)
CARS = np.array([M.CAR_WHITE, M.CAR_WHITE, M.CAR_DARK, M.CAR_DARK, M.CAR_RED, M.CAR_BLUE], np.uint8)


@dataclass(frozen=True, slots=True)
class Place:
    """What a seed decides about the whole place.

    Attributes:
        seed: of everything that stays.
        revision: 0 for the first date; another number for buildings and ponds of a later date.
        aridity: 0 temperate, 1 desert.
        angle: direction of the main roads, radians.
        town: share of built-up blocks, about.
        gsd_m: what is finer than a pixel is drawn with its mean.
    """

    seed: int
    revision: int
    aridity: float
    angle: float
    town: float
    gsd_m: float

    @classmethod
    def of(cls, seed: int, revision: int, gsd_m: float) -> Place:
        rng = np.random.default_rng([seed, 1])
        arid = rng.uniform() < 0.3
        aridity = rng.uniform(0.75, 1.0) if arid else rng.uniform(0.0, 0.4)
        return cls(seed, revision, aridity, rng.uniform(0, math.pi), rng.uniform(0.3, 0.75), gsd_m)

    def rand(self, name: str, *coords: Ints) -> F32:
        return uniform(stream(self.seed, name), *coords)

    def noise(self, name: str, x: Floats, y: Floats, scale: float) -> F32:
        return value_noise(stream(self.seed, name), x, y, scale)

    def bend(self, x: Floats, y: Floats) -> tuple[F32, F32]:
        """Street coordinates (u, v) of positions (x, y), in metres."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        u = (c * x).astype(np.float32) - (s * y).astype(np.float32)
        v = (s * x).astype(np.float32) + (c * y).astype(np.float32)
        u += np.float32(WARP) * self.noise("bend u", x, y, WARP_SCALE)
        v += np.float32(WARP) * self.noise("bend v", x, y, WARP_SCALE)
        return u, v

    def unbend(self, u: F32, v: F32) -> tuple[Floats, Floats]:
        """Positions (x, y) of street coordinates (n,), by fixed-point iteration."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        x, y = c * u + s * v, c * v - s * u
        for _ in range(4):
            bent_u, bent_v = self.bend(x, y)
            du, dv = u - bent_u, v - bent_v
            x, y = x + c * du + s * dv, y + c * dv - s * du
        return x, y

    def river(self, u: F32, v: F32) -> tuple[F32, F32]:
        """Distance from the river's middle line and half the river's width, in metres, at street coordinates (n,)."""
        strip = np.floor(v * np.float32(1 / RIVER_PERIOD)).astype(np.intp)
        step = np.floor(u * np.float32(2)).astype(np.intp)
        strips = np.arange(strip.min(), strip.max() + 1)[:, None]
        along = np.arange(step.min(), step.max() + 1)[None, :] / 2
        middle = (strips + 0.35 + 0.3 * self.rand("river", strips)) * RIVER_PERIOD
        middle = middle + 95 * self.noise("river bend", along, strips * 7.5e3, 420)
        middle = middle + 24 * self.noise("river wiggle", along, strips * 7.5e3, 130)
        width = 15 + 7 * self.noise("river width", along, strips * 7.5e3, 90)
        at = (strip - strips[0]) * along.size + (step - step.min())
        distance = np.take(middle.astype(np.float32).ravel(), at)
        distance -= v
        return np.abs(distance), np.take(width.ravel(), at)


@dataclass(frozen=True, slots=True)
class Lots:
    """Tables with one row per block, then with one row per lot of each block (blocks x MAX_ROWS x MAX_COLS, flat)."""

    first: tuple[int, int]
    shape: tuple[int, int]
    line_u: F32  # (columns + 1,) u of the roads between columns of blocks
    half_u: F32  # (columns + 1,) their half widths
    line_v: F32  # (columns, rows + 1) v of the roads between blocks of a column
    half_v: F32
    per_u: F32  # (blocks,) lots per metre
    per_v: F32
    street: F32  # (blocks,) half width of the streets inside
    use: NDArray[np.uint8]
    river: NDArray[np.bool_]  # the river may touch the block
    block_key: NDArray[np.uint32]
    kind: NDArray[np.uint8]  # (lots,) from here on
    center_u: F32
    center_v: F32
    size_a: F32  # half the lot's size along the street and away from it
    size_b: F32
    au: F32  # (a, b) = [[au, av], [bu, bv]] (u - center_u, v - center_v)
    av: F32
    bu: F32
    bv: F32
    key: NDArray[np.uint32]
    dice: F32  # (12, lots) numbers in [0, 1)

    @classmethod
    def around(cls, place: Place, u: F32, v: F32) -> Lots:
        """The tables for every block that holds one of the positions."""
        i0, i1 = math.floor(u.min() / BLOCK_U) - 1, math.floor(u.max() / BLOCK_U) + 1
        j0, j1 = math.floor(v.min() / BLOCK_V) - 1, math.floor(v.max() / BLOCK_V) + 1
        i, j = np.arange(i0, i1 + 2), np.arange(j0, j1 + 2)
        line_u = ((i + 0.55 * place.rand("line u", i)) * BLOCK_U).astype(np.float32)
        line_v = ((j + 0.55 * place.rand("line v", i[:-1, None], j)) * BLOCK_V).astype(np.float32)
        kind_u, kind_v = place.rand("road u", i), place.rand("road v", i[:-1, None], j)
        half_u = np.select([kind_u < 0.15, kind_u < 0.6], [7.5, 4.6], 3.6).astype(np.float32)
        half_v = np.where(kind_v < 0.4, 3.9, 3.1).astype(np.float32)

        low_u, high_u = np.broadcast_arrays(line_u[:-1, None], line_u[1:, None])
        low_v, high_v = line_v[:, :-1], line_v[:, 1:]
        low_u, high_u = np.broadcast_to(low_u, low_v.shape), np.broadcast_to(high_u, low_v.shape)
        ii, jj = (a.ravel() for a in np.meshgrid(i[:-1], j[:-1], indexing="ij"))
        low_u, high_u, low_v, high_v = low_u.ravel(), high_u.ravel(), low_v.ravel(), high_v.ravel()
        use = _block_use(place, ii, jj, (low_u + high_u) / 2, (low_v + high_v) / 2)
        river = _river_may_touch(place, low_u, high_u, low_v, high_v)
        n_u = np.clip(np.round((high_u - low_u) / PITCH_U[use]), 1, MAX_COLS)
        n_v = np.clip(2 * np.round((high_v - low_v) / PITCH_V[use] / 2), 2, MAX_ROWS)
        n_v[use == Use.PARK] = 1
        per_u, per_v = n_u / (high_u - low_u), n_v / (high_v - low_v)

        row, col = np.arange(MAX_ROWS)[:, None], np.arange(MAX_COLS)
        shape = (ii.size, MAX_ROWS, MAX_COLS)
        center_u = np.broadcast_to((low_u[:, None, None] + (col + 0.5) / per_u[:, None, None]), shape).ravel()
        center_v = np.broadcast_to((low_v[:, None, None] + (row + 0.5) / per_v[:, None, None]), shape).ravel()
        center_u, center_v = center_u.astype(np.float32), center_v.astype(np.float32)
        key = hashed(stream(place.seed, "lot"), ii[:, None, None], jj[:, None, None], row, col).ravel()
        dice = np.stack([place.rand(f"dice {n}", key) for n in range(12)])
        kind = _lot_kind(place, np.repeat(use, MAX_ROWS * MAX_COLS), key, dice)
        facing = np.broadcast_to(1 - 2 * (row % 2), shape).ravel()
        au, av, bu, bv = _axes(place, center_u, center_v, facing)
        sizes = [np.repeat(0.5 / per, MAX_ROWS * MAX_COLS).astype(np.float32) for per in (per_u, per_v)]
        tables = (use, river, key[:: MAX_ROWS * MAX_COLS], kind, center_u, center_v, *sizes, au, av, bu, bv, key, dice)
        per = (per_u.astype(np.float32), per_v.astype(np.float32), STREET[use])
        return cls((i0, j0), (i.size - 1, j.size - 1), line_u, half_u, line_v, half_v, *per, *tables)


def _block_use(place: Place, i: Ints, j: Ints, u: F32, v: F32) -> NDArray[np.uint8]:
    urban = 0.5 + 0.5 * place.noise("urban", u, v, 1100) + 0.35 * (place.rand("urban here", i, j) - 0.5)
    dice = place.rand("use", i, j)
    dry = place.aridity
    town = np.select([dice < 0.66, dice < 0.86, dice < 0.93], [Use.HOMES, Use.TRADE, Use.PARK], Use.BARE)
    land = np.select([dice < 0.3 * (1 - dry), dice < 0.42 - 0.2 * dry, dice < 0.46 + 0.4 * dry], 
                     [Use.WOOD, Use.PARK, Use.BARE], Use.FARM)
    use = np.where(urban > 1 - place.town, town, land)
    distance, _ = place.river(u, v)
    wild = np.where(dice < 0.5, Use.PARK if dry < 0.5 else Use.BARE, Use.FARM)
    return np.where((distance < 150) & (use != Use.WOOD), wild, use).astype(np.uint8)


def _river_may_touch(place: Place, low_u: F32, high_u: F32, low_v: F32, high_v: F32) -> NDArray[np.bool_]:
    u, v = (low_u + high_u) / 2, (low_v + high_v) / 2
    distance, _ = place.river(u, v)
    return distance < (high_v - low_v) / 2 + (high_u - low_u) / 2 + 80


def _lot_kind(place: Place, use: NDArray[np.uint8], key: Ints, dice: F32) -> NDArray[np.uint8]:
    """What each lot is, and in `dice` the size of its pond, at the date that `place.revision` names."""
    built = dice[0] > 0.14
    if place.revision:
        change = place.rand(f"change {place.revision}", key)
        built = np.where(built, change > 0.07, change < 0.55)
        dice[2] = np.where((use == Use.PARK) & (change < 0.7), change / np.float32(0.7), dice[2])
    home = np.where(built, Kind.HOUSE, Kind.VACANT)
    trade = np.where(built, Kind.HALL, Kind.VACANT)
    farm = np.where(dice[1] < 0.78, Kind.FIELD, Kind.VINES)
    return np.choose(use, [Kind.WOOD, Kind.PARK, Kind.BARE, home, trade, farm]).astype(np.uint8)


def _axes(place: Place, u: F32, v: F32, facing: Ints) -> tuple[F32, F32, F32, F32]:
    """Undo the shear of `bend` around each lot, so that what is drawn there has right angles."""
    x, y = place.unbend(u, v)
    step = 4.0
    ue, ve = place.bend(x + step, y)
    us, vs = place.bend(x, y + step)
    u0, v0 = place.bend(x, y)
    j11, j12, j21, j22 = (ue - u0) / step, (us - u0) / step, (ve - v0) / step, (vs - v0) / step
    det = j11 * j22 - j12 * j21
    turn = np.arctan2(j21 - j12, j11 + j22)
    c, s = np.cos(turn), np.sin(turn)
    # (a, b) = turn back into street axes @ inverse Jacobian @ (du, dv)
    au, av = (c * j22 + s * j21) / det, (-c * j12 - s * j11) / det
    bu, bv = (s * j22 - c * j21) / det, (-s * j12 + c * j11) / det
    return tuple(a.astype(np.float32) for a in (au, av, facing * bu, facing * bv))  # type: ignore[return-value]


@dataclass(slots=True)
class Ground:
    """What lies at each position, flat arrays: material, height in metres, brightness, and warmth (brown, dry)."""

    material: NDArray[np.uint8]
    height: F32
    tint: F32
    warm: F32

    def put(self, at: Index, material: Ints | int, height: F32 | float = 0.0) -> None:
        self.material[at] = material
        self.height[at] = height


def draw_ground(place: Place, x: Floats, y: Floats) -> Ground:
    """The ground at x (1, columns), y (rows, 1), or at points (n,): flat arrays, row by row."""
    u, v = place.bend(x, y)
    patch = place.noise("patch", x, y, 45).ravel()
    patch += np.float32(0.5) * place.noise("spot", x, y, 17).ravel()
    fine = place.noise("fine", x, y, 5).ravel()
    fine += np.float32(0.6) * place.noise("grit", x, y, 1.4).ravel()
    u, v = u.ravel(), v.ravel()
    lots = Lots.around(place, u, v)
    zeros = np.zeros(u.size, np.float32)
    ground = Ground(np.full(u.size, M.MEADOW, np.uint8), zeros, 1 + 0.06 * patch + 0.05 * fine, 0.6 * patch + 0.4 * fine)
    block, road = _draw_roads_around(place, lots, u, v)
    lot, street = _lot_index(lots, block, u, v)
    kind = lots.kind[lot]
    for member, draw in _DRAW.items():
        at = np.flatnonzero(kind == member)
        if at.size:
            site = Site.of(place, lots, lot[at], at, u, v, patch, fine)
            draw(ground, site)
    _draw_streets(place, ground, lots, block, street)
    _draw_river(place, ground, lots, block, (u, v), (patch, fine))
    _draw_roads(place, ground, lots, block, road)
    return ground


@dataclass(frozen=True, slots=True)
class Road:
    distance: F32  # from the edge of the nearest main road, negative on it
    half: F32
    from_middle: F32
    along: F32
    urban: NDArray[np.bool_]
    bridge: NDArray[np.bool_]


def _draw_roads_around(place: Place, lots: Lots, u: F32, v: F32) -> tuple[Index, Road]:
    i = np.floor(u * np.float32(1 / BLOCK_U)).astype(np.intp) - lots.first[0]
    i -= u < np.take(lots.line_u, i)
    j = np.floor(v * np.float32(1 / BLOCK_V)).astype(np.intp) - lots.first[1]
    width = lots.line_v.shape[1]
    j -= v < np.take(lots.line_v.ravel(), i * width + j)
    at = i * width + j
    lines = lots.line_v.ravel()
    left, right = u - np.take(lots.line_u, i), np.take(lots.line_u, i + 1) - u
    up, down = v - np.take(lines, at), np.take(lines, at + 1) - v
    half_u = np.where(left < right, np.take(lots.half_u, i), np.take(lots.half_u, i + 1))
    halves = lots.half_v.ravel()
    half_v = np.where(up < down, np.take(halves, at), np.take(halves, at + 1))
    du, dv = np.minimum(left, right), np.minimum(up, down)
    block = i * lots.shape[1] + j
    first = du - half_u < dv - half_v
    use = np.take(lots.use, block)
    urban = (use == Use.HOMES) | (use == Use.TRADE)
    near = np.where(first, du, dv)
    half = np.where(first, half_u, half_v)
    return block, Road(near - half, half, near, np.where(first, v, u), urban, first)


def _lot_index(lots: Lots, block: Index, u: F32, v: F32) -> tuple[Index, F32]:
    """Index of each position's lot, and the distance from the middle of the nearest street inside the block."""
    columns = lots.shape[1]
    low_u = np.repeat(lots.line_u[:-1], columns)
    low_v = lots.line_v[:, :-1].ravel()
    per_v = np.take(lots.per_v, block)
    col = ((u - np.take(low_u, block)) * np.take(lots.per_u, block)).astype(np.intp)
    across = (v - np.take(low_v, block)) * per_v
    row = across.astype(np.intp)
    np.clip(col, 0, MAX_COLS - 1, out=col)
    np.clip(row, 0, MAX_ROWS - 1, out=row)
    pair = across * np.float32(0.5)
    pair -= np.floor(pair)
    street = np.minimum(pair, 1 - pair) * 2 / per_v
    return (block * MAX_ROWS + row) * MAX_COLS + col, street


@dataclass(frozen=True, slots=True)
class Site:
    """Positions that lie on lots of one kind, in their lot's coordinates."""

    place: Place
    at: Index
    lot: Index
    key: NDArray[np.uint32]
    a: F32
    b: F32
    size_a: F32
    size_b: F32
    dice: F32
    patch: F32
    fine: F32

    @classmethod
    def of(cls, place: Place, lots: Lots, lot: Index, at: Index, u: F32, v: F32, patch: F32, fine: F32) -> Site:
        du = u[at] - np.take(lots.center_u, lot)
        dv = v[at] - np.take(lots.center_v, lot)
        a = np.take(lots.au, lot) * du + np.take(lots.av, lot) * dv
        b = np.take(lots.bu, lot) * du + np.take(lots.bv, lot) * dv
        sizes = np.take(lots.size_a, lot), np.take(lots.size_b, lot)
        return cls(place, at, lot, lots.key, a, b, *sizes, lots.dice, patch[at], fine[at])

    def die(self, number: int, low: float = 0.0, high: float = 1.0) -> F32:
        """A random number of the lot, at each position."""
        return np.take(np.float32(low) + np.float32(high - low) * self.dice[number], self.lot)

    @property
    def edge(self) -> F32:
        """Distance from the lot's nearest edge, metres."""
        return np.minimum(self.size_a - np.abs(self.a), self.size_b - np.abs(self.b))

    def stripes(self, period: float) -> F32:
        """A wave in [-1, 1] across the lot's rows; 0 where pixels are too coarse to show it."""
        if period < 2.2 * self.place.gsd_m:
            return np.zeros_like(self.a)
        across = np.where(self.die(7) < 0.5, self.a, self.b) / np.float32(period)
        return np.float32(4) * np.abs(across - np.floor(across) - np.float32(0.5)) - 1


def _inside(a: F32, b: F32, half_a: F32 | float, half_b: F32 | float) -> NDArray[np.bool_]:
    return (np.abs(a) < half_a) & (np.abs(b) < half_b)


def _draw_wood(ground: Ground, site: Site) -> None:
    clearing = site.patch + 0.4 * site.fine > 0.75
    ground.put(site.at, np.where(clearing, M.MEADOW, M.SCRUB))


def _draw_park(ground: Ground, site: Site) -> None:
    """A lawn or steppe, paths, and a pond in most."""
    dry = site.place.aridity > 0.5
    ground.put(site.at, M.SAND if dry else M.LAWN)
    radius = site.die(2, 0.30, 0.62)
    a, b = site.a / site.size_a, site.b / site.size_b
    shore = np.sqrt(a * a + b * b) + 0.22 * site.patch + 0.03 * site.fine - radius
    path = np.abs(shore - 0.03 * site.fine - 0.16) < 1.2 / site.size_b
    has = site.die(3) < 0.75
    ground.put(site.at[path & has], M.PAVING if not dry else M.DIRT)
    ground.put(site.at[has & (shore < 0.025)], M.SOIL)
    water = has & (shore < 0)
    ground.put(site.at[water], M.WATER)
    ground.tint[site.at[water]] += np.clip(shore[water] * 2 + 0.25, 0, 0.25)


def _draw_bare(ground: Ground, site: Site) -> None:
    ground.put(site.at, np.where(site.patch + 0.5 * site.fine > 0.15 + site.die(1, -0.4, 0.4), M.SAND, M.SOIL))
    scrub = (site.patch * -0.7 + site.fine) > 0.95
    ground.put(site.at[scrub], M.SCRUB)
    ground.tint[site.at] *= 1 + 0.10 * site.die(2, -1, 1)
    track = np.abs(site.patch - 0.03 * site.fine - site.die(3, -0.5, 0.5)) < 0.045
    ground.put(site.at[track], M.DIRT)
    mound = np.clip(site.patch - 0.3, 0, 1) * 2 + np.clip(site.fine - 0.2, 0, 1) * 0.5
    ground.height[site.at] = mound


def _draw_field(ground: Ground, site: Site) -> None:
    ground.put(site.at, np.take(_FIELD, (site.die(1, 0, 20.5)).astype(np.intp)))
    rows = site.stripes(1.6) * 0.05 + np.where(np.abs(site.stripes(18.0)) > 0.93, -0.08, 0)
    ground.tint[site.at] *= 1 + 0.12 * site.die(2, -1, 1) + rows
    ground.warm[site.at] += site.die(3, -1.2, 1.2)
    _draw_margin(ground, site)


def _draw_vines(ground: Ground, site: Site) -> None:
    rows = site.stripes(2.5) + 0.5 * site.fine
    green = rows > 0.25
    ground.put(site.at, np.where(green, M.VINE, M.VINE_SOIL), np.where(green, 1.2, 0).astype(np.float32))
    ground.tint[site.at] *= 1 + 0.15 * site.die(2, -1, 1)
    _draw_margin(ground, site)


def _draw_margin(ground: Ground, site: Site) -> None:
    edge = site.edge + 0.8 * site.fine
    ground.put(site.at[edge < 2.5], M.MEADOW)
    hedge = (edge < 3.5) & (site.die(4) < 0.3)
    ground.put(site.at[hedge], M.SCRUB, 0.6)


_FIELD = np.array([M.MEADOW] * 5 + [M.CROP] * 4 + [M.RIPE] * 3 + [M.PLOWED] * 4, np.uint8)


def _yard(ground: Ground, site: Site) -> None:
    dry = site.place.aridity
    worn = site.patch + 0.6 * site.fine + 2.2 * site.die(5) - 1.1
    limit = 1.1 - 2.2 * dry
    ground.put(site.at, np.where(worn > limit, M.SOIL if dry < 0.5 else M.SAND, M.LAWN))
    ground.tint[site.at] *= site.die(6, 0.88, 1.12)
    ground.warm[site.at] += site.die(7, -1.0, 1.0)


def _draw_vacant(ground: Ground, site: Site) -> None:
    wild = site.die(8) < 0.6
    bare = site.patch * 0.5 + site.fine > 0.2
    dry = M.SAND if site.place.aridity > 0.5 else M.MEADOW
    ground.put(site.at, np.where(wild, dry, np.where(bare, M.SOIL, M.SAND)))
    ground.tint[site.at] *= site.die(6, 0.9, 1.1)


def _draw_house(ground: Ground, site: Site) -> None:
    """A house with an ell or a shed, its drive, hedge and sometimes pool."""
    _yard(ground, site)
    a, b = site.a - site.die(1, -1.2, 1.2), site.b + site.die(2, 1.0, 4.0)
    half_a, half_b = site.die(3, 4.2, 7.0), site.die(4, 3.8, 5.6)
    fence = site.edge < 0.75
    hedge = fence & (site.b > -site.size_b + 6) & (site.die(5) < 0.6) & (site.fine > -0.75)
    ground.put(site.at[hedge], M.HEDGE, 1.6)
    side = np.where(site.die(6) < 0.5, np.float32(-1), np.float32(1))
    drive = (np.abs(a - side * (half_a - 1.6)) < 1.7) & (b < 0)
    terrace = _inside(a + side, b - half_b - 1, half_a * 0.7, site.die(9, 0.5, 3.0))
    ground.put(site.at[drive | terrace], M.PAVING)
    _draw_pool(ground, site, side)
    height = _roof(a, b, half_a, half_b, site)
    ell_a, ell_b = a + side * (half_a - 2.6), b - site.die(10, 1.0, 7.5)
    ell = _roof(ell_a, ell_b, site.die(11, 2.2, 3.4), site.die(7, 2.6, 5.0), site) - np.float32(0.3)
    height = np.maximum(height, ell)
    up = height > 1
    roofs = _arid_roofs(site.place.aridity)
    material = np.take(roofs, np.take((site.dice[0] * 977 % 1 * roofs.size).astype(np.intp), site.lot[up]))
    ground.put(site.at[up], material, height[up])
    ground.tint[site.at[up]] = site.die(8, 0.85, 1.15)[up] + 0.05 * site.fine[up]


def _draw_pool(ground: Ground, site: Site, side: F32) -> None:
    has = np.flatnonzero((site.die(0) > 0.72) & (site.size_b > 13) & (site.b > 0))
    if not has.size:
        return
    a, b = site.a[has] - side[has] * 4.0, site.b[has] - site.size_b[has] + 4.6
    ground.put(site.at[has[_inside(a, b, 4.6, 3.0)]], M.PAVING)
    water = site.at[has[_inside(a, b, 3.6, 1.9)]]
    ground.put(water, M.POOL)


def _arid_roofs(aridity: float) -> NDArray[np.uint8]:
    if aridity > 0.5:
        return np.array([M.ROOF_WHITE, M.ROOF_GREY, M.ROOF_WHITE, M.ROOF_BROWN, M.PAVING * 0 + M.ROOF_GREY], np.uint8)
    return HOUSE_ROOFS


def _roof(a: F32, b: F32, half_a: F32, half_b: F32, site: Site) -> F32:
    """Height of a gable, hip or flat roof over a rectangle; 0 outside."""
    side_a, side_b = half_a - np.abs(a), half_b - np.abs(b)
    edge = np.minimum(side_a, side_b)
    style = site.die(9)
    flat = style < (0.12 if site.place.aridity < 0.5 else 0.85)
    along = np.where(half_a > half_b, side_b, side_a)
    rise = np.where(flat, np.float32(0.0), np.where(style < 0.4, edge, along) * np.float32(0.5))
    eaves = np.where(site.die(2) < 0.5, np.float32(3.0), np.float32(5.2))
    return np.where(edge > 0, eaves + rise, np.float32(0))


def _draw_hall(ground: Ground, site: Site) -> None:
    """A large flat roof, a car park in front of it, a strip of green around."""
    ground.put(site.at, M.ASPHALT)
    ground.tint[site.at] *= site.die(6, 0.9, 1.25)
    ground.put(site.at[site.edge < site.die(7, 1.0, 4.0)], M.SAND if site.place.aridity > 0.5 else M.LAWN)
    a, b = site.a, site.b - site.size_b * site.die(1, 0.1, 0.28)
    half_a, half_b = site.size_a * site.die(3, 0.6, 0.85), site.size_b * site.die(4, 0.35, 0.6)
    edge = np.minimum(half_a - np.abs(a), half_b - np.abs(b))
    _park_cars(ground, site, np.flatnonzero((edge < -6) & (site.edge > 5)))
    up = np.flatnonzero(edge > 0)
    height = site.die(5, 6.0, 11.0)[up] + np.where(edge[up] < 0.7, np.float32(0.7), np.float32(0))
    roofs = HALL_ROOFS if site.place.aridity < 0.5 else HALL_ROOFS[:4]
    material = np.take(roofs, (site.die(8)[up] * roofs.size).astype(np.intp))
    ground.put(site.at[up], material, height)
    ground.tint[site.at[up]] = site.die(2, 0.85, 1.12)[up] + 0.04 * site.fine[up] + 0.03 * site.patch[up]
    _draw_roof_boxes(ground, site, up[edge[up] > 3])


def _draw_roof_boxes(ground: Ground, site: Site, on: Index) -> None:
    cell_a, cell_b = np.floor(site.a[on] / 8).astype(np.int64), np.floor(site.b[on] / 6).astype(np.int64)
    dice = site.place.rand("boxes", np.take(site.key, site.lot[on]), cell_a, cell_b)
    a, b = site.a[on] - (cell_a + 0.5) * 8, site.b[on] - (cell_b + 0.5) * 6
    box = _inside(a, b, (0.6 + 4 * dice).astype(np.float32), (0.6 + 1.5 * dice).astype(np.float32)) & (dice < 0.35)
    at = site.at[on[box]]
    ground.tint[at] *= 1.0 + 0.5 * (dice[box] * 17 % 1 - 0.4)
    ground.height[at] += 1.3


def _park_cars(ground: Ground, site: Site, on: Index) -> None:
    """Stalls of 2.6 x 5.4 m in pairs of rows with an aisle between them; cars on some."""
    a, b = site.a[on] / np.float32(2.6), site.b[on] / np.float32(17)
    col, row = np.floor(a), np.floor(b)
    fa, fb = (a - col - 0.5) * np.float32(2.6), (b - row - 0.5) * np.float32(17)
    stall = np.abs(fb) < 5.4
    lane = np.where(fb < 0, 0, 1)
    half = np.float32(max(0.06, 0.3 * site.place.gsd_m))
    line = stall & ((np.abs(fa) > 1.3 - half) | (np.abs(fb) < half))
    ground.tint[site.at[on[line]]] *= 1.0 + 0.9 * min(1.0, 0.12 / (2 * float(half)))
    dice = site.place.rand("cars", np.take(site.key, site.lot[on]), col.astype(np.int64), row.astype(np.int64) * 2 + lane)
    car = _inside(fa, np.abs(fb) - 2.7, 0.9, 2.15) & (dice < 0.5)
    _put_cars(ground, site.at[on[car]], dice[car] * 2)


def _put_cars(ground: Ground, at: Index, dice: F32) -> None:
    ground.put(at, np.take(CARS, np.clip((dice * CARS.size).astype(np.intp), 0, CARS.size - 1)), 1.4)
    ground.tint[at] = 1.0


def _draw_streets(place: Place, ground: Ground, lots: Lots, block: Index, street: F32) -> None:
    half = np.take(lots.street, block)
    near = np.flatnonzero(street < half + 1.3)
    use = np.take(lots.use, block[near])
    on = street[near] < half[near]
    farm = use == Use.FARM
    walk = near[~on & ~farm]
    ground.put(walk, M.PAVING)
    ground.put(near[on & ~farm], M.STREET)
    ground.put(near[on & farm], M.DIRT)
    ground.tint[near[on]] = 1 + 0.3 * (ground.tint[near[on]] - 1)


def _draw_river(place: Place, ground: Ground, lots: Lots, block: Index, uv: tuple[F32, F32], noise: tuple[F32, F32]) -> None:
    if not lots.river.any():
        return
    band = np.flatnonzero(np.take(lots.river, block))
    if not band.size:
        return
    distance, half = place.river(uv[0][band], uv[1][band])
    depth = half - distance + 2 * noise[0][band] + 0.6 * noise[1][band]
    bank = band[(depth > -9) & (depth <= -2.5)]
    ground.put(bank, M.SCRUB if place.aridity < 0.5 else M.SAND)
    beach = band[(depth > -2.5) & (depth <= 0)]
    ground.put(beach, M.SOIL)
    wet = depth > 0
    ground.put(band[wet], M.WATER)
    ground.tint[band[wet]] += 0.25 * np.clip(1 - depth[wet] / 5, 0, 1)


def _draw_roads(place: Place, ground: Ground, lots: Lots, block: Index, road: Road) -> None:
    near = np.flatnonzero(road.distance < 3.5)
    water = ground.material[near] == M.WATER
    urban = road.urban[near]
    distance = road.distance[near]
    side = near[(distance >= 0) & (distance < 1.8) & urban & ~water]
    ground.put(side, M.PAVING)
    verge = near[(distance >= 0) & ~urban & ~water]
    ground.put(verge, M.MEADOW if place.aridity < 0.5 else M.SAND)
    on = near[(distance < 0) & (road.bridge[near] | ~water)]
    ground.put(on, M.ASPHALT)
    ground.tint[on] = 1 + 0.4 * (ground.tint[on] - 1)
    _draw_marks(place, ground, road, on)
    _drive_cars(place, ground, lots, block, road, on)


def _draw_marks(place: Place, ground: Ground, road: Road, on: Index) -> None:
    """A dashed middle line and, on wide roads, edge lines; thinner than a pixel they only brighten it."""
    half = max(0.1, 0.5 * place.gsd_m)
    middle, along = road.from_middle[on], road.along[on]
    dash = (along / np.float32(9)) % 1 < 0.45
    mark = (middle < half) & dash
    mark |= (np.abs(road.half[on] - middle - 0.5) < half) & (road.half[on] > 4)
    ground.tint[on[mark]] *= 1 + 0.95 * min(1.0, 0.1 / half)


def _drive_cars(place: Place, ground: Ground, lots: Lots, block: Index, road: Road, on: Index) -> None:
    lane = np.floor(road.along[on] / 16).astype(np.int64)
    dice = place.rand("traffic", lane, np.take(lots.block_key, block[on]))
    offset = road.along[on] - (lane + 0.5) * 16
    car = _inside(offset.astype(np.float32), road.from_middle[on] - road.half[on] * 0.5, 2.1, 0.9) & (dice < 0.07)
    _put_cars(ground, on[car], dice[car] / np.float32(0.07))


_DRAW = {
    Kind.WOOD: _draw_wood,
    Kind.PARK: _draw_park,
    Kind.BARE: _draw_bare,
    Kind.HOUSE: _draw_house,
    Kind.VACANT: _draw_vacant,
    Kind.HALL: _draw_hall,
    Kind.FIELD: _draw_field,
    Kind.VINES: _draw_vines,
}
