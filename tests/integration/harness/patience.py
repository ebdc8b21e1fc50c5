"""How long tests wait for what they expect, and how much they ask for. MUSTER_TEST_PATIENCE is a factor for programs that run
slowly (under valgrind)."""
import os

import pytest

FACTOR = float(os.environ.get("MUSTER_TEST_PATIENCE", "1"))


def patient(seconds):
    """What becomes of a limit of so many seconds; of none (None) nothing."""
    return seconds and seconds * FACTOR


def lasting(seconds):
    """The same for a setting of a program, such as a lease: what it can keep when it runs slowly."""
    return f"{int(seconds * 1000 * FACTOR)}ms"


def fewer(count):
    """Of so many devices or batches of a load, those that slow programs are asked to bear: for tests in which it is a load that
    matters, not its size."""
    return max(1, int(count / FACTOR))


def not_under_valgrind(why):
    """A mark for a test of something that is not there under MUSTER_TEST_WRAPPER, such as the speed or the memory that a program
    has by itself; `why` says what."""
    return pytest.mark.skipif(bool(os.environ.get("MUSTER_TEST_WRAPPER")), reason=f"not under valgrind: {why}")
