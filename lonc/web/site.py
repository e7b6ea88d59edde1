# twisted.web has few annotations:
# mypy: allow-untyped-calls
"""The pages as twisted.web serves them: ``/``, ``/hosts/<id>``, ``/metrics`` and health checks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import CooperativeTask, Cooperator, TaskFinished
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Request
from zope.interface import implementer

from lonc.report.problems import Problems
from lonc.report.status import DaemonStatus, HostStatus
from lonc.report.times import Totals
from lonc.web.channel import LimitedSite, Names
from lonc.web.history import History, Series
from lonc.web.metrics import CONTENT_TYPE, Watched, exposition
from lonc.web.page import View, host_page, index

#: The problems with which lonc is not ready: hosts of the table cannot be asked here. That hosts do
#: not answer says nothing about this machine.
UNREADY: Final = frozenset({"host-not-served", "hosts-not-served"})

#: Seconds of one turn of the loop that may go into the text of the metrics.
TURN: Final = 0.005

#: Nothing but our own style; and no other site may frame the page or read it.
_HEADERS: Final = {
    b"Content-Security-Policy": b"default-src 'none'; style-src 'unsafe-inline'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cache-Control": b"no-store",
}


class Shown(Protocol):
    """
    What the pages need of the daemon.

    :ivar problems: what is wrong now.
    """

    @property
    def problems(self) -> Problems:
        """The list of what is wrong."""

    def looking(self) -> Iterator[HostStatus]:
        """Report on each host; when all have been taken, ``problems`` are up to date."""

    def about(self) -> DaemonStatus:
        """Report on the daemon as a whole."""

    def host_ids(self) -> Sequence[str]:
        """Return the ids of all hosts."""

    def status(self, host_id: str) -> HostStatus:
        """
        Report on a host.

        :raises KeyError: there is no such host.
        """

    def times(self, host_id: str) -> Mapping[str, Totals]:
        """
        Return how long a host's requests take: see :meth:`lonc.report.times.HostTimes.totals`.

        :raises KeyError: there is no such host.
        """

    def http_names(self) -> tuple[Sequence[str], Sequence[str]]:
        """Return this machine's names and those of the settings under which to ask for pages."""


class _Page(Resource):
    """One page: GET and HEAD."""

    isLeaf = True
    content_type = b"text/html; charset=utf-8"

    def __init__(self, shown: Shown, history: History) -> None:
        super().__init__()
        self.shown = shown
        self.history = history

    def render_GET(self, request: Request) -> bytes | int:
        """Send the headers that every page has, and the page."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        request.setHeader(b"Content-Type", self.content_type)
        return self.content(request)

    def content(self, request: Request) -> bytes | int:
        """Return what the page holds."""
        raise NotImplementedError


@implementer(IPushProducer)
class _Pieces:
    """Makes a page as fast as it is taken."""

    def __init__(self, work: CooperativeTask[Iterator[None]]) -> None:
        self._work = work

    def pauseProducing(self) -> None:
        with contextlib.suppress(TaskFinished):
            self._work.pause()

    def resumeProducing(self) -> None:
        with contextlib.suppress(TaskFinished):
            self._work.resume()

    def stopProducing(self) -> None:
        with contextlib.suppress(TaskFinished):
            self._work.stop()


class _Sliced(_Page):
    """A page about all hosts, made a few hosts at a time."""

    def __init__(self, shown: Shown, history: History, cooperator: Cooperator) -> None:
        super().__init__(shown, history)
        self._cooperator = cooperator

    def content(self, request: Request) -> int:
        work = self._cooperator.cooperate(self.written(request))
        pieces = _Pieces(work)
        request.registerProducer(pieces, True)
        request.notifyFinish().addErrback(lambda _: pieces.stopProducing())
        work.whenDone().addCallbacks(lambda _: self._finish(request), lambda _: None)
        return NOT_DONE_YET

    def _finish(self, request: Request) -> None:
        request.unregisterProducer()
        request.finish()

    def written(self, request: Request) -> Iterator[None]:
        """Write it, in steps."""
        raise NotImplementedError


class _Index(_Sliced):
    def __init__(
        self, shown: Shown, history: History, cooperator: Cooperator, clock: IReactorTime
    ) -> None:
        super().__init__(shown, history, cooperator)
        self._clock = clock

    def written(self, request: Request) -> Iterator[None]:
        hosts: list[HostStatus] = []
        for status in self.shown.looking():
            hosts.append(status)
            yield None
        history, clock = self.history, self._clock
        for piece in index(
            self.shown.about(),
            hosts,
            self.shown.problems,
            history.total,
            lambda host: history.lost_per_minute(host, clock.seconds()),
            View.of(request.args),
            time.time(),
        ):
            if piece:
                request.write(piece.encode())
            yield None


class _Host(_Page):
    def __init__(self, shown: Shown, history: History, host_id: str) -> None:
        super().__init__(shown, history)
        self._host_id = host_id

    def content(self, request: Request) -> bytes:
        try:
            status = self.shown.status(self._host_id)
        except KeyError:
            request.setResponseCode(404)
            request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
            return b"There is no such host.\n"
        series = self.history.hosts.get(self._host_id) or Series()
        page = host_page(self.shown.about(), status, self.shown.problems, series, time.time())
        return page.encode()


class _Hosts(Resource):
    def __init__(self, shown: Shown, history: History) -> None:
        super().__init__()
        self._made = (shown, history)

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return the page of the host with that id."""
        return _Host(*self._made, path.decode("utf-8", "replace"))


class _Metrics(_Sliced):
    content_type = CONTENT_TYPE

    def written(self, request: Request) -> Iterator[None]:
        for piece in exposition(self.shown.about(), self._watched(), self.shown.problems):
            if piece:
                request.write(piece.encode())
            yield None

    def _watched(self) -> Iterator[Watched]:
        for status in self.shown.looking():
            with contextlib.suppress(KeyError):
                yield Watched(status, self.shown.times(status.host_id))


class _Health(_Page):
    content_type = b"text/plain; charset=utf-8"

    def content(self, request: Request) -> bytes:
        return b"ok\n"


class _Ready(_Health):
    def content(self, request: Request) -> bytes:
        unready = [each for each in self.shown.problems if each.kind in UNREADY]
        if not unready:
            return b"ok\n"
        request.setResponseCode(503)
        return "".join(f"{each.subject} {each.what}".lstrip() + "\n" for each in unready).encode()


class _Gzip(GzipEncoderFactory):
    compressLevel = 1  # most of the gain, for a fraction of the time


def site(shown: Shown, history: History, clock: IReactorTime) -> LimitedSite:
    """Return the factory to listen with."""
    cooperator = Cooperator(
        terminationPredicateFactory=lambda: _turn(clock),
        scheduler=lambda work: clock.callLater(0.0, work),
    )
    root = Resource()
    root.putChild(b"", _Index(shown, history, cooperator, clock))
    root.putChild(b"hosts", _Hosts(shown, history))
    metrics = _Metrics(shown, history, cooperator)
    root.putChild(b"metrics", EncodingResourceWrapper(metrics, [_Gzip()]))
    root.putChild(b"healthz", _Health(shown, history))
    root.putChild(b"readyz", _Ready(shown, history))
    return LimitedSite(root, lambda: Names(*shown.http_names()), clock)


def _turn(clock: IReactorTime) -> Callable[[], bool]:
    end = clock.seconds() + TURN
    return lambda: clock.seconds() >= end
