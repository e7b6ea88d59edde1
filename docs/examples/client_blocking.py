"""
Keep a student's grades on another machine: ``python client_blocking.py LONCAPA_CONF HOST``.

It uses the blocking client, as most scripts do.
"""

import os
import sys

from lonc.client import CON_DELAYED, CON_LOST, Client
from lonc.config.settings import SettingsError, read_settings
from lonc.wire.escaping import escape, pack, to_text, unescape, unpack


def main(config: str, host: str) -> None:
    """Store some grades, read one of them, and read all of them encrypted."""
    client = Client(read_settings(config, {}))
    where = b"msu:alice:" + escape("grades 2026")

    grades = {"essay: my home": "A", "oral, part 2": "B+"}
    reply = client.critical(host, b"put:" + where + b":" + pack(grades))
    if reply == CON_DELAYED:
        print("the grades will be stored later:", reply.why)
        return
    print("put:", reply.text)

    # One connection for several requests.
    with client.connection(host) as connection:
        reply = connection.ask(b"get:" + where + b":" + escape("oral, part 2"))
        print("oral, part 2:", to_text(unescape(reply)))
        reply = connection.ask_encrypted(b"dump:" + where)
        if reply == CON_LOST:
            sys.exit(f"no answer: {reply.why}")
        for key, value in sorted(unpack(reply).items()):
            print(f"  {to_text(key)} = {to_text(value)}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: client_blocking.py LONCAPA_CONF HOST")
    try:
        main(sys.argv[1], sys.argv[2])
        sys.stdout.flush()
    except (SettingsError, ValueError, OSError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for output that is no longer read
        sys.exit(f"client_blocking.py: {error}")
