"""The base of every error that Tessera raises on purpose, and that of settings."""

from __future__ import annotations


class TesseraError(Exception):
    """Something that a user can mend. The message is one line that names the file or setting and the cure."""


class SettingError(TesseraError, ValueError):
    """A setting is out of range, unknown, or does not go with another; a `ValueError` for callers from Python."""
