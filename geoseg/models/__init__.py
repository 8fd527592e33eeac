"""Networks, and the bundles that carry them."""

from geoseg.models.architectures import ARCHITECTURES, build_network
from geoseg.models.bundle import Model, list_models, load_card, load_model, save_model
from geoseg.models.card import Architecture, CardBand, ModelCard, TrainingData
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
    "list_models",
    "load_card",
    "load_model",
    "onnx_digest",
    "save_model",
]
