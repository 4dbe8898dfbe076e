"""What the fields of a configuration may hold."""

from __future__ import annotations

from collections.abc import Collection
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from foundation.errors import SettingError

LARGEST_INTEGER = 2**63 - 1


def check_choices(config: Any) -> None:
    """Refuse values of a dataclass's fields of type `Literal`, also `| None`, that are none of these.

    Raises:
        SettingError: naming the field and what it may be.
    """
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
        if choices and value not in choices and not (value is None and type(None) in parts):
            raise SettingError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def check_fields(config: Any, but: Collection[str] = ()) -> None:
    """Refuse values that the annotations of a dataclass do not allow.

    Args:
        config: fields of type `Literal` hold one of these values, those of type `int` at least 1.
        but: fields of type `int` with rules of their own.

    Raises:
        SettingError: naming the field and what it may be.
    """
    check_choices(config)
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if hint is int and name not in but and (type(value) is not int or value < 1):
            raise SettingError(f"{name} must be a positive whole number, not {value!r}")


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
