"""The wheel: what it installs, that nobody's modules are touched, and that theirs do not stop ours."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from preprocessing.scan_files import write_scan_ply

ROOT = Path(__file__).resolve().parents[1]
VERSION = version("tessera-mesh")


@dataclass(frozen=True)
class Installation:
    """An environment that holds the wheel, the dependencies of this one, and foreign modules of our names."""

    wheel: Path
    programs: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            env=self.environment, cwd=self.programs, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    made = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert made.returncode == 0, made.stderr
    (wheel,) = folder.glob("*.whl")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    programs = venv / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "-q", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=120)
    site = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # of a folder, no .pth counts
    (site / "pipeline").mkdir()
    (site / "pipeline" / "__init__.py").write_text("OWNER = 'another distribution'\n")
    users = folder / "users"
    users.mkdir()
    (users / "preprocessing.py").write_text("OWNER = 'the user'\n")
    (users / "foundation.py").write_text("OWNER = 'the user'\n")
    (users / "convonet.py").write_text("OWNER = 'the user'\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHON"))}
    return Installation(wheel, programs, kept | {"PYTHONPATH": str(users)})


def test_the_wheel_has_one_top_level_name(installed: Installation) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"tessera_mesh", "tessera_mesh.pth", f"tessera_mesh-{VERSION}.dist-info"}
    sources = [
        path
        for top in ("foundation", "convonet", "preprocessing", "pipeline")
        for path in (ROOT / top).rglob("*")
    ]
    wanted = {
        f"tessera_mesh/{path.relative_to(ROOT)}"
        for path in sources
        if path.suffix in (".py", ".typed", ".safetensors", ".md") and path.name != "launcher.py"
    }
    assert wanted <= set(names)


def test_the_command_reconstructs_beside_foreign_modules_of_our_names(
    installed: Installation, scene_points: np.ndarray, tmp_path: Path
) -> None:
    """Ray's workers and isolated processes included."""
    write_scan_ply(tmp_path / "scene.ply", scene_points[:4_000])
    out = installed.run(
        "tessera", "reconstruct", str(tmp_path / "scene.ply"), "--out", str(tmp_path / "run"),
        "--voxel-size", "0.3", "--device", "cpu", "--address", "local",
    )  # fmt: skip
    assert "watertight: yes" in out
    assert VERSION in (tmp_path / "run" / "manifest.json").read_text()


def test_foreign_modules_stay_what_they_are_in_the_users_programs(installed: Installation) -> None:
    program = "import pipeline, preprocessing; print(pipeline.OWNER, '+', preprocessing.OWNER)"
    assert installed.run("python", "-c", program) == "another distribution + the user\n"


def test_ours_are_found_where_nobody_has_their_names(installed: Installation) -> None:
    imports = "import convonet.surface.mise, preprocessing, tessera_mesh"
    program = f"{imports}; print(convonet.__file__, preprocessing.__file__)"
    ours = Installation(installed.wheel, installed.programs, installed.environment | {"PYTHONPATH": ""})
    assert ours.run("python", "-c", program).count("site-packages/tessera_mesh/") == 2
