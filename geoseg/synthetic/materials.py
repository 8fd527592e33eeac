"""Materials: what a pixel shows, its class and its reflectance."""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np

from geoseg.legend import LANDCOVER
from geoseg.synthetic.noise import F32, Floats


class M(IntEnum):
    """Materials."""

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
    TURF = auto()
    TRACK = auto()
    COURT = auto()


# class; red, green, blue, nir (display values of 0 to 1) of a temperate scene, then of a desert scene; roughness
_TABLE: dict[M, tuple[str, tuple[float, ...], tuple[float, ...], float]] = {
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
    M.ROOF_SOLAR: ("building", (0.29, 0.32, 0.37, 0.24), (0.31, 0.34, 0.40, 0.26), 0.3),
    M.CAR_WHITE: ("paved", (0.88, 0.88, 0.88, 0.80), (0.90, 0.90, 0.90, 0.84), 0.1),
    M.CAR_DARK: ("paved", (0.20, 0.20, 0.22, 0.18), (0.24, 0.24, 0.25, 0.22), 0.1),
    M.CAR_RED: ("paved", (0.55, 0.25, 0.23, 0.48), (0.58, 0.28, 0.25, 0.50), 0.1),
    M.CAR_BLUE: ("paved", (0.32, 0.38, 0.50, 0.38), (0.34, 0.40, 0.52, 0.40), 0.1),
    M.TREE_BROAD: ("tree", (0.27, 0.33, 0.25, 0.60), (0.31, 0.37, 0.29, 0.58), 1.0),
    M.TREE_CONIFER: ("tree", (0.23, 0.29, 0.25, 0.50), (0.28, 0.33, 0.28, 0.52), 1.0),
    M.TREE_PALE: ("tree", (0.34, 0.38, 0.29, 0.62), (0.36, 0.41, 0.33, 0.60), 1.0),
    M.TURF: ("low_vegetation", (0.27, 0.38, 0.28, 0.62), (0.29, 0.42, 0.30, 0.62), 0.35),
    M.TRACK: ("paved", (0.58, 0.36, 0.31, 0.42), (0.62, 0.40, 0.34, 0.46), 0.15),
    M.COURT: ("paved", (0.27, 0.42, 0.55, 0.36), (0.30, 0.46, 0.58, 0.40), 0.15),
}
_COURTS = np.array([[0.24, 0.38, 0.58], [0.25, 0.43, 0.36], [0.33, 0.52, 0.66], [0.58, 0.36, 0.31]])
_WATERS = np.array([[0.20, 0.25, 0.27], [0.22, 0.32, 0.28], [0.30, 0.34, 0.31], [0.13, 0.15, 0.20], [0.14, 0.36, 0.40]])

LABEL = np.array([LANDCOVER.by_name(_TABLE[m][0]).id for m in M], np.uint8)
ROUGHNESS = np.array([_TABLE[m][3] for m in M], np.float32)
_TEMPERATE, _DESERT = (np.array([_TABLE[m][k] for m in M]) for k in (1, 2))
_PLANTS = np.isin(LABEL, [c.id for c in LANDCOVER.classes if c.group == "vegetation"])
_SOILS = np.isin(LABEL, LANDCOVER.by_name("bare").id)


def palette(aridity: float, place: np.random.Generator, season: np.random.Generator) -> F32:
    """Reflectance (materials, 4 bands) of one place in one season."""
    albedo = _TEMPERATE + aridity * (_DESERT - _TEMPERATE)
    albedo *= 1 + 0.07 * place.standard_normal((len(M), 1)) + 0.012 * place.standard_normal((len(M), 4))
    albedo[M.WATER, :3] = _WATERS[place.integers(len(_WATERS))] * place.uniform(0.8, 1.15)
    albedo[M.COURT, :3] = _COURTS[place.integers(len(_COURTS))] * place.uniform(0.8, 1.2)
    albedo[_SOILS, :3] = _saturated(albedo[_SOILS, :3], place.uniform(0.4, 1.5))
    albedo[_PLANTS, :3] = _saturated(albedo[_PLANTS, :3], season.uniform(0.7, 1.8))
    albedo[_PLANTS] *= season.uniform(0.85, 1.1)
    albedo[_PLANTS, 3] *= season.uniform(0.95, 1.15)
    return np.asarray(np.clip(albedo, 0.02, 1), np.float32)


def _saturated(colors: Floats, by: float) -> Floats:
    grey = colors.mean(axis=1, keepdims=True)
    return np.asarray(grey + (colors - grey) * by)
