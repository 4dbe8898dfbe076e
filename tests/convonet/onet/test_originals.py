"""The original's weights: every preset maps in full, computes the same, and refuses what does not fit."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from convonet.errors import WeightsError
from convonet.onet import PRESETS, from_original
from tests.convonet.onet import original_forward as forward
from tests.convonet.onet.original_states import PRESET_ENTRIES, conditional_decoder, random_state


def draw(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def inputs_of(preset: str) -> Tensor:
    if preset.startswith("onet_img"):
        return draw(1, 2, 3, 96, 80)
    return {
        "onet_pointcloud": lambda: draw(2, 2, 60, 3) - 0.5,
        "onet_voxel": lambda: (draw(3, 2, 32, 32, 32) > 0.7).float(),
        "onet_unconditional": lambda: torch.zeros(2, 0),
        "onet_repr_power": lambda: torch.tensor([4745, 17]),
    }[preset]()


def original_logits(
    preset: str, state: dict[str, Tensor], inputs: Tensor, queries: Tensor, z: Tensor
) -> Tensor:
    if preset == "onet_unconditional":
        return forward.simple(state, queries, z, torch.zeros(2, 0))
    if preset.startswith("onet_img"):
        decode = {"onet_img_nocbn": forward.batchnorm, "onet_img_noresnet": forward.cbatchnorm_noresnet}
        return decode.get(preset, forward.cbatchnorm)(state, queries, z, forward.image_encoder(state, inputs))
    features = {
        "onet_pointcloud": lambda: forward.resnet_pointnet(state, inputs),
        "onet_voxel": lambda: forward.voxel_encoder(state, inputs),
        "onet_repr_power": lambda: state["encoder.weight"][inputs],
    }[preset]()
    return forward.cbatchnorm(state, queries, z, features)


def test_every_preset_has_a_listing() -> None:
    assert set(PRESET_ENTRIES) == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_an_imported_network_gives_the_original_s_logits(preset: str) -> None:
    config, state = PRESETS[preset], random_state(PRESET_ENTRIES[preset], 4)
    if preset == "onet_img_noresnet":  # without residuals, layer after layer would damp the signal
        state |= {name: 2 * state[name] for name in state if re.match(r"decoder\.fc_\d\.weight", name)}
    network = config.build()
    network.load_state_dict(from_original(state, config), strict=True)
    network.eval().requires_grad_(False)
    inputs, queries, z = inputs_of(preset), draw(5, 2, 40, 3) - 0.5, draw(6, 2, config.latent_size)
    expected = original_logits(preset, state, inputs, queries, z)
    assert expected.std() > 0.02  # the comparison is of signals, not of zeros
    torch.testing.assert_close(network(inputs, queries, z), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_mapping_is_total_and_one_to_one(preset: str) -> None:
    config = PRESETS[preset]
    entries = PRESET_ENTRIES[preset]
    state = {  # every entry carries its own number
        name: torch.full(shape, float(number))
        for number, (name, shape) in enumerate(entries.items(), start=1)
    }
    mapped = from_original(state, config)
    own = config.build().state_dict()
    assert {name: value.shape for name, value in mapped.items()} == {
        name: value.shape for name, value in own.items()
    }
    marks = [float(value.flatten()[0]) for value in mapped.values()]
    assert sorted(marks) == [float(number) for number in range(1, len(entries) + 1)]


@pytest.mark.parametrize("preset", PRESETS)
def test_what_does_not_fit_is_refused_by_name_and_shape(preset: str) -> None:
    state = {name: torch.zeros(shape) for name, shape in PRESET_ENTRIES[preset].items()}
    missing, misshapen = "decoder.fc_out.bias", "decoder.fc_p.bias"
    del state[missing]
    state[misshapen] = torch.zeros(11)
    state["decoder.fc_extra.weight"] = torch.zeros(2, 3)
    with pytest.raises(WeightsError) as caught:
        from_original(state, PRESETS[preset])
    message = str(caught.value)
    assert "missing: decoder.fc_out.bias (1,);" in message
    assert "unexpected: decoder.fc_extra.weight (2, 3);" in message
    assert (
        f"wrongly shaped: decoder.fc_p.bias (11,) instead of ({PRESETS[preset].decoder_hidden},)." in message
    )


def test_every_single_absent_entry_is_noticed() -> None:
    config = PRESETS["onet_pointcloud"]
    state = {
        name: torch.empty(shape, device="meta") for name, shape in PRESET_ENTRIES["onet_pointcloud"].items()
    }
    for name in [name for name in state if not name.endswith("num_batches_tracked")][::7]:
        rest = {other: value for other, value in state.items() if other != name}
        with pytest.raises(WeightsError, match=f"missing: {name.replace('.', '[.]')} "):
            from_original(rest, config)


def test_step_counters_may_be_absent() -> None:
    config = PRESETS["onet_voxel"]
    state = random_state(PRESET_ENTRIES["onet_voxel"], 7)
    bare = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    mapped = from_original(bare, config)
    config.build().load_state_dict(mapped)
    assert mapped["decoder.norm.batch_norm.num_batches_tracked"] == 0
    assert len(bare) < len(state)


def test_both_generations_of_conditional_norm_are_understood() -> None:
    config = PRESETS["onet_repr_power"]
    legacy = random_state(PRESET_ENTRIES["onet_repr_power"], 8)
    modern = {
        name.replace(".fc_gamma.", ".conv_gamma.").replace(".fc_beta.", ".conv_beta."): (
            value[..., None] if name.endswith(("fc_gamma.weight", "fc_beta.weight")) else value
        )
        for name, value in legacy.items()
    }
    assert modern.keys() == {"encoder.weight": 0, **conditional_decoder(512, 256)}.keys()
    old, new = from_original(legacy, config), from_original(modern, config)
    assert old.keys() == new.keys()
    assert all(torch.equal(value, new[name]) for name, value in old.items())


def test_a_mixture_of_both_generations_is_refused() -> None:
    state = {name: torch.zeros(shape) for name, shape in PRESET_ENTRIES["onet_repr_power"].items()}
    value = state.pop("decoder.bn.fc_gamma.weight")
    state["decoder.bn.conv_gamma.weight"] = value[..., None]
    with pytest.raises(WeightsError, match=r"missing: decoder.bn.fc_gamma.weight \(256, 512\)"):
        from_original(state, PRESETS["onet_repr_power"])


def test_imported_weights_are_copies() -> None:
    config = PRESETS["onet_unconditional"]
    state = random_state(PRESET_ENTRIES["onet_unconditional"], 9)
    mapped = from_original(state, config)
    before = mapped["decoder.fc_p.weight"].clone()
    state["decoder.fc_p.weight"].zero_()
    assert torch.equal(mapped["decoder.fc_p.weight"], before)
