"""Networks, and the bundles that carry them."""

from geoseg.models.architectures import ARCHITECTURES, build_network
from geoseg.models.bundle import Model, list_models, load_card, load_model, save_model
from geoseg.models.card import Architecture, CardBand, ModelCard, TrainingData

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "CardBand",
    "Model",
    "ModelCard",
    "TrainingData",
    "build_network",
    "list_models",
    "load_card",
    "load_model",
    "save_model",
]
