"""A model on means of pixels: what it sees, what it answers, and that chips leave no trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from builders import pixels_of, read_band, save_tiny, segmented, small_card, tiny_model, whole_pass, write_rgb
from numpy.typing import NDArray
from scipy.ndimage import zoom
from typer.testing import CliRunner

import geoseg
from geoseg.cli import app
from geoseg.errors import InputError
from geoseg.inference import Backend, Predictor
from geoseg.inference.plan import RunOptions
from geoseg.legend import LANDCOVER
from geoseg.models import Model, load_model, save_model
from geoseg.models.pooled import pool_factor, pooled
from geoseg.models.receptive import receptive_field
from geoseg.pipeline import segment_file

FINE = Affine(0.25, 0, 500_000, 0, -0.25, 5_000_000)


def answer(model: Model, chips: torch.Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = model.network.eval()(chips).numpy()
    return found


def pooling_bundle(folder: Path, to_m: float = 0.5) -> Path:
    model = tiny_model()
    save_model(Model(model.network, model.card.model_copy(update={"pool_to_m": to_m})), folder)
    return folder


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_it_sees_means_and_is_interpolated_linearly(factor: int) -> None:
    """Against numpy's mean and SciPy's linear zoom."""
    model = tiny_model()
    chips = torch.rand(1, 3, 32 * factor, 24 * factor, generator=torch.Generator().manual_seed(1))
    means = chips.numpy().reshape(1, 3, 32, factor, 24, factor).mean((3, 5))
    coarse = answer(model, torch.from_numpy(means))
    expected = zoom(coarse, (1, 1, factor, factor), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(answer(pooled(model, factor), chips), expected, atol=1e-4)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("factor", [2, 3])
def test_stitched_is_the_whole_scene_for_any_chip(factor: int, engine: str) -> None:
    model = pooled(tiny_model(), factor)
    pixels = pixels_of((122, 203))
    halo, stride = model.card.exact_halo_px, model.card.output_stride
    logits = torch.from_numpy(whole_pass(model, pixels, halo=halo, engine=engine))
    expected = Predictor(model, Backend("cpu", "float32")).reduce(logits)
    for cores in (3, 11):
        found = segmented(model, pixels, chip=2 * halo + cores * stride, halo=halo, block=10_000, engine=engine)
        assert np.array_equal(found.class_map, np.array(LANDCOVER.ids, np.uint8)[expected.channel])
        assert np.array_equal(found.confidence, expected.confidence)


@pytest.mark.parametrize("factor", [2, 3])
def test_the_card_says_how_far_it_looks(factor: int) -> None:
    model = pooled(tiny_model(), factor)
    assert model.network.output_stride == model.card.output_stride
    reach = receptive_field(model.network, bands=3, output_stride=model.card.output_stride)
    assert reach <= model.card.receptive_field_px <= reach + 2 * factor


@pytest.mark.parametrize(
    ("gsd_m", "factor"), [(None, 1), (0.9, 1), (0.5, 1), (0.4, 1), (0.3, 2), (0.2, 2), (0.15, 3), (0.05, 10)]
)
def test_the_factor_comes_closest_to_the_card(gsd_m: float | None, factor: int) -> None:
    assert pool_factor(small_card(pool_to_m=0.5), gsd_m) == factor
    assert pool_factor(small_card(), gsd_m) == 1


def test_fine_scenes_are_pooled_and_answered_at_their_own_resolution(tmp_path: Path) -> None:
    bundle, scene = pooling_bundle(tmp_path / "bundle"), write_rgb(tmp_path / "scene.tif", transform=FINE)
    run = RunOptions(halo="exact", precision="float32")
    segment_file(scene, tmp_path / "a.tif", model=bundle, run=run)
    found = read_band(tmp_path / "a.tif")
    model = pooled(tiny_model(), 2)
    logits = whole_pass(model, pixels_of((131, 149)), halo=model.card.exact_halo_px)
    assert found.shape == (131, 149)
    assert (found == np.array(LANDCOVER.ids)[logits.argmax(0)]).mean() > 0.99  # weights are stored in half precision
    lazy = geoseg.segment(geoseg.open_scene(scene), load_model(bundle), run=run)
    assert np.array_equal(lazy.class_map, found)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert json.loads(file.tags()["GEOSEG_OPTIONS"])["pool"] == 2


def test_pool_can_be_stated(tmp_path: Path) -> None:
    bundle, scene = pooling_bundle(tmp_path / "bundle"), write_rgb(tmp_path / "scene.tif", transform=FINE)
    segment_file(scene, tmp_path / "a.tif", model=bundle, run=RunOptions(pool=1))
    segment_file(scene, tmp_path / "b.tif", model=save_tiny(tmp_path / "plain"))
    assert np.array_equal(read_band(tmp_path / "a.tif"), read_band(tmp_path / "b.tif"))
    with pytest.raises(InputError, match="--pool is 1 or more"):
        RunOptions(pool=0)


def test_the_plan_tells(tmp_path: Path) -> None:
    bundle, scene = pooling_bundle(tmp_path / "bundle"), write_rgb(tmp_path / "scene.tif", transform=FINE)
    said = CliRunner().invoke(app, ["plan", str(scene), "--model", str(bundle)]).output
    assert "means of 2 x 2 px" in said


def test_the_digest_is_the_bundles() -> None:
    model = tiny_model()
    assert pooled(model, 3).digest == model.digest
    assert pooled(model, 1) is model


def test_an_onnx_graph_is_refused(tmp_path: Path) -> None:
    from geoseg.models.export import export_model

    export_model(tiny_model(), tmp_path / "onnx", to="onnx")
    with pytest.raises(InputError, match="--pool 1"):
        pooled(load_model(tmp_path / "onnx"), 2)
