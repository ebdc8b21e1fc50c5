"""A fleet on given workers: what its connecting, its idling and its commands take."""
import os
import time
import types

from . import processes
from .gauge import Gauge, without_base

ROUND_S = 120
PAGE = os.sysconf("SC_PAGE_SIZE")
# What the kernel makes for an accepted connection that epoll watches.
SOCKET_OBJECTS = ("TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi")


def socket_bytes():
    """Kernel memory of one idle connection, one end, by the sizes of its objects (/proc/slabinfo, for root). What the whole
    kernel's memory grows by says the same only while nobody else does anything."""
    size = 0.0
    with open("/proc/slabinfo", encoding="ascii") as f:
        for line in f:
            name, *fields = line.split()
            if name in SOCKET_OBJECTS:
                per_slab, pages = int(fields[3]), int(fields[4])
                size += pages * PAGE / per_slab
    return size


class Connected:
    """All devices of a tenant, connected to the workers of the installation."""

    def __init__(self, installation, client, tokens, base, flags=(), plain=False):
        self.i, self.client, self.devices, self.base = installation, client, len(tokens), base
        workers = installation.stack.workers
        self.pids = [w.pid for w in workers]
        at = [types.SimpleNamespace(address=w.ready["plain"]) for w in workers] if plain else workers
        rss, gauge = processes.rss_bytes(self.pids), Gauge(installation)
        self.fleet = installation.stack.start_fleet(tokens, "--quiet", *(["--no-tls"] if plain else []), *flags, workers=at)
        self.connecting = without_base(gauge.read(), base)
        time.sleep(1.0)  # what the handshakes left is freed
        self.rss = (processes.rss_bytes(self.pids) - rss) / self.devices

    def round(self):
        """One command to all, until closed: what it took, and `rate` in commands a second up to the last PUBACK."""
        s = self.i.stack
        wanted = self.fleet.stats()["acked"] + self.devices
        gauge, began = Gauge(self.i), time.monotonic()
        batch = s.submit(self.client).batch
        if batch.device_count != self.devices:
            raise AssertionError(f"a batch to all addresses {batch.device_count} of {self.devices} devices")
        while (stats := self.fleet.stats())["acked"] < wanted:
            if time.monotonic() - began > ROUND_S:
                raise AssertionError(f"{stats['acked']} of {wanted} acknowledgements have their PUBACK after {ROUND_S} s")
            time.sleep(0.02)
        seconds = stats["last_acked_us"] / 1e6 - began
        self.i.wait_batches("closed_ms", [batch.id])
        read = without_base(gauge.read(), self.base)
        return {"commands": self.devices, "batches": 1, "blocks": (self.devices + 1023) // 1024, "rate": self.devices / seconds,
                "answer_s": seconds, **read}

    def idle_pings(self, seconds):
        """µs of the workers per PINGREQ answered; the fleet must have been started with a short keepalive."""
        gauge = Gauge(self.i)
        time.sleep(seconds)
        read = without_base(gauge.read(), self.base)
        return read["worker"] / read["pings"]

    def close(self):
        self.fleet.quit()
        self.i.stack.fleets.remove(self.fleet)
