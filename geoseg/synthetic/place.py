"""The place that a seed stands for: its streets' coordinates, its river, and its noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from geoseg.synthetic.noise import F32, Floats, Ints, stream, uniform, value_noise

_BEND_M, _BEND_SCALE_M = 62.0, 540.0
_RIVER_EVERY_M = 2300.0


@dataclass(frozen=True, slots=True)
class Place:
    """What a seed decides about the whole place.

    Attributes:
        seed: of everything that stays.
        revision: 0 for the first date; another number for the buildings and ponds of a later date.
        gsd_m: what is finer than a pixel is drawn with its mean.
        aridity: 0 temperate, 1 desert.
        angle: direction of the main roads, radians.
        town: share of built-up blocks, about.
    """

    seed: int
    revision: int
    gsd_m: float
    aridity: float
    angle: float
    town: float

    @classmethod
    def of(cls, seed: int, revision: int, gsd_m: float) -> Place:
        rng = np.random.default_rng([seed, 1])
        aridity = rng.uniform(0.75, 1.0) if rng.uniform() < 0.3 else rng.uniform(0.0, 0.4)
        return cls(seed, revision, gsd_m, aridity, rng.uniform(0, math.pi), rng.uniform(0.3, 0.75))

    @property
    def is_dry(self) -> bool:
        return self.aridity > 0.5

    def rand(self, name: str, *coords: Ints) -> F32:
        return uniform(stream(self.seed, name), *coords)

    def noise(self, name: str, x: Floats, y: Floats, scale: float) -> F32:
        return value_noise(stream(self.seed, name), x, y, scale)

    def bend(self, x: Floats, y: Floats) -> tuple[F32, F32]:
        """Street coordinates (u, v) of positions (x, y), in metres: turned, then gently bent."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        u = (c * x).astype(np.float32) - (s * y).astype(np.float32)
        v = (s * x).astype(np.float32) + (c * y).astype(np.float32)
        u += np.float32(_BEND_M) * self.noise("bend u", x, y, _BEND_SCALE_M)
        v += np.float32(_BEND_M) * self.noise("bend v", x, y, _BEND_SCALE_M)
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
        strip = np.floor(v * np.float32(1 / _RIVER_EVERY_M)).astype(np.intp)
        step = np.floor(u * np.float32(2)).astype(np.intp)
        strips = np.arange(strip.min(), strip.max() + 1)[:, None]
        along, lane = np.arange(step.min(), step.max() + 1)[None, :] / 2, strips * 7.5e3
        middle = (strips + 0.35 + 0.3 * self.rand("river", strips)) * _RIVER_EVERY_M
        middle = middle + 95 * self.noise("river bend", along, lane, 420)
        middle = middle + 24 * self.noise("river wiggle", along, lane, 130)
        half_width = 15 + 7 * self.noise("river width", along, lane, 90)
        at = (strip - strips[0]) * along.size + (step - step.min())
        distance = middle.astype(np.float32).ravel()[at] - v
        return np.abs(distance), half_width.ravel()[at]
