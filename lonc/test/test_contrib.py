# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""What stands beside the program: rules, a dashboard and units of other systems."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import lonc
from lonc.web.metrics import DAEMON_FAMILIES, HOST_FAMILIES

SOURCE = os.path.dirname(os.path.dirname(lonc.__file__))

#: Name of a metric -> its kind.
KINDS = {name: kind for name, kind, *_ in (*HOST_FAMILIES, *DAEMON_FAMILIES)}


def read(*path: str) -> str:
    """Return the text of a file in the source folder."""
    file = os.path.join(SOURCE, *path)
    if not os.path.exists(file):
        raise SkipTest("not in a source folder")
    with open(file, encoding="utf-8") as opened:
        return opened.read()


class MetricNamesTests(SynchronousTestCase):
    """Rules and dashboard ask for what there is."""

    def assert_there(self, expressions: str) -> None:
        """Check each metric that is named."""
        named = set(re.findall(r"\blonc_[a-z_]+", expressions))
        self.assertNotEqual(named, set())
        for name in named:
            base = re.sub("_(bucket|sum|count)$", "", name)
            known = KINDS.get(name) if name in KINDS else KINDS.get(base)
            self.assertIsNotNone(known, name)
            self.assertEqual(known == "histogram", name != base, name)

    def test_alerts(self) -> None:
        """Each rule of the alerts."""
        self.assert_there(
            "\n".join(re.findall("expr: (.*)", read("contrib/prometheus-alerts.yml")))
        )

    def test_dashboard(self) -> None:
        """Each panel of the dashboard, which is one that can be loaded."""
        dashboard = json.loads(read("contrib/grafana-dashboard.json"))
        self.assert_there("\n".join(self.expressions(dashboard)))
        places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
        self.assertEqual(len(places), len(set(places)))

    def expressions(self, part: Any) -> Iterator[str]:
        """Yield what the panels ask for."""
        if isinstance(part, dict):
            if "expr" in part:
                yield part["expr"]
            part = list(part.values())
        if isinstance(part, list):
            for each in part:
                yield from self.expressions(each)


class UnitTests(SynchronousTestCase):
    """The unit for systemd, by systemd's own judgement."""

    def test_exposure(self) -> None:
        """Little is left that lonc could do beyond its task."""
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is not here")
        read("tap", "lonc.service")
        told = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", "tap/lonc.service"],
            cwd=SOURCE,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout
        level = re.search(r"Overall exposure level for lonc.service: ([0-9.]+)", told)
        if level is None:
            raise SkipTest("this systemd-analyze cannot look at a file")
        self.assertLess(float(level[1]), 3.0)
