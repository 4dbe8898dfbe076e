"""`tessera models list` and `tessera models import`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ListModels:
    """List the packaged weights, and the presets that can be trained or imported.

    Example: tessera models list
    """

    def run(self) -> None:
        """Print both tables."""
        from convonet import DEFAULT_MODEL
        from convonet.weights import KIND_KEY, load_any_network, model_file, packaged_models, read_header

        print("presets, to train or to import weights for:")
        for row in _preset_rows():
            print(f"  {row[0]:<30} {row[1]:<10} {row[2]:>12}  {row[3]}")
        print("\nweights that ship with Tessera:")
        for name in packaged_models():
            network, header, path = load_any_network(name), read_header(name), model_file(name)
            parameters = sum(value.numel() for value in network.state_dict().values())
            mark = " (default)" if name == DEFAULT_MODEL else ""
            reach = getattr(network, "receptive_radius", None)
            print(
                f"{name}{mark}: {parameters:,} parameters, {header[KIND_KEY]} network, "
                f"{path.stat().st_size / 2**20:.1f} MiB, trained {header.get('steps', '?')} steps"
                + ("" if reach is None else f", receptive radius {reach} voxels")
            )
            if path.with_suffix(".md").is_file():
                print(f"  card: {path.with_suffix('.md')}")


def _preset_rows() -> list[tuple[str, str, str, str]]:
    """Name, family, parameters and input of every preset."""
    import torch

    from convonet.registry import family_of, parameter_count, presets
    from pipeline.generation.input_kinds import INPUT_WORDS

    rows = [("preset", "family", "parameters", "input")]
    for name, config in presets().items():
        with torch.device("meta"):
            count = parameter_count(config.build())
        rows.append((name, config.kind, f"{count:,}", INPUT_WORDS[family_of(config).input(config)][0]))
    return rows


@dataclass(frozen=True, kw_only=True)
class ImportModel:
    """Convert a checkpoint (.pt) of ONet, ConvONet or Occupancy Flow to a weights file of Tessera.

    No code in the file is run.

    Example: tessera models import onet_img2mesh.pt --preset onet_img --out onet.safetensors

    Attributes:
        file: checkpoint, as the original's training or download script wrote it.
        preset: published configuration that it was trained with; `tessera models` lists them.
        out: safetensors file to write.
    """

    file: Path = field(metadata={"place": "FILE.pt"})
    preset: str
    out: Path

    def run(self) -> None:
        """Convert it, and print the other presets that it fits."""
        from convonet.checkpoints import import_original
        from convonet.registry import parameter_count
        from pipeline.overwriting import refuse_overwriting
        from pipeline.version import software_version

        refuse_overwriting([self.out], [self.file])
        facts = {"software": f"tessera {software_version()}"}
        imported = import_original(self.file, self.preset, self.out, facts)
        print(
            f"{self.out}: {self.preset}, {parameter_count(imported.network):,} parameters, from {self.file}"
        )
        for other, distinction in imported.also_fits.items():
            print(f"note: also fits {other} ({distinction})")
        if imported.also_fits:
            print("note: the file does not say which it is; import it with the preset it was trained with")
