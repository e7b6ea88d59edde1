"""The source folder: how ``make`` finds Python and packages, and the source archive."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from lonc.test.fixtures.source import TREE

#: Seconds for what takes none; they are for hangs only.
LONG = 300.0


class MakefileTests(SynchronousTestCase):
    """`make` in a source folder."""

    def setUp(self) -> None:
        if not os.path.exists(os.path.join(TREE, "Makefile")) or shutil.which("make") is None:
            raise SkipTest("it takes the source folder and make")
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(os.path.join(self.folder, ".venv", "bin"))
        for name in ("Makefile", "setup.cfg", "pyproject.toml"):
            shutil.copy(os.path.join(TREE, name), self.folder)

    def script(self, name: str, *lines: str) -> str:
        """Write a program; return how to call it."""
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write("\n".join(["#!/bin/sh", *lines, ""]))
        os.chmod(path, 0o755)
        return path

    def python(self, name: str, major: int, minor: int) -> str:
        """Create a program that pretends to be this version of Python."""
        return self.script(
            name,
            f'case "$2" in *version_info*print*) ;; *exit*) exit {int((major, minor) < (3, 11))};;',
            f"*) echo {major} {minor};; esac",
        )

    def make(self, *arguments: str) -> tuple[int, str, str]:
        """Run make; return its status and what it wrote."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PYTHON"))}
        done = subprocess.run(
            ["make", *arguments, ".venv/installed"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONG,
        )
        return done.returncode, done.stdout, done.stderr

    def made_with(self, *arguments: str) -> str:
        """Return the Python with which .venv would be created again; empty if it is kept."""
        status, out, err = self.make("--dry-run", *arguments)
        self.assertEqual((status, err), (0, ""))
        made = [line.split()[4] for line in out.splitlines() if line.startswith("rm -rf .venv &&")]
        return "".join(made)

    def test_first_that_runs(self) -> None:
        """A program that does not run, or an older Python, is skipped."""
        dead = self.script("python3.11", "exit 127")
        old = self.python("python3.9", 3, 9)
        good = self.python("python3.13", 3, 13)
        self.assertEqual(self.made_with(f"PYTHONS={dead} {old} {good}"), good)

    def test_kept(self) -> None:
        """A usable environment is kept, whatever its Python."""
        self.python(".venv/bin/python", 3, 12)
        good = self.python("python3.11", 3, 11)
        self.assertEqual(self.made_with(f"PYTHONS={good}"), "")

    def test_made_anew(self) -> None:
        """An environment with an older Python, or another than the requested one, is replaced."""
        self.python(".venv/bin/python", 3, 10)
        good = self.python("python3.11", 3, 11)
        self.assertEqual(self.made_with(f"PYTHONS={good}"), good)
        self.python(".venv/bin/python", 3, 12)
        self.assertEqual(self.made_with(f"PYTHON={good}"), good)
        self.python(".venv/bin/python", 3, 11)
        self.assertEqual(self.made_with(f"PYTHON={good}"), "")

    def test_no_python(self) -> None:
        """Without a usable Python, one line says what to do."""
        status, out, err = self.make("PYTHONS=nothing")
        self.assertEqual((status, out, err.count("\n")), (2, "", 1))
        self.assertIn("make PYTHON=/path/to/python3", err)
        old = self.python("python3.9", 3, 9)
        status, out, err = self.make(f"PYTHON={old}")
        self.assertEqual((status, out, err.count("\n")), (2, "", 1))
        self.assertIn(f"{old} is not Python 3.11 or later", err)

    def test_no_network(self) -> None:
        """If pip cannot download, one line says what to check; pip's own messages are in a file."""
        self.script(
            ".venv/bin/python",
            f'test "$1" = -m || exec {sys.executable} "$@"',
            "seq 50 | sed 's/^/WARNING: Retrying /' >&2",
            "exit 1",
        )
        status, out, err = self.make()
        told = [line for line in err.splitlines() if "***" not in line]  # make's own last word
        self.assertEqual((status, out, len(told)), (2, "", 1))
        self.assertIn("Is there a network", told[0])
        with open(os.path.join(self.folder, ".venv", "pip.log")) as file:
            self.assertEqual(len(file.readlines()), 50)

    def test_oldest(self) -> None:
        """All packages are installed in the minimum version that setup.cfg gives."""
        self.script(
            ".venv/bin/python",
            f'test "$1" = -m || exec {sys.executable} "$@"',
            'test "$2" = venv && mkdir -p "$3/bin" && cp "$0" "$3/bin/python"',
            "exit 0",
        )
        status, _, err = self.make(".venv-oldest/installed")
        self.assertEqual((status, err), (0, ""))
        with open(os.path.join(self.folder, "setup.cfg")) as file:
            wanted = re.findall(r"^    ([\w.-]+)(?:\[\w+\])?>=([\d.]+)$", file.read(), re.MULTILINE)
        with open(os.path.join(self.folder, ".venv-oldest", "oldest.txt")) as file:
            self.assertEqual(file.read(), "".join(f"{name}=={least}\n" for name, least in wanted))
        self.assertIn(("jinja2", "3.1"), wanted)


BUILD = "import sys, setuptools.build_meta as build; build.build_sdist(sys.argv[1])"


class ArchiveTests(SynchronousTestCase):
    """The source archive."""

    def test_has_the_project(self) -> None:
        """It contains each file of the project."""
        if not os.path.exists(os.path.join(TREE, ".git")) or shutil.which("git") is None:
            raise SkipTest("it takes a checkout and git")
        if find_spec("setuptools") is None:
            raise SkipTest("it takes setuptools")
        command = ["git", "ls-files", "-z"]
        listed = subprocess.run(command, cwd=TREE, capture_output=True, check=True, timeout=LONG)
        files = {os.fsdecode(each) for each in listed.stdout.split(b"\0") if each}
        copy, built = os.path.abspath(self.mktemp()), os.path.abspath(self.mktemp())
        files = {each for each in files if os.path.exists(os.path.join(TREE, each))}
        for each in files:
            os.makedirs(os.path.dirname(os.path.join(copy, each)), exist_ok=True)
            shutil.copy(os.path.join(TREE, each), os.path.join(copy, each))
        os.mkdir(built)
        done = subprocess.run(
            [sys.executable, "-c", BUILD, built], cwd=copy, capture_output=True, timeout=LONG
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        (name,) = os.listdir(built)
        with tarfile.open(os.path.join(built, name)) as archive:
            inside = {each.partition("/")[2] for each in archive.getnames()}
        self.assertEqual(files - inside, set())
