"""Index rules behind the interface of a network: water and vegetation of multispectral scenes without any training.

The rules and where they come from:

- NDVI = (nir - red) / (nir + red) tells vegetation (Tucker 1979, doi:10.1016/0034-4257(79)90013-0); below 0.2 the
  ground is bare (Sobrino et al. 2004, doi:10.1016/j.rse.2004.02.003).
- MNDWI = (green - swir) / (green + swir) above zero is water (Xu 2006, doi:10.1080/01431160600589179); without a
  short-wave band NDWI = (green - nir) / (green + nir) takes its place (McFeeters 1996, doi:10.1080/01431169608948714).
- Water is also dark: NIR above a bound is a bright roof, sand or cloud whatever the index says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpectralIndex(nn.Module):
    """Logits of (other, vegetation, water) from scaled bands (green, red, nir, swir16 or NaN).

    Each class's logit is the signed distance of its index from the threshold, times `slope`; "other" is zero. Every
    pixel is judged alone: receptive field and halo are 0.

    Args:
        bands: 4.
        classes: 3.
        ndvi: threshold for vegetation.
        water: threshold of NDWI or MNDWI for water.
        dark: largest near-infrared value of water, as a share of full reflectance.
        slope: logit per unit of index.
    """

    output_stride = 1
    position_independent = True

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        ndvi: float = 0.2,
        water: float = 0.0,
        dark: float = 0.2,
        slope: float = 20.0,
    ) -> None:
        super().__init__()
        self.ndvi, self.water, self.dark, self.slope = ndvi, water, dark, slope

    def forward(self, chips: Tensor) -> Tensor:
        """Logits (chip, 3, height, width) of chips (chip, 4, height, width)."""
        green, red, nir, swir = chips.unbind(1)
        vegetation = normalized_difference(nir, red) - self.ndvi
        infrared = torch.where(swir.isnan(), nir, swir)
        darkness = 1 - nir / self.dark  # in the range of the indices, so that the two can be weighed
        water = torch.minimum(normalized_difference(green, infrared) - self.water, darkness)
        return self.slope * torch.stack([torch.zeros_like(water), vegetation, water], dim=1)


def normalized_difference(first: Tensor, second: Tensor) -> Tensor:
    """(first - second) / (first + second); 0 where the sum is not positive."""
    total = first + second
    return torch.where(total > 0, (first - second) / total.clamp(min=1e-12), torch.zeros_like(total))
