"""
Send a request to a host: ``python docs/examples/ask.py var/sock/l2 ping``.

This is everything that a client of lonc has to do: connect, write one line, read one line.
"""

import os
import socket
import sys


def ask(path: str, request: bytes, timeout: float = 130.0) -> bytes:
    """Return the answer. The timeout is longer than lonc's two limits of 60 s each."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        client.connect(path)
        client.sendall(request + b"\n")
        with client.makefile("rb") as answers:
            answer = answers.readline()
    if not answer.endswith(b"\n"):
        raise ConnectionError("closed without a complete answer")
    return answer[:-1]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: ask.py SOCKET REQUEST")
    try:
        answer = ask(sys.argv[1], os.fsencode(sys.argv[2]))
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    try:
        os.write(1, answer + b"\n")  # bytes, since an answer need not be text
    except OSError as error:
        sys.exit(f"ask.py: {error}")
