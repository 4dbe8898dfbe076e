"""One machine of a cluster, played by a folder: what the launcher sends by `ssh` and `rsync` happens here.

Programs that would change the real machine (`sudo`, `mountpoint`, `ray stop`) are noted down instead. `ray start` is
Ray's own, with sockets and ports of its own. `pip install` resolves the project without installing it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

SSH = """#!/bin/bash
while [[ "$1" != *@* ]]; do shift; done
shift
if [[ $# -eq 0 ]]; then exit 0; fi
export HOME={home}
exec bash -c "$*"
"""
RSYNC = """#!{python}
import shutil, sys
from pathlib import Path
source, target = sys.argv[-2:]
target = Path(target.partition(":")[2].replace("~", "{home}", 1))
excluded = [word for before, word in zip(sys.argv, sys.argv[1:]) if before == "--exclude"]
target.parent.mkdir(parents=True, exist_ok=True)
if Path(source).is_dir():
    ignored = shutil.ignore_patterns(*excluded, ".*_cache", "__pycache__", ".hypothesis")
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
else:
    shutil.copy(source, target)
"""
NOTED = """#!/bin/bash
echo {name} "$@" >>{log}
exit {code}
"""
PYTHON = """#!/bin/bash
if [[ "$1 $2 $3" == "-m pip install" ]]; then
    echo pip "${{@:3}}" >>{log}
    exec {python} -m pip install --dry-run --no-deps --no-build-isolation --no-index -v "${{@:4}}" >>{log} 2>&1
fi
exec {python} "$@"
"""
RAY = """#!/bin/bash
echo ray "$@" mode=$RAY_AUTH_MODE >>{log}
if [[ "$1" == stop ]]; then exit 0; fi
arguments=("${{@//6379/{port}}}")
exec {ray} "${{arguments[@]}}" --temp-dir={temporary} --num-cpus=1 --disable-usage-stats --object-store-memory=80000000
"""


@dataclass(frozen=True)
class StandIn:
    """Paths of the played machine.

    Attributes:
        home: its home directory.
        bin: the programs that the launcher and the machine find first.
        log: what was called.
        temporary: where its Ray lives; short, as sockets lie below it.
        port: in place of 6379.
        is_mounted: whether the shared file system is there already.
    """

    home: Path
    bin: Path
    log: Path
    temporary: Path
    port: int
    is_mounted: bool

    def install(self) -> None:
        """Write the programs."""
        real = Path(sys.executable).parent
        names = {**vars(self), "python": sys.executable, "ray": real / "ray"}
        programs = {
            self.bin / "ssh": SSH, self.bin / "rsync": RSYNC, self.bin / "python": PYTHON, self.bin / "ray": RAY,
            self.home / ".tessera/bin/python": PYTHON, self.home / ".tessera/bin/ray": RAY,
        }  # fmt: skip
        for path, text in programs.items():
            self._write(path, text.format(**names))
        for name, code in (("sudo", 0), ("mountpoint", int(not self.is_mounted))):
            self._write(self.bin / name, NOTED.format(name=name, code=code, log=self.log))
        (self.home / ".bashrc").write_text(
            f"export PATH={self.bin}:$PATH\n"
        )  # a login shell sets its own first

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def environment(self, home: Path) -> dict[str, str]:
        """That of the user's own machine, whose home directory is `home`."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        return kept | {"HOME": str(home), "PATH": f"{self.bin}:{os.environ['PATH']}", "USER": "tester"}

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command as the launcher would send it."""
        exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in variables.items())
        return subprocess.run(
            [str(self.bin / "ssh"), "user@machine", f"source ~/.bashrc; {exports}{command}"],
            env=self.environment(self.home), capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    def stop(self) -> None:
        """End the Ray processes of this machine, and no others."""
        for process in psutil.process_iter():
            try:
                if str(self.temporary) in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
