"""What answers prompts on one chip, whatever the network: the bundles of geoseg, or Segment Anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.models import Model, ModelCard
from geoseg.models.promptable import Embedding, Promptable, Prompts, no_mask

Floats = NDArray[np.float32]
Embedded = Mapping[str, NDArray[np.float16]]


class ChipPrompts(NamedTuple):
    """Prompts of one chip, one object each.

    Attributes:
        points: (prompt, point, 2) row and column in pixels of the chip, 0 at its upper-left corner.
        labels: (prompt, point) 1 positive, 0 negative, -1 no point.
        boxes: (prompt, 4) top, left, bottom, right; NaN where there is none.
        earlier: (prompt, side, side) logits of an earlier answer to be mended; None where there is none.
    """

    points: Floats
    labels: NDArray[np.int64]
    boxes: Floats
    earlier: Floats | None = None


class Found(NamedTuple):
    """Candidates for each prompt.

    Attributes:
        logits: (prompt, candidate, side, side) of the whole chip, maybe coarser than it; above 0 is within.
        scores: (prompt, candidate) IoU that the network expects, or its confidence.
    """

    logits: Floats
    scores: Floats


class Network(Protocol):
    """A network that is asked chip by chip; one thread at a time.

    Attributes:
        card: bands and their statistics, the chip's side, the pixel sizes it is good for.
        digest: of all that decides its answers.
        has_prompts: whether it takes points and boxes.
        has_text: whether it takes text.
    """

    card: ModelCard
    digest: str
    has_prompts: bool
    has_text: bool

    def embed(self, chip: Floats) -> Embedded:
        """What answers are made of, of a normalized chip (band, height, width)."""

    def decode(self, embedded: Embedded, prompts: ChipPrompts) -> Found:
        """Answers to points and boxes."""

    def find(self, embedded: Embedded, text: str) -> Found:
        """All that a text names on the chip: (object, 1, side, side) and their scores."""


class BundleNetwork:
    """A bundle of geoseg."""

    has_prompts, has_text = True, False

    def __init__(self, model: Model) -> None:
        if not isinstance(model.network, Promptable):
            raise InputError(
                f"Model {model.card.name} ({model.card.architecture.name}) takes no prompts; use prompt-rgb, or a "
                "folder with a Segment Anything model."
            )
        self.card, self.digest, self._network = model.card, model.digest, model.network

    @torch.inference_mode()
    def embed(self, chip: Floats) -> Embedded:
        parts = self._network.embed(torch.from_numpy(chip)[None])
        return {name: part[0].half().numpy() for name, part in parts._asdict().items()}

    @torch.inference_mode()
    def decode(self, embedded: Embedded, prompts: ChipPrompts) -> Found:
        parts = Embedding(*(torch.from_numpy(embedded[name]).float()[None] for name in Embedding._fields))
        earlier = no_mask(len(prompts.points), self.card.chip_px)
        if prompts.earlier is not None:
            earlier = torch.from_numpy(prompts.earlier)[:, None]
        points, labels, boxes = (torch.from_numpy(part) for part in prompts[:3])
        asked = Prompts(points, labels, boxes, earlier)
        masks = self._network.decode(parts, asked)
        return Found(masks.logits.numpy(), masks.scores.numpy())

    def find(self, embedded: Embedded, text: str) -> Found:
        raise InputError(no_text(self.card))


def no_text(card: ModelCard) -> str:
    """What to say where text was given to a model that cannot read."""
    return (
        f"Model {card.name} takes points and boxes, but no text; give --points or --boxes, or a SAM 3 model by its "
        "folder or as hf:org/name."
    )
