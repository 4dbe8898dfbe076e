"""Checkpoints of the originals become weights of ours; anything else is refused by name, and runs no code."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from convonet.checkpoints import fitting_presets, import_original, read_original_checkpoint
from convonet.errors import WeightsError
from convonet.weights import load_any_network, read_header
from pipeline.cli import main
from tests.convonet.conv_onet import original_entries as conv
from tests.convonet.oflow import original_forward as flow_forward
from tests.convonet.onet import original_forward as onet_forward
from tests.convonet.onet import original_states as onet


def unconditional() -> dict[str, Tensor]:
    return onet.random_state(onet.simple_decoder(0, 128, 128) | onet.latent_encoder(128, 0), 3)


def saved(path: Path, state: dict[str, Tensor], **others: Any) -> Path:
    torch.save({"model": state, "epoch_it": 12, "it": 34_000, **others}, path)
    return path


@pytest.mark.parametrize(
    "best",
    [np.float64(0.25), np.float32(0.25), np.int64(3), np.bool_(True), 0.25, float("-inf"), np.float64("nan")],
    ids=repr,
)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "old format"])
def test_a_checkpoint_with_optimizer_and_numpy_scalars_is_read(
    tmp_path: Path, best: Any, is_zip: bool
) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    optimizer = torch.optim.Adam([torch.nn.Parameter(weight)]).state_dict()
    torch.save(
        {"model": {"a.weight": weight}, "optimizer": optimizer, "loss_val_best": best},
        tmp_path / "model_best.pt",
        _use_new_zipfile_serialization=is_zip,
    )
    state = read_original_checkpoint(tmp_path / "model_best.pt")
    assert list(state) == ["a.weight"]
    assert torch.equal(state["a.weight"], weight)


def test_scalars_written_by_older_numpy_are_read(tmp_path: Path) -> None:
    saved(tmp_path / "new.pt", {"a": torch.ones(2)}, best=np.float64(0.5))
    data = (tmp_path / "new.pt").read_bytes()
    name = b"cnumpy._core.multiarray\nscalar\n"
    if name in data:  # numpy 2 wrote it: the old name and padding keep every offset in the archive
        pytest.importorskip("zipfile")
        rewritten = _with_old_numpy_name(tmp_path / "new.pt", name)
        state = read_original_checkpoint(rewritten)
        assert torch.equal(state["a"], torch.ones(2))
    else:
        assert b"cnumpy.core.multiarray\nscalar\n" in data
        assert torch.equal(read_original_checkpoint(tmp_path / "new.pt")["a"], torch.ones(2))


def _with_old_numpy_name(path: Path, name: bytes) -> Path:
    import zipfile

    target = path.with_name("old.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for entry in source.namelist():
            out.writestr(entry, source.read(entry).replace(name, b"cnumpy.core.multiarray\nscalar\n"))
    return target


def test_a_bare_state_dict_and_parallel_names_are_read(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(2), "module.b": torch.zeros(3)}, tmp_path / "a.pt")
    assert sorted(read_original_checkpoint(tmp_path / "a.pt")) == ["a", "b"]
    torch.save({"module.a": torch.ones(2), "b": torch.zeros(3)}, tmp_path / "b.pt")
    assert sorted(read_original_checkpoint(tmp_path / "b.pt")) == ["b", "module.a"]


class _Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("style", ["torch", "pickle", "scalar"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, style: str) -> None:
    path, mark = tmp_path / "evil.pt", tmp_path / "was run"
    content = {"model": {"a": torch.zeros(2)}, "loss": _Evil(mark)}
    if style == "pickle":
        path.write_bytes(pickle.dumps(content["loss"], protocol=2))
    else:
        torch.save(content, path)
    if style == "scalar":  # beside what is allowed
        torch.save(content | {"best": np.float64(1)}, path)
    with pytest.raises(WeightsError, match=r"evil\.pt: not readable as a checkpoint \(it holds more than"):
        read_original_checkpoint(path)
    assert not mark.exists()
    if style == "torch":  # the test can fail: loading it blindly does run it
        torch.load(path, weights_only=False)
        assert mark.exists()


def _truncated(path: Path) -> None:
    saved(path, {"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000])


UNREADABLE = {
    "truncated": _truncated,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello, world\n" * 20),
    "picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "list": lambda path: torch.save([torch.zeros(2)], path),
    "tensor": lambda path: torch.save(torch.zeros(2), path),
    "array": lambda path: torch.save(np.zeros(2), path),
    "network": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "other content": lambda path: torch.save({"model": {"a": 3}}, path),
    "no tensors": lambda path: torch.save({"model": {}}, path),
    "folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_checkpoint_is_refused_with_file_and_cure(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.pt"
    UNREADABLE[kind](path)
    with pytest.raises(WeightsError) as caught:
        read_original_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "pass the .pt file" in message
    assert "\n" not in message


def test_every_cut_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.pt", {"a": torch.zeros(10)}).read_bytes()
    for end in range(0, len(whole) - 1, 97):
        (tmp_path / "cut.pt").write_bytes(whole[:end])
        with pytest.raises(WeightsError, match=r"cut\.pt"):
            read_original_checkpoint(tmp_path / "cut.pt")


def test_an_imported_network_computes_what_the_original_computed(tmp_path: Path) -> None:
    state = unconditional()
    path = saved(tmp_path / "cars.pt", {f"module.{name}": value for name, value in state.items()})
    out = tmp_path / "sub" / "cars.safetensors"
    import_original(path, "onet_unconditional", out, {"software": "tessera 1"})
    network: Any = load_any_network(str(out))
    queries = torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    latent = torch.randn(1, 128, generator=torch.Generator().manual_seed(1))
    expected = onet_forward.simple(state, queries, latent, torch.zeros(1, 0))
    torch.testing.assert_close(network.decode(torch.zeros(1, 0), queries, latent), expected)
    header = read_header(str(out))
    assert header["source"] == "cars.pt"
    assert header["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (header["preset"], header["software"]) == ("onet_unconditional", "tessera 1")


@pytest.mark.parametrize("preset", ["room_grid32", "oflow_repr_power"])
def test_the_other_families_are_imported_too(tmp_path: Path, preset: str) -> None:
    if preset == "room_grid32":
        state = conv.random_state(conv.point_encoder() | conv.unet3d(3) | conv.decoder())
    else:
        state = flow_forward.random_state(flow_forward.ORIGINALS[preset], 4)
    out = tmp_path / "w.safetensors"
    import_original(saved(tmp_path / "w.pt", state), preset, out)
    ours = load_any_network(str(out)).state_dict()
    total = sum(value.double().sum() for value in state.values() if value.is_floating_point())
    assert float(sum(v.double().sum() for v in ours.values() if v.is_floating_point())) == pytest.approx(
        float(total), rel=1e-12
    )


def test_the_number_of_shapes_comes_from_the_file(tmp_path: Path) -> None:
    entries = {"encoder.weight": (37, 512)} | onet.conditional_decoder(512, 256)
    path = saved(tmp_path / "repr.pt", onet.random_state(entries, 1))
    import_original(path, "onet_repr_power", tmp_path / "repr.safetensors")
    network: Any = load_any_network(str(tmp_path / "repr.safetensors"))
    assert network.config.shape_count == 37


def test_the_wrong_preset_is_answered_with_the_right_ones(tmp_path: Path) -> None:
    state = conv.random_state(conv.point_encoder() | conv.unet3d(3) | conv.decoder())
    assert fitting_presets(state) == ["shapenet_grid32", "room_grid32"]
    path = saved(tmp_path / "w.pt", state)
    with pytest.raises(
        WeightsError, match=r"w\.pt: not the weights of onet_img: they fit shapenet_grid32, room_"
    ):
        import_original(path, "onet_img", tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_weights_of_no_preset_are_told_with_a_few_differences(tmp_path: Path) -> None:
    state = unconditional()
    del state["decoder.fc_p.weight"]
    path = saved(tmp_path / "w.pt", state)
    with pytest.raises(WeightsError, match=r"they fit no preset \(.*decoder\.fc_p\.weight") as caught:
        import_original(path, "onet_unconditional", tmp_path / "w.safetensors")
    assert len(str(caught.value)) < 600


def test_a_difference_is_told_with_its_whole_shape(tmp_path: Path) -> None:
    state = unconditional()
    state["decoder.fc_p.weight"] = torch.zeros(7, 3)
    state["extra"] = torch.zeros(2, 3, 5)
    path = saved(tmp_path / "w.pt", state)
    told = r"\(unexpected extra \(2, 3, 5\); wrongly shaped decoder\.fc_p\.weight \(7, 3\) instead of \(128, 3\)\)"
    with pytest.raises(WeightsError, match=rf"they fit no preset {told}"):
        import_original(path, "onet_unconditional", tmp_path / "w.safetensors")


def test_an_import_that_fits_other_presets_says_what_tells_them_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = conv.random_state(conv.point_encoder() | conv.unet3d(4) | conv.decoder())
    imported = import_original(saved(tmp_path / "w.pt", state), "room_grid64", tmp_path / "w.safetensors")
    assert imported.also_fits == {
        "crop_room_grid64": "family crops, not points; volume resolution 32, not 64"
    }
    state = conv.random_state(conv.point_encoder() | conv.unet(4) | conv.decoder())
    path = saved(tmp_path / "p.pt", state)
    main(
        [
            "models",
            "import",
            str(path),
            "--preset",
            "shapenet_1plane",
            "--out",
            str(tmp_path / "p.safetensors"),
        ]
    )
    text = capsys.readouterr().out
    assert "note: also fits shapenet_3plane (projections xz xy yz, not xz)" in text
    assert "import it with the preset it was trained with" in text


def test_an_import_that_fits_one_preset_says_no_more(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", unconditional())
    assert not import_original(path, "onet_unconditional", tmp_path / "w.safetensors").also_fits


@pytest.mark.parametrize("preset", ["volume", "no-such"])
def test_a_preset_that_no_original_has_is_refused(tmp_path: Path, preset: str) -> None:
    with pytest.raises(WeightsError, match="there are shapenet_1plane, "):
        import_original(tmp_path / "w.pt", preset, tmp_path / "w.safetensors")


def test_weights_are_written_as_safetensors_only(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"end in \.safetensors"):
        import_original(saved(tmp_path / "w.pt", unconditional()), "onet_unconditional", tmp_path / "w.pt")
    assert read_original_checkpoint(tmp_path / "w.pt")
