"""Finished blocks elsewhere: in a folder that machines share, and on a real S3 server on this machine."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from affine import Affine
from moto_server import SECRET, s3_server
from rasterio.crs import CRS
from staged import LAYOUT, PARTS, pixels, stage_all

from geoseg.errors import GeosegError, InputError
from geoseg.legend import LANDCOVER
from geoseg.raster import stores
from geoseg.raster.disk import partial_folder
from geoseg.raster.georeference import Georef
from geoseg.raster.landcover import landcover_layer, write_cog
from geoseg.raster.staging import Staging, digest_of, discard_leftovers

PLACE = Georef(LAYOUT.shape, Affine(0.3, 0, 5e5, 0, -0.3, 4e6), CRS.from_epsg(32631))
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as system:
        yield system


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place for blocks; nothing may be left in it."""
    if request.param == "folder":
        monkeypatch.setattr(stores, "SHARED_LAG_S", 0.0)
        (tmp_path / "shared").mkdir()
        yield str(tmp_path / "shared")
        assert list((tmp_path / "shared").iterdir()) == []
        return
    system = request.getfixturevalue("s3")
    yield "s3://bucket/some/prefix"
    assert system.find("bucket") == []


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "out.tif"


def names(place: str, s3: Any = None) -> list[str]:
    """Everything in a place, by the ends of its names."""
    if place.startswith("s3://"):
        from s3fs import S3FileSystem

        found = S3FileSystem(use_listings_cache=False).find(place)
    else:
        found = [str(path) for path in Path(place).rglob("*") if path.is_file()]
    return sorted(name.partition(place.removeprefix("s3://") + "/")[2].partition("/")[2] for name in found)


def finish(output: Path, place: str | None) -> bytes:
    with Staging.open(output, PARTS, LAYOUT, store=place) as staging:
        stage_all(staging)
        write_cog(staging, landcover_layer(output, LANDCOVER, {"T": "1"}), PLACE)
        staging.discard()
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.tif", "out.tif.aux.xml"]
    return output.read_bytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return finish(tmp_path_factory.mktemp("beside") / "out.tif", None)


WRITE = """
import os, pickle, sys
writer, blocks = pickle.loads(sys.stdin.buffer.read())
for block, layers in blocks:
    writer.write(block, layers, note={"process": os.getpid()})
"""


def test_other_processes_write_to_the_store_themselves(output: Path, place: str, expected: bytes) -> None:
    with Staging.open(output, PARTS, LAYOUT, store=place) as staging:
        blocks = list(LAYOUT.blocks)
        processes = []
        for part in (blocks[::2], blocks[1::2]):
            task = pickle.dumps((staging.writer(), [(block, pixels(LAYOUT, block)) for block in part]))
            assert SECRET.encode() not in task
            process = subprocess.Popen([sys.executable, "-c", WRITE], stdin=subprocess.PIPE)
            assert process.stdin is not None
            process.stdin.write(task)
            process.stdin.close()
            processes.append(process)
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
        staging.check_complete()
        assert {note["process"] for note in staging.notes().values()} == {process.pid for process in processes}
        assert list(staging.notes()) == blocks
        assert sorted(path.name for path in staging.folder.iterdir()) == ["lock", "run.json"]
        assert SECRET not in (staging.folder / "run.json").read_text()
    assert finish(output, place) == expected


KILLED = """
import os, signal, sys
from pathlib import Path
from staged import LAYOUT, PARTS, pixels
from geoseg.raster.staging import Staging

with Staging.open(Path(sys.argv[1]), PARTS, LAYOUT, store=sys.argv[2]) as staging:
    for count, block in enumerate(LAYOUT.blocks):
        if count == 5: os.kill(os.getpid(), signal.SIGKILL)
        staging.writer().write(block, pixels(LAYOUT, block))
"""


@pytest.mark.parametrize("machine", ["same", "another"])
def test_a_killed_run_goes_on_from_the_store(output: Path, place: str, expected: bytes, machine: str) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, output, place], check=False, cwd=Path(__file__).parent)
    assert run.returncode == -9
    if machine == "another":  # with no file of the first; only the store knows
        output = output.parent.parent / "there" / "out.tif"
        output.parent.mkdir()
    with Staging.open(output, PARTS, LAYOUT, store=place) as staging:
        assert staging.done() == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}
    assert finish(output, place) == expected


def test_the_marker_is_the_last_of_a_block_and_nothing_stale_counts(output: Path, place: str) -> None:
    with Staging.open(output, PARTS, LAYOUT, store=place) as staging:
        stage_all(staging)
        assert len(names(place)) == 9 * 3 + 1
        store = staging.store
        store.publish("landcover/0/0.tif", b"cut")
        store.publish("done/0/1.json", b"{")
        store.publish("done/0/2.json", b'{"sizes":{"landcover":1,"probabilities":1}}')
        assert staging.done() == set(LAYOUT.blocks) - {(0, 0), (0, 1), (0, 2)}
        with pytest.raises(GeosegError, match=r"3 blocks of .* not finished, the first at rows 0:20, columns 0:30"):
            staging.check_complete()
        staging.discard()


