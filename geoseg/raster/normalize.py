"""Fixed band statistics: the only normalization there is, and the same for every pixel of every scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Normalization:
    """(pixel * scale + offset - mean) / std, band by band.

    Attributes:
        scale: factor from stored number to the unit of the statistics.
        offset: added after the factor.
        mean: one per band.
        std: one per band.
        present: False for an optional band that the scene lacks; it becomes NaN throughout.
    """

    scale: float
    offset: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    present: tuple[bool, ...]

    def __call__(self, pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Normalized chip of all bands, (bands, height, width); 0, which is the mean, where not valid.

        Args:
            pixels: (present bands, height, width) as stored.
            valid: (height, width).
        """
        chip = np.full((len(self.mean), *valid.shape), np.nan, np.float32)
        bands = np.flatnonzero(self.present)
        for values, band, gain, shift in zip(pixels, bands, *self.gain_and_shift, strict=True):
            normalized = values.astype(np.float32) * gain + shift
            chip[band] = np.where(valid & np.isfinite(normalized), normalized, np.float32(0))
        return chip

    @property
    def gain_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of the present bands: normalized = stored * gain + shift."""
        present = np.array(self.present)
        mean, std = np.array(self.mean)[present], np.array(self.std)[present]
        return (self.scale / std).astype(np.float32), ((self.offset - mean) / std).astype(np.float32)
