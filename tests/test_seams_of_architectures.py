"""Stitched maps of every architecture: one for all chips, or told that they are not."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from builders import pixels_of, segmented, small_card, spread_classes, write_rgb
from test_architectures import LEAST, SIX_BANDS, WHOLE_CHIP, least
from test_seams import assert_same

from geoseg.errors import InputError
from geoseg.inference import RunOptions
from geoseg.models import Architecture, Model
from geoseg.models.receptive import receptive_field
from geoseg.pipeline import segment_file

CPU = {"device": "cpu", "precision": "float32", "engine": "torch"}


@cache
def model_of(name: str) -> Model:
    """Random weights, and a card with the receptive field that is measured, if there is one."""
    network = least(name).eval()
    spread_classes(network)
    stride, is_local = network.output_stride, name not in WHOLE_CHIP
    reach = receptive_field(network, bands=3, output_stride=stride) if is_local else 128
    halo = -(-reach // stride) * stride
    card = small_card(
        name=name,
        architecture=Architecture(name=name, args=LEAST[name]),
        output_stride=stride,
        receptive_field_px=reach,
        halo_px=halo if is_local else stride,
        chip_px=2 * halo + 4 * stride,
        position_independent=is_local,
    )
    return Model(network, card)


@pytest.mark.parametrize("name", sorted(LEAST.keys() - WHOLE_CHIP - SIX_BANDS))
def test_chips_of_two_sizes_give_one_map(name: str) -> None:
    model, pixels = model_of(name), pixels_of((45, 61), seed=3)
    halo, stride = model.card.exact_halo_px, model.card.output_stride
    small, large = (segmented(model, pixels, chip=2 * halo + cores * stride, halo=halo) for cores in (3, 8))
    assert len(np.unique(small.class_map)) > 1
    assert_same(small, large)


@pytest.mark.parametrize("name", sorted(WHOLE_CHIP))
def test_where_the_whole_chip_counts_that_is_said(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exact halo is refused; what chips disagree in is measured, warned of and in the tags."""
    model = model_of(name)
    scene = write_rgb(tmp_path / "scene.tif", (130, 150), seed=4)
    with pytest.raises(InputError, match=f"{name} looks at the whole chip, so that no halo is exact"):
        segment_file(scene, tmp_path / "exact.tif", model=model, run=RunOptions(**CPU, halo="exact"))
    stride = model.card.output_stride
    run = RunOptions(**CPU, chip=4 * stride, halo=stride)
    with caplog.at_level(logging.WARNING, logger="geoseg.inference.seams"):
        summary = segment_file(scene, tmp_path / "cover.tif", model=model, run=run)
    assert summary.seams is not None
    assert summary.seams.disagreement > 0
    assert "a larger --chip and --halo would help" in caplog.text
