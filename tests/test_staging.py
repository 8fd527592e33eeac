from __future__ import annotations

import json
import pickle
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from staged import LAYOUT, PARTS, pixels, stage_all

from geoseg.errors import GeosegError, InputError
from geoseg.raster.disk import partial_folder
from geoseg.raster.staging import BlockLayout, Staging, canonical_json, digest_of, discard_leftovers


@settings(deadline=None)
@given(
    st.data(), st.tuples(st.integers(1, 99), st.integers(1, 99)), st.tuples(st.integers(1, 120), st.integers(1, 120))
)
def test_blocks_cover_every_pixel_once(data: st.DataObject, shape: tuple[int, int], block: tuple[int, int]) -> None:
    phase = data.draw(st.tuples(st.integers(0, block[0] - 1), st.integers(0, block[1] - 1)))
    layout = BlockLayout(shape, block, {"landcover": 1}, phase)
    covered = np.zeros(shape, dtype=int)
    for index in layout.blocks:
        window = layout.window(index)
        assert not window.is_empty
        assert all(
            (start + p) % b == 0 for start, p, b in zip((window.row, window.col), phase, block, strict=True) if start
        )
        covered[window.slices] += 1
    assert (covered == 1).all()


def test_a_layout_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="1 px or more"):
        BlockLayout((0, 5), (10, 10), {"landcover": 1})
    with pytest.raises(InputError, match="phase"):
        BlockLayout((9, 5), (10, 10), {"landcover": 1}, (0, 10))


def test_equal_parts_have_one_digest() -> None:
    assert digest_of({"a": 1, "b": (1, 2)}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 1.5})
    assert canonical_json({"b": float("nan"), "a": "é"}) == '{"a":"é","b":NaN}'


def crash(output: Path, blocks: list[tuple[int, int]]) -> None:
    with Staging.open(output, PARTS, LAYOUT) as staging:
        for block in blocks:
            staging.writer().write(block, pixels(LAYOUT, block), note={"seam": [1, 2.5]})
        raise ZeroDivisionError


def test_finished_blocks_are_there_after_a_crash(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with pytest.raises(ZeroDivisionError):
        crash(output, [(1, 2)])
    with Staging.open(output, PARTS, LAYOUT) as staging:
        staging.writer().write((0, 1), {})
    with Staging.open(output, PARTS, LAYOUT) as staging:
        assert staging.done() == {(1, 2), (0, 1)}
        assert staging.notes() == {(1, 2): {"seam": [1, 2.5]}}
        with rasterio.open(staging.files("probabilities", tmp_path)[1, 2]) as raster:
            assert np.array_equal(raster.read(), pixels(LAYOUT, (1, 2))["probabilities"])
        with pytest.raises(GeosegError, match=r"7 blocks .* not finished, the first at rows 0:20, columns 0:30"):
            staging.check_complete()
        stage_all(staging)
        staging.check_complete()
        staging.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_finished_no_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        crash(tmp_path / "out.tif", [])
    assert list(tmp_path.iterdir()) == []


def test_nodata_blocks_need_no_pixels(tmp_path: Path) -> None:
    empty = {name: np.full((n, 20, 30), 255, np.uint8) for name, n in LAYOUT.layers.items()}
    with Staging.open(tmp_path / "out.tif", PARTS, LAYOUT) as staging:
        staging.writer().write((0, 0), empty)
        staging.writer().write((0, 1), {**empty, "landcover": np.zeros((20, 30), np.uint8)})
        assert staging.done() == {(0, 0), (0, 1)}
        assert list(staging.files("landcover", tmp_path)) == [(0, 1)]
        assert staging.files("probabilities", tmp_path) == {}


def test_a_block_counts_only_when_all_its_files_are_whole(tmp_path: Path) -> None:
    with Staging.open(tmp_path / "out.tif", PARTS, LAYOUT) as staging:
        for block in ((0, 0), (0, 1), (1, 0), (1, 1)):
            staging.writer().write(block, pixels(LAYOUT, block))
        files = staging.files("landcover", tmp_path)
        files[0, 0].unlink()
        files[0, 1].write_bytes(files[0, 1].read_bytes()[:-1])
        marker = next(staging.folder.glob("blocks-*/done/1/0.json"))
        marker.write_text("{")
        assert staging.done() == {(1, 1)}


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"landcover": np.zeros((20, 30), np.uint8)}, "has layers"),
        ({"landcover": np.zeros((20, 29), np.uint8), "probabilities": np.zeros((2, 20, 30), np.uint8)}, "landcover"),
        ({"landcover": np.zeros((20, 30), np.int64), "probabilities": np.zeros((2, 20, 30), np.uint8)}, "int64"),
    ],
)
def test_pixels_that_do_not_fit_are_refused(tmp_path: Path, layers: dict[str, Any], said: str) -> None:
    with Staging.open(tmp_path / "out.tif", PARTS, LAYOUT) as staging:
        with pytest.raises(ValueError, match=said):
            staging.writer().write((0, 0), layers)
        assert staging.done() == set()


