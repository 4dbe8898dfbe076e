"""The families: every record is whole, and none is imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from convonet import DEFAULT_MODEL
from convonet.checkpoints import original_presets
from convonet.registry import FAMILIES, config_from_json, family, family_of, preset, presets

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_record_has_presets_of_its_own_kind_that_survive_json(kind: str) -> None:
    record = family(kind)
    assert record.presets and record.config.kind == kind
    for name, config in record.presets.items():
        assert type(config) is record.config and family_of(config) is record and preset(name) == config
        assert config_from_json(kind, asdict(config)) == config
    assert set(record.loss_terms) <= set(record.presets)


def test_preset_names_are_distinct_among_families() -> None:
    assert len(presets()) == sum(len(family(kind).presets) for kind in FAMILIES)


def test_what_a_network_takes_is_what_it_is_trained_on() -> None:
    """But for networks with a latent, which training infers from what generating does without."""
    for name, config in presets().items():
        record = family_of(config)
        sampling, taken = record.sampling(config, name), record.input(config)
        if sampling is None:
            assert (taken, record.makes) == ("scan", "scenes")
        elif getattr(config, "latent_size", 0):
            assert taken == "nothing"
        else:
            assert taken == ("points" if sampling.inputs == "partial" else sampling.inputs)


def test_networks_of_the_papers_have_originals_and_those_of_scans_none() -> None:
    assert set(original_presets()) == {
        name for name, config in presets().items() if family_of(config).makes != "scenes"
    }


@pytest.mark.parametrize(
    ("action", "absent"),
    [
        (
            f"from convonet.weights import load_network; load_network({DEFAULT_MODEL!r})",
            ("conv_onet", "onet", "oflow", "planes"),
        ),
        ("import convonet.planes.family", ("conv_onet", "onet", "oflow")),
    ],
)
def test_a_network_of_scans_imports_no_other_family(action: str, absent: tuple[str, ...]) -> None:
    program = f"import sys\n{action}\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "convonet.crop_network" in loaded
    assert not [name for name in loaded for family in absent if name.startswith(f"convonet.{family}")]


def test_unknown_names_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="no kind of network is called 'x'; there are volume, planes"):
        family("x")
    with pytest.raises(ValueError, match="no preset is called 'x'; there are volume, crop_1plane"):
        preset("x")
