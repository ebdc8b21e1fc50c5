"""A short core and queue path whose daemons and Redis run under callgrind: instructions and system calls per command."""
import tempfile

from . import callgrind
from .installation import Installation

# Slower by fifty times: a worker must not lose its number for it.
SLOW = ["--lease", "60s"]
ROUNDS = 10


class Counted:
    """An installation of which dispatcher, Redis and one worker are counted."""

    def __init__(self, installation, folder, redis, registered, connected):
        self.i, self.s, self.folder, self.registered = installation, installation.stack, folder, registered
        self.counts = {"redis": redis.attach(installation.redis.process.pid)}
        self.key = self.s.make_tenant("registered")
        self.devices_key = self.s.make_tenant("connected")
        s = self.s
        with s.client(self.key, timeout=120) as client, s.client(self.devices_key, timeout=120) as devices:
            s.import_devices(client, [f"registered-{n:06d}" for n in range(registered)])
            ids = [f"connected-{n:06d}" for n in range(connected)]
            s.import_devices(devices, ids)
            self.tokens = s.tokens(devices, ids)
        s.clients.clear()
        s.dispatchers.pop().stop()
        self._start("dispatcher", s.start_dispatcher)

    def _start(self, name, start, *flags):
        count = callgrind.Count(self.folder, name)
        daemon = start(*flags, under=count.under)
        self.counts[name] = count.attach(daemon.pid)
        return daemon

    def _rounds(self, key, commands, rounds):
        """What a command takes each of them."""
        client = self.s.client(key, timeout=120)
        # The first makes what is made once: connections, prepared statements, caches.
        for n in range(rounds + 1):
            if n == 1:
                wal = self.i.wal_bytes()
                for count in self.counts.values():
                    count.zero()
            self.i.wait_batches("closed_ms", [self.s.submit(client).batch.id])
        wal = (self.i.wal_bytes() - wal) / (rounds * commands)
        return {"pg": {"wal_bytes": wal}, **{name: self._per(count.read(), rounds * commands) for name, count in self.counts.items()}}

    @staticmethod
    def _per(counted, commands):
        return {name: value / commands for name, value in counted.items()}

    def core_path(self, *flags):
        """(what a connect takes the worker, what a command takes each)"""
        worker = self._start("worker", self.s.start_worker, *SLOW, *flags)
        self.counts["worker"].zero()
        fleet = self.s.start_fleet(self.tokens, "--quiet")
        connect = self._per(self.counts["worker"].read(), len(self.tokens))
        out = self._rounds(self.devices_key, len(self.tokens), ROUNDS)
        fleet.quit()
        self._stop(worker)
        return connect, out

    def queue_path(self):
        worker = self._start("worker", self.s.start_worker, "--answer-self", *SLOW)
        out = self._rounds(self.key, self.registered, 3)
        self._stop(worker)
        return out

    def _stop(self, worker):
        worker.stop(60)
        self.s.workers.remove(worker)
        del self.counts["worker"]


# What is compared: (path, component, what is counted). System calls of the others follow from timers, not from commands.
WANTED = [
    ("connect", "worker", "instructions"), ("core", "worker", "instructions"), ("core", "worker", "syscalls"),
    ("core", "dispatcher", "instructions"), ("core", "redis", "instructions"), ("lean", "worker", "instructions"),
    ("lean", "worker", "syscalls"), ("queue", "worker", "instructions"), ("queue", "dispatcher", "instructions"),
    ("queue", "redis", "instructions"), ("queue", "pg", "wal_bytes"),
]


def measure(registered, connected, progress):
    """{figure: per command, or per connect}"""
    progress("counting instructions: starting")
    with tempfile.TemporaryDirectory() as folder:
        redis = callgrind.Count(folder, "redis")
        # A vacuum writes WAL whenever its minute has come.
        with Installation(0, redis_under=redis.under, settings={"autovacuum": "off"}) as i:
            return _measure(Counted(i, folder, redis, registered, connected), registered, connected, progress)


def _measure(counted, registered, connected, progress):
    progress(f"counting instructions: core path, {connected:,} devices over TLS")
    connect, core = counted.core_path()
    progress("counting instructions: the same with lean records")
    _, lean = counted.core_path("--tls-records", "lean")
    progress(f"counting instructions: queue path, {registered:,} devices")
    queue = counted.queue_path()
    paths = {"connect": {"worker": connect}, "core": core, "lean": lean, "queue": queue}
    return {f"{path}_{name}_{what}": paths[path][name][what] for path, name, what in WANTED}
