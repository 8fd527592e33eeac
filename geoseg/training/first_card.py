"""The card of a bundle as the training knows it, before anything is measured."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from geoseg.errors import InputError
from geoseg.models import CardBand, ModelCard, TrainingData
from geoseg.training.config import TrainConfig
from geoseg.training.scenes import BandStatistics, ReaderScene

log = logging.getLogger(__name__)
MOST_POOLED = 8  # pixels along a side of those that are seen as one
GSD_MARGIN = 1.1  # how far beyond the resolutions of training the card lets scenes be


def first_card(
    config: TrainConfig,
    network: nn.Module,
    scenes: Sequence[ReaderScene],
    statistics: BandStatistics,
    gsd_range_m: tuple[float, float],
    steps: int,
) -> ModelCard:
    """What is known of a bundle before it is measured.

    Args:
        config: of the training.
        network: that is trained.
        scenes: that are trained on.
        statistics: of their bands.
        gsd_range_m: resolutions that samples are drawn at.
        steps: that the weights had.
    """
    low, high = gsd_range_m[0] / GSD_MARGIN, gsd_range_m[1] * GSD_MARGIN
    best = float(f"{(low * high) ** 0.5:.6g}")
    if config.pool_to_m is not None:
        low = min(low, config.pool_to_m / MOST_POOLED)
    bands = zip(config.bands, statistics.mean, statistics.std, strict=True)
    units, stride = _units(scenes), stride_of(network)
    start = f" from {Path(config.start.weights).name}" if config.start.weights else ""
    return ModelCard(
        name=config.name,
        version=config.version,
        description=config.description or f"{config.architecture.name} trained for {steps:,} steps{start}.",
        license=config.license,
        architecture=config.architecture,
        scales={dtype: scale for dtype, (scale, _) in units.items()},
        offsets={dtype: offset for dtype, (_, offset) in units.items() if offset},
        bands=tuple(CardBand(name=name, mean=mean, std=std) for name, mean, std in bands),
        legend=config.legend,
        gsd_m=best,
        gsd_range_m=(low, high),
        pool_to_m=config.pool_to_m,
        output_stride=stride,
        receptive_field_px=0,
        halo_px=0,
        chip_px=max(config.run.chip, 2 * stride),
        position_independent=bool(getattr(network, "position_independent", True)),
        training_data=_data(config),
        limitations=config.limitations,
    )


def stride_of(network: nn.Module) -> int:
    """Of a network that says it.

    Raises:
        InputError: it does not.
    """
    stride = getattr(network, "output_stride", None)
    if not isinstance(stride, int):
        raise InputError(f"{type(network).__name__} does not say its output stride, so it cannot be trained here.")
    return stride


def _units(scenes: Sequence[ReaderScene]) -> dict[str, tuple[float, float]]:
    """Scale and offset by dtype: those of most scenes, for scenes that will not tell their own."""
    told: dict[str, Counter[tuple[float, float]]] = {}
    for scene in scenes:
        told.setdefault(scene.reader.dtype, Counter())[scene.scale, scene.offset] += 1
    for dtype, counts in told.items():
        if len(counts) > 1:
            listed = ", ".join(f"x {scale:g} {offset:+g}" for scale, offset in counts)
            log.warning(
                "Scenes of %s have several scales and offsets (%s); the card has those of most of them, so state "
                "--scale and --offset wherever the model sees a scene that does not tell its own.",
                dtype,
                listed,
            )
    return {dtype: counts.most_common(1)[0][0] for dtype, counts in told.items()}


def _data(config: TrainConfig) -> tuple[TrainingData, ...]:
    unlabelled = () if config.unlabelled is None else config.unlabelled.scenes
    return tuple(dict.fromkeys(source.data for source in (*config.scenes, *unlabelled) if source.data is not None))
