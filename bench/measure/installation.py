"""PostgreSQL, Redis, dispatcher and workers of the bench's own, durable as in production, on the tests' harness."""
import contextlib
import os
import shutil
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))

from harness.certificates import Certificates  # noqa: E402
from harness.services import Postgres, Redis, postgres_program  # noqa: E402, F401
from harness.stack import Stack  # noqa: E402
from harness.stubs import Stubs  # noqa: E402

from . import processes  # noqa: E402

POSTGRES_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB", "fsync": "on", "synchronous_commit": "on",
                     "full_page_writes": "on", "autovacuum": "on"}


class Installation:
    """`with Installation(workers=2) as i:` i.stack is the harness's Stack, started. `redis_under` is a command Redis is run
    by, `settings` are more of PostgreSQL's."""

    def __init__(self, workers, keep=False, redis_under=(), settings=None):
        self.keep, self.redis_under, self.settings = keep, redis_under, {**POSTGRES_SETTINGS, **(settings or {})}
        self.folder = tempfile.mkdtemp(prefix="mb-")
        os.chmod(self.folder, 0o711)
        self.postgres = self.redis = self.stack = self.database = None
        self.worker_count = workers

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self):
        self.postgres = Postgres(self._path("pg"), self.settings).start()
        self.redis = Redis(self._path("redis"), under=self.redis_under).start()
        quiet = ["--log-level", "info"]
        self.stack = Stack(self.folder, self.postgres, self.redis, Certificates(self._path("tls")),
                           Stubs(self._path("py")), dispatcher_flags=quiet, worker_flags=quiet)
        self.stack.start(dispatchers=1, workers=self.worker_count)
        self.database = self.postgres.connect(self.stack.database).cursor()

    def _path(self, name):
        return os.path.join(self.folder, name)

    def __exit__(self, *_):
        for part in (self.stack, self.redis, self.postgres):
            if part:
                part.stop()
        if self.keep:
            print(f"kept {self.folder}", file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- who is who, for processes.Meter ---
    def components(self, fleets=(), workers=None):
        """Processes by component; of the workers all, or `workers`."""
        s = self.stack
        return {
            "dispatcher": [d.pid for d in s.dispatchers],
            "worker": [w.pid for w in workers or s.workers if w.alive()],
            "redis": [self.redis.process.pid],
            "pg": [self.postgres.process.pid],
            "fleet": [f.pid for f in fleets],
        }

    def meter(self, fleets=(), workers=None):
        return processes.Meter(self.components(fleets, workers))

    @contextlib.contextmanager
    def metered(self, total):
        """Adds to `total` what each component takes meanwhile, in µs of CPU."""
        meter = self.meter()
        yield
        for name, us in meter.read().items():
            total[name] = total.get(name, 0) + us

    # --- sizes ---
    def query(self, text, *args):
        """Rows of a query, over one connection kept for it: a new one would cost PostgreSQL more than the query."""
        self.database.execute(text, args or None)
        return self.database.fetchall() if self.database.description else []

    def redis_bytes(self):
        return self.redis.client().info("memory")["used_memory"]

    def batch_bytes(self):
        """What PostgreSQL keeps of batches, indexes and TOAST included."""
        (size,), = self.query("SELECT pg_total_relation_size('batch') + pg_total_relation_size('batch_block')")
        return int(size)

    def wal_bytes(self):
        (lsn,), = self.query("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return int(lsn)

    # --- batches ---
    def wait_batches(self, column, ids, timeout=120):
        """Until `column` of every batch is set: closed_ms, routed_ms, canceled_ms."""
        deadline = time.monotonic() + timeout
        while True:
            (left,), = self.query(f"SELECT count(*) FROM batch WHERE id = ANY(%s) AND {column} IS NULL", list(ids))
            if left == 0:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{column} of {left} batches is not set within {timeout} s")
            time.sleep(0.05)

    def wait_closed(self, client, batch_id, timeout=120):
        """By WatchBatch, as a caller would; the closed batch."""
        return self.stack.watch(client, batch_id, timeout=timeout)

    def succeeded(self, batch):
        """Raises unless every command of a closed batch has SUCCEEDED."""
        if batch.progress.succeeded != batch.device_count:
            raise AssertionError(f"batch {batch.id}: {batch.progress.succeeded} of {batch.device_count} succeeded: {batch.progress}")
