"""How far the two sides of a seam disagree: each run samples its seams and says so.

Both chips of a seam predict the pixels on either side of it, each with the context that it has; were the halo large
enough, they would agree. Blocks are computed apart, so what one block knows of the seams at its edges is kept as a half
until the other half turns up.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import ChipGrid, Window
from geoseg.models.card import ModelCard

log = logging.getLogger(__name__)
SAMPLES = 16  # places along each seam
ONE = 65535  # probability 1, as stored
WARNING = 0.05  # share of disagreeing pixels beside seams above which a run warns

Key = tuple[str, int, int]  # "row" or "col": which index grows across the seam; row and column of the core before it


@dataclass(frozen=True, slots=True)
class Places:
    """Sampled pixels beside one seam of a chip.

    Attributes:
        key: of the seam.
        rows: of the scene.
        cols: of the scene.
    """

    key: Key
    rows: NDArray[np.intp]
    cols: NDArray[np.intp]

    def relative_to(self, window: Window) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns, counted from a window's corner."""
        return self.rows - window.row, self.cols - window.col


@dataclass
class Seams:
    """What is known of the seams of a block or a run.

    Attributes:
        pixels: compared.
        disagreeing: of them, those whose likeliest class differs.
        largest: difference between probabilities, in units of 1 / ONE.
        halves: of seams whose other side is not known, (pixel, class) uint16; all zero where not measured.
    """

    pixels: int = 0
    disagreeing: int = 0
    largest: int = 0
    halves: dict[Key, NDArray[np.uint16]] = field(default_factory=dict)

    def add(self, key: Key, half: NDArray[np.uint16]) -> None:
        """One side's probabilities at the places of a seam; compared when the other side's are there."""
        other = self.halves.pop(key, None)
        if other is None:
            self.halves[key] = half
            return
        both = (half.any(1)) & (other.any(1))
        one, two = half[both].astype(np.int64), other[both].astype(np.int64)
        self.pixels += int(both.sum())
        self.disagreeing += int((one.argmax(1) != two.argmax(1)).sum())
        self.largest = max(self.largest, int(np.abs(one - two).max(initial=0)))

    def to_note(self) -> dict[str, Any]:
        """Small JSON values, to be staged with a block."""
        halves = {
            " ".join(map(str, key)): [half.shape[1], base64.b64encode(half.astype("<u2").tobytes()).decode()]
            for key, half in self.halves.items()
        }
        return {"pixels": self.pixels, "disagreeing": self.disagreeing, "largest": self.largest, "halves": halves}

    @classmethod
    def of_notes(cls, notes: Iterable[Mapping[str, Any]]) -> Seams:
        """Those of a whole run; the order of its blocks does not matter."""
        whole = cls()
        for note in notes:
            whole.pixels += note["pixels"]
            whole.disagreeing += note["disagreeing"]
            whole.largest = max(whole.largest, note["largest"])
            for text, (classes, half) in note["halves"].items():
                axis, row, col = text.split()
                values = np.frombuffer(base64.b64decode(half), "<u2").reshape(-1, classes)
                whole.add((axis, int(row), int(col)), values)
        return whole

    @property
    def disagreement(self) -> float:
        """Share of the compared pixels."""
        return self.disagreeing / self.pixels if self.pixels else 0.0

    @property
    def largest_difference(self) -> float:
        """Between the probabilities that two chips give to one class at one pixel."""
        return self.largest / ONE

    def to_tag(self) -> dict[str, float]:
        """For the output's tags: no counts, which depend on the chips."""
        return {
            "class_disagreement": round(self.disagreement, 6),
            "largest_probability_difference": round(self.largest_difference, 6),
        }


def places_of(grid: ChipGrid, index: tuple[int, int]) -> list[Places]:
    """The sampled pixels on both sides of the seams around a core, those on the scene; none without a halo."""
    if grid.halo < 1:
        return []
    row, col = index
    counts = grid.core_counts
    found = []
    for axis, (i, j), exists in (
        ("row", (row - 1, col), row > 0),
        ("row", (row, col), row + 1 < counts[0]),
        ("col", (row, col - 1), col > 0),
        ("col", (row, col), col + 1 < counts[1]),
    ):
        if exists:
            found.append(_along(grid, axis, i, j))
    return found


def _along(grid: ChipGrid, axis: str, row: int, col: int) -> Places:
    """Pixels in the two lines that meet at the seam after core (row, col)."""
    steps = np.unique((np.arange(SAMPLES) + 0.5) * grid.core / SAMPLES).astype(np.intp)
    line = (row + 1 if axis == "row" else col + 1) * grid.core
    across = np.repeat([line - 1, line], len(steps))
    along = np.tile(steps + (col if axis == "row" else row) * grid.core, 2)
    on_scene = along < grid.shape[1 if axis == "row" else 0]
    rows, cols = (across, along) if axis == "row" else (along, across)
    return Places((axis, row, col), rows[on_scene], cols[on_scene])


def half_of(probabilities: NDArray[np.float32], measured: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """What is stored of one side: (pixel, class) in units of 1 / ONE, zeros where not measured."""
    stored = np.rint(probabilities * ONE).astype(np.uint16)
    stored[~measured] = 0
    return stored


def warn_of(seams: Seams, card: ModelCard) -> None:
    """Say where chips disagree much, and what would help."""
    if seams.disagreement <= WARNING:
        return
    remedy = f"--halo {card.exact_halo_px}" if card.position_independent else "a larger --chip and --halo"
    log.warning(
        "Beside the seams %.1f %% of pixels would have another class in the neighbouring chip, and probabilities "
        "differ by up to %.2f; %s would help.",
        100 * seams.disagreement,
        seams.largest_difference,
        remedy,
    )
