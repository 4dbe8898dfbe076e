"""Weights with the original's names give the original's outputs, part by part; anything else is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from convonet.errors import WeightsError
from convonet.oflow import (
    LOSSES,
    PRESETS,
    OccupancyFlow,
    OccupancyFlowConfig,
    OccupancyNetwork4D,
    from_original,
)
from tests.convonet.oflow import original_forward as original

FLOW = [name for name in PRESETS if name.startswith("oflow")]


def loaded(name: str, state: original.State) -> OccupancyFlow | OccupancyNetwork4D:
    network = PRESETS[name].build()
    network.load_state_dict(from_original(state, PRESETS[name]))
    return network.eval().requires_grad_(False)


def uniform(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 0.5


def inputs_of(name: str) -> torch.Tensor:
    if "img" in name:
        return uniform(2, 17, 3, 64, 64) + 0.5
    if name == "oflow_repr_power":
        return torch.empty(2, 1, 0)
    frames = 2 if name in ("oflow_interpolation", "oflow_shape_matching") else 17
    return uniform(2, frames, 60, 3)


def expected_codes(name: str, state: original.State, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the original's encoders give; parts that a configuration lacks are left out."""
    codes = {}
    if "encoder.fc_pos.weight" in state:
        codes["spatial"] = original.pointnet(state, "encoder", inputs[:, 0])
    if "encoder.fc.weight" in state:
        codes["spatial"] = original.resnet18(state, inputs[:, 0])
    if "encoder_temporal.fc_pos.weight" in state:
        codes["temporal"] = original.pointnet(state, "encoder_temporal", original.trajectories(inputs))
    if "encoder_temporal.conv0.weight" in state:
        codes["temporal"] = original.conv3d(state, inputs)
    if "encoder_temporal.resnet_pointnet.fc_pos.weight" in state:
        ends = [
            original.pointnet(state, "encoder_temporal.resnet_pointnet", inputs[:, end]) for end in (0, 1)
        ]
        codes["temporal"] = torch.cat(ends, dim=1)
    if "encoder_latent.fc_pos.weight" in state:
        codes["shape"] = original.latent(state, "encoder_latent", inputs[:, 0])[0]
        points = original.trajectories(inputs)
        codes["motion"] = original.latent(state, "encoder_latent_temporal", points)[0]
    return codes


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert theirs.std() > 1e-2  # a signal came through
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", FLOW)
def test_every_part_gives_the_outputs_of_the_original(name: str) -> None:
    state, inputs = original.random_state(original.ORIGINALS[name], seed=2), inputs_of(name)
    network = loaded(name, state)
    codes = network.encode(inputs)
    expected = expected_codes(name, state, inputs)
    for part in ("spatial", "temporal", "shape", "motion"):
        if part in expected:
            assert_close(getattr(codes, part), expected[part])
        else:
            assert getattr(codes, part).shape == (2, 0)
    nothing = torch.empty(2, 0)
    points, times = uniform(2, 40, 3, seed=3), torch.tensor([0.2, 0.9])
    moves = original.velocity(
        state, points, times, expected.get("temporal", nothing), expected.get("motion", nothing)
    )
    assert_close(network.velocity(codes, points, times), moves)
    if "decoder.bn.bn.running_mean" in state:
        logits = original.conditional_decoder(state, points, expected["spatial"])
    elif "decoder.fc_p.weight" in state:
        logits = original.simple_decoder(state, points, expected.get("shape", nothing))
    else:
        with pytest.raises(ValueError, match="no decoder"):
            network.decode(codes, points)
        return
    assert_close(network.decode(codes, points), logits)


@pytest.mark.parametrize("name", ["onet4d_pointcloud", "onet4d_img"])
def test_onet4d_gives_the_outputs_of_the_original(name: str) -> None:
    state, inputs = original.random_state(original.ORIGINALS[name], seed=4), inputs_of(name)
    network = loaded(name, state)
    code = expected_codes(name, state, inputs)["temporal"]
    assert_close(network.encode(inputs), code)
    queries, times = uniform(2, 40, 3, seed=5), torch.tensor([0.0, 0.7])
    with_time = torch.cat([queries, times.view(2, 1, 1).repeat(1, 40, 1)], dim=-1)
    logits = original.conditional_decoder(state, with_time, code)
    assert_close(network(inputs, queries, times), logits)


