"""constraints.txt: a set-up installs what was tested, down to the last dependency, and pyproject.toml agrees."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = {
    canonicalize_name(pin.name): pin
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
    for pin in [Requirement(line)]
}
OURS = canonicalize_name(PROJECT["project"]["name"])


def declared() -> list[Requirement]:
    """Every requirement of pyproject.toml, of the build and of all extras too."""
    lines = PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        lines = lines + extra
    found = [Requirement(line) for line in lines]
    return [requirement for requirement in found if canonicalize_name(requirement.name) != OURS]


def pinned_version(name: str) -> str:
    (one,) = PINS[canonicalize_name(name)].specifier
    assert one.operator == "==", f"{name} is not pinned to one version"
    return one.version


def needed_by(requirement: Requirement, seen: set[tuple[str, str]]) -> Iterator[str]:
    """Names of the distributions that are installed for a requirement, itself included."""
    for extra in ("", *requirement.extras):
        key = (canonicalize_name(requirement.name), extra)
        if key in seen:
            continue
        seen.add(key)
        yield key[0]
        try:
            inner = requires(requirement.name) or []
        except PackageNotFoundError:  # an extra that this environment lacks
            continue
        for line in inner:
            below = Requirement(line)
            if below.marker is None or below.marker.evaluate({"extra": extra}):
                yield from needed_by(below, seen)


def test_every_requirement_of_pyproject_has_a_pin_that_it_allows() -> None:
    for requirement in declared():
        assert canonicalize_name(requirement.name) in PINS, f"{requirement.name} has no pin"
        version = pinned_version(requirement.name)
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement}, pinned to {version}"
        )


def test_every_dependency_of_a_dependency_is_pinned() -> None:
    seen: set[tuple[str, str]] = set()
    needed = {name for requirement in declared() for name in needed_by(requirement, seen)}
    assert len(needed) > 100  # the walk went down
    assert sorted(needed - set(PINS)) == []


@pytest.mark.parametrize("name", ["ray", "hatchling"])
def test_what_starts_clusters_and_what_builds_are_pinned_as_declared(name: str) -> None:
    """A cluster refuses another Ray; `pip` builds by pyproject.toml alone, without constraints.txt."""
    texts = [path.read_text() for path in (ROOT / "cluster.yaml", *sorted((ROOT / "deploy").rglob("*.yaml")))]
    if name == "ray":
        assert texts and all(pinned_version("ray") in text for text in texts)
    else:
        assert PROJECT["build-system"]["requires"] == [f"hatchling=={pinned_version('hatchling')}"]
