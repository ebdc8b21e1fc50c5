"""Each process killed under load, and Redis emptied: every command ends terminal, nothing acknowledged is lost, and a
device that deduplicates executes nothing twice."""
import signal
import threading

import grpc
import pytest
from harness import oracle
from harness.patience import fewer, lasting, patient
from harness.stack import have
from harness.until import until

pytestmark = pytest.mark.skipif(not have("muster-dispatcher", "muster-worker", "muster-fleet"), reason="not all is built")

DEVICES, BATCHES = fewer(300), 8


class Load:
    """A stack with two dispatchers, two workers and a fleet; batches are submitted one after another by a thread that
    repeats a request until it is answered."""

    def __init__(self, make_stack):
        self.stack = make_stack(worker_flags=["--lease", lasting(2)])
        self.stack.start(dispatchers=2, workers=2)
        self.tenant = self.stack.make_tenant()
        client = self.client(0)
        self.fleet = self.stack.start_fleet(self.stack.make_devices(client, DEVICES), "--think", "20ms..120ms", "--backoff",
                                            "100ms")
        self.batches, self.answered, self.trouble = [], threading.Condition(), None
        self.thread = threading.Thread(target=self._submit_all, daemon=True)

    def client(self, dispatcher):
        return self.stack.client(self.tenant, self.stack.dispatchers[dispatcher])

    def _submit(self, number):
        """Asks the dispatchers in turn until one answers."""
        for attempt in range(200):
            try:
                return self.stack.submit(self.client((number + attempt) % 2), request_id=f"load-{number}").batch.id
            except grpc.RpcError as e:
                if e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                threading.Event().wait(0.1)
        raise AssertionError("nobody takes the batch")

    def _submit_all(self):
        try:
            for n in range(BATCHES):
                batch = self._submit(n)
                with self.answered:
                    self.batches.append(batch)
                    self.answered.notify_all()
        except Exception as e:  # told by check()
            self.trouble = e

    def start(self):
        """Submits, and waits until a part of the first batch is done and much is not."""
        self.thread.start()
        with self.answered:
            assert self.answered.wait_for(lambda: self.batches, patient(60))
        self.stack.watch(self.client(0), self.batches[0], lambda b: b.progress.succeeded >= DEVICES // 4)

    def leader(self):
        """The dispatcher that leads, and the other."""
        (holder,), = self.stack.sql("SELECT holder FROM lease WHERE name = 'leader'")
        leading = [d for d in self.stack.dispatchers if f":{d.pid}:" in holder]
        assert len(leading) == 1, f"who is {holder}?"
        return leading[0]

    def check(self, dispatcher=0):
        """Waits for the end of every batch and asks all witnesses."""
        self.thread.join(patient(120))
        assert not self.thread.is_alive() and not self.trouble and len(self.batches) == BATCHES, self.trouble
        client = self.client(dispatcher)
        for b in self.batches:
            closed = until(lambda b=b: self._closed(client, b), 120, f"batch {b} closed")
            assert closed.progress.succeeded == DEVICES, closed
        record = self.fleet.dump()
        assert all(r[0] >= 1 and r[1] == 1 for r in record.values()) and len(record) == DEVICES * BATCHES
        oracle.check(self.stack, client, self.batches, record)

    def _closed(self, client, batch_id):
        try:
            return self.stack.watch(client, batch_id, timeout=60)
        except grpc.RpcError as e:
            assert e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), e
            return None


@pytest.fixture
def load(make_stack):
    return Load(make_stack)


def test_nothing_is_killed(load):
    load.start()
    load.check()


def test_the_leading_dispatcher_is_killed(load):
    load.start()
    leader = load.leader()
    leader.kill()
    load.check(dispatcher=1 - load.stack.dispatchers.index(leader))


def test_the_leading_dispatcher_is_killed_and_started_again(load):
    load.start()
    leader = load.leader()
    leader.kill()
    load.stack.restart(leader)
    load.check()


def test_a_worker_is_killed(load):
    load.start()
    load.stack.workers[0].kill()
    load.check()


def test_both_workers_are_killed_and_started_again(load):
    load.start()
    for w in list(load.stack.workers):
        w.kill()
    for w in list(load.stack.workers):
        load.stack.restart(w)
    load.check()


def test_redis_is_killed(load):
    load.start()
    load.stack.redis.kill()
    load.stack.redis.restart()
    load.check()


def test_redis_is_emptied(load):
    load.start()
    load.stack.redis.client().flushall()
    load.check()


def test_redis_is_away_while_batches_are_accepted(load):
    load.start()
    load.stack.redis.kill()
    load.thread.join(patient(60))
    assert len(load.batches) == BATCHES, load.trouble
    load.stack.redis.restart()
    load.check()


def test_accepting_never_stops_while_redis_is_lost_entirely(load):
    """Each call is answered at once, by the dispatcher that was asked first: before, while Redis is away, while it is empty."""
    other = load.stack.make_tenant()
    client = load.stack.client(other, timeout=10)
    load.stack.import_devices(client, ["alone"])
    load.start()
    redis = load.stack.redis
    for lose in (lambda: None, redis.kill, redis.restart, lambda: redis.client().flushall()):
        lose()
        for _ in range(10):
            load.stack.submit(client)
    load.check()
    until(lambda: not load.stack.sql("SELECT 1 FROM batch WHERE routed_ms IS NULL"))


def test_postgresql_is_killed(load):
    load.start()
    load.stack.postgres.kill()
    load.stack.postgres.restart()
    load.check()


def test_a_worker_that_was_stopped_finds_itself_dead_and_begins_anew(load):
    load.start()
    worker, redis = load.stack.workers[0], load.stack.redis.client()
    worker.signal(signal.SIGSTOP)
    until(lambda: not redis.get(f"worker:{worker.ready['worker']}"), 60, "the worker is called dead")
    worker.signal(signal.SIGCONT)
    load.check()


def test_a_leader_that_was_stopped_writes_nothing_after_its_lease(load):
    load.start()
    leader = load.leader()
    leader.signal(signal.SIGSTOP)
    until(lambda: load.leader() is not leader, 60, "another leads")
    leader.signal(signal.SIGCONT)
    load.check()


def test_redis_is_emptied_and_a_worker_and_the_leader_killed_at_once(load):
    load.start()
    leader = load.leader()
    load.stack.redis.client().flushall()
    load.stack.workers[1].kill()
    leader.kill()
    load.check(dispatcher=1 - load.stack.dispatchers.index(leader))


def test_a_dispatcher_that_starts_without_postgresql_waits_for_it(make_stack):
    """And makes its schema then."""
    stack = make_stack().begin_empty()
    stack.postgres.kill()
    dispatcher = stack.start_dispatcher(wait=False)
    dispatcher.wait_event("migrate_waits")
    stack.postgres.restart()
    dispatcher.wait_ready()
    assert stack.sql("SELECT count(*) > 10 FROM schema_migration") == [(True,)]
