"""ImageNet weights come from a file that the user names, and only a ResNet-18 is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from convonet.errors import WeightsError
from convonet.layers.resnet18 import ImageEncoder, load_imagenet_weights
from convonet.registry import preset as named
from tests.convonet.onet import original_forward as forward
from tests.convonet.onet.original_states import linear, random_state, resnet18


@pytest.fixture(scope="module")
def imagenet() -> dict[str, torch.Tensor]:
    """The entries of torchvision's resnet18, classifier included."""
    return random_state(resnet18() | linear("fc", 512, 1000), 1)


def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def expected_features(imagenet: dict[str, torch.Tensor]) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return forward.resnet18(imagenet, "", (images() - mean[:, None, None]) / std[:, None, None])


def loaded(path: Path) -> ImageEncoder:
    encoder = ImageEncoder(feature_size=16)
    load_imagenet_weights(encoder, path)
    return encoder.eval()


def test_a_torch_file_is_loaded_and_the_classifier_dropped(
    tmp_path: Path, imagenet: dict[str, torch.Tensor]
) -> None:
    torch.save(imagenet, tmp_path / "resnet18.pth")
    encoder = loaded(tmp_path / "resnet18.pth")
    features = expected_features(imagenet)
    expected = features @ encoder.fc.weight.T + encoder.fc.bias
    torch.testing.assert_close(encoder(images()), expected, rtol=1e-3, atol=1e-3)


def test_old_files_without_step_counters_and_in_the_old_format_load(
    tmp_path: Path, imagenet: dict[str, torch.Tensor]
) -> None:
    old = {name: value for name, value in imagenet.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "resnet18-old.pth", _use_new_zipfile_serialization=False)
    encoder = loaded(tmp_path / "resnet18-old.pth")
    torch.testing.assert_close(encoder.features.layer4[1].bn2.weight, imagenet["layer4.1.bn2.weight"])
    assert encoder.features.bn1.num_batches_tracked == 0


def test_safetensors_load(tmp_path: Path, imagenet: dict[str, torch.Tensor]) -> None:
    save_file(imagenet, tmp_path / "resnet18.safetensors")
    encoder = loaded(tmp_path / "resnet18.safetensors")
    assert torch.equal(encoder.features.conv1.weight, imagenet["conv1.weight"])


def test_another_network_is_refused_by_name_and_shape(
    tmp_path: Path, imagenet: dict[str, torch.Tensor]
) -> None:
    wrong = dict(imagenet)
    del wrong["layer3.0.downsample.0.weight"]
    wrong["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)  # as ResNet-50 has it
    wrong["layer1.0.conv3.weight"] = torch.zeros(256, 64, 1, 1)
    torch.save(wrong, tmp_path / "resnet50.pth")
    encoder = ImageEncoder(16)
    before = encoder.features.conv1.weight.clone()
    with pytest.raises(WeightsError) as caught:
        load_imagenet_weights(encoder, tmp_path / "resnet50.pth")
    message = str(caught.value)
    assert "resnet50.pth" in message
    assert "missing: layer3.0.downsample.0.weight (256, 128, 1, 1)" in message
    assert "unexpected: layer1.0.conv3.weight (256, 64, 1, 1)" in message
    assert "layer1.0.conv1.weight (64, 64, 1, 1) instead of (64, 64, 3, 3)" in message
    assert torch.equal(encoder.features.conv1.weight, before)


def test_every_encoder_of_pictures_in_a_network_starts_there_and_others_have_none(
    tmp_path: Path, imagenet: dict[str, torch.Tensor]
) -> None:
    torch.save(imagenet, tmp_path / "resnet18.pth")
    for preset in ("onet_img", "oflow_img"):
        network = named(preset).build()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        load_imagenet_weights(network, tmp_path / "resnet18.pth")
        for name, value in network.state_dict().items():
            _, _, entry = name.partition("encoder.features.")
            assert torch.equal(value, imagenet[entry] if entry else before[name])
        assert any("encoder.features." in name for name in before)
    with pytest.raises(WeightsError, match=r"resnet18\.pth.*onet_img.*no such encoder"):
        load_imagenet_weights(named("onet4d_img").build(), tmp_path / "resnet18.pth")


class Payload:
    """A pickle that would write a file if it were run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.path),)  # type: ignore[return-value]


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Payload(tmp_path / "proof")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth: not readable as weights"):
        loaded(tmp_path / "evil.pth")
    assert not (tmp_path / "proof").exists()


def test_damaged_missing_and_foreign_files_are_refused(
    tmp_path: Path, imagenet: dict[str, torch.Tensor]
) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(imagenet, whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:1000])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("no tensors here")
    (tmp_path / "text.pth").write_text("conv1.weight")
    torch.save([1, 2, 3], tmp_path / "list.pth")
    torch.save({1: torch.zeros(2)}, tmp_path / "unnamed.pth")
    names = ("cut.pth", "empty.pth", "text.safetensors", "text.pth", "list.pth", "unnamed.pth", "absent.pth")
    for name in names:
        with pytest.raises(WeightsError, match=name):
            loaded(tmp_path / name)


def test_the_encoder_normalizes_in_its_own_precision_and_stores_no_constants() -> None:
    encoder = ImageEncoder(8)
    assert not {"mean", "std"} & set(encoder.state_dict())
    assert encoder.double().eval()(images().double()).dtype == torch.float64