def test_blocks_of_another_kind_of_machine_do_not_mix(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with Staging.open(output, PARTS, LAYOUT, machine="x86_64 AVX2") as staging:
        stage_all(staging)
        digest = staging.digest
    with (
        pytest.raises(InputError, match=r"kind of machine was x86_64 AVX2, now x86_64 AVX512.*--overwrite"),
        Staging.open(output, PARTS, LAYOUT, machine="x86_64 AVX512"),
    ):
        pass
    with Staging.open(output, PARTS, LAYOUT, machine="x86_64 AVX512", overwrite=True) as staging:
        assert staging.done() == set()
        assert staging.digest == digest


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"options": {"chip": 512, "halo": 16}}, "option chip was 256, now 512"),
        ({"options": {"chip": 256}}, "option halo was 16, now not given"),
        ({"model": {"name": "tiny", "digest": "cd" * 32}}, r"model digest was abababababab\.\.\. .*, now cdcdcdcdcdcd"),
        ({"versions": {"geoseg": "0.2.0"}}, r"version of geoseg was 0\.1\.0, now 0\.2\.0"),
    ],
)
def test_blocks_of_another_run_are_refused_by_name(tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    output = tmp_path / "out.tif"
    with Staging.open(output, PARTS, LAYOUT) as staging:
        stage_all(staging)
    with pytest.raises(InputError, match=f"{said}.*--overwrite"), Staging.open(output, PARTS | parts, LAYOUT):
        pass
    with Staging.open(output, PARTS, LAYOUT) as staging:
        staging.check_complete()
    with Staging.open(output, PARTS | parts, LAYOUT, overwrite=True) as staging:
        assert staging.done() == set()
        assert len(list(staging.folder.glob("blocks-*"))) == 1


def test_blocks_cut_otherwise_are_refused(tmp_path: Path) -> None:
    output, other = tmp_path / "out.tif", BlockLayout((50, 70), (20, 20), {"landcover": 1})
    with Staging.open(output, PARTS, LAYOUT) as staging:
        stage_all(staging)
        digest = staging.digest
    with pytest.raises(InputError, match=r"blocks block was \[20,30\], now \[20,20\]"):  # noqa: SIM117
        with Staging.open(output, PARTS, other):
            pass
    with Staging.open(output, PARTS, other, overwrite=True) as staging:
        assert staging.digest == digest


def test_overwrite_goes_on_with_the_same_run(tmp_path: Path) -> None:
    for _ in range(2):
        with Staging.open(tmp_path / "out.tif", PARTS, LAYOUT, overwrite=True) as staging:
            stage_all(staging)
    assert len(staging.done()) == 9


def test_an_unreadable_record_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with Staging.open(output, PARTS, LAYOUT) as staging:
        stage_all(staging)
    (partial_folder(output) / "run.json").write_text('{"format": 1, "stranger": 2}')
    with pytest.raises(InputError, match="cannot be trusted"), Staging.open(output, PARTS, LAYOUT):
        pass
    with Staging.open(output, PARTS, LAYOUT, overwrite=True) as staging:
        assert staging.done() == set()


def test_blocks_without_a_record_are_not_trusted(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with Staging.open(output, PARTS, LAYOUT) as staging:
        stage_all(staging)
    (partial_folder(output) / "run.json").unlink()
    with Staging.open(output, PARTS, LAYOUT) as staging:
        assert staging.done() == set()


def test_leftovers_are_deleted_for_their_own_run_only(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    discard_leftovers(output, digest_of(PARTS))
    with Staging.open(output, PARTS, LAYOUT) as staging:
        stage_all(staging)
        discard_leftovers(output, staging.digest)
        staging.check_complete()
    discard_leftovers(output, "0" * 64)
    assert partial_folder(output).exists()
    (partial_folder(output) / "run.json").write_text("{")
    discard_leftovers(output, digest_of(PARTS))
    assert partial_folder(output).exists()
    (partial_folder(output) / "run.json").write_text(staging.record.model_dump_json())
    discard_leftovers(output, staging.digest)
    assert list(tmp_path.iterdir()) == []


def test_nan_in_the_parts_is_no_difference(tmp_path: Path) -> None:
    parts = {"scene": {"nodata": float("nan")}}
    for _ in range(2):
        with Staging.open(tmp_path / "out.tif", parts, LAYOUT) as staging:
            stage_all(staging)


def test_a_concurrent_run_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with Staging.open(output, PARTS, LAYOUT) as staging:
        with pytest.raises(InputError, match="Another run"), Staging.open(output, PARTS, LAYOUT, overwrite=True):
            pass
        stage_all(staging)
        staging.check_complete()


def test_writers_work_in_threads_and_in_other_processes(tmp_path: Path) -> None:
    script = (
        "import pickle, sys, numpy as np; writer, block, layers = pickle.loads(sys.stdin.buffer.read())\n"
        "writer.write(block, layers)"
    )
    with Staging.open(tmp_path / "out.tif", PARTS, LAYOUT) as staging:
        writer = staging.writer()
        *threaded, last = LAYOUT.blocks
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda block: writer.write(block, pixels(LAYOUT, block)), threaded * 2))
        task = pickle.dumps((writer, last, pixels(LAYOUT, last)))
        subprocess.run([sys.executable, "-c", script], input=task, check=True)
        staging.check_complete()
        assert list(staging.folder.rglob("*.tmp")) == []


def test_a_straggler_of_a_discarded_run_fails(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with Staging.open(output, PARTS, LAYOUT) as staging:
        straggler = staging.writer()
    with Staging.open(output, PARTS | {"options": {}}, LAYOUT) as staging:
        with pytest.raises(GeosegError, match="rows 0:20"):
            straggler.write((0, 0), pixels(LAYOUT, (0, 0)))
        assert staging.done() == set()


def test_a_foreign_file_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    with Staging.open(output, PARTS, LAYOUT) as staging:
        stage_all(staging)
        (staging.folder / "notes.txt").write_text("mine")
        staging.discard()
    assert [p.name for p in partial_folder(output).iterdir() if p.name != "lock"] == ["notes.txt"]


# A whole run in a process of its own: `output` and what to do with it.
RUN = """
import os, signal, sys
from pathlib import Path
import numpy as np
from affine import Affine
from rasterio.crs import CRS
from geoseg.errors import GeosegError
from geoseg.legend import LANDCOVER
from geoseg.raster.landcover import Georef, confidence_layer, landcover_layer, write_cog
from geoseg.raster.staging import BlockLayout, Staging

SHAPE, BLOCK = (550, 600), (100, 100)
PLACE = Georef(SHAPE, Affine(0.3, 0, 5e5, 0, -0.3, 4e6), CRS.from_epsg(32631))

def run(output):
    layout = BlockLayout(SHAPE, BLOCK, {"landcover": 1, "confidence": 1})
    with Staging.open(output, {}, layout) as staging:
        for block in sorted(set(layout.blocks) - staging.done()):
            shape = layout.window(block).shape
            rng = np.random.default_rng(block)
            cover, confidence = (rng.integers(1, top, shape, np.uint8) for top in (7, 201))
            layers = {"landcover": cover, "confidence": confidence}
            staging.writer().write(block, layers, note={"block": list(block)})
        write_cog(staging, confidence_layer(output.with_name("conf.tif"), {"T": "1"}), PLACE)
        write_cog(staging, landcover_layer(output, LANDCOVER, {"T": "1"}), PLACE)
        assert len(staging.notes()) == layout.count[0] * layout.count[1]
        staging.discard()
"""
TIMED = RUN + "print('ready', flush=True); run(Path(sys.argv[1]))"
LIMITED = RUN + (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))\n"
    "try: run(Path(sys.argv[1]))\n"
    "except GeosegError as error: sys.exit(str(error))\n"
)
EVERY_RENAME = (
    RUN
    + """
BLOCK = (300, 600)

def killed_at(n, output):
    replace, count = Path.replace, [0]
    def counted(self, target):
        count[0] += 1
        if count[0] == n // 2 + n % 2 and n % 2: os.kill(os.getpid(), signal.SIGKILL)
        result = replace(self, target)
        if count[0] == n // 2 and n % 2 == 0: os.kill(os.getpid(), signal.SIGKILL)
        return result
    Path.replace = counted
    run(output)

def in_child(work, *args):
    child = os.fork()
    if child == 0:
        work(*args)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}

base, n = Path(sys.argv[1]), 0
(base / "ref").mkdir()
assert in_child(run, base / "ref/out.tif") == 0
while True:
    n += 1
    folder = base / str(n)
    folder.mkdir()
    code = in_child(killed_at, n, folder / "out.tif")
    if code == 0: break
    assert code == -9, code
    published = [p for p in folder.glob("*.tif") if p.is_file()]
    assert all(p.read_bytes() == (base / "ref" / p.name).read_bytes() for p in published)
    assert in_child(run, folder / "out.tif") == 0
    assert files(folder) == files(base / "ref"), n
print(n)
"""
)


