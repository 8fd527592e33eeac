"""Synthetic scenes with known answers: any size, any window alone, the same pixels however the scene is divided."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from geoseg._ground import F32, Ground, M, Place, draw_ground
from geoseg._noise import hashed, stream
from geoseg.errors import InputError
from geoseg.grid.window import Window, windows_of
from geoseg.legend import LANDCOVER

BANDS = ("red", "green", "blue", "nir")
CRS = "EPSG:32631"
ORIGIN = (448_000.0, 5_412_000.0)
TREE_CELL = 7.0
TALLEST = 15.0

_ID = {c.name: c.id for c in LANDCOVER.classes}

# material: class, then red, green, blue, nir of a temperate and of a desert scene (display values of 0..1), roughness
_MATERIALS: dict[M, tuple[str, tuple[float, ...], tuple[float, ...], float]] = {
    M.ASPHALT: ("paved", (0.42, 0.43, 0.44, 0.34), (0.55, 0.54, 0.54, 0.50), 0.3),
    M.STREET: ("paved", (0.48, 0.49, 0.48, 0.40), (0.60, 0.58, 0.57, 0.54), 0.3),
    M.PAVING: ("paved", (0.63, 0.61, 0.58, 0.55), (0.74, 0.71, 0.68, 0.66), 0.4),
    M.DIRT: ("bare", (0.66, 0.60, 0.52, 0.58), (0.76, 0.71, 0.65, 0.72), 0.8),
    M.SOIL: ("bare", (0.58, 0.52, 0.46, 0.54), (0.68, 0.63, 0.58, 0.66), 1.2),
    M.SAND: ("bare", (0.72, 0.67, 0.60, 0.66), (0.80, 0.76, 0.72, 0.78), 0.7),
    M.PLOWED: ("bare", (0.52, 0.46, 0.40, 0.47), (0.62, 0.56, 0.51, 0.60), 0.9),
    M.LAWN: ("low_vegetation", (0.38, 0.43, 0.33, 0.60), (0.42, 0.47, 0.38, 0.62), 1.0),
    M.MEADOW: ("low_vegetation", (0.44, 0.45, 0.36, 0.58), (0.56, 0.55, 0.47, 0.68), 1.3),
    M.CROP: ("low_vegetation", (0.31, 0.40, 0.28, 0.68), (0.34, 0.43, 0.32, 0.68), 0.6),
    M.RIPE: ("low_vegetation", (0.60, 0.55, 0.42, 0.68), (0.62, 0.58, 0.46, 0.70), 0.6),
    M.VINE: ("low_vegetation", (0.32, 0.37, 0.29, 0.56), (0.34, 0.39, 0.31, 0.58), 0.8),
    M.VINE_SOIL: ("low_vegetation", (0.52, 0.48, 0.41, 0.60), (0.62, 0.58, 0.51, 0.70), 0.8),
    M.SCRUB: ("low_vegetation", (0.33, 0.36, 0.28, 0.50), (0.46, 0.45, 0.38, 0.58), 1.8),
    M.HEDGE: ("low_vegetation", (0.25, 0.32, 0.24, 0.52), (0.28, 0.34, 0.26, 0.52), 1.5),
    M.WATER: ("water", (0.20, 0.26, 0.27, 0.14), (0.16, 0.33, 0.31, 0.12), 0.15),
    M.POOL: ("water", (0.45, 0.66, 0.70, 0.18), (0.45, 0.68, 0.72, 0.18), 0.1),
    M.ROOF_TILE: ("building", (0.68, 0.53, 0.46, 0.58), (0.70, 0.60, 0.54, 0.62), 0.5),
    M.ROOF_BROWN: ("building", (0.54, 0.45, 0.41, 0.48), (0.68, 0.62, 0.57, 0.64), 0.5),
    M.ROOF_SLATE: ("building", (0.38, 0.39, 0.42, 0.34), (0.50, 0.50, 0.52, 0.46), 0.4),
    M.ROOF_GREY: ("building", (0.60, 0.60, 0.60, 0.54), (0.74, 0.73, 0.72, 0.70), 0.4),
    M.ROOF_WHITE: ("building", (0.86, 0.86, 0.85, 0.76), (0.92, 0.90, 0.89, 0.86), 0.3),
    M.ROOF_RED: ("building", (0.53, 0.40, 0.40, 0.44), (0.66, 0.55, 0.50, 0.58), 0.5),
    M.ROOF_SOLAR: ("building", (0.27, 0.31, 0.39, 0.24), (0.30, 0.34, 0.42, 0.26), 0.3),
    M.CAR_WHITE: ("paved", (0.88, 0.88, 0.88, 0.80), (0.90, 0.90, 0.90, 0.84), 0.1),
    M.CAR_DARK: ("paved", (0.20, 0.20, 0.22, 0.18), (0.24, 0.24, 0.25, 0.22), 0.1),
    M.CAR_RED: ("paved", (0.62, 0.20, 0.18, 0.50), (0.62, 0.22, 0.20, 0.50), 0.1),
    M.CAR_BLUE: ("paved", (0.28, 0.38, 0.58, 0.40), (0.30, 0.40, 0.60, 0.40), 0.1),
    M.TREE_BROAD: ("tree", (0.27, 0.33, 0.25, 0.60), (0.31, 0.37, 0.29, 0.58), 1.0),
    M.TREE_CONIFER: ("tree", (0.23, 0.29, 0.25, 0.50), (0.28, 0.33, 0.28, 0.52), 1.0),
    M.TREE_PALE: ("tree", (0.34, 0.38, 0.29, 0.62), (0.36, 0.41, 0.33, 0.60), 1.0),
}
_LABEL = np.array([_ID[_MATERIALS[m][0]] for m in M], np.uint8)

# share of tree cells with a tree, and crown size, by the ground at the trunk
_TREES = {M.SCRUB: (0.93, 1.0), M.LAWN: (0.30, 0.8), M.MEADOW: (0.035, 0.9), M.SOIL: (0.05, 0.7), M.SAND: (0.012, 0.6)}
_DENSITY = np.array([_TREES.get(m, (0.0, 0.0))[0] for m in M], np.float32)
_CROWN = np.array([_TREES.get(m, (0.0, 0.0))[1] for m in M], np.float32)


@dataclass(frozen=True)
class Light:
    """Sun, air, season and sensor of one date.

    Attributes:
        sun: unit vector toward the sun: east, south, up.
        ambient: light in the shadow, by band.
        gain, offset: contrast and haze, by band.
        albedo: (materials, bands).
        rough: (materials,) strength of fine texture.
        noise: sensor noise, in counts.
        blur: weight of each direct neighbour in the sensor's blur, per axis.
    """

    sun: tuple[float, float, float]
    ambient: F32
    gain: F32
    offset: F32
    albedo: F32
    rough: F32
    noise: float
    blur: float

    @classmethod
    def of(cls, place: Place, season: int) -> Light:
        rng = np.random.default_rng([place.seed, season, 2])
        azimuth, elevation = math.radians(rng.uniform(110, 250)), math.radians(rng.uniform(42, 64))
        sun = (
            math.cos(elevation) * math.sin(azimuth),
            -math.cos(elevation) * math.cos(azimuth),
            math.sin(elevation),
        )
        temperate, desert = (np.array([_MATERIALS[m][k] for m in M], np.float32) for k in (1, 2))
        albedo = temperate + np.float32(place.aridity) * (desert - temperate)
        same = np.random.default_rng([place.seed, 3])
        albedo *= 1 + 0.07 * same.standard_normal((len(M), 1)) + 0.012 * same.standard_normal((len(M), 4))
        _vary_plants(albedo, rng)
        _vary_soil(albedo, same)
        _vary_water(albedo, same)
        contrast, haze = rng.uniform(0.85, 1.15), rng.uniform(0.0, 0.09)
        gain = contrast * (1 - haze) * (1 + 0.02 * rng.standard_normal(4))
        offset = haze * np.array([0.55, 0.6, 0.7, 0.3]) + 0.45 * (1 - contrast) + rng.uniform(-0.05, 0.05)
        ambient = np.array([0.36, 0.39, 0.45, 0.30]) * rng.uniform(0.85, 1.2)
        rough = np.array([_MATERIALS[m][3] for m in M], np.float32)
        arrays = (a.astype(np.float32) for a in (ambient, gain, offset, albedo))
        return cls(sun, *arrays, rough, rng.uniform(1.0, 5.0), rng.uniform(0.1, 0.24))


def _vary_plants(albedo: F32, rng: np.random.Generator) -> None:
    """From muted southern summer to lush spring."""
    plants = np.isin(_LABEL, (_ID["tree"], _ID["low_vegetation"]))
    mean = albedo[plants, :3].mean(axis=1, keepdims=True)
    albedo[plants, :3] = mean + (albedo[plants, :3] - mean) * rng.uniform(0.7, 1.8)
    albedo[plants] *= rng.uniform(0.85, 1.1)
    albedo[plants, 3] *= rng.uniform(0.95, 1.15)


def _vary_soil(albedo: F32, rng: np.random.Generator) -> None:
    soil = _LABEL == _ID["bare"]
    mean = albedo[soil, :3].mean(axis=1, keepdims=True)
    albedo[soil, :3] = mean + (albedo[soil, :3] - mean) * rng.uniform(0.4, 1.5)


def _vary_water(albedo: F32, rng: np.random.Generator) -> None:
    color = np.array([[0.20, 0.25, 0.27], [0.22, 0.32, 0.28], [0.30, 0.34, 0.31], [0.13, 0.15, 0.20], [0.14, 0.36, 0.40]])
    albedo[M.WATER, :3] = color[rng.integers(5)] * rng.uniform(0.8, 1.15)


@dataclass(frozen=True, slots=True)
class SyntheticScene:
    """An invented place seen from above, in any number of pixels, with the true class of each.

    Attributes:
        shape: rows, columns.
        seed: the place: another seed is another town, sun, soil and sensor.
        gsd_m: pixel size in metres; changes only the sampling.
        revision: date of the buildings and ponds; 0 is the first.
        season: date of light and plants.
    """

    shape: tuple[int, int]
    seed: int = 0
    gsd_m: float = 0.5
    revision: int = 0
    season: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise InputError(f"A scene has 1 row and column or more, not {self.shape[0]} x {self.shape[1]}.")
        if not 0.05 <= self.gsd_m <= 5:
            raise InputError(f"A synthetic scene has a pixel size of 0.05 to 5 m, not {self.gsd_m:g} m.")
        if min(self.seed, self.revision, self.season) < 0:
            raise InputError(f"Seeds are 0 or more, not {min(self.seed, self.revision, self.season)}.")

    @property
    def transform(self) -> Affine:
        return Affine(self.gsd_m, 0, ORIGIN[0], 0, -self.gsd_m, ORIGIN[1])

    def later(self, seed: int = 1) -> SyntheticScene:
        """The same place later: some houses and halls new, some gone, ponds of another size, other light.

        What changed is what the labels of both dates say.
        """
        return replace(self, revision=seed + 1, season=seed + 1)

    def read(self, window: Window | None = None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pixels (4, height, width) as red, green, blue, nir, and labels (height, width) as ids of `LANDCOVER`."""
        window = window or Window(0, 0, *self.shape)
        if window.clipped(self.shape) != window:
            raise InputError(f"Window {window} is outside the scene of {self.shape[0]} x {self.shape[1]} pixels.")
        place = Place.of(self.seed, self.revision, self.gsd_m)
        light = Light.of(place, self.season)
        pixels = np.empty((4, *window.shape), np.uint8)
        labels = np.empty(window.shape, np.uint8)
        for part in windows_of(window.shape, 1024):
            rows, cols = part.slices
            pixels[:, rows, cols], labels[rows, cols] = _render(place, light, part.shifted(window.row, window.col))
        return pixels, labels


