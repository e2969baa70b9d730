"""Folders of weights to and from the Hugging Face hub; the only module that knows `huggingface_hub`.

    push(Path("openus-small"), "my-lab/openus-small")     # address of the repository
    folder = pull("my-lab/openus-small")                  # `load_backbone` reads it
    folder = locate("hf:my-lab/openus-small")             # what `--weights` takes: the hub, or a path

The token is the one that `hf auth login` keeps; none is taken here.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

from openus_model.errors import MissingExtra, UsageError, WeightsError

WANTED: Final = ("*.safetensors", "*.json", "*.md", "*.parquet", "*.onnx", "*.onnx.data")
"""Files that are sent and fetched: no pickle among them."""
SCHEME: Final = "hf:"


def locate(weights: str | Path) -> Path:
    """Where weights lie on this disk: `hf:owner/name` is fetched, anything else is a path.

    Raises:
        MissingExtra, UsageError, WeightsError: see `pull`.
    """
    text = str(weights)
    return pull(text.removeprefix(SCHEME)) if text.startswith(SCHEME) else Path(text)


def push(folder: Path, repository: str) -> str:
    """Upload a folder, making the repository if it is not there (private: its owner opens it).

    Raises:
        MissingExtra: `huggingface_hub` is not installed.
        UsageError: the name is not `owner/name`.
        WeightsError: the hub refused, or was not reached.
    """
    hub = _client(repository)
    try:
        api = hub.HfApi()
        api.create_repo(repository, exist_ok=True, private=True)
        return str(api.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(WANTED)))
    except Exception as error:  # the client's transport (requests, httpx, xet) raises what it likes
        raise _refused("upload", repository, error) from error


def pull(repository: str) -> Path:
    """Fetch a repository into the hub's own cache; returns the folder.

    Raises:
        MissingExtra: `huggingface_hub` is not installed.
        UsageError: the name is not `owner/name`.
        WeightsError: the hub refused, or was not reached.
    """
    hub = _client(repository)
    try:
        return Path(hub.snapshot_download(repository, allow_patterns=list(WANTED)))
    except Exception as error:  # the client's transport (requests, httpx, xet) raises what it likes
        raise _refused("download", repository, error) from error


def check(repository: str) -> None:
    """Refuse what `push` would refuse, before any work is done.

    Raises:
        MissingExtra: `huggingface_hub` is not installed.
        UsageError: the name is not `owner/name`.
    """
    _client(repository)


def _client(repository: str) -> Any:
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UsageError("not a repository of the hub", where=repository, expected="owner/name")
    try:
        importlib.import_module("huggingface_hub.errors")
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise MissingExtra(
            "huggingface_hub is not installed", next_step="pip install huggingface_hub, then hf auth login"
        ) from None


def _refused(what: str, repository: str, error: Exception) -> WeightsError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    step = "check the network and the name; hf auth whoami tells who you are"
    return WeightsError(f"the {what} failed", where=repository, got=reason, next_step=step)
