"""Downloads over real sockets, from good servers and from hostile ones."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import deferLater
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from lonc.config.download import OVERHEAD, download, redirected
from lonc.config.table_fetcher import Downloaded, FetchError
from lonc.lond.table_server import TableServer
from lonc.test.fixtures.beginnings import notes_of
from lonc.test.fixtures.certificates import Authority

reactor: Any = global_reactor

LIMIT = 10_000
OK = b"HTTP/1.1 200 OK\r\n"


def redirect(to: bytes) -> bytes:
    """Return an answer that redirects."""
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + to + b"\r\n\r\n"


class WebServer(Protocol):
    """Answers each request as the test determines."""

    factory: WebServers
    transport: Any

    def connectionMade(self) -> None:
        self._request = b""
        self.factory.open.add(self)

    def dataReceived(self, data: bytes) -> None:
        before, self._request = self._request, self._request + data
        if b"\r\n\r\n" in self._request and b"\r\n\r\n" not in before:
            factory = self.factory
            factory.requests.append(self._request)
            if factory.asked is not None:
                factory.asked.callback(None)
            self.transport.write(factory.first.pop(0) if factory.first else factory.answer)
            if factory.endless:
                self.pump()
            elif factory.breaks_off:
                reactor.callLater(0.1, self.transport.abortConnection)
            elif factory.hangs_up:
                self.transport.loseConnection()

    def pump(self) -> None:
        """Send endlessly."""
        if self in self.factory.open:
            self.factory.pumped += len(self.factory.endless)
            self.transport.write(self.factory.endless)
            reactor.callLater(0, self.pump)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.open.discard(self)
        if self.factory.ended is not None and not self.factory.open:
            self.factory.ended.callback(None)


class WebServers(Factory):
    """
    A server and its connections.

    :ivar answer: its answer.
    :ivar first: its answers to the first requests.
    :ivar endless: what it sends endlessly after that.
    :ivar hangs_up: whether it then closes the connection.
    :ivar breaks_off: whether it then aborts the connection, a moment later.
    """

    protocol: Callable[..., Any] = WebServer
    noisy = False

    def __init__(self) -> None:
        self.answer = self.endless = b""
        self.first: list[bytes] = []
        self.hangs_up = self.breaks_off = False
        self.pumped = 0
        self.requests: list[bytes] = []
        self.open: set[WebServer] = set()
        self.ended: Deferred[None] | None = None
        self.asked: Deferred[None] | None = None

    async def request(self) -> None:
        """Wait for a request."""
        if not self.requests:
            self.asked = Deferred()
            await self.asked
            self.asked = None

    async def all_closed(self) -> None:
        """Wait until no connection is open; fails if one stays open."""
        if self.open:
            self.ended = Deferred()
            await self.ended.addTimeout(5, reactor)
            self.ended = None


@implementer(IHostnameResolver)
class NoNames:
    """A resolver that finds no name."""

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, hostName: str, *more: Any, **others: Any
    ) -> Any:
        """Answer at once."""
        resolutionReceiver.resolutionComplete()


@implementer(IReactorPluggableNameResolver)
class NamelessReactor:
    """The reactor, except that no name has an address."""

    def __init__(self) -> None:
        self.nameResolver = NoNames()

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Not used."""
        raise NotImplementedError


class DownloadTestCase(TestCase):
    """A test with its own web server."""

    timeout = 600

    def setUp(self) -> None:
        self.server = WebServers()
        port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.all_closed()))
        self.number = port.getHost().port
        self.url = f"http://127.0.0.1:{self.number}/adm/dns/hosts"

    async def got(self, answer: bytes) -> Downloaded:
        """Return what an answer is as a download."""
        self.server.answer = answer
        return await download(reactor, self.url, LIMIT)

    async def refused(self, url: str = "", **how: Any) -> str:
        """Return why a download fails; no connection is left open."""
        try:
            await download(reactor, url or self.url, LIMIT, **how)
        except FetchError as error:
            self.assertTrue(str(error).isprintable())
            await self.server.all_closed()
            return str(error)
        raise AssertionError("it was downloaded")

    async def answered(self, answer: bytes) -> str:
        """Return why an answer is refused."""
        self.server.answer = answer
        return await self.refused()


