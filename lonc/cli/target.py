"""
Selects the lonc that a command is for, and connects to it.

It is given by ``--management``, ``--standalone`` or ``--config``; otherwise by the usual
``loncapa.conf``, or else by the folder ``var`` in the current folder.
"""

from __future__ import annotations

import errno
import functools
import getpass
import os
import pwd
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import attrs
import click
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError

from lonc.cli.arguments import NO_DAEMON, chosen, targeted
from lonc.config.auth_modes import certificate_files
from lonc.config.certificates import CertificateFiles
from lonc.config.settings import (
    MANAGEMENT_SOCKET,
    Settings,
    SettingsError,
    find_config_file,
    read_settings,
)
from lonc.control.client import ManagementClient
from lonc.control.errors import NoAnswer
from lonc.transport.endpoint import Endpoint, quoted

P = ParamSpec("P")
T = TypeVar("T")

#: Advice if nothing listens.
START: Final = "is lonc running? Start it (systemctl start lonc, twistd lonc)"

#: Seconds for connecting and for each answer, for which a person waits.
TIMEOUT: Final = 10.0


class NoDaemon(click.ClickException):
    """No lonc answers; the message says where, and what to do."""

    exit_code = NO_DAEMON


@attrs.frozen
class Target:
    """
    The selected lonc.

    :ivar config: path of a ``loncapa.conf``.
    :ivar management: a client endpoint description.
    :ivar standalone: the folder of ``twistd lonc --standalone``.
    """

    config: str | None = None
    management: str | None = None
    standalone: str | None = None

    def config_file(self) -> str:
        """
        Return its ``loncapa.conf``.

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
        Return its settings.

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
        # A running lonc must be found even while its file is being edited.
        found = read_settings(self.config_file(), {}, only=("lonSockDir", "loncManagement"))
        return client_endpoint(found)

    def certificates(self) -> CertificateFiles | None:
        """
        Return the own certificates, if the endpoint needs them.

        :raises lonc.config.settings.SettingsError: the settings cannot be read.
        """
        if self.management is None or not self.management.startswith("lonctls:"):
            return None
        return certificate_files(self.settings())


def client_endpoint(settings: Settings) -> str:
    """
    Return the client endpoint for the server endpoint in the settings.

    :raises click.ClickException: it cannot be derived.
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
    """Return the lonc selected on the command line."""
    return Target(**chosen())


def who() -> str:
    """Return the name of the user, for display; the daemon logs the verified user."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return str(os.getuid())


def no_daemon(error: NoAnswer | SettingsError) -> click.ClickException:
    """Return the exception to raise if no lonc answers, with advice if possible."""
    cause = error.__cause__
    if isinstance(cause, (ValueError, TypeError)) and target().management is not None:
        return click.UsageError(str(error))  # an invalid endpoint description
    number = cause.osError if isinstance(cause, ConnectError) else None
    advice = ""
    if number in (errno.ENOENT, errno.ECONNREFUSED) and target().management is None:
        advice = f"; {START}"
    elif number in (errno.EACCES, errno.EPERM):
        advice = f"; it answers {_owner(target().endpoint())}"
    return NoDaemon(f"{error}{advice}")


def _owner(endpoint: str) -> str:
    """Return who has access to a management socket, as far as is known."""
    path = endpoint.removeprefix("unix:").replace("\\:", ":")
    try:
        owner = pwd.getpwuid(os.stat(path).st_uid).pw_name
    except (OSError, KeyError):
        return "its own user and root: see `sudo -u`"
    return (
        "root: sudo lonc ..." if owner == "root" else f"{owner} and root: sudo -u {owner} lonc ..."
    )


def asks(
    command: Callable[Concatenate[ManagementClient, P], Awaitable[int | None]],
) -> Callable[P, None]:
    """
    Turn a coroutine that uses the daemon into a command.

    It gets a client as its first argument, and returns the exit status, or None for 0.
    """

    @functools.wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> None:
        async def ask(reactor: Any) -> int | None:
            client = await ManagementClient.connect(reactor, endpoint, TIMEOUT, certificates)
            try:
                return await command(client, *arguments, **options)
            finally:
                await client.close()

        try:
            endpoint, certificates = target().endpoint(), target().certificates()
            status = in_reactor(ask)
        except (NoAnswer, SettingsError) as error:
            raise no_daemon(error) from None
        if status:
            raise SystemExit(status)

    return targeted(run)


def in_reactor(work: Callable[[Any], Awaitable[T]]) -> T:
    """
    Run a coroutine in the reactor, which is started and stopped for it; return its result.

    Its exceptions are raised; a signal that stops the reactor raises :exc:`click.Abort`.
    """
    from twisted.internet import reactor

    running: Any = reactor
    outcomes: list[T | BaseException] = []  # the first one counts

    def end(outcome: T | BaseException) -> None:
        if not outcomes:
            outcomes.append(outcome)
            running.stop()

    async def run() -> None:
        try:
            end(await work(running))
        except BaseException as error:
            end(error)

    running.callWhenRunning(lambda: Deferred.fromCoroutine(run()))
    running.addSystemEventTrigger("before", "shutdown", outcomes.append, click.Abort())
    running.run()
    outcome = outcomes[0]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