def test_latent_deviations_follow_the_original() -> None:
    state = original.random_state(original.ORIGINALS["oflow_generative"], seed=6)
    network, inputs = loaded("oflow_generative", state), inputs_of("oflow_generative")
    assert isinstance(network, OccupancyFlow)
    _, shape, motion = network.encode_with_posteriors(inputs)
    assert_close(shape.log_std, original.latent(state, "encoder_latent", inputs[:, 0])[1])
    points = original.trajectories(inputs)
    assert_close(motion.log_std, original.latent(state, "encoder_latent_temporal", points)[1])


@pytest.mark.parametrize("name", PRESETS)
def test_the_mapping_is_total(name: str) -> None:
    shapes = original.ORIGINALS[name]
    network = PRESETS[name].build()
    mapped = from_original(original.random_state(shapes, seed=0), PRESETS[name])
    assert set(mapped) == set(network.state_dict())
    assert len(mapped) == len(shapes)


@pytest.mark.parametrize("name", PRESETS)
def test_each_missing_added_or_misshapen_entry_is_named_with_its_shape(name: str) -> None:
    state = original.random_state(original.ORIGINALS[name], seed=0)
    entries = [entry for entry in state if not entry.endswith("num_batches_tracked")]
    gone, bent = entries[0], entries[-1]
    shape_gone, shape_bent = tuple(state[gone].shape), tuple(state[bent].shape)
    del state[gone]
    state[bent] = torch.zeros(9, 9, 9)
    state["decoder.fc_extra.weight"] = torch.zeros(4, 5)
    with pytest.raises(WeightsError) as refused:
        from_original(state, PRESETS[name])
    assert f"missing: {gone} {shape_gone};" in str(refused.value)
    assert "unexpected: decoder.fc_extra.weight (4, 5);" in str(refused.value)
    assert f"{bent} (9, 9, 9) instead of {shape_bent}" in str(refused.value)


def test_any_single_missing_entry_is_refused() -> None:
    name = "oflow_generative"
    whole = original.random_state(original.ORIGINALS[name], seed=0)
    for entry in whole:
        with pytest.raises(WeightsError, match=r"missing: " + entry.replace(".", r"\.")):
            from_original({key: value for key, value in whole.items() if key != entry}, PRESETS[name])


def test_both_ways_to_store_conditional_batch_norm_are_understood() -> None:
    state = original.random_state(original.ORIGINALS["onet4d_img"], seed=0)
    modern = {
        name.replace("fc_gamma", "conv_gamma").replace("fc_beta", "conv_beta"): value[..., None]
        if name.endswith(("fc_gamma.weight", "fc_beta.weight"))
        else value
        for name, value in state.items()
    }
    assert set(modern) != set(state)
    ours, theirs = (from_original(entries, PRESETS["onet4d_img"]) for entries in (modern, state))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    del modern["decoder.block0.bn_0.conv_beta.weight"]
    with pytest.raises(
        WeightsError, match=r"missing: decoder\.block0\.bn_0\.conv_beta\.weight \(256, 256, 1\)"
    ):
        from_original(modern, PRESETS["onet4d_img"])


def test_absent_batch_counters_are_filled() -> None:
    state = original.random_state(original.ORIGINALS["oflow_img"], seed=0)
    counters = [entry for entry in state if entry.endswith("num_batches_tracked")]
    mapped = from_original({key: state[key] for key in state if key not in counters}, PRESETS["oflow_img"])
    ours = [entry for entry in mapped if entry.endswith("num_batches_tracked")]
    assert len(ours) == len(counters) == 31
    assert all(mapped[entry] == 0 for entry in ours)


def test_every_flow_preset_has_a_loss_and_its_parts() -> None:
    assert list(LOSSES) == FLOW
    for name in FLOW:
        config = PRESETS[name]
        assert isinstance(config, OccupancyFlowConfig)
        assert LOSSES[name].reconstruction == (config.decoder is not None)


def test_saved_weights_give_the_same_network(tmp_path) -> None:
    name = "oflow_generative"
    network = loaded(name, original.random_state(original.ORIGINALS[name], seed=8))
    save_file(network.state_dict(), tmp_path / "flow.safetensors")
    again = PRESETS[name].build()
    again.load_state_dict(load_file(tmp_path / "flow.safetensors"))
    inputs, queries, times = inputs_of(name), uniform(2, 9, 3), torch.tensor([0.0, 0.6])
    with torch.no_grad():
        assert torch.equal(again.eval()(inputs, queries, times), network(inputs, queries, times))
