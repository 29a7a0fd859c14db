"""How many files and connections this process may have open at one time."""

import sys

MOST = 65_536
APPLE_MOST = 10_240
"""More macOS refuses, whatever it says of its own limit."""

_given: int | None = None


def given() -> int | None:
    """What this process was given when it started, if that has been raised since: for what it
    starts and what is to find everything as it was.
    """
    return _given


if sys.platform == "win32":

    def raise_limit() -> None:
        """There is none."""

    def limit() -> int:
        return MOST

else:
    import resource

    def raise_limit() -> None:
        """To what the host allows, MOST at the most. Where it allows no more, all stays."""
        global _given  # noqa: PLW0603 - a limit is the process's
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for most in (MOST, APPLE_MOST):
            wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
            if soft == resource.RLIM_INFINITY or wanted <= soft:
                return
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            except (OSError, ValueError):
                continue
            _given = soft
            return

    def limit() -> int:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return MOST if soft == resource.RLIM_INFINITY else soft
