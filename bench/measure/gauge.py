"""What a piece of work took: CPU time of each component, PostgreSQL's writes and WAL, flushes, scripts in Redis."""
import time

from . import processes, prometheus


class Gauge:
    """Gauge(installation).read() after the work: totals since it was made. Dispatcher 0 leads, the others accept."""

    def __init__(self, installation):
        self.i, self.before, self.began = installation, None, None
        s = installation.stack
        self.admins = [w.admin for w in s.workers]
        # The process that serves the bench's own questions is no part of the work.
        (self.own,), = installation.query("SELECT pg_backend_pid()")
        self.meter = processes.Meter({
            "leader": [s.dispatchers[0].pid], "accept": [d.pid for d in s.dispatchers[1:]],
            "worker": [w.pid for w in s.workers], "redis": [installation.redis.process.pid],
            "pg": [installation.postgres.process.pid], "own": [self.own]})
        self.before, self.began = self._counts(), time.monotonic()

    def _counts(self):
        (xid, lsn), = self.i.query("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
                                   " pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        samples = prometheus.scrape(self.admins)
        scripts = self.i.redis.client().info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
        return {"writes": int(xid), "wal": int(lsn), "scripts": scripts,
                "flushes": samples.get("muster_worker_flushes_total", 0.0),
                "pings": samples.get("muster_worker_pings_total", 0.0)}

    def read(self):
        used, now = self.meter.read(), self._counts()
        used["pg"] -= used.pop("own")
        out = {name: now[name] - self.before[name] for name in now}
        return {"seconds": time.monotonic() - self.began, **used, **out}


def without_base(reading, base):
    """The reading without what runs anyway: `base` is a reading of nothing, or of less."""
    share = reading["seconds"] / base["seconds"]
    return {name: value if name == "seconds" else max(0.0, value - base[name] * share) for name, value in reading.items()}


def idle(installation, seconds):
    """A reading of nothing."""
    gauge = Gauge(installation)
    time.sleep(seconds)
    return gauge.read()
