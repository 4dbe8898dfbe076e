"""The options of a command, derived from the fields of a dataclass: names, types, defaults, choices, help texts.

What a field means stands once, under `Attributes:` in the docstring of its class. A field that is a dataclass itself
becomes a group of options. Metadata of a field may say more: `place`, what it is called where its place tells it, and
no option; `flag`, an option's name that is not the field's; `is_one_word`, that names are given with commas.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from inspect import cleandoc
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from preprocessing.formats import FORMAT_LISTS

Settings = TypeVar("Settings")
Device = Literal["auto", "cpu", "cuda"]

NEGATIVE_NUMBER = re.compile(r"-\.?\d")  # begins a value and no option: argparse's own does not know -1,2,0
PLACEHOLDERS = FORMAT_LISTS | {
    "address": "Ray cluster: auto (that of RAY_ADDRESS, else a private one), local (a private one), or HOST:PORT"
}
NAMES = {int: "INT", float: "FLOAT", str: "TEXT"}


def documentation(settings: type) -> tuple[str, dict[str, str]]:
    """What a dataclass is for, and the help text of each field; {meshes} and the like become lists of formats."""
    text = cleandoc(settings.__doc__ or "")
    for word, meaning in PLACEHOLDERS.items():
        text = text.replace(f"{{{word}}}", meaning)
    about, _, attributes = text.partition("\nAttributes:\n")
    section = re.split(r"\n(?=\S)", attributes)[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    texts = documentation(settings.__base__)[1] if is_dataclass(settings.__base__) else {}
    return about.strip(), texts | {name: " ".join(entry.split()) for name, entry in entries}


def parse(settings: type[Settings], program: str, words: Sequence[str]) -> Settings:
    """Read a command's arguments; exits after printing the help, or what is wrong with them.

    Raises:
        SettingError: if the dataclass refuses a value.
    """
    parser = Parser(program, documentation(settings)[0])
    parser.add(settings, parser)
    parser.usage = " ".join([program, *parser.places, *parser.needed, "[OPTIONS]"])
    built: Settings = _value(settings, vars(parser.parse_intermixed_args(words)), "")
    return built


class Parser(argparse.ArgumentParser):
    """Filled help texts and no abbreviations; a value may begin like a negative number."""

    def __init__(self, prog: str, description: str | None = None, add_help: bool = True) -> None:
        super().__init__(
            prog,
            description=description,
            formatter_class=_HelpFormatter,
            add_help=add_help,
            allow_abbrev=False,
        )
        self._negative_number_matcher = NEGATIVE_NUMBER
        self.places: list[str] = []  # positional arguments, as the usage shows them
        self.needed: list[str] = []  # required options, likewise

    def add(self, settings: Any, group: Any, usual: Any = MISSING) -> None:
        """Add the options of a dataclass, with the defaults of an instance where there is one."""
        texts, types = documentation(settings)[1], get_type_hints(settings)
        groups = []
        for entry in fields(settings):
            default = _default(entry) if usual is MISSING else getattr(usual, entry.name)
            if is_dataclass(types[entry.name]):
                groups.append((types[entry.name], default))
                continue
            is_one_word = "is_one_word" in entry.metadata
            options = {"type": names, "metavar": "NAME,NAME"} if is_one_word else _by_type(types[entry.name])
            options["help"] = _help(texts.get(entry.name, ""), default)  # python -OO has no docstrings
            if default is not MISSING:
                options["default"] = default
            if "place" in entry.metadata:
                self._add_positional(entry.name, options | {"metavar": entry.metadata["place"]})
            else:
                self._add_option(group, entry.metadata.get("flag", entry.name), entry.name, options)
        for kind, default in groups:
            title = documentation(kind)[0].split("\n\n")[0].removesuffix(".")
            self.add(kind, self.add_argument_group(title), default)

    def _print_message(self, message: str, file: Any = None) -> None:
        (file or sys.stderr).write(message)  # argparse would hide that whoever reads has gone

    def _add_positional(self, name: str, options: dict[str, Any]) -> None:
        shape = "{0}"
        if "default" in options:
            shape, options["nargs"] = "[{0}]", "?"
        elif "nargs" in options:
            shape, options["nargs"] = "{0} [{0} ...]", "+"
        self.places.append(shape.format(options["metavar"]))
        self.add_argument(name, **options)

    def _add_option(self, group: Any, name: str, target: str, options: dict[str, Any]) -> None:
        flag = f"--{name.replace('_', '-')}"
        if "default" not in options:
            options |= {"required": True, "help": f"{options['help']} (required)"}
            self.needed.append(f"{flag} {options['metavar']}")
        group.add_argument(flag, dest=target, **options)


class _HelpFormatter(argparse.HelpFormatter):
    """Fills paragraphs, and leaves examples as they are, to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        parts = text.split("\n\n")
        return "\n\n".join(
            part if part.startswith("Example") else fill(part, width, indent) for part in parts
        )


def _default(entry: Any) -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _help(text: str, default: Any) -> str:
    shown = default if isinstance(default, tuple) else (default,)
    if default is not MISSING and default is not None and not isinstance(default, bool) and shown:
        words = (f"{word:g}" if isinstance(word, float) else str(word) for word in shown)
        text += f" (default: {' '.join(words)})"
    return text.replace("%", "%%")


def _by_type(hint: Any) -> dict[str, Any]:
    """What argparse is told of a field of this type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _by_type(next(part for part in parts if part is not NoneType))
    if origin is Literal:
        return {"choices": parts}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if origin is not tuple:
        return {"type": hint, "metavar": NAMES.get(hint, "PATH")}
    if parts[-1] is not Ellipsis:
        return _by_type(parts[0]) | {"nargs": len(parts)}
    if get_origin(parts[0]) is tuple:
        return {"nargs": "*", "type": position, "metavar": "X,Y,Z"}
    return _by_type(parts[0]) | {"nargs": "*"}


def names(word: str) -> tuple[str, ...]:
    """Names with commas between them; some may be empty."""
    return tuple(name.strip() for name in word.split(",")) if word else ()


def position(word: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    return tuple(float(number) for number in word.split(","))


def _value(hint: Any, values: dict[str, Any], name: str) -> Any:
    """What a field of this type holds: a dataclass of the values, or the value of its name."""
    if is_dataclass(hint):
        build: Any = hint
        types = get_type_hints(hint)
        return build(**{entry.name: _value(types[entry.name], values, entry.name) for entry in fields(hint)})
    value = values[name]
    return tuple(value) if isinstance(value, list) else value
