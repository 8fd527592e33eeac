"""Which network a name or a path stands for."""

from __future__ import annotations

import os
from pathlib import Path

from geoseg.errors import InputError
from geoseg.models import Model, load_model
from geoseg.models.find import HUB, list_models
from geoseg.prompts.networks import BundleNetwork, Network
from geoseg.prompts.sam import CONFIG, PREPROCESSOR, SAM_WEIGHTS, TOKENIZER, SamNetwork, is_sam

DEFAULT = "prompt-rgb"


def load_network(source: str | os.PathLike[str] | Model | Network) -> Network:
    """A bundle that takes prompts, or a Segment Anything model from a folder or a hub.

    Args:
        source: a name that `list_models` knows, a folder, `hf:org/name`, or a loaded bundle or network.

    Raises:
        InputError: there is no such model, or it takes no prompts.
    """
    if isinstance(source, Model):
        return BundleNetwork(source)
    if not isinstance(source, str | os.PathLike):
        return source
    if str(source).startswith(HUB):
        return _from_hub(str(source))
    if str(source) not in list_models() and is_sam(Path(source)):
        return SamNetwork(Path(source))
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in ("card.json", CONFIG)):
        raise InputError(
            f"{source} is no model: expected card.json and weights.safetensors, or {CONFIG} and {SAM_WEIGHTS} as "
            "transformers writes them."
        )
    return BundleNetwork(load_model(source))


def _from_hub(name: str) -> Network:
    from geoseg.models.hub import MissingFile, fetch, fetch_files

    try:
        return BundleNetwork(load_model(fetch(name)))
    except MissingFile:
        return SamNetwork(fetch_files(name, (CONFIG, SAM_WEIGHTS), maybe=(*PREPROCESSOR, *TOKENIZER)))
