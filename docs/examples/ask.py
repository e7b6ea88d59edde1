"""
Ask one question of a host: ``python docs/examples/ask.py var/sock/l2 ping``.

This is all that a client of lonc has to do: connect, write one line, read one line.
"""

import socket
import sys


def ask(path: str, request: str, timeout: float = 130.0) -> str:
    """Return the answer; the time limit, in seconds, is above lonc's own two of 60 s each."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        client.connect(path)
        client.sendall(request.encode() + b"\n")
        with client.makefile("rb") as answers:
            return answers.readline().decode().rstrip("\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: ask.py SOCKET REQUEST")
    try:
        print(ask(sys.argv[1], sys.argv[2]))
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