class PlainTests(DownloadTestCase):
    """Downloads over http, without TLS."""

    async def test_good(self) -> None:
        """
        A file with a length, in pieces, or up to the end of the connection is accepted, and so are
        interim answers before it.
        """
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        pieces = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        for hangs_up, answer, found in (
            (False, OK + b"Content-Length: 5\r\n\r\na\xffb\n\n", Downloaded(b"a\xffb\n\n")),
            (False, OK + b"Transfer-Encoding: chunked\r\n\r\n" + pieces, Downloaded(b"abcde")),
            (False, interim * 9 + OK + b"Content-Length: 1\r\n\r\nx", Downloaded(b"x")),
            (True, OK + b"\r\nabc\n", Downloaded(b"abc\n", certain=False)),
            (True, b"HTTP/1.0 200 OK\r\n\r\nabc\n", Downloaded(b"abc\n", certain=False)),
        ):
            self.server.hangs_up = hangs_up
            self.assertEqual(await self.got(answer), found)
            await self.server.all_closed()

    async def test_request(self) -> None:
        """The request identifies lonc, and allows no compression; the log says nothing."""
        notes = notes_of(self)
        self.url = self.url.replace("127.0.0.1", "localhost")
        self.assertEqual(await self.got(OK + b"Content-Length: 0\r\n\r\n"), Downloaded(b""))
        (request,) = self.server.requests
        line, *headers = request.lower().splitlines()
        self.assertEqual(line, b"get /adm/dns/hosts http/1.1")
        self.assertIn(b"host: localhost:%d" % self.number, headers)
        self.assertIn(b"accept-encoding: identity", headers)
        self.assertEqual(
            [h[:17] for h in headers if h.startswith(b"user-agent")], [b"user-agent: lonc/"]
        )
        await self.server.all_closed()
        self.assertEqual([event for event in notes.events if "_HTTP11" in formatEvent(event)], [])

    async def test_length(self) -> None:
        """A file of the maximum length is accepted, and one that is a byte longer is not."""
        for size in (LIMIT, LIMIT + 1):
            answer = OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
            if size == LIMIT:
                self.assertEqual(len((await self.got(answer)).content), size)
            else:
                self.assertEqual(await self.answered(answer), "it is longer than 10000 bytes")

    async def test_endless(self) -> None:
        """A server that sends endlessly is cut off, whatever it sends."""
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        for answer, endless in (
            (OK + b"Content-Length: 99999999999\r\n\r\n", b"x" * 1000),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 200),
            (OK + b"\r\n", b"x" * 1000),
            (OK, b"X-Header: nonsense\r\n" * 50),
            (interim, interim),
        ):
            self.server.endless, self.server.pumped = endless, 0
            self.assertEqual(await self.answered(answer), "it is longer than 10000 bytes")
            # What fills the buffers in between was sent, too.
            self.assertLess(self.server.pumped, 20 * OVERHEAD)
        self.server.endless = b"x" * 1000
        self.assertTrue(await self.answered(OK + b"X-Header: "))

    async def test_broken(self) -> None:
        """A file that ends too early, no answer, and another protocol are refused."""
        self.server.hangs_up = True
        for answer in (
            OK + b"Content-Length: 100\r\n\r\nabc",
            OK + b"Transfer-Encoding: chunked\r\n\r\nabc",
            b"",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1 nonsense\r\n\r\n",
            b"\0" * 50,
        ):
            self.assertIn("the connection broke", await self.answered(answer))
        self.server.breaks_off = True
        why = "it may be truncated: it came without a length, and it broke off"
        self.assertEqual(await self.answered(OK + b"\r\nabc\n"), why)

    async def test_refused(self) -> None:
        """Another status than 200 and compressed content are refused; the latter could be huge."""
        for status in (b"404 Not Found", b"500 Oops", b"204 No Content", b"206 Partial Content"):
            why = await self.answered(b"HTTP/1.1 %s\r\nContent-Length: 9999999\r\n\r\nx" % status)
            self.assertEqual(why, f"it answers with status {status[:3].decode()}")
        packed = gzip.compress(b"x" * 1_000_000)
        headers = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        why = "it is compressed, although this was not requested"
        self.assertEqual(await self.answered(OK + headers + packed), why)

    async def test_redirect(self) -> None:
        """A redirection to the same name is followed, at most three times."""
        places = (self.url.encode(), b"/elsewhere", b"more#part")
        self.server.first = [redirect(place) for place in places]
        self.assertEqual(await self.got(OK + b"Content-Length: 1\r\n\r\nx"), Downloaded(b"x"))
        asked = [request.split()[1] for request in self.server.requests]
        self.assertEqual(asked, [b"/adm/dns/hosts"] * 2 + [b"/elsewhere", b"/more"])
        why = "it redirects more than 3 times"
        self.assertEqual(await self.answered(redirect(b"/again")), why)

    async def test_redirect_elsewhere(self) -> None:
        """Other redirections are not followed, and the reason has their target."""
        for place in (
            f"http://localhost:{self.number}/",
            "https://other.test/",
            "//other.test/",
            "ftp://127.0.0.1/",
            f"http://user@127.0.0.1:{self.number}/",
            "http://127.0.0.1:99999/",
            "http://[/",
        ):
            why = f"it redirects to '{place}', which is not followed"
            self.assertEqual(await self.answered(redirect(place.encode())), why)
        why = "it redirects to 'nowhere', which is not followed"
        self.assertEqual(await self.answered(b"HTTP/1.1 301 X\r\nContent-Length: 0\r\n\r\n"), why)

    async def test_not_reached(self) -> None:
        """A server that is not there, or has no address, is refused with that reason."""
        port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        why = await self.refused(f"http://127.0.0.1:{number}/")
        self.assertIn("no connection: Connection was refused", why)
        waiting = download(NamelessReactor(), "http://nobody.test/adm/dns/hosts", LIMIT)
        error = await self.assertFailure(Deferred.fromCoroutine(waiting), FetchError)
        self.assertIn("no address: ", str(error))
        self.assertIn("nobody.test", str(error))

    async def test_cancelled(self) -> None:
        """A download can be cancelled before the answer and in it; the connection is closed."""
        for answer in (b"", OK, OK + b"Content-Length: 5\r\n\r\nab"):
            self.server.requests.clear()
            waiting = Deferred.fromCoroutine(self.got(answer))
            await self.server.request()
            # Let the answer arrive.
            await deferLater(reactor, 0)
            waiting.cancel()
            await self.assertFailure(waiting, CancelledError)
            await self.server.all_closed()


