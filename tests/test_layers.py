"""Imports point only upwards; heavy libraries have few homes."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import geoseg

ROOT = Path(geoseg.__file__).parent
ORDER = [
    "_lazy",
    "errors",
    "legend",
    "grid",
    "raster",
    "synthetic",
    "catalog",
    "models",
    "inference",
    "vector",
    "change",
    "objects",
    "training",
    "prompts",
    "view",
    "pipeline",
    "demo",
    "over_time",
    "cli",
]
HOMES = {
    "torch": {"models", "inference", "training", "objects", "prompts"},
    "rasterio": {"raster", "vector", "change", "synthetic", "view", "training", "objects", "prompts"},
    "dask": {"raster", "inference", "vector", "change"},
    "distributed": {"inference"},
    "geopandas": {"raster", "vector", "change", "objects", "prompts", "view"},
    "matplotlib": {"view"},
    "lightning": {"training"},
    "numba": {"vector"},
    "skimage": {"vector", "change"},
    "typer": {"cli"},
}
MODULES = sorted(ROOT.rglob("*.py"))


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            module_name = node.module or ""
            yield from (f"geoseg.{alias.name}" for alias in node.names) if module_name == "geoseg" else (module_name,)


def layer(module: Path) -> str:
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_upwards(module: Path) -> None:
    if module == ROOT / "__init__.py":
        return  # names what users meet, lazily
    here = layer(module)
    assert here in ORDER
    for name in imports(module):
        package, _, rest = name.partition(".")
        if package == "geoseg":
            there = rest.partition(".")[0]
            assert ORDER.index(there) <= ORDER.index(here), f"{here} imports {name}"
        elif package in HOMES:
            assert here in HOMES[package], f"{package} is not at home in {here}"


def test_the_grid_knows_nothing_but_numpy() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "geoseg"}
    for module in (ROOT / "grid").glob("*.py"):
        for name in imports(module):
            assert name.partition(".")[0] in allowed, f"{module.name} imports {name}"
            assert not name.startswith("geoseg.") or name.startswith(("geoseg.grid", "geoseg.errors"))


def test_joining_objects_knows_nothing_but_arrays_and_the_grid() -> None:
    names = {name.partition(".")[0] for name in imports(ROOT / "objects" / "join.py") if name != "geoseg.grid"}
    assert names <= {*sys.stdlib_module_names, "numpy", "scipy"}


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import geoseg", ["torch", "rasterio", "dask", "geopandas", "matplotlib", "xarray"]),
        ("import geoseg.cli", ["torch", "rasterio", "dask", "geopandas", "matplotlib", "xarray"]),
        ("import geoseg.models; geoseg.models.load_card(geoseg.list_models()['landcover-rgb'])", ["torch", "rasterio"]),
        ("from geoseg import vectorize_file", ["torch", "distributed"]),
        ("from geoseg import evaluate_objects, instances_file", ["torch", "distributed"]),
        ("import geoseg.inference.job", ["distributed", "timm", "segmentation_models_pytorch"]),
    ],
)
def test_light_imports(code: str, heavy: list[str]) -> None:
    probe = f"{code}; import sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert set(geoseg.__all__) == set(geoseg._HOMES)
    for name in geoseg.__all__:
        assert getattr(geoseg, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        geoseg.no_such_name  # noqa: B018


@pytest.mark.parametrize("package", ["geoseg", "geoseg.models", "geoseg.inference", "geoseg.change", "geoseg.prompts"])
def test_no_lazy_name_is_that_of_a_module(package: str) -> None:
    """Importing the module would put it in the place of what has its name."""
    folder = ROOT.joinpath(*package.split(".")[1:])
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert not modules & set(importlib.import_module(package).__all__)
