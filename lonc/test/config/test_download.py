"""Downloads over real sockets: good servers, and bad ones with every trick."""

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
    """Says what the test wants it to say once a request has come."""

    factory: WebServers

    def connectionMade(self) -> None:
        self._request = b""
        self.factory.open.add(self)

    def dataReceived(self, data: bytes) -> None:
        before, self._request = self._request, self._request + data
        if b"\r\n\r\n" in self._request and b"\r\n\r\n" not in before:
            self.factory.requests.append(self._request)
            self.factory.asked()
            first = self.factory.first
            self.transport.write(first.pop(0) if first else self.factory.answer)  # type: ignore[union-attr]
            if self.factory.endless:
                self.pump()
            elif self.factory.breaks_off:
                reactor.callLater(0.1, self.transport.abortConnection)  # type: ignore[union-attr]
            elif self.factory.hangs_up:
                self.transport.loseConnection()  # type: ignore[union-attr]

    def pump(self) -> None:
        """Send for ever."""
        if self in self.factory.open:
            self.factory.pumped += len(self.factory.endless)
            self.transport.write(self.factory.endless)  # type: ignore[union-attr]
            reactor.callLater(0, self.pump)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.open.discard(self)
        self.factory.closed()


class WebServers(Factory):
    """
    A server and its connections.

    :ivar answer: what it says.
    :ivar first: what it says to the first requests instead.
    :ivar endless: what it says behind that, for ever.
    :ivar hangs_up: whether it closes when it has said it.
    :ivar breaks_off: whether it does so without good order, a moment later.
    """

    protocol: Callable[..., Any] = WebServer
    noisy = False

    def __init__(self) -> None:
        self.answer = b""
        self.first: list[bytes] = []
        self.endless = b""
        self.hangs_up = False
        self.breaks_off = False
        self.pumped = 0
        self.requests: list[bytes] = []
        self.open: set[WebServer] = set()
        self._all_closed: Deferred[None] | None = None
        self._asked: Deferred[None] | None = None

    def asked(self) -> None:
        """Note that a request has come."""
        if self._asked is not None:
            self._asked.callback(None)

    def closed(self) -> None:
        """Note that a connection has gone."""
        if self._all_closed is not None and not self.open:
            closed, self._all_closed = self._all_closed, None
            closed.callback(None)

    async def request(self) -> None:
        """Wait for a request."""
        if not self.requests:
            self._asked = Deferred()
            await self._asked

    async def all_closed(self) -> None:
        """Wait until no connection is open; it fails when one stays."""
        if self.open:
            self._all_closed = Deferred()
            await self._all_closed.addTimeout(5, reactor)


@implementer(IHostnameResolver)
class NoNames:
    """A resolver that knows no name."""

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, hostName: str, *more: Any, **others: Any
    ) -> Any:
        """Answer at once."""
        resolutionReceiver.resolutionComplete()