def test_another_run_is_refused_by_name_and_goes_with_overwrite(output: Path, place: str) -> None:
    with Staging.open(output, PARTS, LAYOUT, store=place) as staging:
        stage_all(staging)
    other = PARTS | {"options": {"chip": 512, "halo": 16}}
    with (
        pytest.raises(InputError, match=r"option chip was 256, now 512.*--overwrite"),
        Staging.open(output, other, LAYOUT, store=place),
    ):
        pass
    with Staging.open(output, other, LAYOUT, store=place, overwrite=True) as staging:
        assert staging.done() == set()
        assert names(place) == ["run.json"]


def test_blocks_in_another_place_are_not_forgotten(output: Path, place: str) -> None:
    with Staging.open(output, PARTS, LAYOUT, store=place) as staging:
        stage_all(staging)
    with (
        pytest.raises(InputError, match=r"staging place was .*, now beside the output"),
        Staging.open(output, PARTS, LAYOUT),
    ):
        pass
    with Staging.open(output, PARTS, LAYOUT, overwrite=True) as staging:
        assert names(place) == []
        assert staging.done() == set()


def test_two_outputs_share_a_place(output: Path, place: str, tmp_path: Path) -> None:
    other = tmp_path / "other.tif"
    with (
        Staging.open(output, PARTS, LAYOUT, store=place) as staging,
        Staging.open(other, PARTS, LAYOUT, store=place) as second,
    ):
        stage_all(staging)
        assert second.done() == set()
        second.discard()
        assert len(staging.done()) == 9
        staging.discard()


def test_a_straggler_of_a_discarded_run_fails(output: Path, place: str) -> None:
    with Staging.open(output, PARTS, LAYOUT, store=place) as staging:
        straggler = staging.writer()
    with pytest.raises(GeosegError, match="rows 0:20"):
        straggler.write((0, 0), pixels(LAYOUT, (0, 0)))
    assert names(place) == []


def test_leftovers_are_deleted_there_too(output: Path, place: str) -> None:
    with Staging.open(output, PARTS, LAYOUT, store=place) as staging:
        stage_all(staging)
    discard_leftovers(output, "0" * 64)
    assert len(names(place)) == 28
    discard_leftovers(output, digest_of(PARTS))
    assert names(place) == []
    assert not partial_folder(output).exists()


def test_any_output_name_will_do(tmp_path: Path, place: str) -> None:
    for name in ("é#?.tif", "a&b'\"<.tif", "[z]*.TIFF"):
        with Staging.open(tmp_path / name, PARTS, LAYOUT, store=place) as staging:
            staging.writer().write((0, 0), pixels(LAYOUT, (0, 0)))
            assert staging.done() == {(0, 0)}
            staging.discard()


def test_another_machines_blocks_may_be_seen_late(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SHARED_LAG_S", 30.0)
    with Staging.open(output, PARTS, LAYOUT, store=tmp_path) as staging:
        stage_all(staging)
        late = next(staging.store.folder.glob("done/2/*.json"))
        late.rename(tmp_path / "late")
        monkeypatch.setattr(time, "sleep", lambda _: (tmp_path / "late").exists() and (tmp_path / "late").rename(late))
        staging.check_complete()
        staging.discard()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://no-such-bucket/prefix", r"s3://no-such-bucket/prefix: .*bucket does not exist.* Check the bucket"),
        ("s3://", "give a bucket and a prefix"),
        ("s3://bucket/a*", "give a bucket and a prefix"),
        ("s3://somebody:secret@bucket/prefix", "has a password in it"),
        ("nowhere://bucket/prefix", "nowhere://, which fsspec does not know"),
        ("gone/folder", r"gone/folder does not exist.*mkdir -p"),
        ("file:///proc", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_before_the_run(s3: Any, output: Path, place: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught, Staging.open(output, PARTS, LAYOUT, store=place):
        pass
    assert "secret" not in str(caught.value)
    assert list(output.parent.iterdir()) == []


def test_missing_credentials_and_an_unreachable_server_are_told(
    s3: Any, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(InputError, match="credentials"):
            stores.check_place("s3://bucket/prefix")
    S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9.*AWS_ENDPOINT_URL"):
        stores.check_place("s3://bucket/prefix")
    assert time.monotonic() - started < 60
    monkeypatch.undo()
    S3FileSystem.clear_instance_cache()


def test_a_missing_package_is_named(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setattr(sys.modules["fsspec.registry"], "registry", {})  # where fsspec keeps those already imported
    with pytest.raises(InputError, match=r"pip install 'geoseg\[s3\]'"):
        stores.check_place("s3://bucket/prefix")


def test_a_store_that_fails_during_the_run_names_the_block(s3: Any, output: Path) -> None:
    s3.mkdir("passing")
    with Staging.open(output, PARTS, LAYOUT, store="s3://passing/prefix") as staging:
        writer = staging.writer()
        s3.rm("passing", recursive=True)
        with pytest.raises(GeosegError, match=r"s3://passing/.* while staging the block at rows 0:20, .*same command"):
            writer.write((0, 0), pixels(LAYOUT, (0, 0)))


def test_blocks_that_do_not_fit_on_the_local_disk_are_a_full_disk(
    s3: Any, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Staging.open(output, PARTS, LAYOUT, store="s3://bucket/prefix") as staging:
        stage_all(staging)
        with monkeypatch.context() as patch:
            patch.setattr("shutil.disk_usage", lambda _: Usage(100, 90, 10))
            with pytest.raises(GeosegError, match=r"The disk of .*here.* is full"):
                write_cog(staging, landcover_layer(output, LANDCOVER, {}), PLACE)
        assert len(staging.done()) == 9
        staging.discard()
    assert not output.exists()