ON_A_SMALL_DISK = (
    RUN
    + """
import json, subprocess

def outcome(output):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try: run(output)
        except GeosegError as error: os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    with open(read, "rb") as pipe: return pipe.read().decode()

base, disk, told = Path(sys.argv[1]), Path(sys.argv[2]), []
assert outcome(base / "out.tif") == ""
whole = {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
for free in json.loads(sys.argv[3]):
    folder = disk / str(free)
    folder.mkdir()
    (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - free))
    said = outcome(folder / "out.tif")
    staged = len(list(folder.glob("*/*/done/*/*.json")))
    assert all(path.read_bytes() == whole[path.name] for path in folder.glob("*.tif") if path.is_file())
    (disk / "ballast").unlink()
    assert outcome(folder / "out.tif") == ""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    for path in folder.iterdir(): path.unlink()
    told.append([free, staged, said])
print(json.dumps(told))
"""
)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in folder.iterdir()}


def test_a_run_killed_at_any_rename_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    with start(EVERY_RENAME, tmp_path) as process:
        printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert int(printed) > 20


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    with start(TIMED, folder / "out.tif") as process:
        assert process.wait() == 0
    return outputs(folder)


@pytest.mark.parametrize(("limit", "doing"), [(5_000, "staging the block"), (100_000, "writing conf.tif")])
def test_a_full_disk_loses_nothing(tmp_path: Path, uninterrupted: dict[str, bytes], limit: int, doing: str) -> None:
    """A limit on the size of files stands in for a full disk: the same refusals, without mounting one."""
    with start(LIMITED, tmp_path / "out.tif", limit) as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert doing in said
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert list(tmp_path.glob("*.tif")) == []
    with start(LIMITED, tmp_path / "out.tif", resource.RLIM_INFINITY) as process:
        assert process.wait() == 0
    assert outputs(tmp_path) == uninterrupted


def test_a_disk_that_is_full_at_any_time_loses_nothing(tmp_path: Path) -> None:
    """A file system of a few MB, mounted for this process alone."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    disk, free = tmp_path / "disk", [60_000, 500_000, 1_150_000, 1_275_000, 1_300_000, 1_400_000, 1_600_000]
    disk.mkdir()
    command = ["unshare", "-rm", sys.executable, "-c", ON_A_SMALL_DISK, str(tmp_path), str(disk), json.dumps(free)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert all("is full" in said and "same command again" in said for _, _, said in told[:-1])
    for doing in ("staging the block", "writing conf.tif", "writing out.tif"):
        assert any(doing in said for _, _, said in told)
    assert [staged for _, staged, _ in told] == [told[0][1], told[1][1], 36, 36, 36, 36, 0]
    assert 0 < told[0][1] < told[1][1] < 36
