"""The whole daemon: a real `twistd` in a child process, its files, its signals, its clients."""

from __future__ import annotations

import os
import signal
import stat

from lonc.test.fixtures.daemon import TAC, DaemonTestCase, free_port, gone

PUT = "put:msu:alice:grades:essay=A"
GET = "get:msu:alice:grades:essay"

#: What a reload tells when nothing is different.
SAME = "hosts: 0 new, 0 gone, 0 changed, 2 as before\n"


#: What twistd adds to lonc's own line when the start fails after it has left the terminal.
NOISE = ("An error has occurred: ", "Please look at log file ")

#: Where the londs of these tests are.
ADDRESSES = [f"127.0.0.{number}" for number in range(1, 6)]


class StandaloneTests(DaemonTestCase):
    """A cluster of its own: `twistd lonc --standalone`."""

    def setUp(self) -> None:
        super().setUp()
        self.port = str(free_port("127.0.0.1", "127.0.0.2"))

    async def test_first_run_interrupt_and_second_run(self) -> None:
        """
        S2, S3, S4, S16, S17, F14: it serves every host, its own too, on sockets of mode 0660, and
        writes its pid; Ctrl-C ends it with status 0 and takes pid file and sockets away; the
        second run finds yesterday's data.
        """
        lonc = self.standalone("--lond-port", self.port)
        await lonc.says("Ctrl-C ends it")
        self.assertEqual([await self.ask("l1", "ping"), await self.ask("l2", "ping")], ["l1", "l2"])
        self.assertEqual(await self.ask("l2", PUT), "ok")
        pid_file = self.path("daemons", "logs", "lonc.pid")
        with open(pid_file) as file:
            self.assertEqual(file.read(), f"{lonc.pid}\n")
        mode = os.stat(self.socket("l2")).st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o660)
        self.assertEqual(stat.S_IMODE(os.stat(self.socket("lonc.amp")).st_mode), 0o600)
        self.assertRegex(lonc.title, r"^lonc: 2 hosts, 0 DEAD, \d connections?, 0 waiting ")

        self.assertEqual(await lonc.end(signal.SIGINT), 0)
        self.assertFalse(os.path.exists(pid_file))
        self.assertEqual(self.left_in("sock"), [])

        again = self.standalone()
        await again.says("Ctrl-C ends it")
        self.assertEqual(await self.ask("l2", GET), "A")
        self.assertEqual(await again.end(signal.SIGTERM), 0)
        self.assertEqual(lonc.err + again.err, "")
        self.assertEqual(os.listdir(self.work), [])
        self.assert_no_traceback(lonc, again)

    async def test_background(self) -> None:
        """
        S3: without -n the command ends with 0 and the daemon goes on, its pid in lonc.pid and
        nothing in the current folder; a second start names that pid and fails, in the foreground
        and in the background; TERM takes pid file and sockets away.
        """
        background = ["lonc", "--standalone", "../", "--lond-port", self.port]
        starting = self.twistd(*background)
        self.assertEqual(await starting.ended(), 0)
        self.assertEqual(await self.ask("l1", "ping"), "l1")
        pid = int(self.read("daemons", "logs", "lonc.pid"))
        self.assertNotEqual(pid, starting.pid)
        self.assertEqual(os.listdir(self.work), [])

        for second in (self.twistd("-n", *background), self.twistd(*background)):
            self.assertEqual(await second.ended(), 1)
            self.assertEqual(second.out, "")
            self.assertRegex(
                second.err, rf"\Alonc: another lonc is already running .* process {pid} .*\n\Z"
            )
        self.assertEqual(await self.ask("l2", "ping"), "l2")

        os.kill(pid, signal.SIGTERM)
        await gone(pid)
        self.assertEqual(self.left_in("sock"), [])
        self.assertEqual(self.left_in("daemons", "logs"), ["lonc.log"])
        self.assertIn("SUCCESS: connection 1 is ready", self.read("daemons", "logs", "lonc.log"))
        self.assert_no_traceback(starting)

    async def test_start_after_a_crash(self) -> None:
        """
        S3, S4: what kill -9 leaves behind does not stop the next start, even if another process
        has the old number by then.
        """
        crashed = self.standalone("--lond-port", self.port)
        await crashed.says("Ctrl-C ends it")
        await crashed.end(signal.SIGKILL)
        self.assertIn("l2", os.listdir(self.path("sock")))
        self.write(f"{os.getpid()}\n", "daemons", "logs", "lonc.pid")

        lonc = self.standalone()
        self.assertEqual(await self.ask("l2", "ping"), "l2")
        self.assertIn(f", pid {lonc.pid}, ", await self.manage("list"))
        self.assertEqual(self.read("daemons", "logs", "lonc.pid"), f"{lonc.pid}\n")
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assertEqual(self.left_in("sock"), [])

    async def test_from_a_file(self) -> None:
        """`twistd -ny tap/lonc.tac` is the same application, its options in LONC_OPTIONS."""
        if not os.path.exists(TAC):
            self.skipTest("tap/lonc.tac is in the source only")
        options = f"--standalone {self.folder} --lond-port {self.port}"
        lonc = self.twistd("-ny", TAC, LONC_OPTIONS=options)
        self.assertEqual(await self.ask("l2", "ping"), "l2")
        self.assertEqual(self.read("daemons", "logs", "lonc.pid"), f"{lonc.pid}\n")
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assertEqual(lonc.err, "")

    async def test_management_program(self) -> None:
        """
        S14, S17, S18, S20, F11: the program of the documentation lists the hosts of a running
        lonc, reports, switches debug messages on, closes connections, reads again, and stops it.
        """
        lonc = self.standalone("--lond-port", self.port)
        self.assertEqual(await self.ask("l2", "ping"), "l2")
        listed = (await self.manage("list")).splitlines()
        self.assertRegex(listed[0], rf"^lonc \S+, pid {lonc.pid}, since ")
        self.assertEqual(listed[2].split(), ["l1", "up", "0", "0", "2", "0", "0", "0", "0"])
        self.assertEqual(listed[3].split(), ["l2", "up", "1", "0", "2", "0", "1", "1", "0"])

        await self.manage("report")
        self.assertIn("\tl2 Connection count: 1 ", self.read("html/lon-status/loncstatus.txt"))

        await self.manage("debug", "l2", "9")
        mark = lonc.mark()
        await self.ask("l2", "ping:secret")
        await self.ask("l1", "load")
        await lonc.says("request ping, ", mark)
        log = self.read("daemons", "logs", "lonc.log")
        self.assertIn("] <font color=yellow>INFO: -Debug- request ping, ", log)
        self.assertNotIn("secret", log)
        self.assertNotIn("request load", log)

        await self.manage("close", "l2")
        self.assertEqual((await self.manage("list")).splitlines()[3].split()[:3], ["l2", "up", "0"])
        self.assertEqual(await self.ask("l2", "close_connection_exit"), "ok")
        self.assertEqual(await self.ask("l2", "ping"), "l2")
        await self.manage("reset")
        self.assertEqual(await self.manage("reread"), SAME)
        self.assertEqual(await self.manage("reload"), SAME)
        await self.manage("stop")
        self.assertEqual(await lonc.ended(), 0)
        self.assert_no_traceback(lonc)


