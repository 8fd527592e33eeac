"""The architectures that a card may name. A closed list: a card never names code."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn

from geoseg.errors import InputError

ODD = (7, 9)  # sides of the chip that a new network is tried on, in output strides
# Module and class: importing the libraries behind one takes seconds.
ARCHITECTURES = {
    "unet": ("unet", "UNet"),
    "unetplusplus": ("unetplusplus", "UNetPlusPlus"),
    "attention-unet": ("attention_unet", "AttentionUNet"),
    "transunet": ("transunet", "TransUNet"),
    "deeplabv3plus": ("deeplab", "FaithfulDeepLabV3Plus"),
    "deeplabv3plus-local": ("deeplab", "LocalDeepLabV3Plus"),
    "fpn": ("fpn", "FPN"),
    "upernet": ("upernet", "UPerNet"),
    "segformer": ("segformer", "SegFormer"),
    "mask-rcnn": ("detector", "MaskRCNN"),
    "panoptic-fpn": ("detector", "PanopticFPN"),
    "siamese-unet": ("siamese", "SiameseUNet"),
    "spectral-index": ("spectral", "SpectralIndex"),
}
DETECTORS = ("mask-rcnn", "panoptic-fpn")  # they see objects, and run in torch only

# What takes prompts beside chips, and answers with masks: see `geoseg.prompts`.
PROMPTABLE = {"promptable": ("promptable", "Promptable")}


def build_network(
    name: str, *, bands: int, classes: int, args: dict[str, Any] | None = None, check: bool = True
) -> nn.Module:
    """A network in evaluation mode with the library's initial weights.

    Args:
        name: of an architecture.
        bands: channels of its input.
        classes: channels of its output.
        args: of the architecture.
        check: try it on a chip; needless where it was trained as it is.

    Raises:
        InputError: the architecture or one of its arguments is unknown, or the network takes chips of some sizes only.
    """
    if name == "onnx":
        raise InputError("Architecture 'onnx' is a graph in a bundle, not built; give load_model the bundle's folder.")
    known = ARCHITECTURES | PROMPTABLE
    if name not in known:
        raise InputError(f"Architecture {name!r} is unknown; known are {', '.join(known)}, onnx.")
    module, kind = known[name]
    try:
        network: nn.Module = getattr(import_module(f"geoseg.models.{module}"), kind)(bands, classes, **(args or {}))
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"Architecture {name!r} cannot be built with {args or {}}: {error}") from error
    network.eval()
    if check and name in ARCHITECTURES:
        _try_out(network, name, bands)
    return network


def _try_out(network: Any, name: str, bands: int) -> None:
    height, width = (odd * network.output_stride for odd in ODD)
    size = f"{height} x {width} px"
    try:
        with torch.inference_mode():
            logits = network(torch.zeros(1, bands, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"Architecture {name!r} takes no chips of {size}, as it should of all multiples of its output stride "
            f"{network.output_stride}; its encoder is made for other sizes or bands, choose another: {error}"
        ) from error
    if logits.shape[2:] != (height, width):
        found = " x ".join(map(str, logits.shape[2:]))
        raise InputError(
            f"Architecture {name!r} gives logits of {found} px for chips of {size}; choose another encoder."
        )
