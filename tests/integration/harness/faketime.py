"""Daemons whose time of day is wrong."""
import glob
import os

import pytest

LIBRARY = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
# It goes before everything, which the sanitizers do not bear.
needs_faketime = pytest.mark.skipif(not LIBRARY or "san" in os.environ.get("MUSTER_BUILD", ""), reason="libfaketime")


def under(*variables):
    """What such a daemon is started with."""
    return ("env", f"LD_PRELOAD={LIBRARY[0]}", "DONT_FAKE_MONOTONIC=1", *variables) if LIBRARY else ()


def ahead(seconds):
    """The same, of one that is so far ahead."""
    return under(f"FAKETIME={seconds:+d}s")
