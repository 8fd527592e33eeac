"""Each line of what people hand in by mistake: exit code 2, a plain sentence or two, no traceback, no file."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from builders import pixels_of, save_tiny, write_rgb
from scene_files import write

from geoseg.cli import main


class Case:
    """A folder with a good scene and a good model, and the command line."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self._monkeypatch, self._capfd = folder, monkeypatch, capfd
        self.scene = write_rgb(folder / "scene.tif", (40, 44))
        self.model = save_tiny(folder / "model")
        self.output = folder / "out" / "cover.tif"
        self.output.parent.mkdir()

    def run(self, *arguments: object) -> tuple[int, str]:
        self._monkeypatch.setattr(sys, "argv", ["geoseg", *map(str, arguments)])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        told = self._capfd.readouterr()
        return int(stop.value.code or 0), told.err

    def segment(self, *arguments: object, scene: Path | None = None) -> tuple[int, str]:
        given = [] if "--model" in arguments else ["--model", self.model]
        device = ["--device", "cpu"] if "--device" not in arguments else []
        return self.run("segment", scene or self.scene, "-o", self.output, *given, *device, *arguments)

    def refused(self, said: tuple[int, str], *words: str) -> None:
        """Exit code 2; one line with all the words, plain and short; nothing was written."""
        code, told = said
        assert code == 2, told
        message = told.strip()
        assert message.startswith("geoseg: ")
        assert len(message.splitlines()) == 1, told
        assert len(message) < 400, told
        assert "Traceback" not in told
        for word in words:
            assert word in message, f"{word!r} is not in {message!r}"
        assert not list(self.output.parent.iterdir())


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Case:
    return Case(tmp_path, monkeypatch, capfd)


def test_a_missing_file(case: Case) -> None:
    case.refused(case.segment(scene=case.folder / "gone.tif"), "gone.tif", "does not exist")


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>404</body></html>")


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("red green blue")


def cut_before_the_directory(path: Path) -> None:
    write_rgb(path, (200, 200), compress="none", tiled=False)
    path.write_bytes(path.read_bytes()[:60_000])


def cut_after_the_directory(path: Path) -> None:
    with rasterio.open(write_rgb(path.with_name("whole.tif"), (200, 200))) as whole:
        rasterio.shutil.copy(whole, path, driver="COG", COMPRESS="NONE")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def header_alone(path: Path) -> None:
    """A classic TIFF of 10^6 x 10^6 pixels in one strip that lies beyond the end of the file."""
    tags = [(256, 4, 10**6), (257, 4, 10**6), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, 10**6), (279, 4, 4_000_000_000)]
    directory = struct.pack("<H", len(tags))
    for tag, kind, value in tags:
        stored = struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value)
        directory += struct.pack("<HHI", tag, kind, 1) + stored
    path.write_bytes(b"II*\x00" + struct.pack("<I", 8) + directory + struct.pack("<I", 0))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (html, "web page"),
        (empty, "is empty"),
        (text, "is not a raster"),
        (cut_before_the_directory, "damaged"),
        (cut_after_the_directory, "claims 200 x 200 px"),
        (header_alone, "claims 1000000 x 1000000 px"),
    ],
)
def test_files_that_are_no_scene(case: Case, make: Callable[[Path], None], word: str) -> None:
    scene = case.folder / "bad.tif"
    make(scene)
    case.refused(case.segment(scene=scene), "bad.tif", word)


def test_a_folder(case: Case) -> None:
    case.refused(case.segment(scene=case.folder), "is a folder")


def test_too_few_bands(case: Case) -> None:
    scene = write(case.folder / "gray.tif", pixels_of((40, 40), bands=1))
    case.refused(case.segment(scene=scene), "needs band red, green, blue", "--bands")


def test_a_wrong_dtype(case: Case) -> None:
    scene = write_rgb(case.folder / "deep.tif", values=pixels_of((40, 40)).astype(np.uint16) * 10)
    case.refused(case.segment(scene=scene), "uint16", "uint8", "--scale")


def test_a_resolution_out_of_range(case: Case) -> None:
    scene = write_rgb(case.folder / "coarse.tif", (40, 40), transform=Affine(10, 0, 5e5, 0, -10, 5e6))
    case.refused(case.segment(scene=scene), "10 m", "0.2 to 1 m", "--resample", "--gsd")


def test_an_unknown_model(case: Case) -> None:
    case.refused(case.segment("--model", "landcover-rgx"), "landcover-rgx", "unknown", "spectral-index")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--device", "tpu", ("tpu", "auto, cpu, cuda")),
        ("--precision", "float8", ("float8", "auto, float32, bfloat16")),
        ("--engine", "tensorrt", ("tensorrt", "auto, torch, openvino")),
        ("--engine", "onnxruntime", ("onnxruntime", "torch or openvino")),
        ("--memory", -1, ("--memory", "not -1")),
        ("--memory", 0.2, ("--memory allows 0.2", "no chip would fit", "--chip 68")),
        ("--scheduler", "tcp://127.0.0.1:1", ("tcp://127.0.0.1:1", "dask scheduler")),
        ("--scheduler", "gone.json", ("no scheduler file gone.json", "--scheduler-file")),
        ("--staging", "gone/deep", ("gone",)),
        ("--workers", 0, ("--workers", "not 0")),
        ("--chip", 0, ("--chip", "not 0")),
        ("--block", -5, ("--block", "not -5")),
        ("--halo", -4, ("--halo", "not -4")),
        ("--halo", "wide", ("--halo", "'wide'", "exact")),
        ("--halo", 3, ("3", "stride 4")),
        ("--chip", 99, ("99", "stride 4", "use 100")),
        ("--chip", 8, ("8", "at least 68")),
        ("--bands", "red:1", ("--bands", "red:1")),
        ("--bands", "red=9,green=2,blue=3", ("9", "3")),
        ("--bands", "red=1,green=2,red=3", ("--bands", "'red' 2 times", "once")),
        ("--simplify", 3, ("--simplify is for polygons", "--polygons")),
        ("--fill-holes", 3, ("--fill-holes is for polygons", "--polygons")),
        ("--classes", "water", ("--classes is for polygons", "--polygons")),
        ("--gsd", -1, ("-1",)),
        ("--gsd", "nan", ("nan",)),
        ("--scale", 0, ("0",)),
        ("--valid-mask", "gone.tif", ("gone.tif does not exist. Check the path.",)),
        ("--aoi", "gone.gpkg", ("gone.gpkg", "does not exist")),
    ],
)
def test_option_values(case: Case, option: str, value: object, words: tuple[str, ...]) -> None:
    case.refused(case.segment(option, value), *words)


