"""The architectures that a card may name. A closed list: a card never names code."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from geoseg.errors import InputError

# Module and class: importing the libraries behind one takes seconds.
ARCHITECTURES = {
    "unet": ("unet", "UNet"),
    "deeplabv3plus": ("deeplab", "FaithfulDeepLabV3Plus"),
    "deeplabv3plus-local": ("deeplab", "LocalDeepLabV3Plus"),
    "spectral-index": ("spectral", "SpectralIndex"),
}


def build_network(name: str, *, bands: int, classes: int, args: dict[str, Any] | None = None) -> nn.Module:
    """A network in evaluation mode with the library's initial weights.

    Raises:
        InputError: the architecture or one of its arguments is unknown.
    """
    if name == "onnx":
        raise InputError("Architecture 'onnx' is a graph in a bundle, not built; give load_model the bundle's folder.")
    if name not in ARCHITECTURES:
        raise InputError(f"Architecture {name!r} is unknown; known are {', '.join(ARCHITECTURES)}, onnx.")
    module, kind = ARCHITECTURES[name]
    try:
        network: nn.Module = getattr(import_module(f"geoseg.models.{module}"), kind)(bands, classes, **(args or {}))
        return network.eval()
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"Architecture {name!r} cannot be built with {args or {}}: {error}") from error
