"""The source archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from lonc.test.fixtures.source import TREE

#: Seconds; for hangs only.
LONG = 300.0

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
