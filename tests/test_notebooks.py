"""Every notebook runs from top to bottom, quietly, and is committed without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from geoseg import list_models

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Any:
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


BUSY = """Future exception was never retrieved
future: <Future finished exception=TimeoutError('Timeout')>
TimeoutError: Timeout
"""  # what the kernel's own event loop (tornado) says on a machine that is busy


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


def test_no_outputs_are_committed(notebook: Any) -> None:
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert not cell.outputs
        assert cell.execution_count is None


def test_only_the_public_api_is_imported(notebook: Any) -> None:
    lines = [line.strip() for cell in code_cells(notebook) for line in cell.source.splitlines()]
    assert "import geoseg" in lines
    assert not [line for line in lines if line.startswith(("from geoseg", "import geoseg."))]


def test_it_runs_and_draws(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "landcover-rgb" not in list_models():
        pytest.skip("the bundle landcover-rgb is not there yet")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # figures become outputs
    monkeypatch.setenv(
        "PYTHONWARNINGS", "ignore:IProgress not found"
    )  # tqdm asks for ipywidgets; nothing else may warn
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr" and output.text != BUSY]
    assert [output for output in outputs if "image/png" in output.get("data", {})]
