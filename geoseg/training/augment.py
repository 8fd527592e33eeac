"""Random changes of a sample: turned, flipped and resampled with its label, then recolored and degraded alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate
from torchvision.transforms.v2 import functional as tv

from geoseg.training.losses import IGNORE

KNOTS, BEND = 5, 0.06  # knots along a side, and how far each is pulled at most, in units of half a side


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly samples are changed. Colors change in units of a band's range, from its black to its white.

    Attributes:
        free_rotation: share of samples turned by any angle; the others by right angles only.
        elastic: share of samples that are bent.
        brightness: largest shift of all bands.
        contrast: largest change of contrast, as a factor's logarithm.
        gamma: largest change of gamma, as a logarithm.
        band_gain: largest change of one band against the others, as a logarithm.
        haze: largest share of a light veil over the colors.
        blur: share of samples blurred.
        noise: largest standard deviation of noise.
        shadow: share of samples on which shadows fall, so that dark and bluish alone does not mean water.
        colors: channels of red, green and blue, which haze, shadows and saturation are for; none where there are none.
        levels: black and white of each band; where empty, 0 and 1, beyond which nothing is measured.
    """

    free_rotation: float = 0.4
    elastic: float = 0.0
    brightness: float = 0.10
    contrast: float = 0.30
    gamma: float = 0.30
    band_gain: float = 0.10
    haze: float = 0.20
    blur: float = 0.2
    noise: float = 0.03
    shadow: float = 0.4
    colors: tuple[int, ...] = (0, 1, 2)
    levels: tuple[tuple[float, float], ...] = ()

    @classmethod
    def none(cls, levels: tuple[tuple[float, float], ...] = ()) -> Augmentation:
        """Only flips and right angles."""
        return cls(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, levels=levels)

    def stronger(self, factor: float) -> Augmentation:
        """With colors changed more, or less, and geometry as it is."""
        names = ("brightness", "contrast", "gamma", "band_gain", "haze", "noise")
        shares = {name: min(1.0, factor * getattr(self, name)) for name in ("blur", "haze", "shadow")}
        return replace(self, **{name: factor * getattr(self, name) for name in names} | shares)

    def draw_angle(self, rng: np.random.Generator) -> float:
        """Angle in radians; 0 for samples that are turned by right angles only."""
        return float(rng.uniform(0, np.pi / 2)) if rng.random() < self.free_rotation else 0.0

    def __call__(
        self, pixels: Tensor, labels: Tensor, *, size: int, reach: int, angle: float, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Resample a square to `reach`, turn it, cut `size` from its middle, flip it and recolor it.

        Args: as `moved`.
        """
        chip, codes = self.moved(pixels, labels, size=size, reach=reach, angle=angle, rng=rng)
        return self.in_other_light(chip, rng), codes

    def moved(
        self, pixels: Tensor, labels: Tensor, *, size: int, reach: int, angle: float, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Geometry alone.

        Args:
            pixels: (band, side, side) float32, NaN where not measured.
            labels: (side, side) uint8 codes.
            size: rows and columns of the result.
            reach: rows and columns of the square before turning.
            angle: radians.
            rng: source of all draws.
        """
        chip = interpolate(pixels[None], size=(reach, reach), mode="bilinear", antialias=True)
        codes = interpolate(labels[None, None].float(), size=(reach, reach), mode="nearest-exact")
        if angle:
            chip, codes = _resampled(chip, codes, _turned(angle, size, reach))
        if rng.random() < self.elastic:
            chip, codes = _resampled(chip, codes, _bent(size, rng))
        chip, codes = chip[0], codes[0, 0].to(torch.uint8)
        if rng.random() < 0.5:
            chip, codes = chip.flip(-1), codes.flip(-1)
        turns = int(rng.integers(4))
        chip, codes = chip.rot90(turns, (-2, -1)), codes.rot90(turns, (-2, -1))
        return chip.contiguous(), codes.contiguous()

    def in_other_light(self, chip: Tensor, rng: np.random.Generator) -> Tensor:
        """Radiometry alone, of pixels (band, height, width), NaN where not measured."""
        missing = chip.isnan().any(0)
        if missing.any():
            chip = torch.where(missing, chip.nanmean((1, 2), keepdim=True).nan_to_num(), chip)
        chip = self._in_units(chip, rng)
        chip[:, missing] = torch.nan
        return chip.contiguous()

    def _in_units(self, chip: Tensor, rng: np.random.Generator) -> Tensor:
        """Shadows and colors of pixels (band, height, width), all of them measured."""
        if self.levels:
            black, white = torch.tensor(self.levels, dtype=torch.float32).T[:, :, None, None]
            chip = (chip - black) / (white - black)
        if rng.random() < self.shadow:
            chip = _with_shadows(chip, self.colors, rng)
        chip = self.recolor(chip, rng)
        return chip * (white - black) + black if self.levels else chip.clamp(0, 1)

    def recolor(self, chip: Tensor, rng: np.random.Generator) -> Tensor:
        """Change the radiometry of pixels (band, height, width), of which most lie in 0..1."""
        bands = len(chip)
        colors = [channel for channel in self.colors if channel < bands]
        gain = np.exp(rng.uniform(-self.band_gain, self.band_gain, bands))
        chip = chip * torch.tensor(gain, dtype=torch.float32)[:, None, None]
        power = float(np.exp(rng.uniform(-self.gamma, self.gamma)))
        chip = torch.where(chip > 0, chip.clamp(min=1e-4) ** power, chip)
        mean = chip.mean()
        chip = (chip - mean) * float(np.exp(rng.uniform(-self.contrast, self.contrast))) + mean
        chip = chip + float(rng.uniform(-self.brightness, self.brightness))
        if len(colors) == 3 and self.band_gain and rng.random() < 0.5:
            gray = chip[colors].mean(0, keepdim=True)
            chip = chip.index_copy(0, torch.tensor(colors), gray + (chip[colors] - gray) * float(rng.uniform(0.5, 1.4)))
        if colors and rng.random() < 0.3:
            veil = float(rng.uniform(0, self.haze))
            hazy = chip[colors] * (1 - veil) + veil * float(rng.uniform(0.6, 0.9))
            chip = chip.index_copy(0, torch.tensor(colors), hazy)
        if rng.random() < self.blur:
            chip = tv.gaussian_blur(chip, [5, 5], [float(rng.uniform(0.4, 1.2))])
        if rng.random() < 0.5:
            noise = rng.standard_normal(tuple(chip.shape), dtype=np.float32) * float(rng.uniform(0, self.noise))
            chip = chip + torch.from_numpy(noise)
        return chip if self.levels else chip.clamp(0, 1)


def _with_shadows(chip: Tensor, colors: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """Up to six rectangles, turned alike, where only the light of the sky falls: less of red than of blue."""
    size = chip.shape[-1]
    angle = float(rng.uniform(0, np.pi))
    rows, cols = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    along, across = (rows * np.cos(t) + cols * np.sin(t) for t in (angle, angle + np.pi / 2))
    covered = torch.zeros(size, size)
    for _ in range(int(rng.integers(1, 7))):
        row, col = rng.uniform(0, size, 2)
        half = rng.uniform(size / 64, size / 8, 2)
        inside = torch.ones(size, size)
        for axis, turn, reach in zip((along, across), (angle, angle + np.pi / 2), half, strict=True):
            middle = row * np.cos(turn) + col * np.sin(turn)
            inside = inside * (float(reach) - (axis - float(middle)).abs() + 0.5).clamp(0, 1)
        covered = torch.maximum(covered, inside.float())
    light = float(rng.uniform(0.2, 0.6))
    tint = torch.ones(len(chip), 1, 1)
    for channel, (low, high) in zip(colors[1:], ((1.0, 1.15), (1.05, 1.4)), strict=False):
        if channel < len(chip):
            tint[channel] = float(rng.uniform(low, high))
    return chip * (1 - covered * (1 - (light * tint).clamp(max=1)))


def _turned(angle: float, size: int, reach: int) -> Tensor:
    """Where to look in a square of `reach` pixels for a square of `size` pixels in its middle, turned by `angle`."""
    shrink = size / reach
    cos, sin = float(np.cos(angle)) * shrink, float(np.sin(angle)) * shrink
    return affine_grid(torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]]), [1, 1, size, size], align_corners=False)


def _bent(size: int, rng: np.random.Generator) -> Tensor:
    """Where to look in a square for the same square bent like a sheet of rubber (Simard et al. 2003)."""
    still = affine_grid(torch.eye(2, 3)[None], [1, 1, size, size], align_corners=False)
    pull = torch.from_numpy(rng.uniform(-BEND, BEND, (1, 2, KNOTS, KNOTS)).astype(np.float32))
    return still + interpolate(pull, size=(size, size), mode="bicubic", align_corners=False).movedim(1, -1)


def _resampled(chip: Tensor, codes: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (1, band, side, side) and codes at the places of a grid; no label beyond the square."""
    looked = grid_sample(chip, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved = grid_sample(codes - IGNORE, grid, mode="nearest", padding_mode="zeros", align_corners=False) + IGNORE
    return looked, moved