def _render(place: Place, light: Light, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    margin = math.ceil(_reach(light) / place.gsd_m) + 3
    wide = window.padded(margin)
    x = ((np.arange(wide.col, wide.col_stop) + 0.5) * place.gsd_m)[None, :]
    y = ((np.arange(wide.row, wide.row_stop) + 0.5) * place.gsd_m)[:, None]
    ground = draw_ground(place, x, y)
    _grow_trees(place, ground, x, y)
    height = ground.height.reshape(wide.shape)
    bright = _sunlight(height, light, place.gsd_m)
    near = slice(margin - 1, -margin + 1), slice(margin - 1, -margin + 1)
    material = ground.material.reshape(wide.shape)[near]
    tint, warm = (a.reshape(wide.shape)[near] for a in (ground.tint, ground.warm))
    near_window = window.padded(1)
    pixels = _expose(place, light, near_window, (material, tint, warm, bright[near]))
    return pixels, _LABEL[material[1:-1, 1:-1]]


def _reach(light: Light) -> float:
    """Length of the longest shadow, metres."""
    east, south, up = light.sun
    return TALLEST * math.hypot(east, south) / up


def _grow_trees(place: Place, ground: Ground, x: F32, y: F32) -> None:
    """Crowns on a jittered grid: each pixel looks at the four trunks that can reach it."""
    cells_x = np.arange(math.floor(x.min() / TREE_CELL) - 1, math.floor(x.max() / TREE_CELL) + 3)
    cells_y = np.arange(math.floor(y.min() / TREE_CELL) - 1, math.floor(y.max() / TREE_CELL) + 3)
    shape = cells_y.size, cells_x.size
    dice = [place.rand(f"tree {n}", cells_y[:, None], cells_x) for n in range(5)]
    trunk_x = ((cells_x + 0.25 + 0.5 * dice[0]) * TREE_CELL).astype(np.float32)
    trunk_y = ((cells_y[:, None] + 0.25 + 0.5 * dice[1]) * TREE_CELL).astype(np.float32)
    below = draw_ground(place, trunk_x.ravel(), trunk_y.ravel()).material.reshape(shape)
    grove = 0.5 + 0.5 * place.noise("grove", trunk_x.ravel(), trunk_y.ravel(), 60).reshape(shape)
    scarce = 1 - 0.8 * place.aridity * (below != M.LAWN)
    stands = dice[2] < _DENSITY[below] * scarce * np.where(below == M.SCRUB, 1, 2 * grove)
    if not stands.any():
        return
    radius = (TREE_CELL * (0.3 + 0.45 * np.sqrt(dice[3]))) * np.maximum(_CROWN[below], 0.1)
    inverse = np.where(stands, 1 / radius**2, 1e6).astype(np.float32)
    top = np.where(stands, 2.5 + 1.7 * radius * (0.8 + 0.4 * dice[4]), 0).astype(np.float32)
    species = (M.TREE_BROAD + np.floor(1.4 * grove + 1.5 * dice[4] + 0.1)).clip(M.TREE_BROAD, M.TREE_PALE)
    shade = (0.85 + 0.3 * dice[0]).astype(np.float32)
    leaf = place.noise("leaf", x, y, 1.3)
    best = np.zeros(leaf.shape, np.float32)
    number = np.zeros(leaf.shape, np.int32)
    col0 = (np.floor(x.ravel() / TREE_CELL - 0.5) - cells_x[0]).astype(np.intp)
    row0 = (np.floor(y.ravel() / TREE_CELL - 0.5) - cells_y[0]).astype(np.intp)
    x32, y32 = x.astype(np.float32), y.astype(np.float32)
    ragged = np.float32(0.85) + np.float32(0.35) * leaf
    for row, col in ((row0 + dr, col0 + dc) for dr in (0, 1) for dc in (0, 1)):
        def spread(table: F32, row=row, col=col) -> F32:
            return np.take(table[row], col, axis=1)
        dx, dy = x32 - spread(trunk_x), y32 - spread(trunk_y)
        dx *= dx
        dy *= dy
        dx += dy
        dx *= spread(inverse)
        dome = ragged - dx
        crown = spread(top) * (np.float32(0.72) + np.float32(0.28) * dome)
        higher = (dome > 0) & (crown > best)
        np.copyto(best, crown, where=higher)
        index = (row * shape[1])[:, None] + col
        np.copyto(number, index.astype(np.int32), where=higher)
    at = np.flatnonzero(best.ravel() > np.maximum(ground.height * 0.7, 1.0))
    tree = number.ravel()[at]
    ground.put(at, species.ravel()[tree].astype(np.uint8), best.ravel()[at])
    ground.tint[at] = shade.ravel()[tree] * (1 + 0.12 * leaf.ravel()[at])
    ground.warm[at] = 2.5 * (shade.ravel()[tree] - 1)


def _sunlight(height: F32, light: Light, gsd_m: float) -> F32:
    """Direct light, 0 in shadow, 1 on flat open ground, more on slopes toward the sun."""
    east, south, up = light.sun
    slope_x, slope_y = np.zeros_like(height), np.zeros_like(height)
    np.subtract(height[:, 2:], height[:, :-2], out=slope_x[:, 1:-1])
    np.subtract(height[2:], height[:-2], out=slope_y[1:-1])
    for slope in (slope_x, slope_y):
        slope *= np.float32(0.5 / gsd_m)
        np.clip(slope, -1.1, 1.1, out=slope)
    facing = np.float32(1) - np.float32(east / up) * slope_x - np.float32(south / up) * slope_y
    slope_x *= slope_x
    slope_y *= slope_y
    slope_x += slope_y
    slope_x += 1
    facing /= np.sqrt(slope_x)
    np.clip(facing, 0.15, 1.6, out=facing)
    roof = _shadow_height(height, light, gsd_m)
    roof -= height
    roof *= np.float32(-1.6)
    roof += np.float32(1.3)
    np.clip(roof, 0, 1, out=roof)
    facing *= roof
    return facing


def _shadow_height(height: F32, light: Light, gsd_m: float) -> F32:
    """Height up to which each position lies in shadow: the scene swept away from the sun, in doubling steps."""
    east, south, up = light.sun
    flat = math.hypot(east, south)
    shadow = height.copy()
    step = gsd_m
    while step < _reach(light):
        cols, rows = round(step * east / flat / gsd_m), round(step * south / flat / gsd_m)
        drop = np.float32(math.hypot(cols, rows) * gsd_m * up / flat)
        moved = _shifted(shadow, rows, cols) - drop
        np.maximum(shadow, moved, out=shadow)
        step *= 2
    return shadow


def _shifted(values: F32, rows: int, cols: int) -> F32:
    """values[r + rows, c + cols], with zeros from outside."""
    out = np.zeros_like(values)
    height, width = values.shape
    to = slice(max(0, -rows), min(height, height - rows)), slice(max(0, -cols), min(width, width - cols))
    of = slice(max(0, rows), min(height, height + rows)), slice(max(0, cols), min(width, width + cols))
    out[to] = values[of]
    return out


def _expose(
    place: Place, light: Light, window: Window, scene: tuple[NDArray[np.uint8], F32, F32, F32]
) -> NDArray[np.uint8]:
    """Counts (4, height - 2, width - 2) of materials (height, width) under the light."""
    material, tint, warm, bright = scene
    rows, cols = np.arange(window.row, window.row_stop), np.arange(window.col, window.col_stop)
    grain = hashed(stream(place.seed, "grain"), rows[:, None], cols).view(np.uint8).reshape(*window.shape, 4)
    rough = np.take(light.rough, material)
    rough *= grain[..., 3]
    rough *= np.float32(0.14 / 255)
    speckled = tint + rough
    speckled -= np.float32(0.5) * np.take(light.rough * np.float32(0.14), material)
    warm = warm * np.take(light.rough, material)
    out = np.empty((4, window.height - 2, window.width - 2), np.uint8)
    hue = (0.055, 0.01, -0.03, -0.06)
    for band in range(4):
        value = np.take(light.albedo[:, band], material)
        value *= speckled
        value *= np.float32(1) + np.float32(hue[band]) * warm
        direct = np.float32(1 - light.ambient[band]) * bright
        direct += light.ambient[band]
        value *= direct
        value = _blurred(value, light.blur)
        value *= np.float32(255) * light.gain[band]
        value += np.float32(255) * light.offset[band]
        value += (grain[1:-1, 1:-1, (band + 1) % 3] - np.float32(127.5)) * np.float32(light.noise / 74)
        np.clip(value, 1, 254, out=value)
        out[band] = value
    return out


def _blurred(values: F32, weight: float) -> F32:
    """Three taps per axis; drops the outermost rows and columns."""
    side, middle = np.float32(weight), np.float32(1 - 2 * weight)
    lines = side * (values[2:] + values[:-2]) + middle * values[1:-1]
    return side * (lines[:, 2:] + lines[:, :-2]) + middle * lines[:, 1:-1]
