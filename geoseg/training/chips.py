"""Labelled scenes as a bundle sees them: chips with its own side and halo, where there are labels."""

from __future__ import annotations

from collections.abc import Iterator

from geoseg.grid import Block, ChipGrid, Window
from geoseg.inference.segment import Read
from geoseg.models import ModelCard
from geoseg.raster.normalize import Normalization
from geoseg.raster.reader import Pixels
from geoseg.training.losses import IGNORE
from geoseg.training.scenes import LabelledScene, measured


def grid_of(card: ModelCard, scene: LabelledScene) -> ChipGrid:
    """Chips of the card's side, each a block with those whose cores it holds."""
    return ChipGrid.of(
        scene.shape,
        chip=card.chip_px,
        halo=card.halo_px,
        output_stride=card.output_stride,
        ramp=card.ramp_px,
        block=card.chip_px,
    )


def labelled_blocks(grid: ChipGrid, scene: LabelledScene) -> Iterator[Block]:
    """Those in which a pixel has a label."""
    return (block for block in grid.blocks() if (scene.read_labels(block.window) != IGNORE).any())


def pixels_of(scene: LabelledScene) -> Read:
    """A function that reads windows."""

    def read(window: Window) -> Pixels:
        pixels, _ = scene.read(window)
        return Pixels(pixels, measured(pixels))

    return read


def normalization_of(card: ModelCard) -> Normalization:
    """Of pixels in the unit of the card's statistics."""
    mean, std = tuple(band.mean for band in card.bands), tuple(band.std for band in card.bands)
    return Normalization(1.0, 0.0, mean, std, (True,) * len(card.bands))
