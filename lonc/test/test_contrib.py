"""The files for other systems: alert rules, a dashboard, units, the container."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from lonc.report.kinds import LEVELS
from lonc.test.fixtures.daemon import Child, DaemonTestCase, free_port
from lonc.test.fixtures.source import TREE, read
from lonc.web.metrics import DAEMON_FAMILIES, HOST_FAMILIES, PROBLEMS

CONTAINER = os.path.join(TREE, "tap", "container.sh")

#: Name of a metric -> its kind.
KINDS = {each.name: each.kind for each in HOST_FAMILIES}
KINDS |= {each.name: each.kind for each in (*DAEMON_FAMILIES, PROBLEMS)}


class MetricNamesTests(SynchronousTestCase):
    """The metrics that rules and dashboard use exist."""

    def assert_there(self, expressions: str) -> None:
        """Check that each metric exists."""
        named = set(re.findall(r"\blonc_[a-z_]+", expressions))
        self.assertNotEqual(named, set())
        for name in named:
            base = re.sub("_(bucket|sum|count)$", "", name)
            known = KINDS.get(name) if name in KINDS else KINDS.get(base)
            self.assertIsNotNone(known, name)
            self.assertEqual(known == "histogram", name != base, name)

    def test_alerts(self) -> None:
        """The metrics in the alert rules exist."""
        self.assert_there(
            "\n".join(re.findall("expr: (.*)", read("contrib/prometheus-alerts.yml")))
        )

    def test_levels(self) -> None:
        """Each level of problems except notes has a rule."""
        levels = re.findall(
            r'lonc_problems{level="([^"]+)"}', read("contrib/prometheus-alerts.yml")
        )
        self.assertEqual({*levels, "note"}, set(LEVELS))

    def test_dashboard(self) -> None:
        """The metrics in the dashboard exist, and its panels do not overlap."""
        text = read("contrib/grafana-dashboard.json")
        self.assert_there("\n".join(re.findall('"expr": (.*)', text)))
        places = [tuple(panel["gridPos"].values()) for panel in json.loads(text)["panels"]]
        self.assertEqual(len(places), len(set(places)))


class ContainerTests(DaemonTestCase):
    """The script of the container image, without the image."""

    async def health(self) -> int:
        """Return the exit status of the health check."""
        return await self.container("health").ended()

    def container(self, *arguments: str) -> Child:
        """Run the script of the image."""
        read("tap", "container.sh")  # skips the test without the source
        path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        return self.spawn(
            ["/bin/sh", CONTAINER, *arguments], PATH=path, LONC_WHICH=self.path("which")
        )

    async def test_health(self) -> None:
        """The health check finds the started lonc, and does not depend on other machines."""
        conf = self.configure(free_port("127.0.0.2"))
        lonc = self.container("start", "--config", conf)
        self.assertEqual(await self.ask("l2", "ping"), "con_lost")
        self.assertEqual(await self.ask("l2", "ping"), "con_lost")
        self.assertEqual(await self.health(), 0)
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assertNotEqual(await self.health(), 0)

    async def test_which(self) -> None:
        """The health check finds lonc however the option is written."""
        for options in (["-c", "a b"], ["--drain-timeout", "3", "--standalone=a b"]):
            lonc = self.container("start", *options, "--nothing")
            self.assertNotEqual(await lonc.ended(), 0)
            self.assertIn(self.read("which"), ("--config=a b\n", "--standalone=a b\n"))


class UnitTests(SynchronousTestCase):
    """The systemd unit, checked by systemd itself, and the files that belong to it."""

    def analyze(self, *arguments: str) -> str:
        """Return the output of systemd-analyze."""
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is not here")
        done = subprocess.run(
            ["systemd-analyze", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    def test_verify(self) -> None:
        """systemd understands every line."""
        unit = read("tap", "lonc.service")
        path = os.path.join(self.mktemp(), "lonc.service")
        os.mkdir(os.path.dirname(path))
        with open(path, "w") as file:
            file.write(re.sub(r"/opt/lonc/bin/\w+", "/bin/true", unit))
        self.assertEqual(self.analyze("verify", "--man=no", os.path.abspath(path)), "")

    def test_old_systemd(self) -> None:
        """Type and reload use only what systemd 239 knows."""
        unit = read("tap", "lonc.service")
        self.assertRegex(unit, r"(?m)^Type=notify$")
        self.assertRegex(unit, r"(?m)^ExecReload=\S+/lonc reload$")

    def test_groups(self) -> None:
        """The filter allows changing the group of sockets: loncSocketGroup, loncManagementGroup."""
        filters = re.findall("(?m)^SystemCallFilter=(.*)$", read("tap", "lonc.service"))
        self.assertGreater(filters.index("@chown"), filters.index("~@privileged"))

    def test_one_user(self) -> None:
        """Unit, folders, log rotation and sysusers use the same user."""
        (user,) = re.findall("(?m)^User=(.*)$", read("tap", "lonc.service"))
        self.assertEqual(re.findall("(?m)^u (\\S+)", read("contrib", "lonc.sysusers")), [user])
        owners = re.findall(r"(?m)^d \S+ +\d+ (\S+) (\S+)", read("contrib", "lonc.tmpfiles"))
        self.assertEqual(set(owners), {(user, user)})
        self.assertIn(f"su {user} {user}\n", read("tap", "lonc.logrotate"))

    def test_exposure(self) -> None:
        """The exposure level is low."""
        read("tap", "lonc.service")
        unit = os.path.join(TREE, "tap", "lonc.service")
        told = self.analyze("security", "--offline=true", "--no-pager", unit)
        level = re.search(r"Overall exposure level for lonc.service: ([0-9.]+)", told)
        if level is None:
            raise SkipTest("this systemd-analyze cannot look at a file")
        self.assertLess(float(level[1]), 3.0)


class LogRotationTests(SynchronousTestCase):
    """``tap/lonc.logrotate``."""

    def test_signals_a_lonc_only(self) -> None:
        """The process in the pid file gets USR1 only if the file is locked."""
        script = re.search(r"postrotate\n(.*?)\n *endscript", read("tap", "lonc.logrotate"), re.S)
        assert script is not None
        if shutil.which("flock") is None:
            raise SkipTest("there is no flock")
        path = self.mktemp()
        with (
            subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as named,
            open(path, "w") as file,
        ):
            assert named.stdin is not None and named.stdout is not None
            file.write(f"{named.pid}\n")
            file.flush()
            rotated = script[1].replace("/home/httpd/perl/logs/lonc.pid", path)
            subprocess.run(["sh", "-ec", rotated], check=True, timeout=60)
            named.stdin.write(b"alive\n")
            named.stdin.flush()
            self.assertEqual(named.stdout.readline(), b"alive\n")
            fcntl.flock(file, fcntl.LOCK_EX)
            subprocess.run(["sh", "-ec", rotated], check=True, timeout=60)
            self.assertEqual(named.wait(timeout=60), -signal.SIGUSR1)
