# mypy: allow-untyped-calls
"""``twistd lonc``."""

from twisted.application.service import ServiceMaker

lonc = ServiceMaker(
    "lonc",
    "lonc.tap",
    "A local concentrator of lond connections for LON-CAPA.",
    "lonc",
)
