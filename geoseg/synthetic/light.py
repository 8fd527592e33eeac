"""From heights and materials to counts: sun and shadow, air, season and sensor of one date."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.grid.window import Window
from geoseg.synthetic.materials import ROUGHNESS, palette
from geoseg.synthetic.noise import F32, hashed, stream
from geoseg.synthetic.place import Place

_TALLEST_M = 15.0
_SPECKLE = 0.14
_WARMTH = (0.055, 0.01, -0.03, -0.06)


@dataclass(frozen=True, slots=True)
class Light:
    """Sun, air and sensor.

    Attributes:
        sun: vector toward the sun: east, south, up; its length is 1.
        ambient: (4,) light in the shadow.
        gain, offset: (4,) contrast and haze, in counts.
        albedo: (materials, 4) reflectance of 0 to 1.
        noise: sensor noise in counts.
        blur: weight of each direct neighbour in the sensor's blur, per axis.
    """

    sun: tuple[float, float, float]
    ambient: F32
    gain: F32
    offset: F32
    albedo: F32
    noise: float
    blur: float

    @classmethod
    def of(cls, place: Place, season: int) -> Light:
        rng = np.random.default_rng([place.seed, season, 2])
        azimuth, elevation = math.radians(rng.uniform(110, 250)), math.radians(rng.uniform(42, 64))
        flat = math.cos(elevation)
        sun = flat * math.sin(azimuth), -flat * math.cos(azimuth), math.sin(elevation)
        ambient = np.array([0.36, 0.39, 0.45, 0.30]) * rng.uniform(0.85, 1.2)
        contrast, haze = rng.uniform(0.85, 1.15), rng.uniform(0.0, 0.09)
        gain = contrast * (1 - haze) * (1 + 0.012 * rng.standard_normal(4))
        offset = haze * np.array([0.55, 0.6, 0.7, 0.3]) + 0.45 * (1 - contrast) + rng.uniform(-0.05, 0.05)
        albedo = palette(place.aridity, np.random.default_rng([place.seed, 3]), rng)
        bands = np.array([ambient, 255 * gain, 255 * offset], np.float32)
        return cls(sun, bands[0], bands[1], bands[2], albedo, rng.uniform(1.0, 5.0), rng.uniform(0.1, 0.24))

    @property
    def reach_m(self) -> float:
        """Length of the longest shadow."""
        east, south, up = self.sun
        return _TALLEST_M * math.hypot(east, south) / up


def sunlight(height: F32, light: Light, gsd_m: float) -> F32:
    """Direct light on heights (rows, columns): 0 in shadow, 1 on flat open ground, more on slopes toward the sun."""
    east, south, up = light.sun
    slope_x, slope_y = np.zeros_like(height), np.zeros_like(height)
    np.subtract(height[:, 2:], height[:, :-2], out=slope_x[:, 1:-1])
    np.subtract(height[2:], height[:-2], out=slope_y[1:-1])
    for slope in (slope_x, slope_y):
        slope *= np.float32(0.5 / gsd_m)
        np.clip(slope, -1.1, 1.1, out=slope)
    facing = 1 - np.float32(east / up) * slope_x - np.float32(south / up) * slope_y
    slope_x *= slope_x
    slope_y *= slope_y
    slope_x += slope_y
    slope_x += 1
    facing /= np.sqrt(slope_x)
    np.clip(facing, 0.15, 1.6, out=facing)
    lit = height - _shadow(height, light, gsd_m)
    lit *= np.float32(1.6)
    lit += np.float32(1.3)
    facing *= np.clip(lit, 0, 1, out=lit)
    return facing


def _shadow(height: F32, light: Light, gsd_m: float) -> F32:
    """Height up to which each position lies in shadow: the scene swept away from the sun, in steps that double."""
    east, south, up = light.sun
    flat = math.hypot(east, south)
    shadow = height.copy()
    for step in (2**n for n in range(12)):
        if step * gsd_m >= light.reach_m:
            break
        rows, cols = round(step * south / flat), round(step * east / flat)
        drop = np.float32(math.hypot(rows, cols) * gsd_m * up / flat)
        to, of = _overlap(height.shape, rows, cols)
        shadow[to] = np.maximum(shadow[to], shadow[of] - drop)
    return shadow


def _overlap(shape: tuple[int, ...], rows: int, cols: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the positions that have a neighbour `rows` down and `cols` right, and of these neighbours."""
    to = tuple(slice(max(0, -by), size - max(0, by)) for by, size in zip((rows, cols), shape, strict=True))
    of = tuple(slice(max(0, by), size - max(0, -by)) for by, size in zip((rows, cols), shape, strict=True))
    return (to[0], to[1]), (of[0], of[1])


@dataclass(frozen=True, slots=True)
class Surface:
    """What the sensor sees, arrays of (rows, columns): material, brightness, warmth, direct light."""

    material: NDArray[np.uint8]
    tint: F32
    warm: F32
    bright: F32


def expose(place: Place, light: Light, window: Window, surface: Surface) -> NDArray[np.uint8]:
    """Counts (4, rows - 2, columns - 2) of a surface that fills `window`; its outermost pixels are only blurred in."""
    rows, cols = np.arange(window.row, window.row_stop), np.arange(window.col, window.col_stop)
    grain = hashed(stream(place.seed, "grain"), rows[:, None], cols).view(np.uint8).reshape(*window.shape, 4)
    index = surface.material.astype(np.intp)
    rough = ROUGHNESS[index]
    warm = surface.warm * rough
    rough *= grain[..., 3] * np.float32(_SPECKLE / 255) - np.float32(_SPECKLE / 2)
    rough += surface.tint
    counts = np.empty((4, window.height - 2, window.width - 2), np.uint8)
    for band in range(4):
        value = (light.albedo[:, band] * light.gain[band])[index]
        value *= rough
        value *= np.float32(_WARMTH[band]) * warm + np.float32(1)
        value *= (1 - light.ambient[band]) * surface.bright + light.ambient[band]
        value = _blurred(value, light.blur)
        value += light.offset[band] - np.float32(light.noise * 127.5 / 74)
        value += grain[1:-1, 1:-1, (band + 1) % 3] * np.float32(light.noise / 74)
        np.clip(value, 1, 254, out=value)
        counts[band] = value
    return counts


def _blurred(values: F32, weight: float) -> F32:
    """Three taps per axis; drops the outermost rows and columns."""
    side, middle = np.float32(weight), np.float32(1 - 2 * weight)
    lines = side * (values[2:] + values[:-2])
    lines += middle * values[1:-1]
    out = side * (lines[:, 2:] + lines[:, :-2])
    out += middle * lines[:, 1:-1]
    return out
