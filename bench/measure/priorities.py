"""Who goes first on processors that all of a measurement share. Linux, sched(7): a process of SCHED_IDLE gives way at once to
whoever else has something to do; one with a nice value gives way sooner than one without."""
import contextlib
import os

from . import processes


def _threads(pids):
    return [int(t) for p in pids for q in (p, *processes.children(p)) for t in os.listdir(f"/proc/{q}/task")]


@contextlib.contextmanager
def elsewhere(pids):
    """These and their children have the time that nobody else needs: who would run on other machines is in nobody's way here."""
    threads = _threads(pids)
    for t in threads:
        os.sched_setscheduler(t, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError, ProcessLookupError):  # to be raised again may take rights
            for t in threads:
                os.sched_setscheduler(t, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def nice(pids, value):
    """These as if begun by `nice -n value`."""
    threads = _threads(pids)
    for t in threads:
        os.setpriority(os.PRIO_PROCESS, t, value)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            for t in threads:
                os.setpriority(os.PRIO_PROCESS, t, 0)
