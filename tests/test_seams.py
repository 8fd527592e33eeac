"""Promises 1 and 5 as equalities: stitched = one pass over the whole scene, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import RGB, pixels_of, read_band, segmented, tiny_model, whole_pass, write_rgb
from numpy.typing import NDArray

from geoseg.grid import ChipGrid, Window
from geoseg.inference import Backend, Predictor, RunOptions, Segmenter
from geoseg.inference.segment import Cover
from geoseg.models import Model
from geoseg.pipeline import segment_file
from geoseg.raster.reader import Pixels

EXACT = ["unet", "deeplabv3plus-local"]
ENGINES = ["torch", "openvino"]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def expected_cover(model: Model, pixels: NDArray[np.uint8], engine: str = "torch") -> Cover:
    """From one pass over the scene reflected outward by the exact halo."""
    logits = torch.from_numpy(whole_pass(model, pixels, halo=model.card.exact_halo_px, engine=engine))
    channel, confidence, spread = Predictor(model, Backend("cpu", "float32")).reduce(logits, probabilities=True)
    assert np.array_equal(channel, logits.argmax(0))
    np.testing.assert_allclose(spread, logits.softmax(0), atol=1e-6)
    return Cover(np.array(model.card.legend.ids, np.uint8)[channel], confidence, spread)


def assert_same(found: Cover, expected: Cover) -> None:
    for name, a, b in zip(Cover._fields, found, expected, strict=True):
        same = np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        assert same, f"{name} differs in {(a != b).sum()} of {a.size} numbers"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("architecture", EXACT)
@pytest.mark.parametrize("shape", [(1, 1), (1, 97), (7, 5), (61, 101)])
def test_stitched_is_the_whole_scene_for_any_chip(architecture: str, shape: tuple[int, int], engine: str) -> None:
    model = tiny_model(architecture)
    pixels = pixels_of(shape)
    expected = expected_cover(model, pixels, engine)
    if shape == (61, 101):
        assert len(np.unique(expected.class_map)) >= 4  # else this test would say little
    halo, stride = model.card.exact_halo_px, model.card.output_stride
    for cores in (3, 5, 16) if max(shape) < 100 else (5, 16, 26):
        chip = 2 * halo + cores * stride
        assert_same(segmented(model, pixels, chip=chip, halo=halo, block=10_000, engine=engine), expected)


@pytest.mark.parametrize("architecture", EXACT)
def test_stitched_is_the_whole_scene_for_any_number_of_threads(architecture: str, threads: int) -> None:
    model = tiny_model(architecture)
    pixels = pixels_of((53, 31))
    halo, stride = model.card.exact_halo_px, model.card.output_stride
    torch.set_num_threads(1)
    expected = expected_cover(model, pixels)
    torch.set_num_threads(threads)
    for cores in (4, 14):
        assert_same(segmented(model, pixels, chip=2 * halo + cores * stride, halo=halo), expected)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("blocks", [0, 2, 3, 100])
def test_stitched_does_not_depend_on_blocks_and_their_order(blocks: int, backwards: bool) -> None:
    model = tiny_model()
    pixels = pixels_of((71, 83), seed=1)
    halo, core = model.card.exact_halo_px, 6 * model.card.output_stride
    found = segmented(model, pixels, chip=2 * halo + core, halo=halo, block=blocks * core, backwards=backwards)
    assert_same(found, expected_cover(model, pixels))


def test_a_longer_halo_changes_nothing() -> None:
    model = tiny_model()
    pixels = pixels_of((41, 37), seed=2)
    halo, stride = model.card.exact_halo_px, model.card.output_stride
    assert_same(segmented(model, pixels, chip=2 * halo + 64, halo=halo + 3 * stride), expected_cover(model, pixels))


def test_a_halo_too_short_is_seen() -> None:
    """The equality has teeth: with no halo it fails."""
    model = tiny_model()
    pixels = pixels_of((64, 64), seed=2)
    found = segmented(model, pixels, chip=16, halo=0)
    assert (found.confidence != expected_cover(model, pixels).confidence).mean() > 0.2


def test_a_ramp_does_not_depend_on_blocks() -> None:
    model = tiny_model("deeplabv3plus")
    assert model.card.ramp_px > 0
    pixels = pixels_of((75, 61), seed=3)
    covers = [
        segmented(model, pixels, chip=64, halo=16, ramp=16, block=block, backwards=block == 64)
        for block in (32, 64, 1000)
    ]
    assert len(np.unique(covers[0].class_map)) >= 3
    for other in covers[1:]:
        assert_same(other, covers[0])


def test_files_of_one_and_two_processes_are_identical(tmp_path: Path) -> None:
    shape, block = (131, 149), 32
    scene = write_rgb(tmp_path / "scene.tif", shape, seed=4)
    model = tiny_model()
    expected = expected_cover(model, pixels_of(shape, seed=4), "openvino")
    written = {}
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        run = RunOptions(device="cpu", precision="float32", engine="openvino", chip=96, block=block, workers=workers)
        summary = segment_file(scene, folder / "cover.tif", model=model, run=run, confidence=folder / "confidence.tif")
        assert len(summary.blocks) == workers, f"computed by processes {summary.blocks}"
        assert sum(summary.blocks.values()) == -(-shape[0] // block) * -(-shape[1] // block)
        written[workers] = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    assert written[1].keys() == written[2].keys()
    for name, content in written[1].items():
        assert content == written[2][name], name
    assert_written(tmp_path / "2", expected)


def assert_written(folder: Path, expected: Cover) -> None:
    assert np.array_equal(read_band(folder / "cover.tif"), expected.class_map)
    assert np.array_equal(read_band(folder / "confidence.tif"), np.rint(expected.confidence * 200))


def test_the_faithful_deeplab_gives_the_same_file_for_any_block(tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "scene.tif", (70, 90), seed=5)
    model = tiny_model("deeplabv3plus")
    contents = []
    for block in (32, 1000):
        output = tmp_path / f"cover{block}.tif"
        segment_file(
            scene, output, model=model, run=RunOptions(device="cpu", precision="float32", chip=64, block=block)
        )
        contents.append(output.read_bytes())
    assert contents[0] == contents[1]


# ---- nodata and NaN


def test_nodata_stays_nodata_and_the_rest_is_classified() -> None:
    model = tiny_model()
    pixels = pixels_of((60, 70), seed=6)
    valid = np.ones((60, 70), np.bool_)
    valid[:9], valid[30:41, 20:33] = False, False
    found = segmented(model, pixels, chip=96, halo=32, valid=valid)
    assert np.array_equal(found.class_map == 255, ~valid)
    assert np.array_equal(np.isnan(found.confidence), ~valid)
    assert np.array_equal(np.isnan(found.probabilities).all(0), ~valid)


@pytest.mark.parametrize("stored", [0, 255, 77])
def test_what_is_stored_where_nothing_was_measured_has_no_say(stored: int) -> None:
    """Nodata becomes the mean before the network: the neighbours see the same whatever the file holds there."""
    model = tiny_model()
    pixels = pixels_of((50, 50), seed=7)
    valid = np.random.default_rng(0).random((50, 50)) > 0.1
    changed = np.where(valid, pixels, np.uint8(stored))
    expected = segmented(model, pixels, chip=96, halo=32, valid=valid)
    assert_same(segmented(model, changed, chip=96, halo=32, valid=valid), expected)


def test_nan_does_not_spread(tmp_path: Path) -> None:
    """NaN gives the answer that the card's mean would have given, to the bit."""
    pixels = pixels_of((60, 50), seed=8).astype(np.float32)
    hole = np.zeros((60, 50), np.bool_)
    hole[20:30, 10:40] = True
    model = tiny_model()
    model = Model(model.network, model.card.model_copy(update={"scales": {"float32": 1 / 255}}))
    found = []
    for name, filled in (("nan", np.nan), ("mean", 0.5 * 255)):
        scene = write_rgb(tmp_path / f"{name}.tif", values=np.where(hole, np.float32(filled), pixels))
        outputs = tmp_path / f"{name}_cover.tif", tmp_path / f"{name}_confidence.tif"
        run = RunOptions(device="cpu", precision="float32", chip=96)
        segment_file(scene, outputs[0], model=model, run=run, confidence=outputs[1])
        found.append([read_band(path) for path in outputs])
    for with_nan, with_mean in zip(*found, strict=True):
        assert (with_nan[hole] == 255).all()
        assert (with_mean != 255).all()
        assert np.array_equal(with_nan[~hole], with_mean[~hole])


