"""
Parsing of Twisted's endpoint descriptions.

This module is pure, and imports nothing of lonc.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs


@attrs.frozen
class Endpoint:
    """
    A parsed description: ``KIND:ARGUMENT:NAME=VALUE`` and so on.

    :ivar kind: such as ``tcp`` or ``unix``.
    :ivar arguments: positional arguments.
    :ivar named: named arguments.
    """

    kind: str
    arguments: tuple[str, ...]
    named: Mapping[str, str]

    @classmethod
    def parse(cls, description: str) -> Endpoint:
        """Parse a description. A backslash escapes the next character."""
        fields: list[str] = []
        named: dict[str, str] = {}
        name, text = None, ""
        for token in re.findall(r"\\.|[^\\]", f"{description}:", re.DOTALL):
            if token == ":":
                if name is None:
                    fields.append(text)
                else:
                    named[name] = text
                name, text = None, ""
            elif token == "=" and name is None:
                name, text = text, ""
            else:
                text += token[-1]
        return cls(fields[0] if fields else "", tuple(fields[1:]), named)

    def argument(self, name: str) -> str:
        """Return the argument with that name, else the first positional one, else an empty text."""
        return self.named.get(name, self.arguments[0] if self.arguments else "")

    @property
    def unix_path(self) -> str | None:
        """The path of a UNIX socket; None for other kinds."""
        return self.argument("address") if self.kind == "unix" else None


def quoted(text: str) -> str:
    """Escape a text for use as an argument of a description."""
    return re.sub(r"([\\:=])", r"\\\1", text)
