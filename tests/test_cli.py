"""The command line as a person meets it: help, exit codes, messages, files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from builders import pixels_of, read_band, save_tiny, write_rgb
from scene_files import write
from typer.testing import CliRunner

from geoseg.cli import app, main
from geoseg.cli.options import parse_bands
from geoseg.errors import InputError

COMMANDS = ["info", "plan", "segment", "vectorize", "change", "evaluate", "train", "sample", "area"]
COMMANDS += ["pseudo-label", "export", "models", "demo"]
CPU = ["--device", "cpu", "--precision", "float32"]


@dataclass
class Said:
    code: int
    out: str
    err: str


Geoseg = Callable[..., Said]


@pytest.fixture
def geoseg(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Geoseg:
    """`geoseg ...` in this process, by `main`, which turns errors into exit codes."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["geoseg", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        told = capfd.readouterr()
        return Said(code, told.out, told.err)

    return run


def index_scene(path: Path) -> Path:
    return write(path, pixels_of((60, 70)), descriptions=("green", "red", "nir"))


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_tells_every_option(command: list[str]) -> None:
    told = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert told.exit_code == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", told.output)
    assert "Usage:" in text
    if not command:
        assert all(name in text for name in COMMANDS)


def test_help_of_segment_lists_the_options_that_are_promised() -> None:
    text = CliRunner().invoke(app, ["segment", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    promised = (
        "--output -o --model --confidence --probabilities --aoi --bands --nodata --valid-mask --scale --offset --gsd "
        "--resample --pool --device --precision --engine --chip --halo --block --memory --workers --scheduler "
        "--staging --overwrite --views --polygons --classes"
    )
    assert all(option in text for option in promised.split())


def test_plan_says_what_segment_does(geoseg: Geoseg, tmp_path: Path) -> None:
    scene, model = write_rgb(tmp_path / "scene.tif"), save_tiny(tmp_path / "tiny")
    options = ["--model", model, *CPU, "--engine", "torch", "--chip", 96, "--block", 64]
    told = geoseg("plan", scene, *options)
    assert (told.code, told.err) == (0, "")
    assert "149 x 131 px" in told.out
    assert re.search(r"chips +25 of 96 px: cores of 32 px, halo 32 px", told.out)
    assert re.search(r"blocks +9 of 64 px", told.out)
    assert "torch on cpu, float32" in told.out
    assert re.search(r"memory +\d\.\d\d GB at most", told.out)
    assert re.search(r"time +about \d+ s", told.out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif", "tiny"]
    done = geoseg("segment", scene, "-o", tmp_path / "cover.tif", *options)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"seams: 0\.00 % of \d+ pixels sampled", done.out)


def test_plan_takes_the_command_of_segment(geoseg: Geoseg, tmp_path: Path) -> None:
    """Word for word: the confidence is counted, and none of the files is written or taken for a scene."""
    scene, model = write_rgb(tmp_path / "scene.tif", (300, 400)), save_tiny(tmp_path / "tiny")
    alone = geoseg("plan", scene, "--model", model, *CPU)
    outputs = {name: tmp_path / file for name, file in (("-o", "a.tif"), ("--confidence", "b.tif"))}
    more = ["--polygons", tmp_path / "p.gpkg", "--classes", "water", "--overwrite"]
    arguments = [part for pair in outputs.items() for part in pair]
    told = geoseg("plan", scene, *arguments, *more, "--model", model, *CPU)
    assert (told.code, told.err) == (0, "")
    assert "400 x 300 px, 0.1 MB" in alone.out
    assert "400 x 300 px, 0.2 MB" in told.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif", "tiny"]
    nowhere = geoseg("plan", scene, "-o", tmp_path / "gone" / "a.tif", "--model", model, *CPU)
    assert (nowhere.code, "does not exist; create it first" in nowhere.err) == (2, True)


def test_help_is_instant_and_loads_nothing_heavy() -> None:
    probe = (
        "import sys; sys.argv = ['geoseg', 'segment', '--help']\n"
        "from geoseg.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('heavy:', [n for n in ('torch', 'rasterio', 'dask', 'xarray', 'numpy') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "heavy: []" in told.stdout


def test_from_scene_to_polygons(tmp_path: Path) -> None:
    """In a process of its own, as installed."""
    scene = index_scene(tmp_path / "scene.tif")
    command = [sys.executable, "-c", "from geoseg.cli import main; main()"]
    cover, polygons = tmp_path / "cover.tif", tmp_path / "polygons.gpkg"
    for arguments in (
        ["segment", scene, "-o", cover, "--model", "spectral-index", *CPU],
        ["vectorize", cover, "-o", polygons, "--classes", "water,vegetation"],
    ):
        told = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert (told.returncode, told.stderr) == (0, "")
        assert len(told.stdout.splitlines()) == 1
    assert set(np.unique(read_band(cover))) == {1, 2, 3}
    assert polygons.is_file()


def test_segment_says_what_it_wrote_and_then_that_it_is_up_to_date(tmp_path: Path, geoseg: Geoseg) -> None:
    scene, cover = index_scene(tmp_path / "scene.tif"), tmp_path / "cover.tif"
    arguments = ["segment", scene, "-o", cover, "--confidence", tmp_path / "c.tif", "--model", "spectral-index", *CPU]
    first, second = geoseg(*arguments), geoseg(*arguments)
    assert (first.code, second.code) == (0, 0)
    assert re.search(r"cover\.tif, .*c\.tif: 0\.0 Mpx \(segment .* s, write .* s\)", first.out)
    assert second.out.strip().endswith("up to date")


def test_a_bundle_by_path_and_all_options(tmp_path: Path, geoseg: Geoseg) -> None:
    scene = write_rgb(tmp_path / "scene.tif", (40, 44))
    said = geoseg(
        *("segment", scene, "-o", tmp_path / "cover.tif", "--model", save_tiny(tmp_path / "model"), *CPU),
        *("--bands", "red=1,green=2,blue=3", "--nodata", 0, "--gsd", 0.5, "--chip", 96, "--halo", "exact"),
        *("--block", 200, "--workers", 1, "--scale", 0.003921568, "--offset", 0, "--overwrite"),
    )
    assert (said.code, said.err) == (0, "")
    assert (read_band(tmp_path / "cover.tif") != 255).any()


def test_info_is_readable_and_json(tmp_path: Path, geoseg: Geoseg) -> None:
    scene = index_scene(tmp_path / "scene.tif")
    said = geoseg("info", scene)
    assert said.code == 0
    assert "70 x 60 px, uint8, pixels of 10 m" in said.out
    assert "EPSG:32631" in said.out
    assert "spectral-index: fits" in said.out
    facts = json.loads(geoseg("info", scene, "--json").out)
    assert (facts["rows"], facts["columns"]) == (60, 70)
    assert facts["models"]["spectral-index"] == ""


@pytest.mark.parametrize(
    ("bands", "advice"),
    [
        (
            3,
            {
                "landcover-rgb": "--bands red=1,green=2,blue=3.",
                "spectral-index": "--bands green=N,red=N,nir=N, N being its number, or its file.",
            },
        ),
        (2, {"landcover-rgb": "--bands red=N,green=N,blue=N, N being its number, or its file."}),
        (4, dict.fromkeys(("landcover-rgb", "spectral-index"), "--bands red=1,green=2,blue=3,nir=4.")),
    ],
)
def test_info_advises_bands_that_may_be_there(
    tmp_path: Path, geoseg: Geoseg, bands: int, advice: dict[str, str]
) -> None:
    scene = write(tmp_path / "scene.tif", np.zeros((bands, 40, 40), np.uint8), photometric="minisblack")
    said = json.loads(geoseg("info", scene, "--json").out)["models"]
    assert {name: said[name].endswith(words) for name, words in advice.items()} == dict.fromkeys(advice, True), said


def test_models_are_listed(geoseg: Geoseg) -> None:
    assert "spectral-index" in geoseg("models").out
    assert "spectral-index" in json.loads(geoseg("models", "--json").out)


def test_version(geoseg: Geoseg) -> None:
    assert re.fullmatch(r"geoseg \d+\.\d+\S*\n", geoseg("--version").out)


def test_no_command_shows_the_help(geoseg: Geoseg) -> None:
    said = geoseg()
    assert said.code in (0, 2)
    assert "Usage:" in said.out + said.err


@pytest.mark.parametrize("arguments", [["--debug", "info", "gone.tif"], ["info", "gone.tif", "--debug"]])
def test_debug_shows_the_traceback(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["geoseg", *arguments])
    with pytest.raises(InputError):  # what nobody catches, Python shows in full
        main()


def test_an_interrupt_says_how_to_go_on(tmp_path: Path, geoseg: Geoseg, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("geoseg.pipeline.segment_file", interrupted)
    said = geoseg("segment", "scene.tif", "-o", tmp_path / "cover.tif")
    assert said.code == 130
    assert "Run the same command again to go on" in said.err
    assert "Traceback" not in said.err


def test_an_interrupted_training_goes_on_with_resume(
    tmp_path: Path, geoseg: Geoseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("geoseg.training.config.load_config", interrupted)
    said = geoseg("train", "config.yaml")
    assert said.code == 130
    assert "Run the same command with --resume to go on from the last checkpoint" in said.err


def test_what_failed_has_exit_code_1(tmp_path: Path, geoseg: Geoseg) -> None:
    """A tile in the middle is damaged: nobody can know before it is read."""
    import rasterio

    scene = write_rgb(tmp_path / "scene.tif", (320, 320), interleave="pixel")
    with rasterio.open(scene) as file:
        start, size = (int(file.get_tag_item(f"BLOCK_{what}_1_1", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    content = bytearray(scene.read_bytes())
    content[start : start + size] = b"\x55" * size
    scene.write_bytes(content)
    bands = "green=1,red=2,nir=3"
    said = geoseg(
        *("segment", scene, "-o", tmp_path / "cover.tif", "--model", "spectral-index", "--bands", bands, *CPU),
        *("--chip", 64, "--block", 64),
    )
    assert said.code == 1
    assert "The block at rows 64:128, columns 64:128 failed" in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "cover.tif").exists()


@pytest.mark.parametrize(
    ("text", "bands"),
    [
        ("red=1,green=2", {"red": "1", "green": "2"}),
        ("red=a,b.tif,nir=n.tif:1", {"red": "a,b.tif", "nir": "n.tif:1"}),
        ("red=B04.jp2", {"red": "B04.jp2"}),
    ],
)
def test_bands_are_parsed(text: str, bands: dict[str, str]) -> None:
    assert parse_bands(text) == bands


@pytest.mark.parametrize("text", ["red", "red=", "=1", ""])
def test_bands_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--bands takes name=number"):
        parse_bands(text)
