"""Lets all processes of a measurement compete for the processors as equals.

Linux gives each session a scheduling group of its own unless told otherwise (autogroup), and every backend of PostgreSQL is a
session: each then gets as much as the dispatcher, the workers, Redis and the simulated fleet together, in long turns, and a
commit that takes 10 ms beside a flood takes 70. In a control group of their own there is none of that."""
import contextlib
import os

# where the controller of the first and of the second version is, and what must be written where for its children to have it
PLACES = [("/sys/fs/cgroup/cpu", None), ("/sys/fs/cgroup", "cgroup.subtree_control")]


def _join(group):
    with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as f:
        f.write(str(os.getpid()))


def _make():
    """The group of this process, and where it was before; OSError where there can be none."""
    for place, control in PLACES:
        if not os.path.exists(os.path.join(place, "cgroup.procs")):
            continue
        if control:
            with open(os.path.join(place, control), "w", encoding="ascii") as f:
                f.write("+cpu")
        group = os.path.join(place, f"muster-bench-{os.getpid()}")
        os.mkdir(group)
        _join(group)
        return group, place
    raise FileNotFoundError("no control groups")


@contextlib.contextmanager
def one_group():
    """`with one_group() as made:`; made is False where this is not permitted: then nothing is changed."""
    try:
        group, place = _make()
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        _join(place)
        with contextlib.suppress(OSError):  # what has just ended may still be in it
            os.rmdir(group)
