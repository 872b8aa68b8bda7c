"""A clone of this checkout in a folder of its own, and the engines run in it as a user runs them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from forked import Forked

ROOT = Path(__file__).parent.parent


PROGRAMS = {"agm": "agm.pipeline.cli", "dvc": "dvc", "snakemake": "snakemake"}


class Clone:
    """A working copy: git's files of this checkout, committed anew, without results.

    Attributes:
        forked: where `agm` and the engines start at once; None: each is a process that imports them.
    """

    def __init__(self, folder: Path, forked: Forked | None = None) -> None:
        self.folder, self.forked = folder, forked

    @classmethod
    def make(cls, folder: Path, *overrides: str, forked: Forked | None = None) -> "Clone":
        """Copy the files that git tracks (or would) to `folder`, and compose the parameters under `overrides`."""
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if name != "dvc.lock" and os.path.lexists(ROOT / name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        clone = cls(folder, forked)
        clone.run("git", "init", "--quiet")
        if overrides:
            clone.agm("compose", *overrides)
        clone.commit()
        return clone

    def copy(self, folder: Path) -> "Clone":
        """The clone with all its results, at the same times, in another folder."""
        subprocess.run(["cp", "-a", f"{self.folder}/.", str(folder)], check=True)
        return Clone(folder, self.forked)

    @property
    def environment(self) -> dict[str, str]:
        """The clone's own source, and an identity for git's commits."""
        tools = [self.forked.bin] if self.forked else []
        path = os.pathsep.join(map(str, [*tools, Path(sys.executable).parent, os.environ["PATH"]]))
        author = {
            f"GIT_{role}_{what}": f"test{at}"
            for role in ("AUTHOR", "COMMITTER")
            for what, at in (("NAME", ""), ("EMAIL", "@example.org"))
        }
        return {**os.environ, **author, "PYTHONPATH": str(self.folder / "src"), "PATH": path, "OMP_NUM_THREADS": "1"}

    def run(self, *command: str, fails: bool = False, **more: str) -> str:
        """Run a command in the clone; returns what it printed, on both streams."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert (done.returncode != 0) == fails, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def agm(self, *arguments: str, fails: bool = False) -> str:
        return self.run(*self._program("agm"), *arguments, fails=fails)

    def dvc(self, *arguments: str) -> str:
        return self.run(*self._program("dvc"), *arguments)

    def snakemake(self, *arguments: str) -> str:
        """Without an activated environment: the workflow finds `agm` beside its Python."""
        tools = str(Path(sys.executable).parent)
        path = os.pathsep.join(each for each in os.environ["PATH"].split(os.pathsep) if each != tools)
        return self.run(*self._program("snakemake"), *arguments, PATH=path)

    def _program(self, name: str) -> list[str]:
        return [str(self.forked.bin / name)] if self.forked else [sys.executable, "-m", PROGRAMS[name]]

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", "test")

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace `old`, which must be there once, in one of the clone's files."""
        text = (self.folder / file).read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
        (self.folder / file).write_text(text.replace(old, new))

    def planned(self) -> set[str]:
        """The commands that Snakemake would run now."""
        plan = self.snakemake("--dry-run", "--printshellcmds")
        commands = set(re.findall(r"^Shell command: (agm .*) 2> ", plan, re.MULTILINE))
        assert bool(commands) != ("Nothing to be done" in plan), plan
        return commands

    def changed(self) -> set[str]:
        """The stages that DVC holds for changed."""
        return set(re.findall(r"^(\S+):$", self.dvc("status"), re.MULTILINE))
