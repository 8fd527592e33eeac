"""Labels stay with their pixels: the label, painted into the pixels, is read back from them after every change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoseg.training.augment import Augmentation
from geoseg.training.losses import IGNORE

SIZE = 64
STILL = Augmentation(brightness=0, contrast=0, gamma=0, band_gain=0, haze=0, blur=0, noise=0)


class Uncolored(Augmentation):
    """Geometry alone."""

    def recolor(self, chip: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        return chip


GEOMETRY = Uncolored(shadow=0)


def painted(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels without any symmetry, and pixels that hold their codes."""
    rows, cols = np.indices((side, side)) / side
    labels = np.select([rows + 2 * cols < 0.8, (rows - 0.7) ** 2 + (cols - 0.6) ** 2 < 0.04, cols > 0.8], [1, 2, 3], 0)
    labels = torch.from_numpy(labels.astype(np.uint8))
    return (labels * 60)[None].repeat(3, 1, 1) / 255, labels


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2])
@pytest.mark.parametrize("zoom", [1.0, 0.6, 1.7])
def test_labels_stay_with_their_pixels(seed: int, angle: float, zoom: float) -> None:
    reach = round(SIZE * (abs(np.cos(angle)) + abs(np.sin(angle))))
    pixels, labels = painted(round(reach * zoom))
    rng = np.random.default_rng(seed)
    chip, codes = GEOMETRY(pixels, labels, size=SIZE, reach=reach, angle=angle, rng=rng)
    assert (chip.shape, codes.shape) == ((3, SIZE, SIZE), (SIZE, SIZE))
    read = (chip[0] * 255 / 60).round()
    sharp = (chip[0] * 255 / 60 - read).abs() < 0.02  # away from where two classes mix
    away = torch.nn.functional.max_pool2d((~sharp)[None].float(), 3, stride=1, padding=1)[0] == 0
    assert away.float().mean() > 0.6
    assert torch.equal(read[away].to(torch.uint8), codes[away])


def test_without_turn_or_zoom_nothing_is_resampled() -> None:
    pixels, labels = painted(SIZE)
    seen = set()
    for seed in range(40):
        chip, codes = GEOMETRY(pixels, labels, size=SIZE, reach=SIZE, angle=0, rng=np.random.default_rng(seed))
        assert torch.equal((chip[0] * 255).round(), codes.float() * 60)
        seen.add(codes.numpy().tobytes())
    assert len(seen) == 8  # all flips and right angles


def test_ignored_labels_stay_ignored() -> None:
    pixels, labels = painted(SIZE)
    labels[:] = IGNORE
    for angle in (0.0, 0.5):
        reach = round(SIZE * (np.cos(angle) + np.sin(angle)))
        _, codes = GEOMETRY(pixels, labels, size=SIZE, reach=reach, angle=angle, rng=np.random.default_rng(0))
        assert (codes == IGNORE).all()


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_recoloring_keeps_form_and_range(bands: int) -> None:
    chip = torch.rand(bands, 16, 16, generator=torch.Generator().manual_seed(0))
    for seed in range(20):
        changed = Augmentation().recolor(chip, np.random.default_rng(seed))
        assert changed.shape == chip.shape
        assert changed.dtype == torch.float32
        assert 0 <= changed.min() <= changed.max() <= 1


def test_no_strength_is_no_change_of_brightness() -> None:
    chip = torch.full((1, 8, 8), 0.4)
    assert torch.allclose(STILL.recolor(chip, np.random.default_rng(0)), chip, atol=1e-5)


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_shadows_darken_and_leave_labels_alone(bands: int) -> None:
    pixels, labels = torch.full((bands, SIZE, SIZE), 200 / 255), torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    shadowed = Uncolored(shadow=1)
    for seed in range(20):
        chip, codes = shadowed(pixels, labels, size=SIZE, reach=SIZE, angle=0, rng=np.random.default_rng(seed))
        assert chip.shape == (bands, SIZE, SIZE)
        assert 0 < chip.min() < 200 / 255
        assert chip.max() <= 200 / 255 + 1e-6
        assert (codes == 0).all()