def test_not_measured_is_the_mean_before_the_network() -> None:
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, chips: torch.Tensor) -> torch.Tensor:
            seen.append(chips.numpy().copy())
            return chips.new_zeros((1, 6, *chips.shape[2:]))

    model = Model(Spy(), tiny_model().card)
    valid = np.ones((8, 8), np.bool_)
    valid[2:4, 3:6] = False
    segmented(model, pixels_of((8, 8)), chip=72, halo=32, valid=valid)
    inside = seen[0][0, :, 32:40, 32:40]
    assert (inside[:, ~valid] == 0).all()
    assert np.array_equal(inside, RGB(pixels_of((8, 8)), valid))


def test_reflection_is_around_the_edge_pixel_of_the_scene() -> None:
    """Not of the block, nor of what was read for it."""
    windows = []

    class Spy(torch.nn.Module):
        def forward(self, chips: torch.Tensor) -> torch.Tensor:
            windows.append(chips.numpy().copy())
            return chips.new_zeros((1, 6, *chips.shape[2:]))

    model = Model(Spy(), tiny_model().card)
    pixels = pixels_of((19, 23))
    segmented(model, pixels, chip=32, halo=12)
    reflected = np.pad(RGB(pixels, np.ones((19, 23), np.bool_)), ((0, 0), (12, 40), (12, 40)), mode="reflect")
    expected = [reflected[:, row : row + 32, col : col + 32] for row in (0, 8, 16) for col in (0, 8, 16)]
    assert len(windows) == len(expected)
    for found, chip in zip(windows, expected, strict=True):
        assert np.array_equal(found[0], chip)


