"""Bundles by name from a hub, here a server on this machine that answers as huggingface.co does."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from builders import save_tiny, tiny_model

from geoseg.errors import GeosegError, InputError
from geoseg.models import export_model, load_model

NOWHERE = "http://127.0.0.1:9"


@dataclass
class Hub:
    """Folders of revisions by name, each file under /name/resolve/revision/file."""

    folder: Path
    commits: dict[str, str] = field(default_factory=lambda: {"main": "a" * 40})
    asked: list[str] = field(default_factory=list)

    def find(self, path: str) -> tuple[Path | None, str, str]:
        """The file, its commit, and why there is none."""
        name, _, rest = path.strip("/").partition("/resolve/")
        revision, _, file = rest.rpartition("/")
        commit = self.commits.get(revision, revision)
        if not (self.folder / name).is_dir():
            return None, commit, "RepoNotFound"
        if commit not in self.commits.values():
            return None, commit, "RevisionNotFound"
        found = self.folder / name / commit / file
        return (found if found.is_file() else None), commit, "EntryNotFound"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub(tmp_path / "hub")
    save_tiny_as(served, "a" * 40)

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            served.asked.append(f"{self.command} {self.path}")
            file, commit, missing = served.find(self.path)
            content = file.read_bytes() if file else b""
            self.send_response(200 if file else 404)
            if file is None:
                self.send_header("X-Error-Code", missing)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}/")
        monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
        yield served
        server.shutdown()
        thread.join()


def save_tiny_as(hub: Hub, commit: str) -> Path:
    folder = hub.folder / "org" / "tiny" / commit
    folder.mkdir(parents=True)
    return save_tiny(folder)


def got(hub: Hub) -> list[str]:
    return [line.rpartition("/")[2] for line in hub.asked if line.startswith("GET")]


def test_a_bundle_is_fetched_once(hub: Hub) -> None:
    assert load_model("hf:org/tiny").digest == load_model(hub.folder / "org" / "tiny" / ("a" * 40)).digest
    load_model("hf:org/tiny")
    assert got(hub) == ["card.json", "weights.safetensors"]


def test_nothing_but_card_and_weights_is_asked_for(hub: Hub) -> None:
    (hub.folder / "org" / "tiny" / ("a" * 40) / "pytorch_model.bin").write_bytes(b"never")
    load_model("hf:org/tiny")
    assert {line.rpartition("/")[2] for line in hub.asked} == {"", "card.json", "weights.safetensors"}


def test_a_new_revision_is_fetched_and_the_old_one_stays(hub: Hub) -> None:
    old = load_model("hf:org/tiny")
    card = save_tiny_as(hub, "b" * 40) / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"version": "2"}))
    hub.commits = {"main": "b" * 40, "v1": "a" * 40}
    assert load_model("hf:org/tiny").card.version == "2"
    for revision in ("v1", "a" * 40):
        assert load_model(f"hf:org/tiny@{revision}").digest == old.digest


def test_without_a_network_the_cache_is_enough(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = load_model("hf:org/tiny").digest
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    assert load_model("hf:org/tiny").digest == digest
    assert load_model(f"hf:org/tiny@{'a' * 40}").digest == digest


def test_without_a_network_and_a_cache_it_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    told = r"127.0.0.1:9 cannot be reached, and card.json of org/tiny is not in the cache .*; or copy card.json and"
    with pytest.raises(GeosegError, match=told) as raised:
        load_model("hf:org/tiny")
    assert raised.value.exit_code == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hf:tiny", "'hf:tiny' is no name on a hub; expected hf:org/name"),
        ("hf:../tiny", "is no name on a hub"),
        ("hf:org/other", "has no org/other, or it is not public"),
        ("hf:org/tiny@v9", "has no org/tiny at v9; look at"),
    ],
)
def test_names_that_lead_nowhere_are_told(hub: Hub, name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_model(name)


def test_what_is_no_bundle_is_refused(hub: Hub, tmp_path: Path) -> None:
    folder = hub.folder / "org" / "tiny" / ("a" * 40)
    (folder / "weights.safetensors").write_bytes(b"other weights")
    with pytest.raises(InputError, match="is no safetensors file"):
        load_model("hf:org/tiny")
    (folder / "card.json").unlink()
    with pytest.raises(InputError, match=r"has no card\.json in org/tiny: that is no bundle"):
        load_model("hf:org/tiny")
    export_model(tiny_model(), folder.with_name("b" * 40))
    hub.commits = {"main": "b" * 40}
    with pytest.raises(InputError, match="of a hub only safetensors are taken"):
        load_model("hf:org/tiny")


def test_segment_anything_is_fetched_without_anything_else(hub: Hub) -> None:
    pytest.importorskip("transformers")
    from sam_folders import save_sam

    from geoseg.prompts.load import load_network

    folder = save_sam(hub.folder / "org" / "sam" / ("a" * 40))
    (folder / "modeling.py").write_text("raise SystemExit")
    assert load_network("hf:org/sam").digest == load_network(folder).digest
    assert "modeling.py" not in got(hub)
    with pytest.raises(InputError, match="takes no prompts"):
        load_network("hf:org/tiny")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub.commits["main"] = "b" * 40
    folder.rename(folder.with_name("b" * 40))
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        load_network("hf:org/sam")
