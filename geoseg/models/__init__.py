"""Networks, and the bundles that carry them. Cards and names are light; what needs torch loads when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoseg._lazy import getattr_of
from geoseg.models.card import Architecture, CardBand, ModelCard, TrainingData
from geoseg.models.find import find_model, list_models, load_card
from geoseg.models.stac import stac_item

if TYPE_CHECKING:
    from geoseg.models.architectures import ARCHITECTURES, build_network
    from geoseg.models.bundle import Model, load_model, save_model
    from geoseg.models.export import export_model
    from geoseg.models.onnx import OnnxNetwork
    from geoseg.models.onnx_graph import onnx_digest

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "CardBand",
    "Model",
    "ModelCard",
    "OnnxNetwork",
    "TrainingData",
    "build_network",
    "export_model",
    "find_model",
    "list_models",
    "load_card",
    "load_model",
    "onnx_digest",
    "save_model",
    "stac_item",
]

__getattr__ = getattr_of(
    __name__,
    {
        "ARCHITECTURES": "architectures",
        "build_network": "architectures",
        "Model": "bundle",
        "load_model": "bundle",
        "save_model": "bundle",
        "export_model": "export",
        "OnnxNetwork": "onnx",
        "onnx_digest": "onnx_graph",
    },
)