class TLSTests(DownloadTestCase):
    """Downloads over https."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.authority = Authority(self.folder)
        self.served = 0

    def table(self) -> bytes:
        """Return the table, and count the calls."""
        self.served += 1
        return b"the table\n"

    async def serve(
        self,
        name: str = "localhost",
        authority: Authority | None = None,
        begins: float = -1.0,
        ends: float = 1.0,
    ) -> str:
        """
        Serve a table with a certificate, valid from and until these days from now; return its URL.

        :param name: the host name in the certificate; if empty, it only has a common name.
        """
        issuer = authority or self.authority
        files = issuer.issue("localhost", [name] if name else [], begins=begins, ends=ends)
        tls = DefaultOpenSSLContextFactory(files.key, files.certificate)
        server = TableServer(reactor, 0, self.table, tls)
        server.startService()
        self.addCleanup(server.stopService)
        return f"https://localhost:{server.port}/adm/dns/hosts"

    async def test_good(self) -> None:
        """A certificate of our authority for the server's name, in any case, is accepted."""
        for name in ("localhost", "LOCALHOST"):
            url = await self.serve(name)
            body = await download(reactor, url, LIMIT, self.authority.file)
            self.assertEqual(body, Downloaded(b"the table\n"))

    async def test_redirect(self) -> None:
        """A redirection from http to https is followed, but none back."""
        url = await self.serve()
        there = self.url.replace("127.0.0.1", "localhost")
        self.server.answer = redirect(url.encode())
        found = await download(reactor, there, LIMIT, self.authority.file)
        self.assertEqual(found, Downloaded(b"the table\n"))
        self.assertRaises(FetchError, redirected, url, there)

    async def test_refused(self) -> None:
        """A bad certificate is refused with the reason, and nothing is requested."""
        ours, other = self.authority.file, Authority(self.folder, "other")
        for url, authority, why in (
            (await self.serve(begins=-2.0, ends=-1.0), ours, "has expired"),
            (await self.serve(begins=1.0, ends=2.0), ours, "is not valid yet"),
            (await self.serve("other.test"), ours, "is for another host"),
            (
                (await self.serve()).replace("localhost", "127.0.0.1"),
                ours,
                "is for another host",
            ),
            (await self.serve(""), ours, "has no subjectAltName that can be used"),
            (await self.serve(authority=other), ours, "is not signed by a trusted authority"),
            (await self.serve(), None, "is not signed by a trusted authority"),
        ):
            refusal = await self.refused(url, authority=authority)
            self.assertEqual(refusal, f"its certificate {why}")
        self.assertEqual(self.served, 0)

    async def test_no_authority_in_the_file(self) -> None:
        """A file without certificates, or that does not exist, is named."""
        url = await self.serve()
        empty = os.path.join(self.folder, "empty.pem")
        with open(empty, "w"):
            pass
        for path in (empty, "/nowhere/authority.pem"):
            why = await self.refused(url, authority=path)
            self.assertEqual(why, f"the certificates in {path} cannot be used")

    async def test_no_tls(self) -> None:
        """A server that does not use TLS is refused."""
        self.server.hangs_up, self.server.answer = True, OK + b"\r\n"
        self.server.protocol = _Clear
        url = self.url.replace("http:", "https:")
        why = await self.refused(url, authority=self.authority.file)
        self.assertIn("the connection broke", why)


class _Clear(WebServer):
    """Answers whatever arrives."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(b"\r\n\r\n")
