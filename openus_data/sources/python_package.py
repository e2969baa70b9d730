"""Files that an installed Python package carries, found without importing it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from openus_data.card_fields import Download
from openus_data.errors import SourceRefused
from openus_data.sources.base import Ask, RemoteFile, split_locator


@dataclass(frozen=True, slots=True)
class PythonPackage:
    """The locator is `package:path inside it`."""

    kind: str = "python_package"

    def list(self, download: Download, ask: Ask) -> tuple[RemoteFile, ...]:  # noqa: ARG002 - the interface of every source
        """The one file."""
        package, inside = split_locator(download, ":", "package:path inside it")
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise SourceRefused("the package is not installed", where=package, next_step=f"pip install {package}")
        folder = Path(spec.submodule_search_locations[0]).resolve()
        path = (folder / inside).resolve()
        if not path.is_file() or folder not in path.parents:
            raise SourceRefused(
                "the package has no such file", where=download.locator, next_step=f"pip install -U {package}"
            )
        return (
            RemoteFile(
                filename=download.filename or path.name,
                source=f"python:{download.locator}",
                size_bytes=path.stat().st_size,
                local=path,
            ),
        )
