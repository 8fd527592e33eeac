"""Files that appear whole or not at all: checks before a run, durable publishing, kernel locks."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geoseg.errors import GeosegError, InputError

TIFF_SUFFIXES = (".tif", ".tiff")
PARTIAL_SUFFIX = ".geoseg-partial"
PARTS_SUFFIX = ".parts"
LOCK = "lock"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FREE_FLOOR = 16 * 2**20  # with less than this left, a write that failed is put down to a full disk


def cache_folder() -> Path:
    """Where made scenes, converted networks, files of a hub and embeddings are kept.

    It is GEOSEG_CACHE, else the platform's cache folder.
    """
    if stated := os.environ.get("GEOSEG_CACHE"):
        return Path(stated)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "geoseg" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "geoseg"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geoseg"


def partial_folder(output: Path) -> Path:
    """The folder beside `output` that holds its unfinished work."""
    return output.with_name(output.name + PARTIAL_SUFFIX)


def parts_folder(output: Path) -> Path:
    """The hidden folder beside `output` that holds what leads to it, see `work_folder`."""
    return output.with_name(f".{output.name}{PARTS_SUFFIX}")


def check_named(*outputs: str | os.PathLike[str] | None) -> None:
    """Refuse an empty name, which is that of the folder one is in.

    Raises:
        InputError: with what is expected.
    """
    for output in outputs:
        if output is not None and not Path(output).name:
            raise InputError(f"An output needs the name of a file, as in landcover.tif; {os.fspath(output)!r} is none.")


def check_output(
    path: Path, *, overwrite: bool, inputs: Iterable[str | Path] = (), suffixes: tuple[str, ...] = TIFF_SUFFIXES
) -> None:
    """Refuse an output that could not be written, or that would destroy what it is made from.

    Args:
        path: the output.
        overwrite: an existing output may be replaced.
        inputs: every file that the run reads or else writes; names that are no local files are passed over.
        suffixes: the file name endings that this output may have.

    Raises:
        InputError: with the reason and the remedy.
    """
    if path.suffix.lower() not in suffixes:
        raise InputError(f"The output {path} must end in {' or '.join(suffixes)}, not in {path.suffix or 'nothing'!r}.")
    if path.is_dir():
        raise InputError(f"The output {path} is a folder; give the name of a file in it.")
    if not path.parent.is_dir():
        raise InputError(f"The output folder {path.parent} does not exist; create it first (mkdir -p {path.parent}).")
    for other in inputs:
        if _same_file(path, Path(other)):
            raise InputError(f"The output {path} is the same file as {other}, which this run needs; give another name.")
    if not overwrite and os.path.lexists(path):
        raise InputError(f"The output {path} exists; give --overwrite to replace it, or another name.")
    check_writable(path.parent, "output folder")


def check_writable(folder: Path, name: str) -> None:
    """Refuse a folder that cannot be written; it is tried, for permissions say little to root or on network drives."""
    try:
        with tempfile.TemporaryFile(dir=folder):  # without a name that a kill could leave behind
            pass
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InputError(f"The {name} {folder} cannot be written ({reason}); choose another.") from None


def check_disk_space(path: Path, *, raster_bytes: int) -> None:
    """Refuse a run whose staged blocks and output would not fit on the disk of `path`.

    Class maps and confidences deflate to about half in noisy scenes, and to far less in others. Staged blocks, the
    COG and its overviews (twice a third, once as a temporary file) then take 4/3 of the plain size.

    Args:
        path: the output; what an earlier run left of it, beside it, counts as written already.
        raster_bytes: plain size of all layers written to that disk: rows x columns x bands.

    Raises:
        InputError: with what is needed and what is free.
    """
    needed = raster_bytes * 4 // 3 - _size_of(partial_folder(path)) - _size_of(parts_folder(path))
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(
            f"Writing {path} needs about {_gigabytes(needed)} for staged blocks and the output, and {path.parent} has "
            f"{_gigabytes(free)} free; free some space, or write to another disk."
        )


@contextmanager
def disk_errors(doing: str, folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals inside the block into a GeosegError that says how to go on."""
    try:
        yield
    except OSError as error:
        raise disk_error(doing, folder, error) from error


def disk_error(doing: str, folder: Path, cause: Exception) -> GeosegError:
    """The error to raise where `cause` stopped us from writing below `folder`."""
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    full = isinstance(cause, OSError) and cause.errno in _DISK_FULL
    if full or (folder.is_dir() and free < _FREE_FLOOR):
        return GeosegError(
            f"The disk of {folder} is full ({_gigabytes(free)} free) while {doing}. Finished blocks are kept: "
            "free some space and run the same command again to go on."
        )
    return GeosegError(
        f"Could not write in {folder} while {doing}: {cause}. Finished blocks are kept: "
        "run the same command again to go on."
    )


@contextmanager
def gone_if_refused(folder: Path) -> Iterator[None]:
    """A folder that is made inside goes again when the input turns out to be bad."""
    made = not folder.exists()
    try:
        yield
    except InputError:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def publish_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader, a crash or a power cut finds all of it or none."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def publish_file(temporary: Path, path: Path) -> None:
    """Move a finished file to its place on the same file system, durably."""
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create one folder durably; its parent must exist."""
    try:
        path.mkdir()
    except FileExistsError:
        return
    sync(path.parent)


@contextmanager
def work_folder(output: Path) -> Iterator[Path]:
    """A hidden folder beside an output for what leads to it: it stays after a failure, so that a run can go on.

    It is held for this process meanwhile, see `locked_folder`.

    Raises:
        InputError: another process holds it, or a file has its name.
        GeosegError: it could not be made, or not be deleted.
    """
    folder = parts_folder(output)
    with locked_folder(folder):
        yield folder
        with disk_errors("deleting what led to the output", output.parent):
            for path in folder.iterdir():
                if path.name != LOCK:
                    remove(path)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; it is created where missing, and goes again where it is left empty.

    The lock is the kernel's: it ends with the process, however that ends.

    Raises:
        InputError: another process holds it, or a file has its name.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is in the way: geoseg keeps unfinished work in a folder of that name; move it.")
    with disk_errors("locking the output", folder.parent):
        descriptor = _lock(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # another run may be waiting in it; it takes over what is left
            if {entry.name for entry in folder.iterdir()} == {LOCK}:
                (folder / LOCK).unlink()
                folder.rmdir()
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file or a folder, if there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _lock(folder: Path) -> int:
    lock = folder / LOCK
    while True:
        folder.mkdir(exist_ok=True)
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last holder just removed the folder
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(
                f"Another run is writing {_output_of(folder)}; wait for it, or give another output."
            ) from None
        if lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat()):
            return descriptor
        os.close(descriptor)  # it was removed by its last holder after we opened it: take the new one


def _output_of(folder: Path) -> Path:
    """The inverse of `partial_folder` and `parts_folder`."""
    if folder.name.endswith(PARTS_SUFFIX):
        return folder.with_name(folder.name.removeprefix(".").removesuffix(PARTS_SUFFIX))
    return folder.with_name(folder.name.removesuffix(PARTIAL_SUFFIX))


def _same_file(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def _size_of(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e9:.3f} GB"
