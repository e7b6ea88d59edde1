"""
What can be read off lonc's source: the messages of its log, and the reasons that they give.

A message may be handed from one function to the next before it is logged, so names are followed to
what was assigned to them and to what callers hand in.
"""

from __future__ import annotations

import ast
import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterator

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TREE = os.path.dirname(PACKAGE)

#: How a log method's lines are marked in ``lonc.log``.
SEVERITIES = {
    "info": "INFO",
    "warn": "WARNING",
    "error": "CRITICAL",
    "critical": "CRITICAL",
    "failure": "CRITICAL",
}

#: Formats that pass a text on which comes from elsewhere: from one of `REASONS`, or from what
#: `lonc.logs` says of its own files.
PASSED_ON = {"{problem}", "{error}", "{text}"}

#: Exceptions whose texts become part of a log line, or of the line that ends a start.
REASONS = {
    "CertificateError",
    "ClusterError",
    "FetchError",
    "FrameError",
    "HandshakeError",
    "KeyFileError",
    "LineTooLong",
    "ManagementPortError",
    "NoPlace",
    "PidFileError",
    "SettingsError",
    "SocketError",
    "StoreError",
    "Stuck",
    "TLSError",
    "TableError",
    "Unusable",
}

#: Methods that are given such a text.
TOLD = {"_fail", "_refuse", "_report", "_set_aside", "cut", "failed", "give_up_line", "unreachable"}


def read(*path: str) -> str:
    """Return a file of the source tree."""
    with open(os.path.join(TREE, *path), encoding="utf-8") as file:
        return file.read()


def canonical(text: str) -> str:
    """Leave out how a text is broken into lines, and what the fields between words are called."""
    plain = " ".join(text.split())
    return re.sub(r"\{[^{}]*\}", "{}", plain) if has_words(plain) else plain


def has_words(text: str) -> bool:
    """Tell whether a text is more than fields and what stands between them."""
    return bool(re.search("[a-z]", re.sub(r"\{[^{}]*\}", "", text)))


Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source:
    """What can be read off the package's source."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Function | None, ast.Call]] = []
        self.raised: list[tuple[str, Function | None, ast.Call]] = []
        self.by_name: dict[str, list[tuple[Function | None, ast.Call]]] = defaultdict(list)
        for path in sorted(glob.glob(os.path.join(PACKAGE, "**", "*.py"), recursive=True)):
            name = os.path.relpath(path, PACKAGE)
            if not name.startswith("test" + os.sep):
                self._walk(name, ast.parse(read("lonc", name)), None)

    def _walk(self, module: str, node: ast.AST, function: Function | None) -> None:
        if isinstance(node, Function):
            function = node
        if isinstance(node, ast.Call):
            self.calls.append((module, function, node))
            self.by_name[called(node)].append((function, node))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            self.raised.append((module, function, node.exc))
        for child in ast.iter_child_nodes(node):
            self._walk(module, child, function)

    def texts(self, value: ast.expr, function: Function | None) -> Iterator[str]:
        """Yield what texts an expression can have, fields and all, as far as they can be read."""
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value
        elif isinstance(value, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in value.values)
            yield "".join(map(str, parts))
        elif isinstance(value, ast.IfExp):
            yield from self.texts(value.body, function)
            yield from self.texts(value.orelse, function)
        elif isinstance(value, ast.Name) and function is not None:
            yield from self._assigned(value.id, function)
            yield from self._handed_in(value.id, function)

    def _assigned(self, name: str, function: Function) -> Iterator[str]:
        for node in ast.walk(function):
            pairs: list[tuple[ast.expr, ast.expr]]
            if isinstance(node, ast.AugAssign):
                pairs = [(node.target, node.value)]
            elif isinstance(node, ast.Assign):
                target = node.targets[0]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=True))
                else:
                    pairs = [(target, node.value)]
            else:
                continue
            for to, value in pairs:
                if isinstance(to, ast.Name) and to.id == name:
                    yield from self.texts(value, function)

    def _handed_in(self, name: str, function: Function) -> Iterator[str]:
        names = [argument.arg for argument in function.args.args if argument.arg != "self"]
        if name in names:
            place = names.index(name)
            for caller, call in self.by_name[function.name]:
                # What a function hands to itself it has from somebody else.
                if len(call.args) > place and caller is not function:
                    yield from self.texts(call.args[place], caller)

    def messages(self) -> Iterator[tuple[str, str]]:
        """Yield each text of the log with its severity."""
        for _, function, call in self.calls:
            method = called(call)
            if not is_log(call) or method not in SEVERITIES:
                continue
            given = {word.arg: word.value for word in call.keywords}
            severity = SEVERITIES[method]
            if severity == "INFO" and "success" in given:
                severity = "SUCCESS"
            for text in list(self.texts(call.args[0], function)) or [ast.unparse(call)]:
                if has_words(text):
                    yield text, severity
                    continue
                field = re.findall(r"\{(\w+)", text)[0]
                for passed in list(self.texts(given[field], function)) or [text]:
                    yield passed, severity

    def debug_messages(self) -> Iterator[tuple[str, str]]:
        """Yield each debug text with the level from which on it is written."""
        for _, function, call in self.calls:
            if is_log(call) and called(call) == "debug" and isinstance(call.args[0], ast.Constant):
                level = next(w.value for w in call.keywords if w.arg == "debug_level")
                for text in self.texts(call.args[0], function):
                    yield text, f"debug {ast.literal_eval(level)}"
            elif called(call) == "_trace":
                for text in self.texts(call.args[1], function):
                    yield text, f"debug {ast.literal_eval(call.args[0])}"

    def reasons(self) -> Iterator[str]:
        """Yield the texts that become part of a message."""
        for module, function, call in self.raised:
            name = called(call)
            if (name in REASONS or (module, name) == ("hosts.py", "ValueError")) and call.args:
                yield from self.texts(call.args[0], function)
        for _, function, call in self.calls:
            if called(call) in TOLD:
                for argument in call.args:
                    yield from self.texts(argument, function)


def called(call: ast.Call) -> str:
    """Return the last name of what is called."""
    what = call.func
    return what.attr if isinstance(what, ast.Attribute) else getattr(what, "id", "")


def is_log(call: ast.Call) -> bool:
    """Tell whether a call is one of a logger's methods."""
    return isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value).split(".")[-1] in (
        "log",
        "_log",
    )
