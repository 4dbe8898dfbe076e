"""The base of every error that Tessera raises on purpose, and that of settings."""

from __future__ import annotations

LARGEST_INTEGER = 2**63 - 1


class TesseraError(Exception):
    """Something that a user can mend. The message is one line that names the file or setting and the cure."""


class SettingError(TesseraError, ValueError):
    """A setting is out of range, unknown, or does not go with another; a `ValueError` for callers from Python."""


def check_at_least(lowest: float, **settings: float | None) -> None:
    """Refuse numbers below `lowest`, NaN, and what 64 bits do not hold; None stands for no choice.

    Raises:
        SettingError: naming the setting.
    """
    for name, value in settings.items():
        option = f"--{name.replace('_', '-')}"
        if value is not None and not value >= lowest:
            raise SettingError(f"{option} must be at least {lowest:g}, not {value}")
        if value is not None and value > LARGEST_INTEGER:
            raise SettingError(f"{option} is too large: {value}")
