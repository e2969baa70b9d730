"""Silence around a reader that quotes what it reads.

pydicom warns of odd values by printing them, in warnings and in its log: a patient's number with a letter too many
would stand on the screen. Every read of a stranger's header happens inside `quiet_pydicom`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pydicom.config


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """No warning and no log record of pydicom leaves the block; values are not validated, only converted."""
    logger, settings = logging.getLogger("pydicom"), pydicom.config.settings
    before, mode = logger.disabled, settings.reading_validation_mode
    logger.disabled, settings.reading_validation_mode = True, pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled, settings.reading_validation_mode = before, mode
