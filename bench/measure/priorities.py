"""Who goes first on processors that all of a measurement share, where some of it would be on other machines. Linux, sched(7): a
process of SCHED_IDLE gives way at once to whoever else has something to do, one with a nice value sooner than one without, and one
of SCHED_FIFO to none of those."""
import contextlib
import os

from . import processes


@contextlib.contextmanager
def _threads_as(pids, begin, end):
    """begin(thread) for all of these processes and their children; afterwards end(thread), where that is permitted: to be raised
    again may take rights."""
    threads = [int(t) for p in pids for q in (p, *processes.children(p)) for t in os.listdir(f"/proc/{q}/task")]
    for t in threads:
        begin(t)
    try:
        yield
    finally:
        for t in threads:
            with contextlib.suppress(PermissionError, ProcessLookupError):
                end(t)


def elsewhere(pids):
    """`with elsewhere(pids):` these and their children have only the time that nobody else needs."""
    def schedule(policy):
        return lambda t: os.sched_setscheduler(t, policy, os.sched_param(0))
    return _threads_as(pids, schedule(os.SCHED_IDLE), schedule(os.SCHED_OTHER))


def nice(pids, value):
    """`with nice(pids, value):` these as if begun by `nice -n value`."""
    def lower(by):
        return lambda t: os.setpriority(os.PRIO_PROCESS, t, by)
    return _threads_as(pids, lower(value), lower(0))


def set_apart(pids, core):
    """On one core for good, before all others there. False when that is not allowed."""
    try:
        for pid in pids:
            os.sched_setaffinity(pid, {core})
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    return True
