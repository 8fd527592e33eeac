"""RunRecord: what staged blocks are bound to, and in plain words how two runs differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

RECORD = "run.json"
_SHOWN = 6


class RunRecord(BaseModel):
    """`run.json`: what the staged blocks are bound to, in parts that can be read and compared.

    Attributes:
        format: of this file.
        digest: of the parts.
        parts: what the pixels depend on.
        layout: how the scene is cut.
        machine: kind of machine that computes the blocks; another one rounds otherwise, and the two do not mix.
        store: folder or URL where the blocks are, None where they are beside the output.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    digest: str
    parts: dict[str, Any]
    layout: dict[str, Any]
    machine: str = ""
    store: str | None = None

    @property
    def key(self) -> str:
        """Digest of the run, how it is cut and what computes it; names the folder of its blocks."""
        return digest_of({"digest": self.digest, "layout": self.layout, "machine": self.machine})[:16]

    def to_json(self) -> bytes:
        return json.dumps(self.model_dump(), indent=1).encode()


def read_record(folder: Path) -> RunRecord | None:
    """The record of a staging folder, None where there is none; a ValueError where it makes no sense."""
    try:
        return RunRecord.model_validate(json.loads((folder / RECORD).read_bytes()))
    except FileNotFoundError:
        return None


def differences(staged: RunRecord, asked: RunRecord) -> str:
    """What differs between two runs: `option chip was 256, now 512; ...`."""
    before, now = (
        _leaves(
            {
                **one.parts,
                "blocks": one.layout,
                "kind of machine": one.machine,
                "staging place": one.store or "beside the output",
            }
        )
        for one in (staged, asked)
    )
    found = [
        f"{name} was {_short(before.get(name))}, now {_short(now.get(name))}"
        for name in dict.fromkeys((*now, *before))
        if before.get(name) != now.get(name)
    ]
    if len(found) > _SHOWN:
        found[_SHOWN:] = [f"and {len(found) - _SHOWN} more"]
    return "; ".join(found)


def canonical_json(value: object) -> str:
    """One text for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def digest_of(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The parts as plain words and values: {"options": {"chip": 512}} is {"option chip": "512"}."""
    leaves: dict[str, str] = {}
    for key, entry in value.items():
        word = {"options": "option", "versions": "version of"}.get(key, str(key)) if not prefix else str(key)
        name = f"{prefix} {word}".strip()
        if isinstance(entry, Mapping) and entry:
            leaves |= _leaves(entry, name)
        else:
            leaves[name] = entry if isinstance(entry, str) else canonical_json(entry)
    return leaves


def _short(text: str | None) -> str:
    if text is None:
        return "not given"
    return text if len(text) <= 60 else f"{text[:12]}... ({len(text)} characters)"
