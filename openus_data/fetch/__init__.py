"""The command `fetch`: for every card, list, download, verify, unpack; one that fails does not stop the others."""

from openus_data.fetch.datasets import fetch
from openus_data.fetch.report import DatasetReport, FetchReport, FileReport

__all__ = ["DatasetReport", "FetchReport", "FileReport", "fetch"]
