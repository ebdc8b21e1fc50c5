"""CPU time and memory of processes, from /proc.

CPU time of a living process is the kernel's own count in nanoseconds (schedstat), of children that ended the parent's
count in ticks (stat)."""
import os

TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


def children(pid):
    """All descendants."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as f:
                for child in map(int, f.read().split()):
                    found += [child, *children(child)]
    except FileNotFoundError:
        pass
    return found


def _own_us(pid):
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
                total += int(f.read().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return total / 1e3


def _reaped_us(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * TICK_US


def cpu_us(pids):
    """Of these processes, all their descendants, and descendants they have waited for."""
    return sum(_reaped_us(p) + sum(map(_own_us, [p, *children(p)])) for p in pids)


def rss_bytes(pids):
    """VmRSS of exactly these processes together."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("VmRSS:")) * 1024
    return total


class Meter:
    """CPU time by component since it was made: Meter({"worker": [pid, …], …}).read()."""

    def __init__(self, components):
        self.components = components
        self.before = {name: cpu_us(pids) for name, pids in components.items()}

    def read(self):
        return {name: cpu_us(pids) - self.before[name] for name, pids in self.components.items()}