@pytest.mark.parametrize("arguments", [["--workers", "many"], ["--unheard-of"], ["--nodata", "black"]])
def test_what_typer_refuses_has_exit_code_2_as_well(case: Case, arguments: list[str]) -> None:
    code, told = case.segment(*arguments)
    assert code == 2
    assert "Traceback" not in told
    assert arguments[0] in told
    assert not list(case.output.parent.iterdir())


def test_no_device(case: Case) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    case.refused(case.segment("--device", "cuda"), "cuda", "--device cpu")


def test_a_missing_output_folder(case: Case) -> None:
    case.output = case.folder / "out" / "deep" / "cover.tif"
    code, told = case.segment()
    assert code == 2
    assert "does not exist; create it first" in told
    assert not list((case.folder / "out").iterdir())


def test_a_read_only_output_folder(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # permissions say nothing to root: a folder of the kernel's then
        case.output = Path("/proc/cover.tif")
        code, told = case.segment()
    else:
        case.output.parent.chmod(0o500)
        code, told = case.segment()
        case.output.parent.chmod(0o700)
    assert code == 2
    assert "cannot be written" in told


def test_an_output_without_a_name(case: Case) -> None:
    case.refused(case.run("segment", case.scene, "-o", "", "--model", case.model), "name of a file", "'.' is none")
    case.refused(case.segment("--confidence", ""), "name of a file")


@pytest.mark.parametrize("command", [["demo", "--small"], ["export", "spectral-index", "-o"]], ids=["demo", "export"])
def test_folders_that_cannot_be_made(case: Case, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg.models.export.FORMATS", {"onnx": None})  # nothing is computed before
    case.refused(case.run(*command, case.scene), "scene.tif", "file")
    folder = case.folder / "read-only"
    folder.mkdir(mode=0o500)
    if os.geteuid() == 0:  # permissions say nothing to root: a folder of the kernel's then
        folder = Path("/proc")
    case.refused(case.run(*command, folder / "new"), str(folder), "choose another")


def test_an_output_that_is_an_input(case: Case) -> None:
    before = case.scene.read_bytes()
    case.output = case.scene
    code, told = case.segment("--overwrite")
    assert code == 2
    assert "same file" in told
    assert case.scene.read_bytes() == before


def test_an_output_of_another_kind(case: Case) -> None:
    case.output = case.output.with_suffix(".png")
    case.refused(case.segment(), "must end in .tif or .tiff")


def test_a_card_with_unknown_keys(case: Case) -> None:
    card = case.model / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"pickle": "yes"}))
    case.refused(case.segment(), "card.json", "pickle")


def test_a_card_that_is_no_json(case: Case) -> None:
    (case.model / "card.json").write_text("{")
    case.refused(case.segment(), "card.json", "not valid")


def test_a_card_that_is_no_text(case: Case) -> None:
    (case.model / "card.json").write_bytes(b"\xff\xfe\x00card")
    case.refused(case.segment(), "card.json")


def test_weights_that_do_not_match(case: Case) -> None:
    card = case.model / "card.json"
    told = json.loads(card.read_text())
    told["architecture"]["args"]["decoder_channels"] = [8, 16]
    card.write_text(json.dumps(told))
    case.refused(case.segment(), "weights.safetensors", "in the file", "in the network")


def test_weights_cut_off(case: Case) -> None:
    weights = case.model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    case.refused(case.segment(), "weights.safetensors", "safetensors")


def test_an_unknown_class(case: Case) -> None:
    labels = write(case.folder / "labels.tif", np.ones((1, 20, 20), np.uint8))
    said = case.run("vectorize", labels, "-o", case.output.with_suffix(".gpkg"), "--classes", "bilding")
    case.refused(said, "bilding")


@pytest.mark.parametrize("name", ["gone.tif", "model"])
def test_vectorize_wants_a_raster(case: Case, name: str) -> None:
    case.refused(case.run("vectorize", case.folder / name, "-o", case.output.with_suffix(".gpkg")), name)


def test_vectorize_wants_a_known_format(case: Case) -> None:
    labels = write(case.folder / "labels.tif", np.ones((1, 20, 20), np.uint8))
    case.refused(case.run("vectorize", labels, "-o", case.output.with_suffix(".dxf")), ".dxf", ".gpkg")


def test_info_of_nothing(case: Case) -> None:
    case.refused(case.run("info", case.folder / "gone.tif"), "does not exist")


@pytest.mark.parametrize("name", ["gone", "empty"])
def test_a_catalog_without_that_name(case: Case, name: str) -> None:
    (case.folder / "scenes.yaml").write_text(
        "sources:\n  mine: {driver: rasterio, args: {urlpath: '{{ CATALOG_DIR }}/gone.tif'}}\n"
    )
    case.refused(case.run("info", f"{case.folder}/scenes.yaml#{name}"), name, "mine")
