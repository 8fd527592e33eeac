"""Where bundles lie, and what their cards say; without torch."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from geoseg.errors import InputError
from geoseg.models.card import ModelCard

CARD, WEIGHTS, CARD_KEY = "card.json", "weights.safetensors", "geoseg_card"
ONNX_FILE = "model.onnx"
HUB = "hf:"
ZOO = Path(__file__).parent / "zoo"
MAX_CARD_BYTES = 1 << 20


def find_model(source: str | os.PathLike[str]) -> Path:
    """The folder or file of a bundle, by name or path; `hf:org/name` is fetched from a hub (see `geoseg.models.hub`).

    Raises:
        InputError: there is none, or it cannot be fetched.
    """
    if str(source).startswith(HUB):
        from geoseg.models.hub import fetch

        return fetch(str(source))
    known = list_models()
    if str(source) in known:
        return known[str(source)]
    path = Path(source)
    if (path / CARD).is_file() or (path.is_file() and path.suffix == ".safetensors"):
        return path
    if path.exists():
        expected = f"a folder with {CARD} and {WEIGHTS} or {ONNX_FILE}, or a .safetensors file"
        raise InputError(f"{path} is no model: expected {expected}.")
    raise InputError(
        f"Model {str(source)!r} is unknown; give a path to a bundle, {HUB}org/name, or one of {', '.join(known)}."
    )


def list_models() -> dict[str, Path]:
    """Folders of bundles by name: those that ship, and those in the user's folder (see `user_models`)."""
    found: dict[str, Path] = {}
    for folder in (user_models(), ZOO):
        if folder.is_dir():
            found |= {p.parent.name: p.parent for p in sorted(folder.glob(f"*/{CARD}"))}
    return found


def user_models() -> Path:
    """GEOSEG_MODELS, else ~/.local/share/geoseg/models."""
    return Path(os.environ.get("GEOSEG_MODELS") or Path.home() / ".local" / "share" / "geoseg" / "models")


def load_card(path: Path) -> ModelCard:
    """The card of a bundle, without its weights.

    Raises:
        InputError: it is missing or not valid.
    """
    if path.is_dir():
        where = path / CARD
        if where.stat().st_size > MAX_CARD_BYTES:
            raise InputError(f"{where} has {where.stat().st_size} bytes; a card has at most {MAX_CARD_BYTES}.")
        text: str | bytes = where.read_bytes()
    else:
        where = path
        text = _metadata(path).get(CARD_KEY, "")
        if not text:
            raise InputError(f"{path} holds weights but no card; save it with geoseg.save_model.")
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "card"
        raise InputError(f"The model card {where} is not valid: {field}: {first['msg']}.") from error


def _metadata(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, framework="numpy") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is no safetensors file ({error}); pickled checkpoints are not read.") from error
