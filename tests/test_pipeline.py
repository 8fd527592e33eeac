"""Scene file to land-cover file: georeference, options, outputs, interruption, failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from builders import pixels_of, read_band, tiny_model, write_rgb
from scene_files import AT, write

from geoseg.errors import BlockError, InputError
from geoseg.inference import RunOptions
from geoseg.models import save_model
from geoseg.pipeline import RunSummary, segment_file, vectorize_file
from geoseg.raster.georeference import ignore_not_georeferenced
from geoseg.raster.reader import SceneOptions
from geoseg.vector import VectorOptions

NAMES = ("green", "red", "nir")
CPU = {"device": "cpu", "precision": "float32"}


def run_options(**changes: Any) -> RunOptions:
    return RunOptions(**{**CPU, "chip": 64, "block": 64, **changes})


def index_scene(path: Path, shape: tuple[int, int] = (90, 130), *, seed: int = 0, **profile: Any) -> Path:
    return write(path, pixels_of(shape, seed=seed), descriptions=NAMES, **profile)


def by_index(scene: Any, output: Path, **changes: Any) -> RunSummary:
    """The cheapest run: rules in place of a network."""
    return segment_file(scene, output, **{"model": "spectral-index", "run": run_options(), **changes})


def assert_by_the_rules(found: np.ndarray, pixels: np.ndarray) -> None:
    """The rules in NumPy; a pixel on a threshold may fall to either side."""
    green, red, nir = pixels.astype(np.float64) / 255
    vegetation = (nir - red) / np.maximum(nir + red, 1e-12) - 0.2
    water = np.minimum((green - nir) / np.maximum(green + nir, 1e-12), 1 - nir / 0.2)
    scores = np.stack([np.zeros_like(water), vegetation, water])
    assert len(np.unique(scores.argmax(0))) == 3  # else this would say little
    best = np.sort(scores, axis=0)
    clear = best[-1] - best[-2] > 1e-6
    assert clear.mean() > 0.9
    assert np.array_equal(found[clear], 1 + scores.argmax(0)[clear])


def test_the_answer_is_that_of_the_rules(tmp_path: Path) -> None:
    scene = index_scene(tmp_path / "scene.tif")
    summary = by_index(scene, tmp_path / "cover.tif")
    assert_by_the_rules(read_band(tmp_path / "cover.tif"), pixels_of((90, 130)))
    assert summary.outputs == [tmp_path / "cover.tif"]
    assert summary.pixels == 90 * 130
    assert sum(summary.blocks.values()) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cover.tif", "cover.tif.aux.xml", "scene.tif"]


@pytest.mark.parametrize(
    "transform",
    [
        AT,
        Affine(10, 0, 500_000.1, 0, 10, 5_000_000.3),  # south-up
        Affine(7.1, 3.3, 500_000.123456789, 3.3, -7.1, 5_000_000.987654321),  # rotated
        Affine(10, 0, 500_000, 0, -7.3, 5_000_000),
    ],
)
def test_the_georeference_is_kept_bit_for_bit(tmp_path: Path, transform: Affine) -> None:
    scene = index_scene(tmp_path / "scene.tif", transform=transform)
    by_index(scene, tmp_path / "cover.tif")
    with rasterio.open(scene) as before, rasterio.open(tmp_path / "cover.tif") as after:
        assert after.transform == before.transform
        assert after.crs == before.crs
        assert after.shape == before.shape


def test_a_scene_without_crs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene = index_scene(tmp_path / "scene.tif", crs=None, transform=Affine.identity())
    by_index(scene, tmp_path / "cover.tif")
    assert len([record for record in caplog.records if "no CRS" in record.message]) == 1
    with ignore_not_georeferenced(), rasterio.open(tmp_path / "cover.tif") as file:
        assert file.crs is None
        assert file.transform == Affine.identity()
        assert_by_the_rules(file.read(1), pixels_of((90, 130)))


def test_nodata_of_the_scene_is_nodata_of_the_map(tmp_path: Path) -> None:
    pixels = pixels_of((90, 130))
    pixels[:, 10:30, 40:110] = 0
    pixels[0, 50, 50] = 0  # one band is enough
    scene = write(tmp_path / "scene.tif", pixels, descriptions=NAMES, nodata=0)
    by_index(scene, tmp_path / "cover.tif", confidence=tmp_path / "confidence.tif")
    hole = (pixels == 0).any(0)
    assert np.array_equal(read_band(tmp_path / "cover.tif") == 255, hole)
    assert np.array_equal(read_band(tmp_path / "confidence.tif") == 255, hole)


def test_a_scene_of_nodata_alone(tmp_path: Path) -> None:
    scene = write(tmp_path / "scene.tif", np.zeros((3, 70, 70), np.uint8), descriptions=NAMES, nodata=0)
    by_index(scene, tmp_path / "cover.tif")
    assert (read_band(tmp_path / "cover.tif") == 255).all()


def test_confidence_and_probabilities_agree(tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "scene.tif", (80, 70))
    outputs = {name: tmp_path / f"{name}.tif" for name in ("confidence", "probabilities")}
    summary = segment_file(scene, tmp_path / "cover.tif", model=tiny_model(), run=run_options(chip=96), **outputs)
    assert set(summary.outputs) == {tmp_path / "cover.tif", *outputs.values()}
    cover, confidence = read_band(tmp_path / "cover.tif"), read_band(outputs["confidence"])
    with rasterio.open(outputs["probabilities"]) as file:
        spread = file.read().astype(int)
        assert [name.split()[-1] for name in file.descriptions] == list(tiny_model().card.legend.names)
    assert np.array_equal(spread.max(0), confidence)
    chosen = np.take_along_axis(spread, cover[None].astype(int) - 1, axis=0)[0]
    assert np.array_equal(chosen, confidence)  # where rounding makes a tie, the class is one of the tied
    assert np.abs(spread.sum(0) - 200).max() <= 3  # six classes, each rounded


# ---- again, and otherwise


def test_the_second_run_is_up_to_date(tmp_path: Path) -> None:
    scene = index_scene(tmp_path / "scene.tif")
    by_index(scene, tmp_path / "cover.tif", confidence=tmp_path / "confidence.tif")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    summary = by_index(scene, tmp_path / "cover.tif", confidence=tmp_path / "confidence.tif")
    assert summary.up_to_date
    assert not summary.blocks
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before


def test_other_options_are_refused_without_overwrite(tmp_path: Path) -> None:
    scene = index_scene(tmp_path / "scene.tif")
    by_index(scene, tmp_path / "cover.tif")
    before = (tmp_path / "cover.tif").read_bytes()
    other = SceneOptions(nodata=100)
    with pytest.raises(InputError, match=r"exists; give --overwrite"):
        by_index(scene, tmp_path / "cover.tif", reading=other)
    assert (tmp_path / "cover.tif").read_bytes() == before
    assert not by_index(scene, tmp_path / "cover.tif", reading=other, overwrite=True).up_to_date
    assert (tmp_path / "cover.tif").read_bytes() != before


def test_a_changed_scene_is_not_up_to_date(tmp_path: Path) -> None:
    scene = index_scene(tmp_path / "scene.tif")
    by_index(scene, tmp_path / "cover.tif")
    index_scene(scene, seed=1)
    with pytest.raises(InputError, match="exists"):
        by_index(scene, tmp_path / "cover.tif")


def test_a_confidence_asked_for_later_is_added(tmp_path: Path) -> None:
    scene = index_scene(tmp_path / "scene.tif")
    by_index(scene, tmp_path / "cover.tif")
    before = (tmp_path / "cover.tif").read_bytes()
    summary = by_index(scene, tmp_path / "cover.tif", confidence=tmp_path / "confidence.tif")
    assert not summary.up_to_date
    assert (tmp_path / "confidence.tif").is_file()
    assert (tmp_path / "cover.tif").read_bytes() == before


@pytest.mark.parametrize("which", ["scene.tif", "mask.tif"])
def test_an_input_is_never_the_output(tmp_path: Path, which: str) -> None:
    scene = index_scene(tmp_path / "scene.tif")
    mask = write(tmp_path / "mask.tif", np.ones((1, 90, 130), np.uint8))
    before = (tmp_path / which).read_bytes()
    reading = SceneOptions(valid_mask=str(mask))
    with pytest.raises(InputError, match="same file"):
        by_index(scene, tmp_path / which, reading=reading, overwrite=True)
    with pytest.raises(InputError, match="same file"):
        by_index(scene, tmp_path / "cover.tif", confidence=tmp_path / which, reading=reading, overwrite=True)
    assert (tmp_path / which).read_bytes() == before


def test_two_outputs_of_one_name_are_refused(tmp_path: Path) -> None:
    scene = index_scene(tmp_path / "scene.tif")
    with pytest.raises(InputError, match="same name"):
        by_index(scene, tmp_path / "cover.tif", confidence=tmp_path / "cover.tif")


def test_progress_ends_at_all_pixels(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    by_index(index_scene(tmp_path / "scene.tif"), tmp_path / "cover.tif", progress=lambda *news: told.append(news))
    done = [news[1] for news in told if news[0] == "segment"]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 90 * 130)
    assert all(news[2] == 90 * 130 for news in told)


# ---- scenes of several kinds


def test_several_files_are_one_scene(tmp_path: Path) -> None:
    pixels = pixels_of((90, 130))
    visible = write(tmp_path / "visible.tif", pixels[:2], descriptions=NAMES[:2])
    infrared = write(tmp_path / "infrared.tif", pixels[2:], descriptions=NAMES[2:])
    by_index([visible, infrared], tmp_path / "cover.tif")
    assert_by_the_rules(read_band(tmp_path / "cover.tif"), pixels)


def test_a_scene_may_be_named_by_a_catalog(tmp_path: Path) -> None:
    write(tmp_path / "plain.tif", pixels_of((90, 130)))
    (tmp_path / "scenes.yaml").write_text(
        "sources:\n  mine:\n    driver: rasterio\n    description: three bands\n"
        "    args: {urlpath: '{{ CATALOG_DIR }}/plain.tif'}\n"
        "    metadata: {bands: {green: '1', red: '2', nir: '3'}}\n"
    )
    by_index(f"{tmp_path}/scenes.yaml#mine", tmp_path / "cover.tif")
    assert_by_the_rules(read_band(tmp_path / "cover.tif"), pixels_of((90, 130)))


def test_bands_may_be_stated(tmp_path: Path) -> None:
    scene = write(tmp_path / "scene.tif", pixels_of((90, 130))[::-1])
    bands = {"green": "3", "red": "2", "nir": "1"}
    by_index(scene, tmp_path / "cover.tif", reading=SceneOptions(bands=bands))
    assert_by_the_rules(read_band(tmp_path / "cover.tif"), pixels_of((90, 130)))


def test_resample_works_at_the_models_resolution(tmp_path: Path) -> None:
    fine = Affine(0.1, 0, 500_000, 0, -0.1, 5_000_000)
    scene = write_rgb(tmp_path / "scene.tif", (203, 156), transform=fine)
    model = tiny_model()
    with pytest.raises(InputError, match=r"0\.1 m; .* 0\.2 to 1 m.* --resample"):
        segment_file(scene, tmp_path / "cover.tif", model=model, run=run_options(chip=96))
    segment_file(scene, tmp_path / "cover.tif", model=model, run=run_options(chip=96, resample=True))
    with rasterio.open(tmp_path / "cover.tif") as file:
        assert file.shape == (41, 32)
        assert file.transform.almost_equals(Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000), precision=1e-9)
        assert (file.read(1) != 255).all()


def test_a_resolution_in_range_is_left_alone_by_resample(tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "scene.tif", (50, 40))
    segment_file(scene, tmp_path / "cover.tif", model=tiny_model(), run=run_options(chip=96, resample=True))
    with rasterio.open(tmp_path / "cover.tif") as file:
        assert file.shape == (50, 40)


# ---- failure and interruption


def damaged(path: Path) -> Path:
    """A tiled TIFF whose tile at row 64, column 64 is overwritten with noise; its size is right.

    No sampled window of the fingerprint lies in that tile.
    """
    write_rgb(path, (320, 320), values=pixels_of((320, 320)), interleave="pixel")
    with rasterio.open(path) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
        size = int(file.get_tag_item("BLOCK_SIZE_1_1", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\x55" * size
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_a_block_that_fails_is_an_error_with_its_window(tmp_path: Path, workers: int) -> None:
    scene = damaged(tmp_path / "scene.tif")
    bands = SceneOptions(bands={"green": "1", "red": "2", "nir": "3"})
    with pytest.raises(BlockError, match=r"rows 64:128, columns 64:128 failed.*scene\.tif") as told:
        by_index(scene, tmp_path / "cover.tif", reading=bands, run=run_options(workers=workers))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "cover.tif").exists()
    assert not list(tmp_path.glob("*.aux.xml"))


def test_finished_blocks_are_kept_and_the_rest_follows(tmp_path: Path) -> None:
    good = write_rgb(tmp_path / "good.tif", (320, 320), values=pixels_of((320, 320)), interleave="pixel")
    bands = SceneOptions(bands={"green": "1", "red": "2", "nir": "3"})
    by_index(good, tmp_path / "expected.tif", reading=bands)
    scene = damaged(tmp_path / "scene.tif")
    stat = scene.stat()
    with pytest.raises(BlockError):
        by_index(scene, tmp_path / "cover.tif", reading=bands)
    kept = len(list((tmp_path / "cover.tif.geoseg-partial").glob("blocks-*/done/*/*.json")))
    assert 0 < kept < 25
    scene.write_bytes(good.read_bytes())  # mended; as if it had been a fault of the network
    os.utime(scene, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    summary = by_index(scene, tmp_path / "cover.tif", reading=bands)
    assert sum(summary.blocks.values()) == 25 - kept
    assert np.array_equal(read_band(tmp_path / "cover.tif"), read_band(tmp_path / "expected.tif"))
    assert not (tmp_path / "cover.tif.geoseg-partial").exists()


SLOW_RUN = """
import sys, time
import torch
from geoseg.inference import RunOptions
from geoseg.models import load_model
from geoseg.pipeline import segment_file

