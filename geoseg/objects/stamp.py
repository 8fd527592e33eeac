"""A stamp beside a vector file: which run made it, so that the same command again has nothing to do."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from geoseg.raster.disk import publish_bytes


def stamp_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.run.json")


def stamp(path: Path, digest: str) -> None:
    """Say of a finished file which run made it."""
    told = {"digest": digest, "sha256": _sha256(path)}
    publish_bytes(stamp_path(path), json.dumps(told).encode())


def is_stamped(path: Path, digest: str) -> bool:
    """Whether that run made the file, and nobody has changed it since."""
    try:
        told = json.loads(stamp_path(path).read_bytes())
        return bool(told == {"digest": digest, "sha256": _sha256(path)})
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
