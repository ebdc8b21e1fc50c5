"""Where memory is: of processes, of the kernel, and what is left."""
import os

from . import processes

PAGE = os.sysconf("SC_PAGE_SIZE")


def _meminfo():
    with open("/proc/meminfo", encoding="ascii") as f:
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in f}


def available_bytes():
    return _meminfo()["MemAvailable"]


def kernel_bytes():
    """What grows with connections: slab (sockets, inodes, files, epoll's items) and the sockets' buffers."""
    with open("/proc/net/sockstat", encoding="ascii") as f:
        tcp = next(line.split() for line in f if line.startswith("TCP:"))
    return _meminfo()["Slab"] + int(tcp[tcp.index("mem") + 1]) * PAGE


def pss_bytes(pids):
    """Of these processes and all their descendants; a page that several share counts once."""
    total = 0
    for pid in [p for parent in pids for p in [parent, *processes.children(parent)]]:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("Pss:")) * 1024
    return total


class Census:
    """Bytes by owner since it was made: Census(workers).read(fleet)."""

    def __init__(self, workers):
        self.workers = workers
        self.before = self._now(workers, [])

    @staticmethod
    def _now(workers, fleets):
        return {"worker_rss": processes.rss_bytes(workers), "worker_pss": pss_bytes(workers), "fleet_pss": pss_bytes(fleets),
                "kernel": kernel_bytes()}

    def read(self, fleets):
        now = self._now(self.workers, fleets)
        return {name: now[name] - self.before[name] for name in now}
