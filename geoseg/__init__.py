"""Satellite and aerial scenes of any size to seam-free land-cover GeoTIFFs, polygons and maps of change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoseg._lazy import getattr_of

if TYPE_CHECKING:
    from geoseg.catalog import load_catalog, open_scene
    from geoseg.change.clouds import CloudOptions
    from geoseg.change.dates import DateOptions
    from geoseg.change.detect import ChangeOptions
    from geoseg.change.lazy import detect_change, segment_stack, stack_history
    from geoseg.errors import BlockError, GeosegError, InputError
    from geoseg.inference.lazy import segment
    from geoseg.inference.plan import RunOptions
    from geoseg.legend import Legend
    from geoseg.models.bundle import Model, load_model, save_model
    from geoseg.models.card import ModelCard
    from geoseg.models.ensemble import ensemble
    from geoseg.models.export import export_model
    from geoseg.models.find import list_models
    from geoseg.objects.evaluate import evaluate_objects
    from geoseg.objects.files import instances_file, panoptic_file
    from geoseg.objects.outline import OutlineOptions
    from geoseg.over_time import change_files, change_pairs, stack_files
    from geoseg.pipeline import plan_file, pseudo_label, segment_file, vectorize_file
    from geoseg.prompts.files import prompt_file
    from geoseg.prompts.segmenter import prompt
    from geoseg.raster.labels import LabelOptions, open_labels
    from geoseg.raster.reader import SceneOptions
    from geoseg.synthetic import SyntheticScene, write_scene
    from geoseg.training.evaluate import EvaluateOptions
    from geoseg.vector import VectorOptions, vectorize
    from geoseg.view.evaluation import EvaluateSummary, evaluate_file
    from geoseg.view.training import train

_HOMES = {
    "open_scene": "catalog",
    "load_model": "models.bundle",
    "ensemble": "models.ensemble",
    "segment": "inference.lazy",
    "vectorize": "vector.vectorize",
    "plan_file": "pipeline",
    "segment_file": "pipeline",
    "vectorize_file": "pipeline",
    "instances_file": "objects.files",
    "panoptic_file": "objects.files",
    "OutlineOptions": "objects.outline",
    "change_files": "over_time",
    "change_pairs": "over_time",
    "ChangeOptions": "change.detect",
    "detect_change": "change.lazy",
    "segment_stack": "change.lazy",
    "stack_history": "change.lazy",
    "stack_files": "over_time",
    "DateOptions": "change.dates",
    "CloudOptions": "change.clouds",
    "evaluate_file": "view.evaluation",
    "evaluate_objects": "objects.evaluate",
    "train": "view.training",
    "pseudo_label": "pipeline",
    "prompt": "prompts.segmenter",
    "prompt_file": "prompts.files",
    "EvaluateOptions": "training.evaluate",
    "EvaluateSummary": "view.evaluation",
    "LabelOptions": "raster.labels",
    "open_labels": "raster.labels",
    "SceneOptions": "raster.reader",
    "RunOptions": "inference.plan",
    "VectorOptions": "vector.options",
    "list_models": "models.find",
    "save_model": "models.bundle",
    "export_model": "models.export",
    "Model": "models.bundle",
    "ModelCard": "models.card",
    "Legend": "legend",
    "load_catalog": "catalog",
    "SyntheticScene": "synthetic",
    "write_scene": "synthetic",
    "GeosegError": "errors",
    "InputError": "errors",
    "BlockError": "errors",
}

__all__ = [
    "open_scene",
    "load_model",
    "ensemble",
    "segment",
    "vectorize",
    "plan_file",
    "segment_file",
    "vectorize_file",
    "instances_file",
    "panoptic_file",
    "OutlineOptions",
    "change_files",
    "change_pairs",
    "ChangeOptions",
    "detect_change",
    "segment_stack",
    "stack_history",
    "stack_files",
    "DateOptions",
    "CloudOptions",
    "evaluate_file",
    "evaluate_objects",
    "train",
    "pseudo_label",
    "prompt",
    "prompt_file",
    "EvaluateOptions",
    "EvaluateSummary",
    "LabelOptions",
    "open_labels",
    "SceneOptions",
    "RunOptions",
    "VectorOptions",
    "list_models",
    "save_model",
    "export_model",
    "Model",
    "ModelCard",
    "Legend",
    "load_catalog",
    "SyntheticScene",
    "write_scene",
    "GeosegError",
    "InputError",
    "BlockError",
]


__getattr__ = getattr_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
