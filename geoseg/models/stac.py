"""What a bundle is, as a STAC item with the Machine Learning Model extension (MLM 1.5), so that catalogues find it.

The extension: https://github.com/stac-extensions/mlm. A model has no place and no date: its geometry is null,
and its time is all time.
"""

from __future__ import annotations

import re
from typing import Any

from geoseg.legend import LegendClass
from geoseg.models.card import ModelCard
from geoseg.models.find import CARD, ONNX_FILE, WEIGHTS

ITEM = "item.json"
MLM = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]")
FILES = {
    WEIGHTS: ("application/vnd.safetensors", "PyTorch", "safetensors.torch.save_file"),
    ONNX_FILE: ("application/onnx", "ONNX", "onnx.save"),
    "model.xml": ("text/xml; application=openvino", "OpenVINO", "openvino.save_model"),
    "model.pt2": ("application/zip; application=pytorch", "PyTorch", "torch.export.save"),
    CARD: ("application/json", "geoseg", "geoseg.save_model"),
}


def stac_item(card: ModelCard, file: str | None = None) -> dict[str, Any]:
    """A STAC item of one model, valid against STAC 1.1 and MLM 1.5.

    Args:
        card: of the bundle.
        file: that holds the network, beside the item; by default as the bundle has it. Its name tells its kind.
    """
    file = file or network_file(card)
    kind, framework, artifact = FILES[file.rpartition("/")[2]]
    network = {
        "href": f"./{file}",
        "type": kind,
        "title": f"Network of {card.name}",
        "roles": ["mlm:model"],
        "bands": _bands(card),  # STAC takes those of the properties only where an asset has them too
        "mlm:artifact_type": artifact,
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM],
        "id": f"{card.name}-{card.version}",
        "geometry": None,
        "properties": _properties(card, framework),
        "links": [],
        "assets": {"model": network},
    }


def network_file(card: ModelCard) -> str:
    """The file of a bundle that holds its network: a card alone where it has no weights."""
    if card.architecture.name == "onnx":
        return ONNX_FILE
    return CARD if card.weights_sha256 is None else WEIGHTS


def _tasks(card: ModelCard) -> list[str]:
    return ["instance-segmentation" if card.takes_prompts else "semantic-segmentation"]


def _properties(card: ModelCard, framework: str) -> dict[str, Any]:
    made_with = dict(card.architecture.args)
    return {
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "description": card.description,
        "license": card.license,
        "version": card.version,
        "gsd": card.gsd_m,
        "bands": _bands(card),  # which MLM asks for here
        "mlm:name": card.name if NAME.fullmatch(card.name) else f"geoseg {card.name}".rstrip("_.-"),
        "mlm:architecture": card.architecture.name,
        "mlm:tasks": _tasks(card),
        "mlm:framework": framework,
        "mlm:input": [_input(card)],
        "mlm:output": [_output(card)],
        **({"mlm:hyperparameters": made_with} if made_with else {}),
    }


def _bands(card: ModelCard) -> list[dict[str, str]]:
    return [{"name": band.name} for band in card.bands]


def _input(card: ModelCard) -> dict[str, Any]:
    dtype, factor = next(iter(card.scales.items()))
    offset = card.offsets.get(dtype, 0.0)
    side = card.chip_px if card.fixed_chip else -1
    sides = "no other size" if card.fixed_chip else f"or any size in multiples of {card.output_stride} px"
    return {
        "name": "chips",
        "description": (
            f"Chips of {card.chip_px} px with a halo of {card.halo_px} px; {sides}. The scaling is of pixels stored as "
            f"{dtype}; what is not measured becomes the mean."
        ),
        "bands": [band.name for band in card.bands],
        "input": {
            "shape": [-1, len(card.bands), side, side],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": (band.mean - offset) / factor, "stddev": band.std / factor}
            for band in card.bands
        ],
    }


def _output(card: ModelCard) -> dict[str, Any]:
    side = card.chip_px if card.fixed_chip else -1
    return {
        "name": "logits",
        "description": "One channel for each class, in this order.",
        "tasks": _tasks(card),
        "result": {
            "shape": [-1, len(card.legend.classes), side, side],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": [_class(each) for each in card.legend.classes],
    }


def _class(each: LegendClass) -> dict[str, Any]:
    return {
        "value": each.id,
        "name": re.sub(r"[^0-9A-Za-z_-]", "_", each.name),
        "description": each.name,
        "color_hint": each.color.removeprefix("#").upper(),
    }