@pytest.mark.gpu
def test_cuda_and_cpu_differ_where_both_hesitate() -> None:
    """At most 1e-5 of pixels, each with a margin between its two best logits under 1e-4 of the largest."""
    model = tiny_model()
    pixels = RGB(pixels_of((512, 512), seed=1), np.ones((512, 512), np.bool_))
    cpu = Predictor(model, Backend("cpu", "float32")).logits(pixels).numpy()
    cuda = Predictor(model, Backend("cuda", "float32")).logits(pixels).cpu().numpy()
    different = cpu.argmax(0) != cuda.argmax(0)
    best = np.sort(cpu, axis=0)[-2:, different]
    assert different.mean() <= 1e-5
    assert (best[1] - best[0] < 1e-4 * np.abs(cpu).max()).all()


def test_a_window_of_a_scene_needs_nothing_else() -> None:
    """The read callback is asked for one window, inside the scene, that holds chip and halo."""
    model = tiny_model()
    grid = ChipGrid.of((500, 600), chip=96, halo=32, output_stride=4, block=64)
    asked = []

    def read(window: Window) -> Pixels:
        asked.append(window)
        return Pixels(np.zeros((3, *window.shape), np.uint8), np.ones(window.shape, np.bool_))

    Segmenter(grid, RGB, Predictor(model, Backend("cpu", "float32")))(Window(128, 192, 64, 64), read)
    assert asked == [Window(96, 160, 128, 128)]
