"""Random changes of a sample: turned, flipped and resampled with its label, then recolored and degraded alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate
from torchvision.transforms.v2 import functional as tv

from geoseg.training.losses import IGNORE


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly samples are changed.

    Attributes:
        free_rotation: share of samples turned by any angle; the others by right angles only.
        brightness: largest shift of all bands, in units of the full range.
        contrast: largest change of contrast, as a factor's logarithm.
        gamma: largest change of gamma, as a logarithm.
        band_gain: largest change of one band against the others, as a logarithm.
        haze: largest share of a light veil over the scene.
        blur: share of samples blurred.
        noise: largest standard deviation of noise.
        shadow: share of samples on which shadows fall, so that dark and bluish alone does not mean water.
    """

    free_rotation: float = 0.4
    brightness: float = 0.10
    contrast: float = 0.30
    gamma: float = 0.30
    band_gain: float = 0.10
    haze: float = 0.20
    blur: float = 0.2
    noise: float = 0.03
    shadow: float = 0.4

    def draw_angle(self, rng: np.random.Generator) -> float:
        """Angle in radians; 0 for samples that are turned by right angles only."""
        return float(rng.uniform(0, np.pi / 2)) if rng.random() < self.free_rotation else 0.0

    def __call__(
        self, pixels: Tensor, labels: Tensor, *, size: int, reach: int, angle: float, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Resample a square to `reach`, turn it, cut `size` from its middle, flip it and recolor it.

        Args:
            pixels: (band, side, side) uint8.
            labels: (side, side) uint8 codes.
            size: rows and columns of the result.
            reach: rows and columns of the square before turning.
            angle: radians.
            rng: source of all draws.
        """
        chip = interpolate(pixels[None].float() / 255, size=(reach, reach), mode="bilinear", antialias=True)
        codes = interpolate(labels[None, None].float(), size=(reach, reach), mode="nearest-exact")
        if angle:
            chip, codes = _turn(chip, codes, angle, size)
        chip, codes = chip[0], codes[0, 0].to(torch.uint8)
        if rng.random() < 0.5:
            chip, codes = chip.flip(-1), codes.flip(-1)
        turns = int(rng.integers(4))
        chip, codes = chip.rot90(turns, (-2, -1)), codes.rot90(turns, (-2, -1))
        if rng.random() < self.shadow:
            chip = _with_shadows(chip, rng)
        return self.recolor(chip, rng).contiguous(), codes.contiguous()

    def recolor(self, chip: Tensor, rng: np.random.Generator) -> Tensor:
        """Change the radiometry of pixels (band, height, width) in 0..1."""
        bands = len(chip)
        gain = np.exp(rng.uniform(-self.band_gain, self.band_gain, bands))
        chip = chip * torch.tensor(gain, dtype=torch.float32)[:, None, None]
        chip = chip.clamp(1e-4, 1) ** float(np.exp(rng.uniform(-self.gamma, self.gamma)))
        mean = chip.mean()
        chip = (chip - mean) * float(np.exp(rng.uniform(-self.contrast, self.contrast))) + mean
        chip = chip + float(rng.uniform(-self.brightness, self.brightness))
        if bands >= 3 and rng.random() < 0.5:
            gray = chip[:3].mean(0, keepdim=True)
            chip = torch.cat([gray + (chip[:3] - gray) * float(rng.uniform(0.5, 1.4)), chip[3:]])
        if rng.random() < 0.3:
            veil = float(rng.uniform(0, self.haze))
            chip = chip * (1 - veil) + veil * float(rng.uniform(0.6, 0.9))
        if rng.random() < self.blur:
            chip = tv.gaussian_blur(chip, [5, 5], [float(rng.uniform(0.4, 1.2))])
        if rng.random() < 0.5:
            noise = rng.standard_normal(tuple(chip.shape), dtype=np.float32) * float(rng.uniform(0, self.noise))
            chip = chip + torch.from_numpy(noise)
        return chip.clamp(0, 1)


def _with_shadows(chip: Tensor, rng: np.random.Generator) -> Tensor:
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
    tint[1:3, 0, 0] = torch.tensor([float(rng.uniform(1.0, 1.15)), float(rng.uniform(1.05, 1.4))])[: len(chip) - 1]
    return chip * (1 - covered * (1 - (light * tint).clamp(max=1)))


def _turn(chip: Tensor, codes: Tensor, angle: float, size: int) -> tuple[Tensor, Tensor]:
    """Cut a square of `size` pixels, turned by `angle`, from the middle of larger squares (1, band, reach, reach)."""
    shrink = size / chip.shape[-1]
    cos, sin = float(np.cos(angle)) * shrink, float(np.sin(angle)) * shrink
    grid = affine_grid(torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]]), [1, 1, size, size], align_corners=False)
    turned = grid_sample(chip, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved = grid_sample(codes - IGNORE, grid, mode="nearest", padding_mode="zeros", align_corners=False) + IGNORE
    return turned, moved
