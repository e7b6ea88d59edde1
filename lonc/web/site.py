# twisted.web has few annotations:
# mypy: allow-untyped-calls
"""The resources for twisted.web: ``/``, ``/hosts/<id>``, ``/metrics`` and health checks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Final, Generic, TypeVar
from weakref import ref

import attrs
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import CooperativeTask, Cooperator, TaskFinished
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Request
from zope.interface import implementer

from lonc.control.reporter import Reporter
from lonc.report.problems import by_cause, state
from lonc.report.status import HostStatus
from lonc.web.channel import LimitedSite, Names
from lonc.web.history import History, Series
from lonc.web.metrics import CONTENT_TYPE, Watched, exposition
from lonc.web.page import NAMED, View, host_page, index

#: Problems with which lonc is not ready, because clients cannot reach a host's socket. Hosts that
#: do not answer are no reason to send users to another machine.
UNREADY: Final = frozenset(
    {"host-not-served", "name-not-served", "hosts-not-served", "runs-as-root", "files-used-up"}
)

#: Seconds per iteration of the event loop that may be spent on generating pages.
TURN: Final = 0.005

#: Seconds for which a snapshot of all hosts is shared with further requests.
FRESH: Final = 1.0

#: Only our own style is allowed, and no other site may frame or read the page.
_HEADERS: Final = {
    b"Content-Security-Policy": b"default-src 'none'; style-src 'unsafe-inline'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cache-Control": b"no-store",
}


T = TypeVar("T")


@attrs.frozen
class Source:
    """
    The data for the pages.

    :ivar cooperator: generates pages about all hosts, a few milliseconds at a time.
    """

    reporter: Reporter
    history: History
    clock: IReactorTime
    cooperator: Cooperator


class _Page(Resource):
    """One page: GET and HEAD."""

    isLeaf = True
    content_type = b"text/html; charset=utf-8"

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source

    def render_GET(self, request: Request) -> bytes | int:
        """Set the common headers, and return the page."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        request.setHeader(b"Content-Type", self.content_type)
        return self.content(request)

    def content(self, request: Request) -> bytes | int:
        """Return the content of the page."""
        raise NotImplementedError


@implementer(IPushProducer)
class _Pieces:
    """Generates a page as fast as the client reads it."""

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


class Look(Generic[T]):
    """
    A snapshot of all hosts that several requests share.

    Each iterates at its own pace; the fastest one fetches the next host for all.
    """

    def __init__(self, hosts: Iterator[T], since: float) -> None:
        self._next = hosts
        self._seen: list[T] = []
        self.since = since

    def __iter__(self) -> Iterator[T]:
        """Yield each host, first those that were already fetched."""
        for at in count():
            if at == len(self._seen):
                self._seen.extend(islice(self._next, 1))
            if at == len(self._seen):
                return
            yield self._seen[at]


class _Sliced(_Page, Generic[T]):
    """A page about all hosts, generated in short steps."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._latest: Callable[[], Look[T] | None] = lambda: None

    def look(self, hosts: Callable[[], Iterator[T]]) -> Look[T]:
        """Return the latest snapshot if it is fresh, else begin another."""
        now, latest = self.source.clock.seconds(), self._latest()
        if latest is None or now - latest.since >= FRESH:
            latest = Look(hosts(), now)
            self._latest = ref(latest)  # it is kept only while a request uses it
        return latest

    def content(self, request: Request) -> int:
        work = self.source.cooperator.cooperate(self._writing(request))
        pieces = _Pieces(work)
        request.registerProducer(pieces, True)
        request.notifyFinish().addErrback(lambda _: pieces.stopProducing())
        work.whenDone().addCallbacks(lambda _: self._finish(request), lambda _: None)
        return NOT_DONE_YET

    def _writing(self, request: Request) -> Iterator[None]:
        for piece in self.pieces(request):
            if piece:
                request.write(piece.encode())
            yield None

    def _finish(self, request: Request) -> None:
        request.unregisterProducer()
        request.finish()

    def pieces(self, request: Request) -> Iterator[str]:
        """Yield its text in pieces, of which some are empty."""
        raise NotImplementedError


class _Index(_Sliced[HostStatus]):
    def pieces(self, request: Request) -> Iterator[str]:
        reporter, history, clock = self.source.reporter, self.source.history, self.source.clock
        hosts: list[HostStatus] = []
        for status in self.look(reporter.looking):
            hosts.append(status)
            yield ""
        yield from index(
            reporter.about(),
            hosts,
            reporter.problems,
            history.total,
            lambda host: history.lost_per_minute(host, clock.seconds()),
            View.of(request.args),
            time.time(),
        )


class _Host(_Page):
    def __init__(self, source: Source, host_id: str) -> None:
        super().__init__(source)
        self._host_id = host_id

    def content(self, request: Request) -> bytes:
        reporter = self.source.reporter
        try:
            status = reporter.status(self._host_id)
        except KeyError:
            request.setResponseCode(404)
            request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
            return b"There is no such host.\n"
        series = self.source.history.hosts.get(self._host_id) or Series()
        page = host_page(reporter.about(), status, reporter.problems, series, time.time())
        return page.encode()


class _Hosts(Resource):
    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return the page of the host with that id."""
        return _Host(self._source, path.decode("utf-8", "replace"))


class _Metrics(_Sliced[Watched]):
    content_type = CONTENT_TYPE

    def pieces(self, request: Request) -> Iterator[str]:
        reporter = self.source.reporter
        return exposition(reporter.about(), self.look(self._watched), reporter.problems)

    def _watched(self) -> Iterator[Watched]:
        reporter = self.source.reporter
        for status in reporter.looking():
            with contextlib.suppress(KeyError):  # it was removed meanwhile
                yield Watched(status, reporter.times(status.host_id))


class _Health(_Page):
    content_type = b"text/plain; charset=utf-8"

    def content(self, request: Request) -> bytes:
        return b"ok\n"


class _Ready(_Health):
    def content(self, request: Request) -> bytes:
        """Return what ``lonc status`` says; the status code is whether lonc itself serves."""
        problems = list(self.source.reporter.problems)
        if any(each.kind in UNREADY for each in problems):
            request.setResponseCode(503)
        told = [f"{each.level}  {each.sentence(NAMED)}" for each in by_cause(problems)]
        return "".join(f"{line}\n" for line in (state(problems), *told)).encode()


class _Gzip(GzipEncoderFactory):
    compressLevel = 1  # most of the gain for a fraction of the time

    def encoderForRequest(self, request: Request) -> object:
        """Do not compress HEAD: Twisted would write the compressor's trailer."""
        return None if request.method == b"HEAD" else super().encoderForRequest(request)


def site(reporter: Reporter, history: History, clock: IReactorTime) -> LimitedSite:
    """Return the factory to listen with."""
    cooperator = Cooperator(
        terminationPredicateFactory=lambda: _turn(clock),
        scheduler=lambda work: clock.callLater(0.0, work),
    )
    source = Source(reporter, history, clock, cooperator)
    root = Resource()
    root.putChild(b"", _Index(source))
    root.putChild(b"hosts", _Hosts(source))
    root.putChild(b"metrics", EncodingResourceWrapper(_Metrics(source), [_Gzip()]))
    root.putChild(b"healthz", _Health(source))
    root.putChild(b"readyz", _Ready(source))
    return LimitedSite(root, lambda: Names(*reporter.http_names()), clock)


def _turn(clock: IReactorTime) -> Callable[[], bool]:
    end = clock.seconds() + TURN
    return lambda: clock.seconds() >= end
