"""How bytes come: one thin file per kind of host, and the table of all of them.

A source lists files; `fetch` hands them to the engine. A new one is a file here and a line in SOURCES.
"""

from __future__ import annotations

from typing import Final

from openus_data.sources.base import Ask, RemoteFile, Source
from openus_data.sources.dataverse import Dataverse
from openus_data.sources.figshare import Figshare
from openus_data.sources.girder import Girder
from openus_data.sources.github import GitHub
from openus_data.sources.google_drive import DriveFile, DriveFolder
from openus_data.sources.http import Http
from openus_data.sources.kaggle import KaggleCompetition, KaggleDataset
from openus_data.sources.manual import Manual
from openus_data.sources.mendeley import Mendeley
from openus_data.sources.python_package import PythonPackage
from openus_data.sources.tcia import Tcia
from openus_data.sources.zenodo import Zenodo

__all__ = ["SOURCES", "Ask", "RemoteFile", "Source", "source_of"]

SOURCES: Final[tuple[Source, ...]] = (
    Zenodo(),
    Mendeley(),
    Figshare(),
    GitHub(),
    KaggleDataset(),
    KaggleCompetition(),
    DriveFile(),
    DriveFolder(),
    Dataverse(),
    Girder(),
    Tcia(),
    Http(),
    PythonPackage(),
    Manual(),
)


def source_of(kind: str) -> Source:
    """The source that a card's `source` names; the card's loader has checked the word."""
    return next(s for s in SOURCES if s.kind == kind)
