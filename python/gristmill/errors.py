"""Errors a user can act on: each class fixes the exit code of the command line."""

from __future__ import annotations


class GristmillError(Exception):
    """Something the user can put right; the command line prints it without a traceback."""

    exit_code = 1


class ConfigError(GristmillError):
    """A key, a value or an option of the configuration is not allowed."""

    exit_code = 2


class DataError(GristmillError):
    """The given data is missing, unreadable, or not enough for what was asked."""

    exit_code = 2


class ArtifactError(GristmillError):
    """A file of a finished stage or model is missing, changed, truncated or foreign."""

    exit_code = 2


class MissingExtraError(GristmillError):
    """A part needs packages that are not installed; the message names the extra."""

    exit_code = 2


class StorageError(GristmillError):
    """A write failed: full disk, no permission, read-only file system."""

    exit_code = 5


class TrainingError(GristmillError):
    """Training cannot go on (a loss that is not finite); the last good checkpoint is kept."""

    exit_code = 6


class GateError(GristmillError):
    """A gate in mode "stop" did not pass; the message has the number, the bar and the file."""

    exit_code = 3


class ReproError(GristmillError):
    """Two computations that must agree bit for bit did not."""

    exit_code = 4


class KernelError(GristmillError):
    """A user's kernel does not compile, crashes, does not end or is wrong; says where, and what to
    do."""


class LockedError(GristmillError):
    """Another process works in the same run folder."""

    exit_code = 7
