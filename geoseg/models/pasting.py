"""Masks within boxes to pixels of a chip."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

CLOSEST = 1e-4  # probabilities to 0 and 1, so that their logits are numbers


class Pasted(NamedTuple):
    """Probabilities of the pixels around an object; rows and columns that they are of."""

    probabilities: Tensor
    rows: slice
    cols: slice


def paste(mask: Tensor, box: Tensor, size: tuple[int, int]) -> Pasted:
    """A mask on the pixels of its box.

    Args:
        mask: (side, side) probabilities, those of cells of the box.
        box: (4,) left, top, right, bottom in pixels.
        size: rows and columns of the chip; what lies beyond is left out.
    """
    left, top, right, bottom = box.tolist()
    rows, cols = (
        slice(max(0, int(low)), min(length, max(int(low) + 1, int(-(-high // 1)))))
        for low, high, length in ((top, bottom, size[0]), (left, right, size[1]))
    )
    y = (torch.arange(rows.start, rows.stop, device=mask.device) + 0.5 - top) / max(bottom - top, 1e-6) * 2 - 1
    x = (torch.arange(cols.start, cols.stop, device=mask.device) + 0.5 - left) / max(right - left, 1e-6) * 2 - 1
    if not y.numel() or not x.numel():
        return Pasted(mask.new_zeros(max(0, y.numel()), max(0, x.numel())), rows, cols)
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    sampled = grid_sample(mask[None, None].float(), places[None].float(), padding_mode="border", align_corners=False)
    return Pasted(sampled[0, 0], rows, cols)


def paint_logits(
    boxes: Tensor, channels: Tensor, scores: Tensor, masks: Tensor, *, classes: int, size: tuple[int, int]
) -> Tensor:
    """Logits (class, height, width) of objects: each class against the last, which is where there is none.

    A pixel has the probability of the likeliest object, which is its score times the mask's; half is the border.

    Args:
        boxes: (object, 4) left, top, right, bottom.
        channels: (object,) of their classes.
        scores: (object,) 0 to 1.
        masks: (object, side, side) probabilities.
        classes: number of channels.
        size: rows and columns.
    """
    likeliest = torch.zeros(classes, *size, device=boxes.device)
    for box, channel, score, mask in zip(boxes, channels, scores, masks, strict=True):
        pasted = paste(mask, box, size)
        part = likeliest[int(channel), pasted.rows, pasted.cols]
        part.copy_(torch.maximum(part, score * pasted.probabilities))
    painted = likeliest.clamp(CLOSEST, 1 - CLOSEST).logit()
    painted[-1] = 0
    return painted
