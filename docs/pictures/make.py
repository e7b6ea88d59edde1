"""
Create the pictures of the documentation from real output of ``lonc``: ``make pictures``.

It runs a small cluster, which includes a host without a lond.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.path.dirname(sys.executable)

#: Columns and lines of the terminal.
WIDTH, HEIGHT = 96, 16

#: Commands executed before the pictures are created.
ASKED = (
    ("reload",),
    ("ask", "l2", "put:msu:alice:grades:essay=A"),
    ("ask", "l2", "get:msu:alice:grades:essay"),
    ("ask", "l3", "ping"),
    ("ask", "l3", "ping"),
)

#: The port of the page, and the size of its picture.
PAGE, SIZE = "8790", "900,690"


@contextmanager
def cluster(port: str) -> Iterator[str]:
    """Run a cluster; yield its folder."""
    with tempfile.TemporaryDirectory(prefix="lonc-") as folder:
        command = [os.path.join(BIN, "twistd"), "-n", "lonc", "--standalone", folder]
        with subprocess.Popen(
            [*command, "--lond-port", port, "--http", f"tcp:{PAGE}:interface=127.0.0.1"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        ) as twistd:
            assert twistd.stdout is not None
            for line in twistd.stdout:
                if line.startswith("Ctrl-C ends it"):
                    break
            try:
                yield folder
            finally:
                twistd.terminate()


def shown(folder: str, *arguments: str, **variables: str) -> str:
    """Return what ``lonc`` prints on a terminal."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (HEIGHT, WIDTH))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **variables}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    command = [os.path.join(BIN, "lonc"), *arguments, "--standalone", folder]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment):
        os.close(its)
        output = b""
        while True:
            try:
                output += os.read(ours, 65536)
            except OSError:  # the other end of the terminal is closed
                break
    os.close(ours)
    return output.decode().replace("\r\n", "\n")


def picture(text: str, title: str, path: str) -> None:
    """Write a picture of a terminal."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere)
        console.print(Text.from_ansi(text))
        console.save_svg(path, title=title, unique_id="lonc")


def with_own_fonts(path: str) -> None:
    """Remove fonts fetched from the network: the viewer's fonts are used."""
    with open(path, "r+", encoding="utf-8") as file:
        drawn = re.sub(r"@font-face \{.*?\}\s*", "", file.read(), flags=re.DOTALL)
        file.seek(0)
        file.truncate()
        file.write(drawn)


def photograph() -> None:
    """Create the picture of the page, if Chromium is installed."""
    if (browser := shutil.which("chromium")) is None:
        print("the picture of the page is not updated: chromium is not installed")
        return
    command = [browser, "--headless", "--hide-scrollbars", f"--window-size={SIZE}"]
    if os.getuid() == 0:  # Chromium's sandbox refuses root.
        command.append("--no-sandbox")
    command.append(f"--screenshot={os.path.join(HERE, 'page.png')}")
    subprocess.run([*command, f"http://127.0.0.1:{PAGE}/"], check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    """Create all pictures."""
    with cluster("5790") as folder:
        with open(os.path.join(folder, "tabs", "hosts.tab"), "a", encoding="utf-8") as table:
            table.write("l3:local:access:l3.localhost:127.0.0.3\n")
        for asked in ASKED:
            shown(folder, *asked)
        for name in ("status", "hosts"):
            picture(shown(folder, name), f"lonc {name}", os.path.join(HERE, f"{name}.svg"))
        # Textual can take screenshots.
        camera = {"TEXTUAL_SCREENSHOT_LOCATION": HERE, "TEXTUAL_SCREENSHOT_FILENAME": "top.svg"}
        shown(folder, "top", TEXTUAL_SCREENSHOT="2", **camera)
        photograph()
    for name in ("status", "hosts", "top"):
        with_own_fonts(os.path.join(HERE, f"{name}.svg"))


if __name__ == "__main__":
    main()
