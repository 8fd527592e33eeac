"""What the README shows runs, and what it names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from geoseg import SyntheticScene, list_models, write_scene
from geoseg.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNNABLE = re.findall(r"<!-- runnable -->\n```(\w+)\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a scene."""
    write_scene(SyntheticScene((192, 192), seed=2035, gsd_m=0.5), tmp_path / "scene.tif", labels=None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(commands: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(["bash", "-euo", "pipefail"], input=commands, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0


@pytest.mark.parametrize(("language", "text"), RUNNABLE, ids=lambda value: value if value.isalpha() else "")
def test_what_is_shown_runs(language: str, text: str, folder: Path) -> None:
    if "spectral-index" not in text and "landcover-rgb" not in list_models():
        pytest.skip("the bundle landcover-rgb is not there yet")
    if language == "python":
        exec(compile(text, "README.md", "exec"), {})
    else:
        run_shell(text)
        for output in re.findall(r"(?:-o|--confidence) (\S+)", text):
            assert (folder / output).stat().st_size


def test_shell_and_python_are_shown() -> None:
    assert {language for language, _ in RUNNABLE} == {"sh", "python"}


def test_options_exist() -> None:
    group = typer.main.get_command(app)
    commands = [group, *group.commands.values()]  # type: ignore[attr-defined]
    known = {name for command in commands for parameter in command.params for name in parameter.opts}
    shown = set(re.findall(r"(?<![\w<!-])--[a-z][a-z-]+", README))
    assert shown - {"--help"} <= known


def test_files_that_are_named_exist() -> None:
    named = {*re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", README), *re.findall(r"\]\(([\w/.]+)\)", README)}
    assert {"LICENSE", "tests/test_grid.py"} <= named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_model_that_ships_is_described() -> None:
    shipped = {card.parent.name for card in (ROOT / "geoseg" / "models" / "zoo").glob("*/card.json")}
    assert shipped
    assert [name for name in sorted(shipped) if f"| `{name}` |" not in README] == []
