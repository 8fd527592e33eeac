"""Bundles from a hub of models by name: `hf:org/name`, or `hf:org/name@revision`.

Two files are fetched, card.json and weights.safetensors, and nothing else: neither can run code. They stay in the
user's cache; without a network they are taken from there. HF_ENDPOINT names another hub than huggingface.co, HF_TOKEN
opens what is not public.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from geoseg.errors import GeosegError, InputError
from geoseg.models.find import CARD, HUB, WEIGHTS, load_card
from geoseg.raster.disk import cache_folder
from geoseg.raster.remote import TIMEOUT_S

ENDPOINT = "https://huggingface.co"
NAME = re.compile(re.escape(HUB) + r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?")


class MissingFile(InputError):
    """The hub has the repository, and a file is not in it."""


def fetch(name: str) -> Path:
    """The folder of a bundle from a hub, fetched where the cache has not its newest state.

    Args:
        name: `hf:org/name` or `hf:org/name@revision`; a revision is a branch, a tag or a commit.

    Raises:
        InputError: the name is no such name, or the hub has no such bundle.
        GeosegError: the hub cannot be reached, and the bundle is not in the cache.
    """
    match, hub = _named(name), _hub()
    is_near = _is_reachable(hub)
    folder = _file(hub, match["repo"], CARD, match["revision"], is_near=is_near).parent
    card = load_card(folder)
    if card.architecture.name == "onnx":
        raise InputError(
            f"{name} is an ONNX graph; of a hub only safetensors are taken. Download it and give its path."
        )
    if card.weights_sha256 is not None:
        _file(hub, match["repo"], WEIGHTS, folder.name, is_near=is_near)  # of the same commit
    return folder


def fetch_files(name: str, needed: Sequence[str], *, maybe: Sequence[str] = ()) -> Path:
    """The folder of a model that is no bundle, with the files that are named and nothing else.

    Args:
        name: as for `fetch`.
        needed: files without which it is no such model.
        maybe: files that it may lack.

    Raises:
        InputError: the name is no such name, or the hub has no such model.
        GeosegError: the hub cannot be reached, and a file is not in the cache.
    """
    match, hub = _named(name), _hub()
    is_near = _is_reachable(hub)
    folder = _file(hub, match["repo"], needed[0], match["revision"], is_near=is_near).parent
    for file in needed[1:]:
        _file(hub, match["repo"], file, folder.name, is_near=is_near)
    for file in maybe if is_near else ():
        with suppress(MissingFile):
            _file(hub, match["repo"], file, folder.name, is_near=is_near)
    return folder


def _named(name: str) -> re.Match[str]:
    match = NAME.fullmatch(name)
    if match is None:
        raise InputError(f"Model {name!r} is no name on a hub; expected {HUB}org/name or {HUB}org/name@revision.")
    return match


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT


def _file(hub: str, repo: str, file: str, revision: str | None, *, is_near: bool) -> Path:
    """A file in the cache, in a folder that has the name of its commit."""
    from huggingface_hub import errors, hf_hub_download

    cache = cache_folder() / "hub"
    at = f"{repo} at {revision}" if revision else repo
    try:
        found = hf_hub_download(
            repo, file, revision=revision, cache_dir=cache, endpoint=hub, local_files_only=not is_near
        )
    except errors.LocalEntryNotFoundError as error:
        raise GeosegError(
            f"{hub} cannot be reached, and {file} of {at} is not in the cache {cache}. Connect, or set HF_ENDPOINT to "
            f"a mirror; or copy {CARD} and {WEIGHTS} from {hub}/{repo} into a folder and give its path."
        ) from error
    except errors.EntryNotFoundError as error:
        raise MissingFile(
            f"{hub} has no {file} in {at}: that is no bundle; geoseg export --to bundle makes one."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{hub} has no {at}; look at {hub}/{repo} which revisions there are.") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"{hub} has no {repo}, or it is not public; check the name, or set HF_TOKEN.") from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise GeosegError(f"{file} of {at} could not be fetched from {hub}: {reason}") from error
    return Path(found)


def _is_reachable(hub: str) -> bool:
    """Whether anything answers: the library would ask for half a minute."""
    request = urllib.request.Request(hub, method="HEAD", headers={"User-Agent": "geoseg"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return True
    except urllib.error.HTTPError as answer:
        answer.close()
        return True
    except (OSError, ValueError):
        return False
