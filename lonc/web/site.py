# twisted.web has few annotations:
# mypy: allow-untyped-calls
"""The resources for twisted.web: ``/``, ``/hosts/<id>``, ``/metrics`` and health checks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from typing import Final, Generic, TypeVar
from weakref import ref

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import CooperativeTask, Cooperator, TaskFinished
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Request
from zope.interface import implementer

from lonc.control.reporter import Reporter
from lonc.report.problems import by_cause, state
from lonc.report.status import HostStatus
from lonc.web.channel import LimitedSite
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

HTML: Final = b"text/html; charset=utf-8"
PLAIN: Final = b"text/plain; charset=utf-8"

#: Only our own style is allowed, and no other site may frame or read the page.
_HEADERS: Final = {
    b"Content-Security-Policy": b"default-src 'none'; style-src 'unsafe-inline'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cache-Control": b"no-store",
}


T = TypeVar("T")

#: A page as a whole, or its text in pieces, of which some are empty.
Content = bytes | Iterator[str]


@implementer(IPushProducer)
class _Writing:
    """Writes a page in pieces, as fast as the client reads them."""

    def __init__(self, request: Request, pieces: Iterator[str], cooperator: Cooperator) -> None:
        self._request = request
        self._work: CooperativeTask[Iterator[None]] = cooperator.cooperate(self._write(pieces))
        request.registerProducer(self, True)
        request.notifyFinish().addErrback(lambda _: self.stopProducing())
        self._work.whenDone().addCallbacks(lambda _: self._finish(), lambda _: None)

    def _write(self, pieces: Iterator[str]) -> Iterator[None]:
        for piece in pieces:
            if piece:
                self._request.write(piece.encode())
            yield None

    def _finish(self) -> None:
        self._request.unregisterProducer()
        self._request.finish()

    def pauseProducing(self) -> None:
        with contextlib.suppress(TaskFinished):
            self._work.pause()

    def resumeProducing(self) -> None:
        with contextlib.suppress(TaskFinished):
            self._work.resume()

    def stopProducing(self) -> None:
        with contextlib.suppress(TaskFinished):
            self._work.stop()


class Snapshot(Generic[T]):
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


class _Snapshots(Generic[T]):
    """The latest snapshot, kept only while a request uses it."""

    def __init__(self, hosts: Callable[[], Iterator[T]], clock: IReactorTime) -> None:
        self._hosts = hosts
        self._clock = clock
        self._latest: Callable[[], Snapshot[T] | None] = lambda: None

    def latest(self) -> Snapshot[T]:
        """Return the latest snapshot if it is fresh, else begin another."""
        now, latest = self._clock.seconds(), self._latest()
        if latest is None or now - latest.since >= FRESH:
            latest = Snapshot(self._hosts(), now)
            self._latest = ref(latest)
        return latest


class Pages:
    """The content of each page, from what the daemon reports."""

    def __init__(self, reporter: Reporter, history: History, clock: IReactorTime) -> None:
        self._reporter = reporter
        self._history = history
        self._clock = clock
        self._hosts = _Snapshots(reporter.looking, clock)
        self._watched = _Snapshots(self._watching, clock)

    def _watching(self) -> Iterator[Watched]:
        for status in self._reporter.looking():
            with contextlib.suppress(KeyError):  # it was removed meanwhile
                yield Watched(status, self._reporter.times(status.host_id))

    def index(self, request: Request) -> Iterator[str]:
        """Yield the page of all hosts."""
        hosts: list[HostStatus] = []
        for status in self._hosts.latest():
            hosts.append(status)
            yield ""
        yield from index(
            self._reporter.about(),
            hosts,
            self._reporter.problems,
            self._history,
            View.of(request.args),
            self._clock.seconds(),
        )

    def host(self, host_id: str, request: Request) -> bytes:
        """Return the page of one host."""
        try:
            status = self._reporter.status(host_id)
        except KeyError:
            request.setResponseCode(404)
            request.setHeader(b"Content-Type", PLAIN)
            return b"There is no such host.\n"
        daemon, problems = self._reporter.about(), self._reporter.problems
        series = self._history.hosts.get(host_id) or Series()
        return host_page(daemon, status, problems, series).encode()

    def metrics(self, request: Request) -> Iterator[str]:
        """Yield the metrics."""
        daemon, problems = self._reporter.about(), self._reporter.problems
        return exposition(daemon, self._watched.latest(), problems)

    def healthy(self, request: Request) -> bytes:
        """Return that the reactor runs."""
        return b"ok\n"

    def ready(self, request: Request) -> bytes:
        """Return what ``lonc status`` says; the status code is whether lonc itself serves."""
        problems = list(self._reporter.problems)
        if any(each.kind in UNREADY for each in problems):
            request.setResponseCode(503)
        told = [f"{each.level}  {each.sentence(NAMED)}" for each in by_cause(problems)]
        return "".join(f"{line}\n" for line in (state(problems), *told)).encode()


class _Page(Resource):
    """One page: GET and HEAD."""

    isLeaf = True

    def __init__(
        self, cooperator: Cooperator, kind: bytes, content: Callable[[Request], Content]
    ) -> None:
        super().__init__()
        self._content = content
        self._cooperator = cooperator
        self._headers = {**_HEADERS, b"Content-Type": kind}

    def render_GET(self, request: Request) -> bytes | int:
        """Set the headers, and return the page or begin to write it."""
        for name, value in self._headers.items():
            request.setHeader(name, value)
        content = self._content(request)
        if isinstance(content, bytes):
            return content
        _Writing(request, content, self._cooperator)
        return NOT_DONE_YET


class _Hosts(Resource):
    def __init__(self, page: Callable[[str], Resource]) -> None:
        super().__init__()
        self._page = page

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return the page of the host with that id."""
        return self._page(path.decode("utf-8", "replace"))


class _Gzip(GzipEncoderFactory):
    compressLevel = 1  # most of the gain for a fraction of the time

    def encoderForRequest(self, request: Request) -> object:
        """Do not compress HEAD: Twisted would write the compressor's trailer."""
        return None if request.method == b"HEAD" else super().encoderForRequest(request)


def site(reporter: Reporter, history: History, clock: IReactorTime) -> LimitedSite:
    """Return the factory to listen with."""

    def turn() -> Callable[[], bool]:
        end = clock.seconds() + TURN
        return lambda: clock.seconds() >= end

    cooperator = Cooperator(turn, lambda work: clock.callLater(0.0, work))
    pages, page = Pages(reporter, history, clock), partial(_Page, cooperator)
    root = Resource()
    root.putChild(b"", page(HTML, pages.index))
    root.putChild(b"hosts", _Hosts(lambda host_id: page(HTML, partial(pages.host, host_id))))
    metrics = page(CONTENT_TYPE, pages.metrics)
    root.putChild(b"metrics", EncodingResourceWrapper(metrics, [_Gzip()]))
    root.putChild(b"healthz", page(PLAIN, pages.healthy))
    root.putChild(b"readyz", page(PLAIN, pages.ready))
    return LimitedSite(root, reporter.http_names, clock)
