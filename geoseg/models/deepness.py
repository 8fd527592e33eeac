"""ONNX for the QGIS plugin Deepness (https://qgis-plugin-deepness.readthedocs.io), which normalizes nothing by a card.

The plugin gives the bytes of a layer as shares of 255, on square chips of one size, and takes the likeliest of positive
numbers; what else it has to know it reads from the file's metadata.
"""

from __future__ import annotations

import json
import math

import torch
from torch import Tensor, nn

from geoseg.errors import InputError
from geoseg.models.bundle import Model
from geoseg.models.card import ModelCard

WHITE = 255


class ForDeepness(nn.Module):
    """A model with its normalization before and its probabilities after it.

    Args:
        model: for 8-bit pixels.

    Raises:
        InputError: it is for pixels of other types only.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        card = model.card
        if "uint8" not in card.scales:
            raise InputError(
                f"Deepness gives 8-bit pixels, and {card.name} takes {', '.join(card.scales)}; export it to onnx."
            )
        white, offset = WHITE * card.scales["uint8"], card.offsets.get("uint8", 0.0)
        self.network, self.temperature = model.network, card.temperature
        self.register_buffer("mean", torch.tensor([(band.mean - offset) / white for band in card.bands])[:, None, None])
        self.register_buffer("std", torch.tensor([band.std / white for band in card.bands])[:, None, None])

    def forward(self, chips: Tensor) -> Tensor:
        """Probabilities (chip, class, height, width) of chips (chip, band, height, width), 0 to 1."""
        logits = self.network((chips - self.mean) / self.std)
        return torch.softmax(logits / self.temperature, dim=1)


def deepness_keys(card: ModelCard) -> dict[str, str]:
    """Metadata that the plugin reads: class names by channel, centimetres per pixel, chips and their overlap."""
    names = {str(channel): each.name for channel, each in enumerate(card.legend.classes)}
    told = {
        "model_type": "Segmentor",
        "class_names": names,
        "resolution": round(100 * card.gsd_m, 6),
        "tile_size": card.chip_px,
        "tiles_overlap": math.ceil(100 * 2 * card.halo_px / card.chip_px),
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    return {key: json.dumps(value) for key, value in told.items()}
