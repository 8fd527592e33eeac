"""A small run's layout, parts and pixels, for the tests of staging."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg.raster.staging import BlockLayout, Staging

LAYOUT = BlockLayout((50, 70), (20, 30), {"landcover": 1, "probabilities": 2})
PARTS: dict[str, Any] = {
    "model": {"name": "tiny", "digest": "ab" * 32},
    "options": {"chip": 256, "halo": 16},
    "versions": {"geoseg": "0.1.0"},
}


def pixels(layout: BlockLayout, block: tuple[int, int]) -> dict[str, npt.NDArray[np.uint8]]:
    shape, rng = layout.window(block).shape, np.random.default_rng(block)
    return {name: rng.integers(0, 200, (n, *shape), dtype=np.uint8) for name, n in layout.layers.items()}


def stage_all(staging: Staging) -> None:
    for block in set(staging.layout.blocks) - staging.done():
        staging.writer().write(block, pixels(staging.layout, block))
