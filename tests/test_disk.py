from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from geoseg.errors import GeosegError, InputError
from geoseg.raster import disk
from geoseg.raster.disk import (
    cache_folder,
    check_disk_space,
    check_output,
    disk_errors,
    locked_folder,
    partial_folder,
    parts_folder,
    publish_bytes,
    work_folder,
)

Usage = namedtuple("Usage", "total used free")


def test_a_new_file_in_a_writable_folder_is_accepted_and_nothing_is_left(tmp_path: Path) -> None:
    check_output(tmp_path / "out.TIFF", overwrite=False, inputs=[tmp_path / "scene.tif", "https://host/scene.tif"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "said"), [("out.png", "'.png'"), ("out", "'nothing'"), ("no/out.tif", "mkdir -p")])
def test_wrong_names_are_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_output(tmp_path / name, overwrite=True)


def test_a_folder_as_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.tif").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_output(tmp_path / "out.tif", overwrite=True)


def test_an_existing_output_needs_overwrite(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    output.write_bytes(b"old")
    with pytest.raises(InputError, match="--overwrite"):
        check_output(output, overwrite=False)
    check_output(output, overwrite=True)
    assert output.read_bytes() == b"old"


def test_a_dangling_link_counts_as_an_existing_output(tmp_path: Path) -> None:
    (tmp_path / "out.tif").symlink_to(tmp_path / "nowhere.tif")
    with pytest.raises(InputError, match="exists"):
        check_output(tmp_path / "out.tif", overwrite=False)


@pytest.mark.parametrize("link", ["same", "hard", "symbolic", "dotted"])
def test_an_output_that_is_an_input_is_refused(tmp_path: Path, link: str) -> None:
    scene = tmp_path / "scene.tif"
    scene.write_bytes(b"scene")
    output = {"same": scene, "dotted": tmp_path / "x" / ".." / "scene.tif"}.get(link, tmp_path / "out.tif")
    (tmp_path / "x").mkdir()
    if link == "hard":
        os.link(scene, output)
    if link == "symbolic":
        output.symlink_to(scene)
    with pytest.raises(InputError, match="same file"):
        check_output(output, overwrite=True, inputs=[str(scene)])


def test_two_outputs_of_one_name_are_refused_before_they_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="same file"):
        check_output(tmp_path / "out.tif", overwrite=False, inputs=[tmp_path / "." / "out.tif"])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write, not even root")
def test_a_read_only_folder_is_refused_to_root_too() -> None:
    with pytest.raises(InputError, match="cannot be written"):
        check_output(Path("/proc/out.tif"), overwrite=False)


def test_too_little_space_names_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(9e12, 0, 2_000_000_000))
    check_disk_space(tmp_path / "out.tif", raster_bytes=1_400_000_000)
    with pytest.raises(InputError, match=r"4\.0 GB.*2\.0 GB free"):
        check_disk_space(tmp_path / "out.tif", raster_bytes=3_000_000_000)


@pytest.mark.parametrize("beside", [partial_folder, parts_folder])
def test_blocks_staged_before_count_as_written(
    beside: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.tif"
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(9e12, 0, 1000))
    with pytest.raises(InputError):
        check_disk_space(output, raster_bytes=900)
    staged = beside(output) / "landcover.tif.geoseg-partial"
    staged.mkdir(parents=True)
    (staged / "block").write_bytes(b"x" * 200)
    check_disk_space(output, raster_bytes=900)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_says_that_nothing_is_lost(tmp_path: Path, number: int) -> None:
    with pytest.raises(GeosegError, match=r"full .* while staging.*kept.*same command") as caught:  # noqa: SIM117
        with disk_errors("staging", tmp_path):
            raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == 1


def test_other_refusals_of_the_system_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(9e12, 0, 9e12))
    with pytest.raises(GeosegError, match="Input/output error"), disk_errors("staging", tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    publish_bytes(path, b"old")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="full"):
        publish_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_held_by_one_and_goes_when_empty(tmp_path: Path) -> None:
    folder = tmp_path / "out.tif.geoseg-partial"
    with locked_folder(folder):  # noqa: SIM117
        with pytest.raises(InputError, match=r"Another run is writing .*out\.tif"), locked_folder(folder):
            pass
    assert not folder.exists()
    with locked_folder(folder):
        (folder / "block").write_bytes(b"")
    assert (folder / "block").exists()


def test_a_work_folder_is_held_by_one_and_goes_at_the_end(tmp_path: Path) -> None:
    output = tmp_path / "out.gpkg"
    with work_folder(output) as folder:
        (folder / "cover.tif").write_bytes(b"")
        with pytest.raises(InputError, match=r"Another run is writing .*/out\.gpkg; wait"), work_folder(output):
            pass
        assert (folder / "cover.tif").exists()
        (folder / "cover.tif.geoseg-partial").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_a_work_folder_stays_after_a_failure(tmp_path: Path) -> None:
    output = tmp_path / "out.gpkg"

    def fail() -> None:
        with work_folder(output) as folder:
            (folder / "cover.tif").write_bytes(b"half")
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        fail()
    with work_folder(output) as folder:
        assert (folder / "cover.tif").read_bytes() == b"half"
    assert list(tmp_path.iterdir()) == []


def test_a_work_folder_that_does_not_go_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(disk, "remove", refuse)
    with pytest.raises(GeosegError, match="deleting what led to the output"), work_folder(tmp_path / "out.tif") as here:
        (here / "cover.tif").write_bytes(b"")


def test_a_dead_process_blocks_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "out.tif.geoseg-partial"
    script = (
        "import os, signal, sys; from pathlib import Path; from geoseg.raster.disk import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    assert killed.returncode == -9
    assert (folder / "lock").exists()
    with locked_folder(folder):
        pass


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(InputError, match="in the way"), locked_folder(tmp_path / "x"):
        pass


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "home/.cache/geoseg"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "xdg/geoseg"),
        ("darwin", {}, "home/Library/Caches/geoseg"),
        ("win32", {}, "home/AppData/Local/geoseg/cache"),
        ("linux", {"GEOSEG_CACHE": "mine"}, "mine"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_such_things(
    platform: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GEOSEG_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    assert cache_folder() == Path(expected)