@implementer(IReactorPluggableNameResolver)
class NamelessReactor:
    """The reactor, but no name has an address."""

    def __init__(self) -> None:
        self.nameResolver = NoNames()

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Not used."""
        raise NotImplementedError


class DownloadTestCase(TestCase):
    """A test with a web server of its own."""

    timeout = 600

    def setUp(self) -> None:
        self.server = WebServers()
        port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.all_closed()))
        self.number = port.getHost().port
        self.url = f"http://127.0.0.1:{self.number}/adm/dns/hosts"

    async def refused(self, url: str = "", **how: Any) -> str:
        """Return why a download failed; nothing is left open."""
        try:
            await download(reactor, url or self.url, LIMIT, **how)
        except FetchError as error:
            self.assertTrue(str(error).isprintable())
            await self.server.all_closed()
            return str(error)
        raise AssertionError("it was taken")

    async def answered(self, answer: bytes, **how: Any) -> str:
        """Return why an answer is refused."""
        self.server.answer = answer
        return await self.refused(**how)


class PlainTests(DownloadTestCase):
    """Downloads over http, without TLS."""

    async def test_with_length(self) -> None:
        """A file whose length is told is taken as it is, and the connection is closed."""
        self.server.answer = OK + b"Content-Length: 5\r\n\r\na\xffb\n\n"
        self.assertEqual(await download(reactor, self.url, LIMIT), Downloaded(b"a\xffb\n\n"))
        await self.server.all_closed()

    async def test_in_pieces(self) -> None:
        """A file in pieces is put together."""
        pieces = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        self.server.answer = OK + b"Transfer-Encoding: chunked\r\n\r\n" + pieces
        self.assertEqual(await download(reactor, self.url, LIMIT), Downloaded(b"abcde"))

    async def test_request(self) -> None:
        """What is asked for says who asks, and that nothing shall be compressed."""
        self.server.answer = OK + b"Content-Length: 0\r\n\r\n"
        self.assertEqual(await download(reactor, self.url, LIMIT), Downloaded(b""))
        (request,) = self.server.requests
        line, *headers = request.lower().splitlines()
        self.assertEqual(line, b"get /adm/dns/hosts http/1.1")
        self.assertIn(b"host: 127.0.0.1:%d" % self.number, headers)
        self.assertIn(b"accept-encoding: identity", headers)
        self.assertEqual(
            [h[:17] for h in headers if h.startswith(b"user-agent")], [b"user-agent: lonc/"]
        )

    async def test_silent(self) -> None:
        """A download says nothing of what Twisted does for it."""
        events = notes_of(self).events
        self.server.answer = OK + b"Content-Length: 1\r\n\r\nx"
        await download(reactor, self.url, LIMIT)
        await self.server.all_closed()
        self.assertEqual([event for event in events if "_HTTP11" in formatEvent(event)], [])

    async def test_by_name(self) -> None:
        """A server's name is looked up."""
        self.server.answer = OK + b"Content-Length: 1\r\n\r\nx"
        url = self.url.replace("127.0.0.1", "localhost")
        self.assertEqual(await download(reactor, url, LIMIT), Downloaded(b"x"))

    async def test_just_so_long(self) -> None:
        """A file of the greatest length is taken, one that is a byte longer is not."""
        for size in (LIMIT, LIMIT + 1):
            self.server.answer = OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
            if size == LIMIT:
                self.assertEqual(len((await download(reactor, self.url, LIMIT)).content), size)
            else:
                self.assertEqual(await self.refused(), "it is longer than 10000 bytes")

    async def test_without_an_end(self) -> None:
        """A server that sends for ever is cut off, whatever it is that it sends."""
        for answer, endless in (
            (OK + b"Content-Length: 99999999999\r\n\r\n", b"x" * 1000),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 200),
            (OK + b"\r\n", b"x" * 1000),
            (OK, b"X-Header: nonsense\r\n" * 50),
        ):
            self.server.endless, self.server.pumped = endless, 0
            self.assertEqual(await self.answered(answer), "it is longer than 10000 bytes")
            # What fills the buffers on the way was sent, too.
            self.assertLess(self.server.pumped, 20 * OVERHEAD)

    async def test_one_long_line(self) -> None:
        """A line without an end in the headers is none that anybody waits for."""
        self.server.endless = b"x" * 1000
        self.assertTrue(await self.answered(OK + b"X-Header: "))

    async def test_cut_short(self) -> None:
        """A file that ends too soon is not taken."""
        self.server.hangs_up = True
        for headers, why in (
            (b"Content-Length: 100\r\n", "the connection broke"),
            (b"Transfer-Encoding: chunked\r\n", "the connection broke"),
        ):
            self.assertIn(why, await self.answered(OK + headers + b"\r\nabc"))

    async def test_no_answer(self) -> None:
        """A server that hangs up without an answer, or speaks something else, is refused."""
        self.server.hangs_up = True
        for answer in (b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 nonsense\r\n\r\n", b"\0" * 50):
            self.assertIn("the connection broke", await self.answered(answer))

    async def test_status(self) -> None:
        """Another status than 200 is refused, and the page that comes with it not read."""
        for status in (b"404 Not Found", b"500 Oops", b"204 No Content", b"206 Partial Content"):
            why = await self.answered(b"HTTP/1.1 %s\r\nContent-Length: 9999999\r\n\r\nx" % status)
            self.assertEqual(why, f"it answers with status {status[:3].decode()}")

    async def test_length_not_told(self) -> None:
        """A file that ends where the connection does is taken with that mark, if that is clean."""
        self.server.hangs_up = True
        for answer in (OK + b"\r\nabc\n", b"HTTP/1.0 200 OK\r\n\r\nabc\n"):
            self.server.answer = answer
            found = await download(reactor, self.url, LIMIT)
            self.assertEqual(found, Downloaded(b"abc\n", certain=False))
        self.server.breaks_off = True
        why = "it may be truncated: it came without a length, and it broke off"
        self.assertEqual(await self.refused(), why)

    async def test_interim(self) -> None:
        """Answers before the final one are passed over, as long as all is not too long."""
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        final = OK + b"Content-Length: 1\r\n\r\nx"
        self.server.answer = interim * 9 + final
        self.assertEqual(await download(reactor, self.url, LIMIT), Downloaded(b"x"))
        self.server.endless = interim
        self.assertEqual(await self.answered(interim), f"it is longer than {LIMIT} bytes")

    async def test_redirect(self) -> None:
        """A redirection to the same name is followed, three times at most."""
        final = OK + b"Content-Length: 1\r\n\r\nx"
        places = (self.url.encode(), b"/elsewhere", b"more#part")
        self.server.first = [redirect(place) for place in places]
        self.server.answer = final
        self.assertEqual(await download(reactor, self.url, LIMIT), Downloaded(b"x"))
        asked = [request.split()[1] for request in self.server.requests]
        self.assertEqual(asked, [b"/adm/dns/hosts"] * 2 + [b"/elsewhere", b"/more"])
        why = "it redirects more than 3 times"
        self.assertEqual(await self.answered(redirect(b"/again")), why)

    async def test_redirect_elsewhere(self) -> None:
        """One that leads elsewhere is not, and the line that says so shows where it leads."""
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

    async def test_compressed(self) -> None:
        """What is compressed all the same is refused: nobody knows what it may become."""
        packed = gzip.compress(b"x" * 1_000_000)
        headers = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        why = "it is compressed, although this was not requested"
        self.assertEqual(await self.answered(OK + headers + packed), why)

    async def test_nobody_listens(self) -> None:
        """Where nobody listens the reason says so."""
        port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        why = await self.refused(f"http://127.0.0.1:{number}/")
        self.assertIn("no connection: Connection was refused", why)

    async def test_no_such_name(self) -> None:
        """Where the server's name leads nowhere the reason names it."""
        waiting = download(NamelessReactor(), "http://nobody.test/adm/dns/hosts", LIMIT)
        error = await self.assertFailure(Deferred.fromCoroutine(waiting), FetchError)
        self.assertIn("no address: ", str(error))
        self.assertIn("nobody.test", str(error))

    async def test_given_up(self) -> None:
        """Whoever waits can give up, before the answer and in it; the connection is closed."""
        for answer in (b"", OK, OK + b"Content-Length: 5\r\n\r\nab"):
            self.server.answer = answer
            self.server.requests.clear()
            waiting = Deferred.fromCoroutine(download(reactor, self.url, LIMIT))
            await self.server.request()
            # What was answered is on its way; one that needs no time goes the same way after it.
            turn: Deferred[None] = Deferred()
            reactor.callLater(0, turn.callback, None)
            await turn
            waiting.cancel()
            await self.assertFailure(waiting, CancelledError)
            await self.server.all_closed()


class TLSTests(DownloadTestCase):
    """Over https, with certificates that the test makes."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.authority = Authority(self.folder)
        self.served = 0

    def table(self) -> bytes:
        """Return the table, and count how often."""
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
        Serve a table with a certificate of that time, in days from now; return its URL.

        :param name: whom the certificate is for; empty: nobody, beside its common name.
        """
        issuer = authority or self.authority
        files = issuer.issue("localhost", [name] if name else [], begins=begins, ends=ends)
        tls = DefaultOpenSSLContextFactory(files.key, files.certificate)
        server = TableServer(reactor, 0, self.table, tls)
        server.startService()
        self.addCleanup(server.stopService)
        return f"https://localhost:{server.port}/adm/dns/hosts"

    async def test_good(self) -> None:
        """A server with a certificate of our authority, for its name, is believed."""
        for name in ("localhost", "LOCALHOST"):
            url = await self.serve(name)
            body = await download(reactor, url, LIMIT, self.authority.file)
            self.assertEqual(body, Downloaded(b"the table\n"))

    async def test_redirect(self) -> None:
        """A redirection from http to https is followed, never one back."""
        url = await self.serve()
        there = self.url.replace("127.0.0.1", "localhost")
        self.server.answer = redirect(url.encode())
        found = await download(reactor, there, LIMIT, self.authority.file)
        self.assertEqual(found, Downloaded(b"the table\n"))
        self.assertRaises(FetchError, redirected, url, there)

    async def test_refused(self) -> None:
        """A certificate that is not good is refused with the reason, and nothing is asked for."""
        other = Authority(self.folder, "other")
        for url, why in (
            (await self.serve(begins=-2.0, ends=-1.0), "has expired"),
            (await self.serve(begins=1.0, ends=2.0), "is not valid yet"),
            (await self.serve("other.test"), "is for another host"),
            (await self.serve(""), "has no subjectAltName that can be used"),
            (await self.serve(authority=other), "is not signed by a trusted authority"),
        ):
            refusal = await self.refused(url, authority=self.authority.file)
            self.assertEqual(refusal, f"its certificate {why}")
        self.assertEqual(self.served, 0)

    async def test_without_our_authority(self) -> None:
        """Without an authority of our own the system's are trusted, and that is none of them."""
        why = "its certificate is not signed by a trusted authority"
        self.assertEqual(await self.refused(await self.serve()), why)

    async def test_by_address(self) -> None:
        """A certificate for a name does not do for an address."""
        url = (await self.serve()).replace("localhost", "127.0.0.1")
        why = "its certificate is for another host"
        self.assertEqual(await self.refused(url, authority=self.authority.file), why)

    async def test_no_authority_in_the_file(self) -> None:
        """A file that holds no certificates, or is not there, is named."""
        url = await self.serve()
        empty = os.path.join(self.folder, "empty.pem")
        with open(empty, "w"):
            pass
        for path in (empty, "/nowhere/authority.pem"):
            why = await self.refused(url, authority=path)
            self.assertEqual(why, f"the certificates in {path} cannot be used")

    async def test_no_tls(self) -> None:
        """A server that does not speak TLS is refused."""
        self.server.hangs_up = True
        url = self.url.replace("http:", "https:")
        self.server.answer = b"HTTP/1.1 200 OK\r\n\r\n"
        self.assertIn("the connection broke", await self.no_tls(url))

    async def no_tls(self, url: str) -> str:
        """Return why a server is refused that answers to a TLS greeting in the clear."""
        self.server.protocol = _Clear
        return await self.refused(url, authority=self.authority.file)


class _Clear(WebServer):
    """Answers whatever comes."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(b"\r\n\r\n")
