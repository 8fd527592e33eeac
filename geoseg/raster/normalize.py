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
        chip = np.empty((len(self.mean), *valid.shape), np.float32)
        whole = bool(valid.all())
        stored = iter(zip(pixels, *self.gain_and_shift, strict=True))
        for band, present in zip(chip, self.present, strict=True):
            if not present:
                band[:] = np.nan
                continue
            values, gain, shift = next(stored)
            np.multiply(values, gain, out=band, dtype=np.float32, casting="same_kind")
            band += shift
            if not whole:
                band[~valid] = 0
            if not np.issubdtype(pixels.dtype, np.integer):
                band[~np.isfinite(band)] = 0
        return chip

    @property
    def gain_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of the present bands: normalized = stored * gain + shift."""
        present = np.array(self.present)
        mean, std = np.array(self.mean)[present], np.array(self.std)[present]
        return (self.scale / std).astype(np.float32), ((self.offset - mean) / std).astype(np.float32)
