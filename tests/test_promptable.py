"""The network that takes prompts: what its answers depend on, and what they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import write_rgb
from prompt_networks import TINY, save_promptable, tiny_promptable
from scipy import ndimage
from typer.testing import CliRunner

from geoseg import SyntheticScene, ensemble, export_model, load_model, prompt, segment_file, write_scene
from geoseg.cli import app
from geoseg.errors import InputError
from geoseg.legend import LANDCOVER
from geoseg.models import build_network
from geoseg.models.find import WEIGHTS, ZOO
from geoseg.models.promptable import Prompts, no_mask
from geoseg.prompts.networks import BundleNetwork, ChipPrompts

CHIP = 64


def chip(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (3, CHIP, CHIP)).astype(np.float32)


def asked(count: int = 5, points: int = 3, seed: int = 0) -> ChipPrompts:
    """Prompts with points, with boxes, and with both."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, CHIP, (count, points, 2)).astype(np.float32)
    labels = rng.integers(-1, 2, (count, points))
    corners = np.sort(rng.uniform(0, CHIP, (count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
    corners[::2] = np.nan
    return ChipPrompts(places, labels, corners)


@pytest.fixture(scope="module")
def network() -> BundleNetwork:
    return BundleNetwork(tiny_promptable())


def test_a_bundle_answers_as_before_it_was_saved(tmp_path: Path) -> None:
    model = tiny_promptable()
    loaded = BundleNetwork(load_model(save_promptable(tmp_path / "m")))
    before, after = (net.decode(net.embed(chip()), asked()) for net in (BundleNetwork(model), loaded))
    assert np.allclose(before.logits, after.logits, atol=0.05)  # weights are stored at half precision
    assert before.logits.shape == (5, 3, CHIP // 2, CHIP // 2)
    assert before.scores.shape == (5, 3)
    assert ((before.scores > 0) & (before.scores < 1)).all()


def test_prompts_of_a_batch_do_not_see_each_other(network: BundleNetwork) -> None:
    embedded, prompts = network.embed(chip()), asked()
    together = network.decode(embedded, prompts)
    for i in range(5):
        alone = network.decode(embedded, ChipPrompts(*(part[i : i + 1] for part in prompts[:3])))
        assert np.allclose(together.logits[i], alone.logits[0], atol=1e-4)


def test_more_padding_changes_nothing_and_each_prompt_counts(network: BundleNetwork) -> None:
    embedded, prompts = network.embed(chip()), asked(count=1, points=1)._replace(labels=np.array([[1]]))
    found = network.decode(embedded, prompts).logits

    def changes(other: ChipPrompts) -> bool:
        return not np.allclose(found, network.decode(embedded, other).logits, atol=1e-3)

    assert changes(prompts._replace(labels=np.array([[0]])))
    assert changes(prompts._replace(points=prompts.points[:, :, ::-1].copy()))
    assert changes(prompts._replace(boxes=np.float32([[3, 4, 40, 50]])))
    assert changes(prompts._replace(earlier=np.full((1, CHIP // 2, CHIP // 2), 3, np.float32)))
    assert not changes(prompts._replace(earlier=np.zeros((1, CHIP // 2, CHIP // 2), np.float32)))


def test_where_a_padded_point_lies_does_not_matter(network: BundleNetwork) -> None:
    embedded, prompts = network.embed(chip()), asked()
    moved = prompts.points.copy()
    moved[prompts.labels == -1] = 7
    assert np.array_equal(
        network.decode(embedded, prompts).logits, network.decode(embedded, prompts._replace(points=moved)).logits
    )


def test_chips_of_a_batch_have_their_own_prompts() -> None:
    model = tiny_promptable().network
    chips = torch.from_numpy(np.stack([chip(0), chip(1)]))
    parts = asked(count=4)
    prompts = Prompts(*(torch.from_numpy(part) for part in parts[:3]), no_mask(4, CHIP))
    with torch.inference_mode():
        together = model(chips, prompts)
        for i in range(2):
            own = Prompts(*(part[2 * i : 2 * i + 2] for part in prompts))
            assert torch.allclose(model(chips[i : i + 1], own).logits, together.logits[2 * i : 2 * i + 2], atol=1e-4)


@pytest.mark.parametrize(
    "args", [{"depth": 3}, {"width": 10}, {"decoder_channels": [8, 8]}, {"fine_channels": [8]}, {"layers": "two"}]
)
def test_sizes_that_do_not_fit_are_refused(args: dict[str, object]) -> None:
    with pytest.raises(InputError):
        build_network("promptable", bands=3, classes=1, args=TINY | args)


def test_it_is_not_taken_for_a_model_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, scene = save_promptable(tmp_path / "m"), write_rgb(tmp_path / "scene.tif")
    for attempt in (
        lambda: segment_file(scene, tmp_path / "cover.tif", model=folder),
        lambda: ensemble([folder, folder]),
        lambda: export_model(folder, tmp_path / "onnx"),
    ):
        with pytest.raises(InputError, match="takes prompts and knows no classes"):
            attempt()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "scene.tif"]
    monkeypatch.setenv("GEOSEG_MODELS", str(tmp_path))
    told = CliRunner().invoke(app, ["models"]).output
    assert "m 1: for tests" in told
    assert "for geoseg prompt" in told


def test_the_bundle_that_ships_outlines_pools_of_a_place_it_has_not_seen(tmp_path: Path) -> None:
    place = SyntheticScene((512, 512), seed=2035, gsd_m=0.5)
    write_scene(place, tmp_path / "scene.tif")
    _, labels = place.read()
    numbers, _ = ndimage.label(labels == LANDCOVER.by_name("water").id)
    segmenter = prompt(tmp_path / "scene.tif")
    found = []
    for row, col in ((459, 193), (210, 403), (325, 388), (95, 419), (113, 434)):
        truth = numbers == numbers[row, col]
        rows, cols = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
        left, top = place.transform @ (cols[0], rows[0])
        right, bottom = place.transform @ (cols[-1] + 1, rows[-1] + 1)
        mask = segmenter.box(left, bottom, right, top, crs=None).mask()
        both = (truth[mask.window.slices] & mask.pixels).sum()
        found.append(both / (truth.sum() + mask.pixels.sum() - both))
    assert np.mean(found) > 0.6
    assert (ZOO / "prompt-rgb" / WEIGHTS).stat().st_size < 20e6
