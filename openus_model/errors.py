"""The errors of openus_model, as a tree.

    OpenUSModelError
    |- UsageError           the call cannot be carried out as written (exit 2)
    |  |- RecipeError       a recipe has an unknown key or an impossible value: file, key, nearest name
    |  `- MissingExtra      an optional dependency is not installed: what to install
    |- DataError            manifest and shards do not agree, or hold less than they promise
    |- WeightsError         a checkpoint is torn, or its tensors do not fit
    |- ContaminatedError    the weights have seen the images they would be evaluated on
    |- DivergedError        the loss is not finite; the batch's sample ids were saved
    `- LockedError          another run holds the folder

A message is one line: what, where, expected, got, next step.
"""

from __future__ import annotations


class OpenUSModelError(Exception):
    """Root of every error that openus_model raises on purpose.

    Args:
        what: the fault in a few words.
        where: file, key or tensor at fault.
        expected: what would have been right.
        got: what was found.
        next_step: what the reader can do about it.
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", got: str = "", next_step: str = "") -> None:
        parts = [f"{where}: {what}" if where else what]
        parts += [f"{word} {text}" for word, text in (("expected", expected), ("got", got)) if text]
        if next_step:
            parts.append(next_step)
        super().__init__("; ".join(parts).replace("\n", " "))


class UsageError(OpenUSModelError):
    """The call cannot be carried out as written."""


class RecipeError(UsageError):
    """A recipe is wrong."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""


class DataError(OpenUSModelError):
    """Manifest and shards do not agree."""


class WeightsError(OpenUSModelError):
    """A checkpoint is torn, or its tensors do not fit."""


class ContaminatedError(OpenUSModelError):
    """The weights have seen what they would be evaluated on."""


class DivergedError(OpenUSModelError):
    """The loss is not finite."""


class LockedError(OpenUSModelError):
    """Another run holds the folder."""
