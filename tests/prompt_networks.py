"""Networks for the tests of prompts: one whose answers are known beforehand, and small ones of the real kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from geoseg.models import Architecture, CardBand, Model, ModelCard, build_network, save_model
from geoseg.prompts.networks import ChipPrompts, Embedded, Found, Network
from geoseg.prompts.sam import OBJECT

TINY = {"decoder_channels": [16, 8, 8], "width": 16, "heads": 2, "layers": 1, "fine_channels": [8, 8]}


def prompt_card(chip: int, **changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "name": "tiny-prompts",
        "version": "1",
        "description": "for tests",
        "license": "Apache-2.0",
        "architecture": Architecture(name="promptable", args=TINY),
        "scales": {"uint8": 1 / 255},
        "bands": tuple(CardBand(name=name, mean=0.5, std=0.25) for name in ("red", "green", "blue")),
        "legend": OBJECT,
        "gsd_m": 0.5,
        "gsd_range_m": (0.1, 2.0),
        "output_stride": 16,
        "receptive_field_px": chip,
        "halo_px": 0,
        "chip_px": chip,
        "fixed_chip": True,
        "position_independent": False,
    }
    return ModelCard(**(fields | changes))


class SameColor:
    """Answers with what has the color of a point and hangs together with it, or has that of a box's middle.

    The second candidate is one pixel wider. Points beside the object take away what hangs together with them.
    """

    has_prompts, has_text = True, True

    def __init__(self, chip: int = 64, digest: str = "same color", tolerance: float = 0.1) -> None:
        self.card, self.digest = prompt_card(chip, architecture=Architecture(name="x")), digest
        self.tolerance = tolerance
        self.embedded = 0
        self.largest_batch = 0

    def embed(self, chip: NDArray[np.float32]) -> Embedded:
        self.embedded += 1
        return {"colors": chip.astype(np.float16)}

    def decode(self, embedded: Embedded, prompts: ChipPrompts) -> Found:
        self.largest_batch = max(self.largest_batch, len(prompts.points))
        masks = [self._one(embedded["colors"], prompts, i) for i in range(len(prompts.points))]
        wide = [ndimage.binary_dilation(mask) for mask in masks]
        logits = np.where(np.stack([np.stack(masks), np.stack(wide)], 1), 1, -1).astype(np.float32)
        return Found(logits, np.tile(np.float32([0.9, 0.5]), (len(masks), 1)))

    def find(self, embedded: Embedded, text: str) -> Found:
        """Every part of a color named as `r,g,b`."""
        color = (np.array([float(x) for x in text.split(",")]) / 255 - 0.5) / 0.25
        near = np.abs(embedded["colors"] - color[:, None, None]).max(0) < self.tolerance
        numbers, count = ndimage.label(near)
        masks = np.array([numbers == n for n in range(1, count + 1)]).reshape(-1, 1, *near.shape)
        return Found(np.where(masks, 1, -1).astype(np.float32), np.full((count, 1), 0.8, np.float32))

    def _one(self, colors: NDArray[np.float16], prompts: ChipPrompts, i: int) -> NDArray[np.bool_]:
        found = np.zeros(colors.shape[1:], np.bool_)
        for (row, col), label in zip(prompts.points[i], prompts.labels[i], strict=True):
            if label >= 0:
                found = self._like(colors, int(row), int(col), found, bool(label))
        if not (prompts.labels[i] == 1).any():
            top, left, bottom, right = prompts.boxes[i]
            found = self._like(colors, int((top + bottom) / 2), int((left + right) / 2), found, True)
        return found

    def _like(
        self, colors: NDArray[np.float16], row: int, col: int, found: NDArray[np.bool_], positive: bool
    ) -> NDArray[np.bool_]:
        near = np.abs(colors - colors[:, row, col][:, None, None]).max(0) < self.tolerance
        numbers, _ = ndimage.label(near)
        part = near & (numbers == numbers[row, col])
        return found | part if positive else found & ~part


def conforms(network: Network) -> Network:
    """For the type checker."""
    return network


conforms(SameColor())


def tiny_promptable(chip: int = 64, **changes: Any) -> Model:
    """Random weights of the architecture that ships."""
    torch.manual_seed(0)
    return Model(build_network("promptable", bands=3, classes=1, args=TINY), prompt_card(chip, **changes))


def save_promptable(folder: Path) -> Path:
    save_model(tiny_promptable(), folder)
    return folder
