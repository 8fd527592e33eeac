"""How good a network is on a place that it has not seen: asked as a user would ask it, through all of the machinery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geoseg.grid import Window
from geoseg.prompts.asked import Asked
from geoseg.prompts.follow import Mask, Reply, overlap
from geoseg.prompts.networks import Network
from geoseg.prompts.segmenter import PromptSegmenter
from geoseg.prompts.simulate import innermost, worst_mistake
from geoseg.raster.reader import SceneOptions

CLICKS = 5
WAYS = ("one_click", "box", "five_clicks")

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """A labelled scene in files.

    Attributes:
        path: of its pixels.
        labels: (height, width) class ids.
        gsd_m: metres per pixel; None where the file tells.
    """

    path: Path
    labels: Bytes
    gsd_m: float | None = None


@dataclass(frozen=True)
class Judged:
    """IoU of one object for each of WAYS."""

    kind: str
    iou: tuple[float, float, float]


def judge(
    network: Network, scenes: Sequence[Scene], kinds: Mapping[str, Sequence[int]], *, count: int, least_px: int
) -> list[Judged]:
    """Each of some objects asked for by a click in its middle, a box around it, and clicks where the answer is wrong.

    Args:
        network: that is judged.
        scenes: of one place.
        kinds: ids by the name of what they are together; 4-connected parts of one id are objects.
        count: objects of each kind, drawn by chance from all scenes.
        least_px: pixels of an object; smaller ones are left out.
    """
    rng = np.random.default_rng(0)
    found = []
    objects = [(number, *one) for number, scene in enumerate(scenes) for one in _objects(scene, kinds, least_px)]
    for kind in kinds:
        own = [one for one in objects if one[1] == kind]
        for i in sorted(rng.permutation(len(own))[:count].tolist()):
            found.append(own[i])
    judged = []
    for number, scene in enumerate(scenes):
        reading = SceneOptions(gsd_m=scene.gsd_m)
        segmenter = PromptSegmenter.of(str(scene.path), network, reading=reading, cache_gb=0)
        judged += [Judged(kind, _asked(segmenter, part)) for at, kind, part in found if at == number]
    return judged


def means(judged: Sequence[Judged]) -> dict[str, float]:
    """Mean IoU over all objects by way of asking, rounded to 0.001."""
    values = np.array([one.iou for one in judged]).reshape(-1, len(WAYS)).mean(0)
    return {way: round(float(value), 3) for way, value in zip(WAYS, values, strict=True)}


HEADER = (
    f"| place | object | number | {' | '.join(way.replace('_', ' ') for way in WAYS)} |\n|{'---|' * (3 + len(WAYS))}"
)


def rows(place: str, judged: Sequence[Judged]) -> list[str]:
    """Rows of a table with HEADER: one for each kind of object, and one for all."""
    kinds = [*dict.fromkeys(one.kind for one in judged), "all"]
    found = []
    for kind in kinds:
        own = [one for one in judged if kind in (one.kind, "all")]
        told = " | ".join(f"{value:.2f}" for value in means(own).values())
        found.append(f"| {place} | {kind.replace('_', ' ')} | {len(own)} | {told} |")
    return found


def _objects(scene: Scene, kinds: Mapping[str, Sequence[int]], least_px: int) -> Iterator[tuple[str, Mask]]:
    for kind, ids in kinds.items():
        for one in ids:
            numbers, _ = ndimage.label(scene.labels == one)
            for number, (rows, cols) in enumerate(ndimage.find_objects(numbers), 1):
                part = numbers[rows, cols] == number
                if part.sum() >= least_px:
                    yield kind, Mask(Window(rows.start, cols.start, *part.shape), part)


def _asked(segmenter: PromptSegmenter, part: Mask) -> tuple[float, float, float]:
    row, col = innermost(part.pixels)
    window = part.window
    click = Asked(np.array([[row + window.row + 0.5, col + window.col + 0.5]]), np.ones(1, np.int64))
    sides = np.array([window.row, window.col, window.row_stop, window.col_stop], dtype=np.float64)
    box = Asked(np.zeros((0, 2)), np.zeros(0, np.int64), sides)
    reply, boxed = (next(found for _, found in segmenter.follower.ask([one])) for one in (click, box))
    first, around = _overlap(segmenter, reply, click, part), _overlap(segmenter, boxed, box, part)
    for _ in range(CLICKS - 1):
        click = _corrected(segmenter, click, reply, part)
        reply = segmenter.follower.again(click, reply, reply.best)
    return first, around, _overlap(segmenter, reply, click, part)


def _overlap(segmenter: PromptSegmenter, reply: Reply, asked: Asked, part: Mask) -> float:
    return overlap(segmenter.mask(reply, reply.best, asked), part)


def _corrected(segmenter: PromptSegmenter, asked: Asked, reply: Reply, part: Mask) -> Asked:
    """With a click in the middle of the worst mistake."""
    found = segmenter.mask(reply, reply.best, asked)
    low_row, low_col = min(found.window.row, part.window.row), min(found.window.col, part.window.col)
    shape = (
        max(found.window.row_stop, part.window.row_stop) - low_row,
        max(found.window.col_stop, part.window.col_stop) - low_col,
    )
    both = []
    for mask in (part, found):
        whole = np.zeros(shape, np.bool_)
        whole[mask.window.shifted(-low_row, -low_col).slices] = mask.pixels
        both.append(whole)
    (row, col), label = worst_mistake(*both)
    return asked.with_point(row + low_row + 0.5, col + low_col + 0.5, positive=bool(label))
