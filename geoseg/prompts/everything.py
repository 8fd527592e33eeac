"""Everything on a scene: a lattice of points is asked, each object is followed to its end, and each counts once.

No chip cuts an object: what reaches a rim is looked at from farther away. Found from several points, it is one object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.grid import Window, windows_of
from geoseg.prompts.asked import CELL, Asked
from geoseg.prompts.words import without_repeats
from geoseg.raster.reader import SceneReader

if TYPE_CHECKING:
    from geoseg.prompts.segmenter import Candidate, PromptSegmenter

SPACING = 16  # pixels of a chip between points
LEAST_SCORE = 0.6
Progress = Callable[[str, int, int], None]


def find_everything(
    segmenter: PromptSegmenter,
    *,
    spacing: int = SPACING,
    least_score: float = LEAST_SCORE,
    progress: Progress | None = None,
) -> list[Candidate]:
    """All objects on which a point of a lattice falls, the surest first.

    Args:
        segmenter: scene and model.
        spacing: pixels of a chip between points: smaller objects may be missed.
        least_score: of what counts as found.
        progress: called with step, points done and points in all.

    Raises:
        InputError: the spacing is not positive.
    """
    if spacing < 1:
        raise InputError(f"Points lie 1 pixel apart or more, not {spacing}.")
    follower = segmenter.follower
    points = lattice_points(follower.reader, spacing * follower.lattice.zoom(follower.lattice.point_level))
    objects = [Asked(point[None], np.ones(1, np.int64)) for point in points]
    found = []
    for done, (_, candidate) in enumerate(segmenter.ask(objects), 1):
        if candidate.score >= least_score:
            found.append(candidate)
        if progress is not None:
            progress("prompt", done, len(objects))
    return without_repeats(found)


def lattice_points(reader: SceneReader, step: int) -> NDArray[np.float64]:
    """(point, 2) row and column of points `step` pixels apart, where the scene was measured."""
    found = []
    for window in windows_of(reader.shape, CELL):
        rows, cols = (
            np.arange(-(-start // step), -(-stop // step)) * step + step // 2
            for start, stop in ((window.row, window.row_stop), (window.col, window.col_stop))
        )
        rows, cols = rows[rows < reader.shape[0]], cols[cols < reader.shape[1]]
        near = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
        found.append(near[_measured(reader, near)])
    places = np.concatenate(found)
    return places.astype(np.float64) + 0.5


def _measured(reader: SceneReader, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some neighbouring pixels (pixel, 2) were measured."""
    if not reader.has_mask or not len(places):
        return np.ones(len(places), np.bool_)
    low, high = places.min(0), places.max(0) + 1
    valid = reader.read(Window(int(low[0]), int(low[1]), *(high - low).tolist())).valid
    kept: NDArray[np.bool_] = valid[places[:, 0] - low[0], places[:, 1] - low[1]]
    return kept
