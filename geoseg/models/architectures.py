"""The architectures that a card may name. A closed list: a card never names code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from geoseg.errors import InputError
from geoseg.models.deeplab import FaithfulDeepLabV3Plus, LocalDeepLabV3Plus
from geoseg.models.spectral import SpectralIndex
from geoseg.models.unet import UNet

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "deeplabv3plus": FaithfulDeepLabV3Plus,
    "deeplabv3plus-local": LocalDeepLabV3Plus,
    "spectral-index": SpectralIndex,
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
    try:
        return ARCHITECTURES[name](bands, classes, **(args or {})).eval()
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"Architecture {name!r} cannot be built with {args or {}}: {error}") from error
