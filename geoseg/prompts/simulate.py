"""A user who clicks: on objects, around them, and where the answer is wrong."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from geoseg.models.promptable import NEGATIVE, PADDING, POSITIVE, Masks, Prompts

STEP = 2  # clicks are placed on masks of half the chip's size
WOBBLE = 0.1  # standard deviation of a box's sides, as a share of its length
WOBBLE_PX = 12.0

Bools = NDArray[np.bool_]


def innermost(inside: Bools) -> tuple[int, int]:
    """The pixel farthest from the edge of what is True; the chip's rim counts as an edge."""
    depth = _depth(inside)
    row, col = np.unravel_index(int(depth.argmax()), inside.shape)
    return int(row), int(col)


def first_point(part: Bools, rng: np.random.Generator | None) -> tuple[float, float]:
    """Row and column of a click on a part (height, width); in its middle where there is no chance."""
    if rng is None or rng.random() < 0.5:
        return _center(innermost(part))
    depth = _depth(part)
    return _center(_any(depth > min(1.0, depth.max() - 0.1), rng))


def box_of(part: Bools, rng: np.random.Generator | None) -> tuple[float, float, float, float]:
    """Top, left, bottom, right of a part; wobbling by chance."""
    rows, cols = (np.flatnonzero(part.any(axis)) for axis in (1, 0))
    sides = np.array([rows[0], cols[0], rows[-1] + 1, cols[-1] + 1], float) * STEP
    if rng is not None:
        length = np.tile([sides[2] - sides[0], sides[3] - sides[1]], 2)
        sides += np.clip(rng.normal(0, WOBBLE * length), -WOBBLE_PX, WOBBLE_PX)
        sides = np.clip(sides, 0, np.tile(np.array(part.shape) * STEP, 2))
    top, left, bottom, right = sides
    return float(top), float(left), float(max(bottom, top + 2)), float(max(right, left + 2))


def worst_mistake(part: Bools, found: Bools) -> tuple[tuple[int, int], int]:
    """The pixel deepest within what was missed or wrongly taken, and the label that mends it."""
    depths = _mistakes(part, found)
    worst = int(depths[1].max() > depths[0].max())
    row, col = np.unravel_index(int(depths[worst].argmax()), part.shape)
    return (int(row), int(col)), (POSITIVE, NEGATIVE)[worst]


def correction(part: Bools, found: Bools, rng: np.random.Generator | None) -> tuple[float, float, int]:
    """Row, column and label of a click in the middle of the worst mistake, or by chance elsewhere in it."""
    pixel, label = worst_mistake(part, found)
    if rng is not None and rng.random() < 0.4:
        depth = _mistakes(part, found)[label == NEGATIVE]
        pixel = _any(depth > depth.max() / 2, rng)
    return *_center(pixel), label


def _mistakes(part: Bools, found: Bools) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How deep each pixel lies in what was missed, and in what was wrongly taken; all was missed where nothing was."""
    missed, wrong = part & ~found, found & ~part
    return _depth(missed if (missed | wrong).any() else part), _depth(wrong)


def first_prompts(parts: Tensor, kinds: list[str], rng: np.random.Generator | None) -> Prompts:
    """Prompts of parts (part, height, width) at half the chip's size: each a `point`, a `box` or `both`."""
    count, height, width = parts.shape
    points, labels = torch.zeros(count, 1, 2), torch.full((count, 1), PADDING)
    boxes = torch.full((count, 4), torch.nan)
    for i, (part, kind) in enumerate(zip(parts.numpy(), kinds, strict=True)):
        if kind != "box":
            points[i, 0], labels[i, 0] = torch.tensor(first_point(part, rng)), POSITIVE
        if kind != "point":
            boxes[i] = torch.tensor(box_of(part, rng))
    return Prompts(points, labels, boxes, torch.zeros(count, 1, height, width))


def corrected(prompts: Prompts, masks: Masks, parts: Tensor, rng: np.random.Generator | None) -> Prompts:
    """One more click on each, where the candidate that the network trusts most is wrong; that mask goes with it."""
    best = masks.scores.argmax(1)
    logits = masks.logits[torch.arange(len(best)), best].detach().float()
    clicks = [correction(p, f, rng) for p, f in zip(parts.numpy(), (logits > 0).numpy(), strict=True)]
    points = torch.tensor([click[:2] for click in clicks])[:, None]
    labels = torch.tensor([click[2] for click in clicks])[:, None]
    return Prompts(
        torch.cat([prompts.points, points], 1), torch.cat([prompts.labels, labels], 1), prompts.boxes, logits[:, None]
    )


def _depth(inside: Bools) -> NDArray[np.float64]:
    """Distance of each pixel to the nearest that is False, or to beyond the rim."""
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    return depth


def _any(inside: Bools, rng: np.random.Generator) -> tuple[int, int]:
    row, col = np.unravel_index(rng.choice(np.flatnonzero(inside)), inside.shape)
    return int(row), int(col)


def _center(pixel: tuple[int, int]) -> tuple[float, float]:
    return (pixel[0] + 0.5) * STEP, (pixel[1] + 0.5) * STEP
