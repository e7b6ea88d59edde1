"""
Property tests, where hypothesis is installed.

``trial lonc`` also runs where lonc is installed without what its tests need besides: there these
tests are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypothesis import given, settings
    from hypothesis import strategies as st
else:
    try:
        from hypothesis import given, settings
        from hypothesis import strategies as st
    except ImportError:

        class _Absent:
            """Stands for every strategy, and for whatever is made of one."""

            def __getattr__(self, name: str) -> _Absent:
                return self

            def __call__(self, *arguments: Any, **options: Any) -> _Absent:
                return self

            def __or__(self, other: Any) -> _Absent:
                return self

        st = _Absent()

        def given(*strategies: Any, **named: Any) -> Callable[[Any], Any]:
            """Skip a test."""

            def decorate(test: Any) -> Any:
                def skipped(case: Any) -> None:
                    case.skipTest("hypothesis is not installed")

                skipped.__name__, skipped.__doc__ = test.__name__, test.__doc__
                return skipped

            return decorate

        def settings(**options: Any) -> Callable[[Any], Any]:
            """Leave a test as it is."""
            return lambda test: test


__all__ = ["given", "settings", "st"]
