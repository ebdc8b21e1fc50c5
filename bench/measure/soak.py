"""Whether memory stays flat: samples of every daemon under a soak's load, the slope of each, and a verdict."""
import os
import re
import statistics
import time

from . import processes, slope

SAMPLE_S = 5.0
# What is still being filled for the first time (heaps, caches, PostgreSQL's buffers) is no growth.
WARM_UP, WARM_UP_MAX_S = 0.3, 1800

# The bound of each figure, per 1,000 commands. A daemon's memory: a leak of one allocation, the smallest that malloc makes, is
# 32 bytes; one in each command would be 32,000 here, one in each batch of the load about 400.
BOUNDS = {"dispatcher": 400, "worker": 400, "redis": 400, "redis_used": 200, "descriptors": 0.05}
# Growth below this is the filling of heaps, and a short soak finds only what is coarser: measured, a worker of 1,000 devices that
# come and go takes 1.4 MB more in its first quarter of an hour, and 0.3 in the hour and a half after it.
LEAST_BYTES, LEAST_DESCRIPTORS = 2 * 1024 * 1024, 20


def _status(pid, *names):
    """Bytes of fields of /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        found = {line.split(":")[0]: line for line in f}
    return [int(found[n].split()[1]) * 1024 for n in names]


def _private(pids):
    """Anonymous memory of processes that come and go."""
    total = 0
    for pid in pids:
        try:
            total += _status(pid, "RssAnon")[0]
        except (FileNotFoundError, KeyError, ProcessLookupError):
            pass
    return total


class Soak:
    """Samples `installation` under `load`."""

    def __init__(self, installation, load):
        self.i, self.load, self.samples = installation, load, []
        s = installation.stack
        self.daemons = {f"{kind}-{n}": d.pid for kind, group in (("dispatcher", s.dispatchers), ("worker", s.workers))
                        for n, d in enumerate(group)} | {"redis": installation.redis.process.pid}
        self.began = time.monotonic()

    def sample(self):
        now = {"t": time.monotonic() - self.began, "commands": self.load.commands, "batches": self.load.batches}
        for name, pid in self.daemons.items():
            now[name], now[name + "_anon"] = _status(pid, "VmRSS", "RssAnon")
            now[name + "_descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
        now["redis_used"] = self.i.redis_bytes()
        backends = processes.children(self.i.postgres.process.pid)
        now["pg_private"], now["pg_backends"] = _private(backends), len(backends)
        (now["pg_database"], now["pg_batches"], now["pg_log"]), = self.i.query(
            "SELECT pg_database_size(current_database()), pg_total_relation_size('batch') + pg_total_relation_size('batch_block'),"
            " pg_total_relation_size('ack_log') + pg_total_relation_size('ack_stream')")
        now["fleet"] = processes.rss_bytes([self.load.fleet.pid, *processes.children(self.load.fleet.pid)])
        self.samples.append(now)
        return now

    def run(self, seconds, progress):
        due, told = time.monotonic(), 0
        while (now := self.sample())["t"] < seconds:
            if now["t"] >= told:
                told += max(60, seconds / 20)
                progress("  ".join(f"{n} {now[n] / 2**20:.1f}" for n in self.daemons) +
                         f" MiB  {now['commands']:,} commands  {self.load.failed} failed calls")
            due += SAMPLE_S
            time.sleep(max(due - time.monotonic(), 0))

    def growth(self, key, warm):
        """The slope of one figure behind `warm` seconds: a minute and a thousand commands."""
        points = [s for s in self.samples if s["t"] >= warm]
        each, low, high = slope.slope([(s["commands"] / 1000, s[key]) for s in points])
        minute = slope.slope([(s["t"] / 60, s[key]) for s in points])[0]
        values = [s[key] for s in points]
        return {"first": statistics.median(values[:9]), "last": statistics.median(values[-9:]), "per_minute": minute,
                "per_1000_commands": each, "low": low, "high": high}

    def results(self, seconds):
        warm = min(seconds * WARM_UP, WARM_UP_MAX_S)
        keys = [k for k in self.samples[0] if k not in ("t", "commands", "batches")]
        grown = {k: self.growth(k, warm) for k in keys}
        for key, figure in grown.items():
            figure["bound"] = bound(key)
            figure["flat"] = figure["bound"] is None or flat(key, figure)
        first, last = self.samples[0], self.samples[-1]
        return {"seconds": last["t"], "warm_up_s": warm, "commands": last["commands"] - first["commands"],
                "batches": last["batches"] - first["batches"], "canceled": self.load.canceled, "watched": self.load.watched,
                "failed_calls": self.load.failed, "errors": self.load.errors, "growth": grown,
                "flat": all(f["flat"] for f in grown.values()), "samples": self.samples}


def bound(key):
    """Of a sampled figure, per 1,000 commands; None: it is only told."""
    return BOUNDS.get("descriptors" if key.endswith("_descriptors") else re.sub(r"-\d+$", "", key))


def flat(key, figure):
    """What the samples can't tell from the bound is let pass; what surely grows faster is not."""
    least = LEAST_DESCRIPTORS if key.endswith("_descriptors") else LEAST_BYTES
    return figure["low"] <= figure["bound"] or figure["last"] - figure["first"] <= least


def table(results):
    """As text."""
    lines = [f"{results['commands']:,} commands in {results['batches']:,} batches over {results['seconds'] / 60:.1f} minutes, "
             f"{results['failed_calls']} calls failed; slopes behind the first {results['warm_up_s'] / 60:.1f} minutes:", "",
             f"  {'':<26}{'first':>14}{'last':>14}{'a minute':>12}{'per 1,000 commands (95 %)':>36}{'bound':>9}"]
    for key, g in results["growth"].items():
        interval = f"{g['per_1000_commands']:,.2f} ({g['low']:,.2f} … {g['high']:,.2f})"
        verdict = "" if g["bound"] is None else f"{g['bound']:>9}  {'flat' if g['flat'] else 'GROWS'}"
        lines.append(f"  {key:<26}{g['first']:>14,.0f}{g['last']:>14,.0f}{g['per_minute']:>12,.1f}{interval:>36}{verdict}")
    lines += ["", "memory stays flat" if results["flat"] else "MEMORY GROWS"]
    return "\n".join(lines)
