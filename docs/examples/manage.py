"""
Manage a running lonc from another process.

ENDPOINT is lonc's management port, for example unix:/home/httpd/sockets/lonc.amp.
HOST is a host id; all hosts if missing or empty.
"""

import argparse
import os
import sys
import time
from typing import NoReturn

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from lonc.management import ManagementClient, ManagementError

COLUMNS = "{:<16} {:<8} {:>11} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8}"


async def show_hosts(lonc: ManagementClient) -> None:
    """Print a table of all hosts."""
    about = await lonc.about()
    print(f"lonc {about.version}, pid {about.pid}, since {time.ctime(about.started)}")
    print(
        COLUMNS.format(
            *("host", "state", "connections", "waiting", "retries"),
            *("delayed", "requests", "answers", "lost"),
        )
    )
    for host in await lonc.hosts():
        print(
            COLUMNS.format(
                *(host.host_id, host.state, host.connections, host.waiting, host.retries_left),
                *(host.delayed, host.requests, host.answers, sum(host.con_lost.values())),
            )
        )


async def carry_out(lonc: ManagementClient, asked: argparse.Namespace) -> None:
    """Execute the command."""
    if asked.command == "list":
        await show_hosts(lonc)
    elif asked.command == "report":
        await lonc.report(asked.host)
    elif asked.command == "reset":
        await lonc.reset_retries(asked.host)
    elif asked.command == "close":
        await lonc.close_connections(asked.host)
    elif asked.command == "debug":
        await lonc.set_debug_level(asked.host, asked.level)
    elif asked.command == "reread":
        print(await lonc.reread_table())
    elif asked.command == "reload":
        print(await lonc.reload())
    elif asked.command == "stop":
        await lonc.stop()


async def main(reactor: IReactorTime, asked: argparse.Namespace) -> None:
    """Connect, execute the command and close; report errors in one line."""
    try:
        lonc = await ManagementClient.connect(reactor, asked.endpoint)
        await carry_out(lonc, asked)
        await lonc.close()
        sys.stdout.flush()
    except (ManagementError, OSError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for output that is no longer read
        raise SystemExit(f"manage.py: {error}") from error


class OneLine(argparse.ArgumentParser):
    """Reports errors of the command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit."""
        self.exit(2, f"manage.py: {message}; see --help\n")


if __name__ == "__main__":
    parser = OneLine(description=__doc__)
    parser.add_argument("endpoint", metavar="ENDPOINT")
    parser.add_argument(
        "command",
        choices=["list", "report", "reset", "close", "debug", "reread", "reload", "stop"],
    )
    parser.add_argument("host", metavar="HOST", nargs="?", default="")
    parser.add_argument("level", metavar="LEVEL", nargs="?", type=int)
    asked = parser.parse_args(sys.argv[1:])
    if asked.command in ("list", "reread", "reload", "stop") and asked.host:
        parser.error(f"{asked.command} is for lonc as a whole and takes no HOST")
    if (asked.command == "debug") != (asked.level is not None):
        parser.error("debug takes a HOST and a LEVEL, and nothing else takes a LEVEL")
    react(main, [asked])
