# Twisted's task and Failure have no annotations:
# mypy: allow-untyped-calls
"""
Which lonc a command is for, and how it is asked.

It is found as the daemon finds its own files: by ``--management``, ``--standalone`` or
``--config``; without any by the usual ``loncapa.conf``, else by ``var`` in the folder where the
command is called.
"""

from __future__ import annotations

import errno
import functools
import getpass
import os
import pwd
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec

import attrs
import click
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.python.failure import Failure

from lonc.cli.arguments import NO_DAEMON, chosen, targeted
from lonc.config.auth_modes import certificate_files
from lonc.config.certificates import CertificateFiles
from lonc.config.endpoint import Endpoint, quoted
from lonc.config.settings import (
    MANAGEMENT_SOCKET,
    Settings,
    SettingsError,
    find_config_file,
    read_settings,
)
from lonc.control.client import ManagementClient
from lonc.control.errors import NoAnswer

P = ParamSpec("P")

#: What to do where nobody listens.
START: Final = "is lonc running? Start it (systemctl start lonc, twistd lonc)"

#: Seconds for connecting and for each answer: a person waits for it.
TIMEOUT: Final = 10.0


class NoDaemon(click.ClickException):
    """No lonc answers; the message says where it was looked for, and what to do."""

    exit_code = NO_DAEMON


@attrs.frozen
class Target:
    """
    Where the lonc is that is meant.

    :ivar config: a ``loncapa.conf``.
    :ivar management: a client endpoint's description.
    :ivar standalone: the folder of ``twistd lonc --standalone``.
    """

    config: str | None = None
    management: str | None = None
    standalone: str | None = None

    def config_file(self) -> str:
        """
        Return the ``loncapa.conf`` of the lonc that is meant.

        :raises lonc.config.settings.SettingsError: there is none.
        """
        if self.config is not None:
            return self.config
        if self.standalone is not None:
            return os.path.join(self.standalone, "loncapa.conf")
        try:
            return find_config_file()
        except SettingsError:
            beside = os.path.join("var", "loncapa.conf")
            if os.path.exists(beside):
                return beside
            raise

    def settings(self) -> Settings:
        """
        Return the settings of the lonc that is meant.

        :raises lonc.config.settings.SettingsError: they cannot be read.
        """
        return read_settings(self.config_file(), {})

    def endpoint(self) -> str:
        """
        Return the client endpoint of its management port.

        :raises lonc.config.settings.SettingsError: the settings cannot be read.
        """
        if self.management is not None:
            return self.management
        # A lonc that runs is found, and can be asked, while its file is being edited.
        found = read_settings(self.config_file(), {}, only=("lonSockDir", "loncManagement"))
        return client_endpoint(found)

    def certificates(self) -> CertificateFiles | None:
        """
        Return the own certificates, where the endpoint takes any.

        :raises lonc.config.settings.SettingsError: the settings cannot be read.
        """
        if self.management is None or not self.management.startswith("lonctls:"):
            return None
        return certificate_files(self.settings())


def client_endpoint(settings: Settings) -> str:
    """
    Turn the server endpoint that the settings name into the one to connect to.

    :raises click.ClickException: it does not tell.
    """
    endpoint = Endpoint.parse(settings.management)
    if endpoint.unix_path is not None:
        return f"unix:{quoted(endpoint.unix_path)}"
    if endpoint.kind in ("tcp", "tcp6"):
        host = endpoint.named.get("interface", "127.0.0.1" if endpoint.kind == "tcp" else "::1")
        return f"tcp:{quoted(host)}:{endpoint.argument('port')}"
    path = quoted(settings.socket_path(MANAGEMENT_SOCKET))
    raise click.ClickException(
        f"{settings.config_file}: loncManagement is {endpoint.kind}: say where to connect to with "
        f"--management, such as unix:{path}"
    )


def target() -> Target:
    """Return which lonc the command line means."""
    return Target(**chosen())


def who() -> str:
    """Return who gives the command, for people; the daemon logs who it really is."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return str(os.getuid())


def no_daemon(error: NoAnswer | SettingsError) -> click.ClickException:
    """Return what to raise when nobody answers, with what to do where that is known."""
    cause = error.__cause__
    if isinstance(cause, (ValueError, TypeError)) and target().management is not None:
        return click.UsageError(str(error))  # no endpoint's description: nobody was asked
    number = cause.osError if isinstance(cause, ConnectError) else None
    advice = ""
    if number in (errno.ENOENT, errno.ECONNREFUSED) and target().management is None:
        advice = f"; {START}"
    elif number in (errno.EACCES, errno.EPERM):
        advice = f"; it answers {_owner(target().endpoint())}"
    return NoDaemon(f"{error}{advice}")


def _owner(endpoint: str) -> str:
    """Return whom a management socket answers, as far as that can be seen from here."""
    path = endpoint.removeprefix("unix:").replace("\\:", ":")
    try:
        owner = pwd.getpwuid(os.stat(path).st_uid).pw_name
    except (OSError, KeyError):
        return "its own user and root: see `sudo -u`"
    return (
        "root: sudo lonc ..." if owner == "root" else f"{owner} and root: sudo -u {owner} lonc ..."
    )


def asks(
    command: Callable[Concatenate[ManagementClient, P], Coroutine[object, object, int | None]],
) -> Callable[P, None]:
    """
    Make a command of a coroutine that asks the daemon.

    It gets a client as its first argument; what it returns is the exit status, 0 for None.
    """

    @functools.wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            endpoint, certificates = target().endpoint(), target().certificates()
        except SettingsError as error:
            raise no_daemon(error) from None

        async def ask(reactor: Any) -> int | None:
            try:
                client = await ManagementClient.connect(reactor, endpoint, TIMEOUT, certificates)
            except NoAnswer as error:
                raise no_daemon(error) from None
            try:
                return await command(client, *arguments, **options)
            except NoAnswer as error:
                raise no_daemon(error) from None
            finally:
                await client.close()

        status = in_reactor(ask)
        if status:
            raise SystemExit(status)

    return targeted(run)


def in_reactor(work: Callable[[Any], Awaitable[int | None]]) -> int | None:
    """
    Run a coroutine to its end, in a reactor that lives for this only; return what it returns.

    What it raises is raised here; a signal that ends the reactor is :exc:`click.Abort`, whatever
    became of the connections meanwhile.
    """
    from twisted.internet import reactor

    running: Any = reactor
    outcome: list[int | Failure | None] = []
    is_interrupted = False

    def stopping() -> None:
        nonlocal is_interrupted
        is_interrupted = not outcome

    async def run() -> None:
        try:
            outcome.append(await work(running))
        except BaseException:
            outcome.append(Failure())
        if not is_interrupted:
            running.stop()

    running.addSystemEventTrigger("before", "shutdown", stopping)
    running.callWhenRunning(lambda: Deferred.fromCoroutine(run()))
    running.run()
    if is_interrupted:
        raise click.Abort
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
        raise AssertionError
    return result