class ConfiguredTests(DaemonTestCase):
    """`twistd lonc --config`, with the londs in the test's process."""

    def setUp(self) -> None:
        super().setUp()
        self.port = free_port(*ADDRESSES)
        self.config = self.configure(self.port)

    def hosts(self, *lines: str) -> None:
        """Write a host table."""
        self.write("".join(f"{line}\n" for line in lines), "tabs", "hosts.tab")

    async def test_term_lets_requests_in_flight_end(self) -> None:
        """
        S17: at TERM the sockets go at once and what waits gets con_lost, but what is in flight
        is answered, or gets con_lost at the end of its time, as who has asked nothing does; the
        exit status is 0.
        """
        l1 = self.lond("l1", "127.0.0.1", self.port)
        l2 = self.lond("l2", "127.0.0.2", self.port)
        lonc = self.lonc("--max-connections", "1", "--drain-timeout", "4")
        l2.hold("put")
        l1.hold("load")
        answers = [(await self.client("l2")).ask(PUT), (await self.client("l1")).ask("load")]
        await l2.asked(PUT)
        await l1.asked("load")
        waiting = (await self.client("l2")).ask("ping")
        silent = await self.client("l1")

        lonc.kill(signal.SIGTERM)
        self.assertEqual(await waiting, "con_lost")
        self.assertFalse(os.path.exists(self.socket("l1")) or os.path.exists(self.socket("l2")))
        self.assertEqual([answer.called for answer in answers], [False, False])
        l2.say("ok")
        self.assertEqual([await answer for answer in answers], ["ok", "con_lost"])
        await silent.closed
        self.assertEqual(silent.unasked, ["con_lost"])
        self.assertEqual(await lonc.ended(), 0)
        self.assertEqual(self.left_in("sock"), [])
        self.assertFalse(os.path.exists(self.path("daemons/logs/lonc.pid")))
        self.assert_no_traceback(lonc)

    async def test_many_look_ups_that_never_end(self) -> None:
        """F12: 60 names that hang leave a name that resolves, and a delayed request, their way."""
        hanging = [f"h{number}" for number in range(60)]
        self.hosts(
            *(f"{host_id}:msu:library:{host_id}.l1.example.org:" for host_id in hanging),
            "l2:msu:access:localhost:",
        )
        self.lond("l2", "127.0.0.1", self.port)
        options = ("--config", self.config, "--connect-timeout", "20")
        lonc = self.without_names("-n", "lonc", *options)
        waiting = [(await self.client(host_id)).ask("ping") for host_id in hanging]
        self.assertEqual(await self.ask("l2", "ping"), "l2")
        self.assertFalse(any(answer.called for answer in waiting))
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
        self.assertEqual({await answer for answer in waiting}, {"con_lost"})

    async def test_hup(self) -> None:
        """
        S1, S17, F13, F14: HUP takes new settings over, and leaves the old ones in force with a
        line that names the reason when a file is broken; clients stay connected, and a request
        that is in flight all the while is answered.
        """
        self.lond("l1", "127.0.0.1", self.port)
        l2 = self.lond("l2", "127.0.0.2", self.port)
        lonc = self.lonc()
        client = await self.client("l2")
        l2.hold("put")
        answer = client.ask(PUT)
        await l2.asked(PUT)

        mark = lonc.mark()
        self.configure(self.port, loncRetries="many", loncSocketMode="0600")
        lonc.kill(signal.SIGHUP)
        reason = "line 7: PerlSetVar loncRetries: 'many' is not a whole number"
        await lonc.says(f"nothing is changed: {self.config}, {reason}", mark)

        self.configure(self.port, "l1:msu\n", loncSocketMode="0600")
        lonc.kill(signal.SIGHUP)
        await lonc.says(f"nothing is changed: {self.path('tabs', 'hosts.tab')}: there is no ", mark)
        self.assertEqual(stat.S_IMODE(os.stat(self.socket("l2")).st_mode), 0o660)

        mark = lonc.mark()
        group = str(os.getgid() or 65534)  # root may give it to any
        self.configure(self.port, loncSocketMode="0600", loncSocketGroup=group, londPort="65535")
        self.configure(self.port, loncSocketMode="0666", loncSocketGroup=group)
        lonc.kill(signal.SIGHUP)
        await lonc.says("hosts: 0 new, 0 gone, 0 changed, 2 as before", mark)
        for host_id in ("l1", "l2"):
            told = os.stat(self.socket(host_id))
            self.assertEqual((stat.S_IMODE(told.st_mode), told.st_gid), (0o666, int(group)))

        self.assertFalse(answer.called)
        l2.say("ok")
        self.assertEqual(await answer, "ok")
        self.assertEqual(await client.ask("ping"), "l2")
        self.assertEqual(l2.factory.accepted, 1)
        self.assert_no_traceback(lonc)

    async def test_usr1(self) -> None:
        """
        S10, S15, S16, S17, F10: USR1 writes the status file as a whole, begins new log files where
        the old ones were renamed, and gives a DEAD host its retries back.
        """
        self.lond("l1", "127.0.0.1", self.port)
        l2 = self.lond("l2", "127.0.0.2", self.port, listen=False)
        lonc = self.lonc("--retries", "1")
        self.assertEqual(await self.ask("l1", "ping"), "l1")
        self.assertEqual(await self.ask("l2", "ping"), "con_lost")
        self.assertEqual(await self.ask("l2", "ping"), "con_lost")
        log = self.path("daemons", "logs", "lonc.log")
        os.rename(log, f"{log}.1")
        l2.listen()

        lonc.kill(signal.SIGUSR1)
        status = self.path("html", "lon-status", "loncstatus.txt")
        await self.until(lambda: os.path.exists(status))
        first, blank, *lines = self.read(status).splitlines()
        when = r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}"
        self.assertRegex(first, rf"\ALONC status {when} - parent {lonc.pid}\Z")
        self.assertEqual((blank, len(lines)), ("", 2))
        fields = [line.split("\t") for line in lines]
        pid = str(lonc.pid)
        self.assertEqual([row[:2] for row in fields], [[pid, "l1"], [pid, "l2"]])
        self.assertEqual(fields[0][2], "l1 Connection count: 1 Retries remaining: 1 (local)")
        self.assertEqual(fields[1][2], "l2 >> DEAD <<")
        self.assertRegex(fields[0][3], rf"\A{when} \({lonc.pid}\) \[l1\] \[.*\] <font color=green>")
        self.assertIn("host marked dead", fields[1][3])
        self.assertEqual(os.listdir(os.path.dirname(status)), ["loncstatus.txt"])

        self.assertEqual(await self.ask("l2", "ping"), "l2")
        self.assertIn("[l2] [l2 Connection count: ", self.read(log))
        self.assertNotIn("connection 1 is ready", self.read(log).split("[l2]")[0])
        self.assert_no_traceback(lonc)

    def delay(
        self, request: str, host_id: str, when: int = 1062000000, folder: str = "sock/delayed"
    ) -> str:
        """Write a delayed request as lonnet does, but in one go; return its path."""
        os.makedirs(self.path(folder), exist_ok=True)
        name = f"{when}.4711.{request.partition(':')[0]}.{host_id}"
        return self.write(request, folder, name)

    async def test_delayed_requests(self) -> None:
        """
        S13, F6, F7, F8, F9: what is written while connections are open is sent, for each host in
        the order of the names; what lond refuses is kept with its answer. What has no newline at
        its end is sent once nobody writes to it.
        """
        self.lond("l1", "127.0.0.1", self.port)
        l2 = self.lond("l2", "127.0.0.2", self.port)
        lonc = self.lonc()
        client = await self.client("l2")
        await client.ask("ping")
        # They appear all at once: whenever lonc looks, both of l2 are there, or none.
        self.delay("put:msu:alice\n", "l2", 1062000001, "new")
        self.delay("put:msu:alice:g:first=1\n", "l2", 1062000000, "new")
        self.delay("put:msu:bob:g:a=1&b=2", "l1", 1062000000, "new")
        delayed = self.path("sock", "delayed")
        await self.until(lambda: os.path.isdir(delayed))
        os.rename(self.path("new"), delayed)
        await lonc.says("delayed request sent: 1062000001.4711.put.l2 (put); the answer is ")
        await lonc.says("delayed request sent: 1062000000.4711.put.l1 (put)")
        await self.until(lambda: os.listdir(delayed) == ["kept"])
        self.assertEqual(await client.ask("get:msu:alice:g:first"), "1")
        self.assertEqual(await self.ask("l1", "get:msu:bob:g:a&b"), "1&2")
        put = [line for line in l2.requests if line.startswith("put")]
        self.assertEqual(put, ["put:msu:alice:g:first=1", "put:msu:alice"])

        kept = "1062000001.4711.put.l2"
        self.assertEqual(
            sorted(os.listdir(self.path("sock/delayed/kept"))), [kept, f"{kept}.answer"]
        )
        self.assertEqual(self.read("sock/delayed/kept", kept), "put:msu:alice\n")
        answer = self.read("sock/delayed/kept", f"{kept}.answer")
        self.assertRegex(answer, r"\Aerror:.*\n\Z")
        # The hosts do not wait for each other: whose line comes first is not said.
        lines = self.read("daemons/logs/lonnet.perm.log").splitlines()
        first = next(line for line in lines if ":l2:" in line)
        self.assertRegex(first, r"\A\d+:S:l2:put:msu:alice:g:first=1:\w{3} \w{3} ")
        self.assert_no_traceback(lonc)

    async def test_delayed_request_survives_dead_host_and_kill(self) -> None:
        """
        S13, F4: a delayed request for a DEAD host is sent once its lond is up, without anybody's
        doing; if lonc is killed before the answer, the next lonc sends it.
        """
        l2 = self.lond("l2", "127.0.0.2", self.port, listen=False)
        lonc = self.lonc("--retries", "1")
        path = self.delay(PUT + "\n", "l2")
        self.assertEqual(await self.ask("l2", "ping"), "con_lost")
        await lonc.says("host marked dead")
        l2.hold("put")
        l2.listen()
        await l2.asked(PUT)
        await lonc.end(signal.SIGKILL)
        self.assertEqual(os.listdir(os.path.dirname(path)), [os.path.basename(path)])

        self.lonc()
        await l2.asked(PUT, times=2)
        await self.until(lambda: not os.path.exists(path))
        self.assertEqual(await self.ask("l2", GET), "A")


