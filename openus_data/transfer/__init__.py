"""Moving bytes over HTTP so that it can be left alone: `Engine`, its `Policy`, and the `Client` that listings use."""

from openus_data.transfer.client import Client
from openus_data.transfer.disk import SMALL_BYTES, VERIFIED_MTIME_NS
from openus_data.transfer.engine import Downloaded, Engine, Job, Watcher
from openus_data.transfer.local import check_file, copy_file
from openus_data.transfer.part import BAD_SUFFIX, forget_traces
from openus_data.transfer.policy import Policy, Stopped

__all__ = [
    "BAD_SUFFIX",
    "SMALL_BYTES",
    "VERIFIED_MTIME_NS",
    "Client",
    "Downloaded",
    "Engine",
    "Job",
    "Policy",
    "Stopped",
    "Watcher",
    "check_file",
    "copy_file",
    "forget_traces",
]
