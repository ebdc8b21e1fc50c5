"""Waiting for what has no event of its own: a value in a database."""
import time

from .patience import patient


def until(look, timeout=20, what=None):
    """Looks again and again until look() is true; that value."""
    deadline = time.monotonic() + patient(timeout)
    while True:
        value = look()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {what or look}"
        time.sleep(0.005)