torch.set_num_threads(1)
def wait(step, done, total):
    if done:
        print(done, flush=True)
        time.sleep(0.5)
run = RunOptions(device="cpu", precision="float32", chip=96, block=32)
segment_file(sys.argv[1], sys.argv[2], model=load_model(sys.argv[3]), run=run, progress=wait)
"""


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "scene.tif", (160, 128))
    save_model(tiny_model(), tmp_path / "model")
    output, again = tmp_path / "cover.tif", tmp_path / "uninterrupted.tif"
    command = [sys.executable, "-c", SLOW_RUN, str(scene), str(output), str(tmp_path / "model")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline().strip().isdigit()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-partial/blocks-*/landcover/*/*.tif")}
    markers = list(tmp_path.glob("*-partial/blocks-*/done/*/*.json"))
    assert 3 <= len(markers) < 20

    run = run_options(chip=96, block=32)
    computed: dict[str, Any] = {}

    def watch(step: str, done: int, total: int) -> None:
        computed.setdefault("first", done)
        computed["kept"] = {path: path.stat().st_mtime_ns for path in kept}

    summary = segment_file(scene, output, model=tmp_path / "model", run=run, progress=watch)
    assert sum(summary.blocks.values()) == 20 - len(markers)
    assert computed["first"] == len(markers) * 32 * 32
    assert computed["kept"] == kept
    assert not (tmp_path / "cover.tif.geoseg-partial").exists()
    segment_file(scene, again, model=tmp_path / "model", run=run)
    assert output.read_bytes() == again.read_bytes()
    # the sidecar holds the digest of the run alone, which is the same for both
    assert output.with_name("cover.tif.aux.xml").read_bytes() == again.with_name(again.name + ".aux.xml").read_bytes()


def test_staged_blocks_of_another_run_are_refused(tmp_path: Path) -> None:
    scene = damaged(tmp_path / "scene.tif")
    bands = SceneOptions(bands={"green": "1", "red": "2", "nir": "3"})
    with pytest.raises(BlockError):
        by_index(scene, tmp_path / "cover.tif", reading=bands)
    with pytest.raises(InputError, match=r"of another run.*option nodata.*--overwrite"):
        by_index(scene, tmp_path / "cover.tif", reading=SceneOptions(bands=bands.bands, nodata=100))


def test_time_and_place_leave_no_trace(tmp_path: Path) -> None:
    """Two runs, at other times into other folders with other blocks: the same bytes."""
    scene = index_scene(tmp_path / "scene.tif")
    contents = []
    for number, block in enumerate((64, 128)):
        folder = tmp_path / f"out{number}"
        folder.mkdir()
        by_index(scene, folder / "a.tif", run=run_options(block=block))
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
        time.sleep(1.1)  # TIFF times have seconds
    assert contents[0] == contents[1]


def test_polygons_in_the_same_run_are_those_of_the_land_cover(tmp_path: Path) -> None:
    scene, cover, polygons = index_scene(tmp_path / "scene.tif"), tmp_path / "cover.tif", tmp_path / "cover.gpkg"
    drawing = VectorOptions(classes=["water", "vegetation"])
    wanted = {"polygons": polygons, "drawing": drawing}
    summary = by_index(scene, cover, **wanted)
    assert summary.outputs == [cover, polygons]
    vectorize_file(cover, tmp_path / "apart.gpkg", drawing)
    for layer in ("water", "vegetation"):
        found, apart = (gpd.read_file(path, layer=layer) for path in (polygons, tmp_path / "apart.gpkg"))
        assert len(found) > 3
        assert found.equals(apart)
    assert by_index(scene, cover, **wanted).up_to_date
    polygons.unlink()
    again = by_index(scene, cover, **wanted)
    assert set(again.seconds) == {"vectorize"}
    assert polygons.is_file()


@pytest.mark.parametrize(
    ("name", "classes", "said"),
    [
        ("cover.shp", None, "Shapefiles are not written"),
        ("cover.gpkg", ["lava"], "'lava' is not in the legend"),
        ("there.gpkg", None, "exists"),
        ("no/cover.gpkg", None, "does not exist"),
    ],
)
def test_polygons_that_cannot_be_written_are_refused_before_the_run(
    name: str, classes: list[str] | None, said: str, tmp_path: Path
) -> None:
    (tmp_path / "there.gpkg").touch()
    scene = index_scene(tmp_path / "scene.tif")
    with pytest.raises(InputError, match=said):
        by_index(scene, tmp_path / "cover.tif", polygons=tmp_path / name, drawing=VectorOptions(classes=classes))
    assert not (tmp_path / "cover.tif").exists()
