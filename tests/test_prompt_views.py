"""What a promptable network answers in several views: the same, however the chip is laid down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import write_rgb
from prompt_networks import tiny_promptable

import geoseg
from geoseg.errors import InputError
from geoseg.prompts.networks import BundleNetwork, ChipPrompts
from geoseg.prompts.views import FLIPS, View, Views, seen_in

SIDE = 64
ALL = [View(turned, flipped) for turned in (False, True) for flipped in FLIPS]
CHIP = np.random.default_rng(0).normal(size=(3, SIDE, SIDE)).astype(np.float32)
PROMPTS = ChipPrompts(
    np.array([[[10.5, 40.5], [30.0, 12.0]], [[50.0, 3.0], [0.0, 0.0]]], np.float32),
    np.array([[1, 0], [1, -1]]),
    np.array([[np.nan] * 4, [40, 0, 60, 20]], np.float32),
    np.random.default_rng(1).normal(size=(2, SIDE // 2, SIDE // 2)).astype(np.float32),
)


@pytest.mark.parametrize("view", ALL[1:], ids=str)
def test_answers_do_not_depend_on_how_the_chip_lies(view: View) -> None:
    network = Views(BundleNetwork(tiny_promptable()), 8 if view.turned else 4)
    plain = network.decode(network.embed(CHIP), PROMPTS)
    laid = network.decode(network.embed(view.of(CHIP)), view.prompts(PROMPTS, SIDE))
    np.testing.assert_allclose(view.back(laid.logits), plain.logits, atol=1e-4)
    np.testing.assert_allclose(laid.scores, plain.scores, atol=1e-5)


def test_one_view_depends_on_it() -> None:
    network, view = BundleNetwork(tiny_promptable()), ALL[1]
    plain = network.decode(network.embed(CHIP), PROMPTS)
    laid = network.decode(network.embed(view.of(CHIP)), view.prompts(PROMPTS, SIDE))
    assert np.abs(view.back(laid.logits) - plain.logits).max() > 1e-2


@pytest.mark.parametrize("view", ALL, ids=str)
def test_a_view_is_undone_and_places_go_with_their_pixels(view: View) -> None:
    assert np.array_equal(view.back(view.of(CHIP)), CHIP)
    row, col = view.places(np.array([10.5, 40.5], np.float32), SIDE).astype(int)
    assert np.array_equal(view.of(CHIP)[:, row, col], CHIP[:, 10, 40])
    boxes = view.prompts(PROMPTS, SIDE).boxes
    top, left, bottom, right = boxes[1].astype(int)
    marked = np.zeros((SIDE, SIDE))
    marked[40:60, :20] = 1
    assert view.of(marked)[top:bottom, left:right].sum() == 400
    assert np.isnan(boxes[0]).all()


def test_bundles_are_asked_in_four_views_unless_told_otherwise(tmp_path: Path) -> None:
    write_rgb(tmp_path / "s.tif", (90, 90))
    networks = {
        views: geoseg.prompt(tmp_path / "s.tif", tiny_promptable(), views=views).follower.network
        for views in (None, 1, 4, 8)
    }
    assert [len(getattr(one, "views", "1")) for one in networks.values()] == [4, 1, 4, 8]
    assert len({one.digest for one in networks.values()}) == 3
    with pytest.raises(InputError, match="Views are 1, 4, 8, not 3"):
        seen_in(networks[1], 3)
