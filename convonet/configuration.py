"""What the fields of a configuration may hold."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from common.errors import SettingError


def check_fields(config: Any, but: Collection[str] = ()) -> None:
    """Refuse values that the annotations of a dataclass do not allow.

    Args:
        config: fields of type `Literal`, also `| None`, hold one of these values, those of type `int` at least 1.
        but: fields with rules of their own.

    Raises:
        SettingError: naming the field and what it may be.
    """
    hints = get_type_hints(type(config))
    for name in (field.name for field in fields(config) if field.name not in but):
        value, hint = getattr(config, name), hints[name]
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
        if choices and value not in choices and not (value is None and type(None) in parts):
            raise SettingError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        if hint is int and (type(value) is not int or value < 1):
            raise SettingError(f"{name} must be a positive whole number, not {value!r}")