class BadInputTests(DaemonTestCase):
    """What an administrator gets wrong: one line that names the cause, and no traceback."""

    def setUp(self) -> None:
        super().setUp()
        self.port = free_port("127.0.0.1", "127.0.0.2")
        self.config = self.configure(self.port)

    async def refused(self, cause: str, *options: str, twistd: tuple[str, ...] = ("-n",)) -> None:
        """The start fails with one line that matches."""
        lonc = self.unprivileged(*twistd, "lonc", *options)
        self.assertNotEqual(await lonc.ended(), 0)
        lines = [line for line in lonc.err.splitlines() if not line.startswith(NOISE)]
        self.assertEqual(len(lines), 1, lonc.err)
        self.assertRegex(lines[0], f"^lonc: {cause}")
        self.assert_no_traceback(lonc)
        self.assertFalse(os.path.exists(self.path("daemons", "logs", "lonc.pid")))
        self.assertEqual(os.listdir(self.work), [])

    async def test_missing_configuration(self) -> None:
        """Section 8: the configuration is missing, in the foreground and in the background."""
        for twistd in (("-n",), ()):
            cause = "configuration /nowhere: No such file"
            await self.refused(cause, "--config", "/nowhere", twistd=twistd)

    async def test_unreadable_configuration(self) -> None:
        """Section 8: the configuration cannot be read."""
        os.chmod(self.config, 0)
        cause = f"configuration {self.config}: Permission denied"
        await self.refused(cause, "--config", self.config)

    async def test_unwritable_folder(self) -> None:
        """Section 8: a folder that lonc writes in cannot be written."""
        os.chmod(self.path("sock"), 0o500)
        await self.refused(r".*lonSockDir: .*/sock cannot be written", "--config", self.config)
        os.chmod(self.path("sock"), 0o700)
        os.chmod(self.path("daemons", "logs"), 0o500)
        await self.refused(r".*lonDaemons: .*/logs cannot be written", "--config", self.config)

    async def test_port_in_use(self) -> None:
        """Section 8: the port of a lond, or the management port, is in use."""
        self.lond("l2", "127.0.0.2", self.port)
        cause = rf".* l2 .* {self.port} at 127.0.0.2: Address already in use"
        await self.refused(cause, "--standalone", "..")
        management = f"tcp:{self.port}:interface=127.0.0.2"
        cause = rf"management port {management}: .*Address already in use"
        options = ("--config", self.config, "--management", management)
        for twistd in (("-n",), ()):
            await self.refused(cause, *options, twistd=twistd)
        self.assertIn("cannot start: management port", self.read("daemons/logs/lonc.log"))

    async def test_too_few_files(self) -> None:
        """The limit of open files is too low and cannot be raised: a warning says so."""
        self.lond("l1", "127.0.0.1", self.port)
        lonc = self.unprivileged("-n", "lonc", "--config", self.config, files=256)
        self.assertEqual(await self.ask("l1", "ping"), "l1")
        self.assertRegex(lonc.out, r"a problem: 4310 files may be needed .* limit is 256 ")
        self.assertEqual(await lonc.end(signal.SIGTERM), 0)
