"""Settings out of range are refused by name, for the command line and for Python alike."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from typing import Literal

import pytest

from foundation.errors import SettingError, TesseraError
from foundation.settings import check_at_least, check_choices, check_fields


@dataclass(frozen=True)
class Sizes:
    layers: int = 1
    seed: int = 0
    pooling: Literal["mean", "max"] | None = None
    scale: float = 0.0


@pytest.mark.parametrize("value", [0, -1, math.nan, -math.inf, math.inf, 2**63])
def test_a_number_out_of_range_is_named_like_its_option(value: float) -> None:
    with pytest.raises(SettingError, match=r"^--batch-size "):
        check_at_least(1, steps=1, batch_size=value)


def test_numbers_in_range_and_those_that_are_not_given_pass() -> None:
    check_at_least(0, seed=2**63 - 1, noise=0.0, faces=None)


@pytest.mark.parametrize("changes", [{"pooling": "sum"}, {"layers": 0}, {"layers": 1.0}, {"layers": True}])
def test_a_value_that_the_annotation_does_not_allow_is_named(changes: dict[str, object]) -> None:
    (name,) = changes
    with pytest.raises(SettingError, match=rf"^{name} must be"):
        check_fields(Sizes(**changes), but=("seed",))  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "max", None])
def test_every_choice_passes(pooling: Literal["mean", "max"] | None) -> None:
    check_choices(Sizes(layers=-1, pooling=pooling))
    check_fields(Sizes(pooling=pooling), but=("seed",))


def test_an_error_of_a_setting_is_the_user_s_and_a_value_error_and_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(SettingError("--seed must be at least 0, not -1")))
    assert isinstance(error, TesseraError) and isinstance(error, ValueError)
    assert str(error) == "--seed must be at least 0, not -1"
