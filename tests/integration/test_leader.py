"""The leader: routing, folding, closing, cancel, expiry, dead workers, Redis lost, and one leader after another.

Workers are played here: presence, leases and rows of the acknowledgement log are written as they would write them, so that
each step of the leader can be looked at alone."""
import random
import struct
import time
from collections import Counter

import pytest
from harness.in_time import Late, in_time
from harness.patience import patient
from harness.until import until

HELD, QUEUED, ROUTED, SENT, SUCCEEDED, FAILED, REJECTED, TIMED_OUT, EXPIRED, CANCELED = range(1, 11)
BLOCK = 1024


def now_ms():
    return int(time.time() * 1000)


def is_one(states, state):
    return {s & 15 for s in states if s} == {state}


class Field:
    """A tenant with `devices` devices, and the workers and callers that it takes."""

    def __init__(self, stack, devices):
        self.stack, self.devices = stack, devices
        self.sql = stack.sql
        self.redis = stack.redis.client()
        self.tenant = stack.make_tenant().number
        self.sql("UPDATE tenant SET next_seq = %s, devices = %s WHERE id = %s", devices, devices, self.tenant)
        self.blocks = range((devices + BLOCK - 1) // BLOCK)
        (self.stream,), = self.sql("INSERT INTO ack_stream (worker, created_ms) VALUES ('played', 0) RETURNING id")
        self.n = self.requests = 0

    # --- what a dispatcher's front does ---
    def submit(self, seqs, priority=2, expires_in_ms=3600000):
        blocks = {}
        for s in seqs:
            blocks.setdefault(s // BLOCK, bytearray(128))[s % BLOCK // 8] |= 1 << s % 8
        numbers, firsts, targets = [], [], []
        for b in sorted(blocks):
            used = [i for i, byte in enumerate(blocks[b]) if byte]
            numbers.append(b)
            firsts.append(used[0] * 8)
            targets.append(bytes(blocks[b][used[0]:used[-1] + 1]))
        self.requests += 1
        (batch,), = self.sql(
            "SELECT batch_id FROM accept_batch(%s, %s, %s, '', %s, %s::smallint, %s, 0, NULL, %s, %s, %s, %s::smallint[], %s)",
            self.tenant, f"r{self.requests}", b"h" * 32, b"\x0a\x00", priority, len(seqs), now_ms(),
            now_ms() + expires_in_ms, numbers, firsts, targets)
        return batch

    def cancel(self, batch):
        self.sql("UPDATE batch SET cancel_requested_ms = %s WHERE id = %s", now_ms(), batch)

    # --- what workers do ---
    def lease(self, *workers, by=None):
        redis = by or self.redis
        for w in workers:
            redis.set(f"worker:{w}", f"played-{w}")
            redis.sadd("workers", w)

    def presence(self, worker_of, by=None):
        redis = by or self.redis
        for b in self.blocks:
            seqs = range(b * BLOCK, (b + 1) * BLOCK)
            redis.set(self.key(b, "presence"),
                      b"".join(struct.pack("<H", worker_of(s) if s < self.devices else 0) for s in seqs))

    def flush(self, *groups, sql=None):
        """One row of the log: (batch, {seq: state byte}) …"""
        entries = b"".join(struct.pack("<QII", b, self.tenant, len(acks)) +
                           b"".join(struct.pack("<IB", s, state) for s, state in acks.items()) for b, acks in groups)
        self.n += 1
        (sql or self.sql)("INSERT INTO ack_log VALUES (%s, %s, %s, %s)", self.stream, self.n, now_ms(), entries)

    def inbox(self, worker):
        """Takes all there is: ({batch: {seq, …}}, [canceled batch, …])."""
        routes, cancels = {}, []
        for name in ("urgent", "normal", "bulk"):
            while entry := self.redis.lpop(f"{{w{worker}}}:inbox:{name}"):
                while entry:
                    if entry[0] == 2:
                        cancels.append(struct.unpack_from("<Q", entry, 1)[0])
                        entry = entry[9:]
                        continue
                    batch, tenant, block, n = struct.unpack_from("<QIIH", entry, 1)
                    assert entry[0] == 1 and tenant == self.tenant
                    entry = entry[19:]
                    if n == 0xffff:
                        slots = [i for i in range(BLOCK) if entry[i // 8] >> i % 8 & 1]
                        entry = entry[128:]
                    else:
                        slots = struct.unpack_from(f"<{n}H", entry)
                        entry = entry[2 * n:]
                    routes.setdefault(batch, set()).update(block * BLOCK + s for s in slots)
        return routes, cancels

    # --- what is to be seen ---
    def key(self, block, what):
        return f"{{t{self.tenant}.b{block}}}:{what}"

    def live_states(self, batch):
        """Count of each state in Redis."""
        counts = Counter()
        for b in self.blocks:
            counts.update(s & 15 for s in (self.redis.get(self.key(b, f"state:{batch}")) or b"")[4:] if s & 15)
        return dict(counts)

    def stored(self, batch):
        """{seq: state} as PostgreSQL has it."""
        out = {}
        for block, first, states in self.sql("SELECT block, first, states FROM batch_block WHERE batch_id = %s", batch):
            out.update({block * BLOCK + first + i: s & 15 for i, s in enumerate(bytes(states or b"")) if s & 15})
        return out

    def wait_routed(self, batch):
        until(lambda: self.sql("SELECT 1 FROM batch WHERE id = %s AND routed_ms IS NOT NULL", batch), what=f"{batch} routed")

    def wait_closed(self, batch, timeout=20):
        """Counts by state: {state: number}."""
        (counts,), = until(
            lambda: self.sql("SELECT counts FROM batch WHERE id = %s AND closed_ms IS NOT NULL", batch), what=f"{batch} closed",
            timeout=timeout)
        assert len(counts) == 12
        return {state: n for state, n in enumerate(counts) if n}

    def hide_generation(self, hide=True):
        """Whether this Redis is the one that was filled nobody gets to know any more; everything else goes on there."""
        self.redis.execute_command("ACL", "SETUSER", "default", "resetkeys", *(["~[^m]*", "~muster:leader"] if hide else ["~*"]))

    def wait_asked(self, times):
        """Until the leader has asked for it so often, a few of its turns each time."""
        with self.redis.monitor() as seen:
            asked = (c for c in seen.listen() if c["command"] == "GET muster:generation")
            for _ in range(times):
                next(asked)

    def wait_asked_in_vain(self, times):
        """The same while it is hidden."""
        def refused():
            return self.redis.info("commandstats")["cmdstat_get"]["rejected_calls"]
        enough = refused() + times
        until(lambda: refused() >= enough, what="the leader asks")

    def submit_beside_others(self):
        """A batch to a hundred, and {batch: its one device} of two others; some worker once had a lease of an hour."""
        self.sql("INSERT INTO worker_lease VALUES (3600000)")
        batch, others = self.submit(range(100)), {self.submit([seq]): seq for seq in (200, 300)}
        for b in (batch, *others):
            self.wait_routed(b)
        return batch, others

    def wait_beyond_a_second(self, others):
        """A leader that has filled Redis waits so long in any case, and until it has read the log once more, which the others' ends show."""
        second = time.monotonic() + 1
        until(lambda: time.monotonic() > second, what="a second")
        for other, seq in others.items():
            self.flush((other, {seq: SUCCEEDED | 16}))
            self.wait_closed(other)
        self.wait_asked(3)

    def check_nothing_left(self):
        """Of closed batches nothing stays in the log or in Redis."""
        until(lambda: self.sql("SELECT count(*) FROM ack_log") == [(0,)], what="an empty log")
        left = [k for k in self.redis.keys() if b":state:" in k or b":open" in k or k.startswith((b"batch:", b"cancel:"))]
        assert left == []


@pytest.fixture
def field(stack):
    stack.start(workers=0)
    return Field(stack, 3000)


def test_one_device(field):
    batch = field.submit([5])
    field.wait_routed(batch)
    assert field.live_states(batch) == {QUEUED: 1}
    field.flush((batch, {5: SUCCEEDED | 16}))
    assert field.wait_closed(batch) == {SUCCEEDED: 1}
    (states, times), = field.sql("SELECT states, times FROM batch_block WHERE batch_id = %s", batch)
    assert bytes(states) == bytes([0, 0, 0, 0, 0, SUCCEEDED | 16, 0, 0])
    assert 0 < struct.unpack_from("<I", bytes(times), 20)[0] < patient(20000)
    field.check_nothing_left()


def test_a_fleet_is_routed_to_the_workers_that_have_it(field):
    field.lease(1, 2)
    field.presence(lambda s: 1 + s % 2 if s % 10 else 0)
    batch = field.submit(range(3000))
    field.wait_routed(batch)
    assert field.live_states(batch) == {QUEUED: 300, ROUTED: 2700}
    assert field.inbox(1) == ({batch: {s for s in range(3000) if s % 10 and s % 2 == 0}}, [])
    assert field.inbox(2) == ({batch: {s for s in range(3000) if s % 10 and s % 2 == 1}}, [])
    field.flush((batch, {s: (FAILED if s % 3 else SUCCEEDED) | 16 for s in range(0, 3000, 2)}))
    field.flush((batch, {s: REJECTED | 16 for s in range(1, 3000, 2)}))
    assert field.wait_closed(batch) == {SUCCEEDED: 500, FAILED: 1000, REJECTED: 1500}
    field.check_nothing_left()


def test_late_and_foreign_entries_change_nothing(field):
    batch, other = field.submit(range(100)), field.submit([7])
    field.flush((batch, {s: SUCCEEDED | 16 for s in range(50)}), (1 << 40, {1: FAILED}), (other, {2999: FAILED}))
    field.flush((batch, {s: FAILED | 32 for s in range(100)}))
    assert field.wait_closed(batch) == {SUCCEEDED: 50, FAILED: 50}
    field.flush((batch, {s: REJECTED | 16 for s in range(100)}), (other, {7: SUCCEEDED | 16}))
    assert field.wait_closed(other) == {SUCCEEDED: 1}
    assert Counter(field.stored(batch).values()) == {SUCCEEDED: 50, FAILED: 50}
    field.check_nothing_left()


def test_what_was_answered_before_it_was_accepted_is_sent(field):
    """A device can acknowledge any number, also one that nobody was given yet."""
    batch = field.submit([7])
    field.flush(*((batch + i, {7: SUCCEEDED | 16}) for i in range(50)))
    assert field.wait_closed(batch) == {SUCCEEDED: 1}
    later = field.submit(range(100))
    assert batch < later < batch + 50
    field.wait_routed(later)
    field.flush((later, {s: SUCCEEDED | 16 for s in range(100)}))
    assert field.wait_closed(later) == {SUCCEEDED: 100}
    field.check_nothing_left()


def test_expiry(field):
    def attempt(span):
        batch = field.submit(range(2000), expires_in_ms=int(span.seconds * 1000))
        state = until(lambda: field.redis.get(field.key(0, f"state:{batch}")) or span.over(), timeout=2 * span.seconds)
        if not span.over():
            state = bytearray(state)
            state[4 + 10], state[4 + 11] = SENT | 16, SUCCEEDED | 16  # the second's row of the log is still on its way
            field.redis.set(field.key(0, f"state:{batch}"), bytes(state), xx=True)
        late = span.over()
        counts = field.wait_closed(batch, timeout=2 * span.seconds + 20)
        if late:
            raise Late("it expired before it was sent")
        return counts
    counts = in_time(attempt, 1.5, told=True)
    assert counts == {EXPIRED: 1998, TIMED_OUT: 1, SUCCEEDED: 1}
    field.check_nothing_left()


def test_a_cancel_waits_for_every_living_worker(field):
    field.lease(1, 2)
    field.presence(lambda s: 1 + s % 2 if s < 2000 else 0)
    batch = field.submit(range(3000))
    field.wait_routed(batch)
    field.inbox(1), field.inbox(2)
    field.cancel(batch)
    for worker in (1, 2):
        assert set(until(lambda: field.inbox(worker)[1], what=f"worker {worker} told")) == {batch}
    assert field.live_states(batch) == {QUEUED: 1000, ROUTED: 2000}
    field.redis.sadd(f"cancel:{batch}", 1)
    # Both look again and again; that the answer stays no is all there is to see.
    looks = field.redis.info("commandstats")["cmdstat_smembers"]["calls"]
    until(lambda: field.redis.info("commandstats")["cmdstat_smembers"]["calls"] > looks + 3, what="the leader asks")
    assert field.sql("SELECT canceled_ms FROM batch WHERE id = %s", batch) == [(None,)]
    state = bytearray(field.redis.get(field.key(0, f"state:{batch}")))
    state[4 + 10] = SENT | 16
    field.redis.set(field.key(0, f"state:{batch}"), bytes(state))
    field.redis.delete("worker:2")  # dies without a word
    until(lambda: field.sql("SELECT 1 FROM batch WHERE id = %s AND canceled_ms IS NOT NULL", batch), what="confirmed")
    # What the dead one had may have been sent: it goes on to its own end, as what was.
    assert field.live_states(batch) == {CANCELED: 1999, SENT: 1001}
    assert Counter(field.stored(batch).values()) == {CANCELED: 1999, SENT: 1001}
    assert b"\x38\x01" in field.redis.get(f"batch:{batch}")  # BatchSpec.canceled, for workers yet to come
    field.flush((batch, {s: FAILED | 16 for s in range(3000)}))
    assert field.wait_closed(batch) == {CANCELED: 1999, FAILED: 1001}
    field.check_nothing_left()


@pytest.mark.parametrize("retried", [False, True])
def test_what_comes_back_after_a_cancel_ends(field, retried):
    """A device puts off what it was sent before; or who had it unsent says so late; or it is to be tried again."""
    batch = field.submit(range(10))
    field.wait_routed(batch)
    field.flush((batch, {s: SENT | 16 for s in range(10)}))
    states = bytearray(field.redis.get(field.key(0, f"state:{batch}")))
    states[4:14] = bytes([SENT | 16] * 10)
    field.redis.set(field.key(0, f"state:{batch}"), bytes(states))
    field.cancel(batch)
    until(lambda: field.sql("SELECT 1 FROM batch WHERE id = %s AND canceled_ms IS NOT NULL", batch), what="confirmed")
    back = HELD | 16 if retried else QUEUED
    states[4:9] = bytes([back] * 5)
    field.redis.set(field.key(0, f"state:{batch}"), bytes(states))
    field.flush((batch, {s: back for s in range(5)}))
    until(lambda: field.live_states(batch) == {CANCELED: 5, SENT: 5}, what="these end")
    field.flush((batch, {s: SUCCEEDED | 16 for s in range(5, 10)}))
    assert field.wait_closed(batch) == {CANCELED: 5, SUCCEEDED: 5}
    field.check_nothing_left()


def test_a_cancel_that_was_lost_on_its_way_is_told_again(field):
    field.lease(1)
    field.presence(lambda s: 1)
    batch = field.submit(range(10))
    field.wait_routed(batch)
    field.cancel(batch)
    for telling in ("told", "told again"):
        assert set(until(lambda: field.inbox(1)[1], what=telling)) == {batch}
    field.redis.sadd(f"cancel:{batch}", 1)
    assert field.wait_closed(batch) == {CANCELED: 10}
    field.check_nothing_left()


def test_a_dead_workers_commands_may_have_been_sent(field):
    field.lease(1, 2)
    field.presence(lambda s: 1 + s % 2)
    batch = field.submit(range(3000))
    field.wait_routed(batch)
    field.redis.delete("worker:2")
    until(lambda: not field.redis.sismember("workers", 2), what="worker 2 reaped")
    assert field.live_states(batch) == {ROUTED: 1500, SENT: 1500}
    assert field.redis.get(field.key(0, "presence"))[:8] == struct.pack("<4H", 1, 0, 1, 0)
    assert field.inbox(2) == ({}, [])


def test_a_dead_workers_number_comes_free_last(field):
    """Who takes it again before, because Redis was emptied and it lives, would be taken out of the list, and told of no cancel."""
    field.lease(1, 2)
    with field.redis.monitor() as seen:
        field.redis.delete("worker:2")
        commands = (c["command"] for c in seen.listen())
        last = (c[:4] for c in commands if c == "SREM workers 2" or c.startswith("EVAL") and c.endswith(" worker:2  0"))
        assert [next(last), next(last)] == ["SREM", "EVAL"]


def test_a_deleted_devices_commands_end(field):
    """But for what a worker has, which may have sent it: that ends when it is handed back unsent."""
    field.lease(1)
    field.presence(lambda s: 0 if s == 7 else 1)
    batch, single = field.submit([7, 8, 1030]), field.submit([7])
    field.wait_routed(batch), field.wait_routed(single)
    field.sql("INSERT INTO device_cancel VALUES (%s, 7), (%s, 1030), (%s, 2999)", *[field.tenant] * 3)
    until(lambda: field.sql("SELECT seq FROM device_cancel") == [(1030,)], what="all but one done")
    assert field.wait_closed(single) == {CANCELED: 1}
    assert field.live_states(batch) == {CANCELED: 1, ROUTED: 2}
    field.flush((batch, {8: SUCCEEDED | 16}))
    states = field.redis.get(field.key(1, f"state:{batch}"))
    field.redis.set(field.key(1, f"state:{batch}"), states[:4] + states[4:].replace(bytes([ROUTED]), bytes([QUEUED])))
    assert field.wait_closed(batch) == {SUCCEEDED: 1, CANCELED: 2}
    until(lambda: not field.sql("SELECT seq FROM device_cancel"), what="all done")
    field.check_nothing_left()


def test_many_deleted_devices_whose_commands_are_out_delay_no_other(field):
    field.lease(1)
    field.presence(lambda s: s < 1000)
    out, waits = field.submit(range(1000)), field.submit([1500])
    field.wait_routed(out), field.wait_routed(waits)
    field.sql("INSERT INTO device_cancel SELECT %s, s FROM generate_series(0, 1500) s", field.tenant)
    assert field.wait_closed(waits) == {CANCELED: 1}
    until(lambda: field.sql("SELECT count(*) FROM device_cancel") == [(1000,)], what="the others done")
    field.flush((out, {s: SUCCEEDED | 16 for s in range(1000)}))
    assert field.wait_closed(out) == {SUCCEEDED: 1000}
    until(lambda: not field.sql("SELECT FROM device_cancel"), what="all done")


def test_an_emptied_redis_is_filled_again(field):
    batch, done = field.submit(range(3000)), field.submit([1])
    field.wait_routed(batch), field.wait_routed(done)
    field.flush((batch, {s: SUCCEEDED | 16 for s in range(100)}), (batch, {100: SENT | 32}), (done, {1: FAILED | 16}))
    field.wait_closed(done)
    with field.redis.pipeline() as at_once:  # before the leader looks
        at_once.flushall()
        field.lease(1, by=at_once)
        field.presence(lambda s: 1 if s < 1000 else 0, by=at_once)
        at_once.execute()
    until(field.stack.filled, what="Redis filled")
    assert field.live_states(batch) == {SUCCEEDED: 100, ROUTED: 899, QUEUED: 2000, SENT: 1}
    assert field.redis.get(field.key(0, f"state:{batch}"))[4 + 100] == SENT | 32  # it may have been executed
    assert field.inbox(1) == ({batch: set(range(100, 1000))}, [])
    assert not field.redis.exists(f"batch:{done}")
    field.flush((batch, {s: SUCCEEDED | 16 for s in range(100, 3000)}))
    assert field.wait_closed(batch) == {SUCCEEDED: 3000}


def test_an_emptied_redis_is_filled_with_what_the_log_has_been_told_since(stack):
    """Workers tell it that something was sent where Redis has nothing any more."""
    stack.start(workers=0)
    field = Field(stack, 100)
    batch = field.submit(range(100))
    field.wait_routed(batch)
    with stack.postgres.connect(stack.database) as db:
        db.autocommit = False
        db.cursor().execute("LOCK TABLE ack_log IN ACCESS EXCLUSIVE MODE")
        field.redis.flushall()
        until(lambda: (field.redis.get("muster:generation") or b"").startswith(b"filling"), what="Redis being filled")
        field.flush((batch, {5: SENT | 16}), sql=lambda text, *args: db.cursor().execute(text, args))
    until(stack.filled, what="Redis filled")
    assert field.live_states(batch) == {QUEUED: 99, SENT: 1}


def test_what_was_sent_does_not_end_unsent_when_redis_was_filled_before_that_was_known(field):
    field.sql("INSERT INTO worker_lease VALUES (4000)")  # so long it is waited for those who may have to tell
    batch = field.submit(range(100), expires_in_ms=int(patient(4000)))
    field.wait_routed(batch)
    field.redis.flushall()
    until(field.stack.filled, what="Redis filled")
    field.flush((batch, {5: SENT | 16}))
    assert field.wait_closed(batch) == {EXPIRED: 99, TIMED_OUT: 1}


def test_nothing_is_ended_in_a_redis_that_was_emptied_before_the_batch_was_routed_there_again(field):
    """It knows of it what the leader knew then, not what was sent: first the leader asks whether it is the one that it filled."""
    leader, routed = field.stack.dispatchers[0], {QUEUED: 100}

    def expired():
        return leader.figures()["muster_dispatcher_expired_batches_total"]

    def attempt(span):
        before = expired()

        def is_routed(batch):
            return until(lambda: field.live_states(batch) == routed or span.over(), timeout=2 * span.seconds) and not span.over()
        batch, anew = field.submit(range(100), expires_in_ms=int(span.seconds * 1000)), False
        if is_routed(batch):
            field.hide_generation()
            field.redis.flushall()
            # Opened: what was behind it is routed anew.
            field.sql("INSERT INTO gate VALUES (%s, false, 1, '', 0, 1)", field.tenant)
            field.redis.publish("muster:events", "gates 0")
            anew = is_routed(batch)
        if anew:
            return batch, before
        field.hide_generation(False)
        field.sql("DELETE FROM gate")
        field.wait_closed(batch)
        until(field.stack.filled, what="Redis filled")
        raise Late("it expired before it was routed anew")
    batch, before = in_time(attempt, 1.5, told=True)
    until(lambda: expired() > before, what="expired")
    field.wait_asked_in_vain(2)
    assert field.live_states(batch) == routed
    field.flush((batch, {5: SENT | 16}))
    field.hide_generation(False)
    assert field.wait_closed(batch) == {EXPIRED: 99, TIMED_OUT: 1}


def test_a_leader_that_takes_over_ends_nothing_at_once(stack):
    """The one before may have filled Redis a moment ago, and workers not have told that one yet what they have sent."""
    stack.start(workers=0)
    field = Field(stack, 100)
    batch = field.submit(range(100))
    field.wait_routed(batch)
    field.redis.flushall()
    until(stack.filled, what="Redis filled")
    assert stack.dispatchers[0].stop() == 0
    field.sql("UPDATE batch SET expires_ms = %s WHERE id = %s", now_ms(), batch)
    field.hide_generation()
    stack.restart(stack.dispatchers[0]).wait_event("leader_loaded")
    with stack.postgres.connect(stack.database) as db:
        db.autocommit = False
        db.cursor().execute("LOCK TABLE ack_log IN ACCESS EXCLUSIVE MODE")  # so long its wait does not end
        field.hide_generation(False)
        field.wait_asked(3)
        assert field.live_states(batch) == {QUEUED: 100}
        field.redis.setrange(field.key(0, f"state:{batch}"), 4 + 5, bytes([SENT | 16]))
    assert field.wait_closed(batch) == {EXPIRED: 99, TIMED_OUT: 1}


def test_nothing_that_looks_unsent_ends_in_a_filled_redis_while_a_lease_of_any_worker_may_last(stack):
    """Somebody may be slow to notice that Redis was lost, or to get through to PostgreSQL, and have sent it."""
    stack.start(workers=0)
    field = Field(stack, 1000)
    batch, others = field.submit_beside_others()
    assert stack.dispatchers[0].stop() == 0
    field.sql("UPDATE batch SET expires_ms = %s WHERE id = %s", now_ms(), batch)
    field.redis.flushall()
    stack.restart(stack.dispatchers[0]).wait_event("redis_rebuilt")
    field.wait_beyond_a_second(others)
    assert field.live_states(batch) == {QUEUED: 100}
    field.flush((batch, {5: SENT | 16}))
    field.sql("DELETE FROM worker_lease")  # nobody can have sent anything when it is lost once more
    field.redis.flushall()
    assert field.wait_closed(batch) == {EXPIRED: 99, TIMED_OUT: 1}


def test_a_redis_emptied_with_nothing_open_does_not_know_who_may_still_send(stack):
    """Nobody is waited for where there never was a worker, else one whom nobody knows, for the longest lease of any."""
    stack.start(workers=0)
    redis = stack.redis.client()
    assert not redis.smembers("workers")
    for n, lease in enumerate(("20s", "40s", "30s")):
        stack.start_worker("--lease", lease).wait_event("worker_number")
        stack.workers.pop().kill()
        stack.dispatchers[0].stop()
        redis.flushall()
        stack.restart(stack.dispatchers[0])
        until(stack.filled, what="Redis filled")
        assert redis.smembers("workers") == {b"65535"}
        assert (10000, 20000, 20000)[n] < redis.pttl("worker:65535") <= (20000, 40000, 40000)[n]


def test_what_is_over_goes_from_a_redis_of_the_past(field):
    """As after a restart from an append-only file whose last second is lost: a closed batch and a settled block are there again."""
    field.lease(1)
    field.presence(lambda s: 1)
    over, half = field.submit(range(10)), field.submit(range(2000))
    field.wait_routed(over), field.wait_routed(half)
    keys = [f"batch:{over}", field.key(0, f"state:{over}"), field.key(0, "open"), field.key(0, f"state:{half}")]
    past = {k: field.redis.dump(k) for k in keys}
    field.flush((over, {s: SUCCEEDED | 16 for s in range(10)}), (half, {s: SUCCEEDED | 16 for s in range(BLOCK)}))
    field.wait_closed(over)
    until(lambda: not field.redis.exists(field.key(0, f"state:{over}")), what="closed in Redis")
    until(lambda: field.sql("SELECT 1 FROM batch_block WHERE batch_id = %s AND block = 0 AND states IS NOT NULL", half), what="settled")
    for key, value in past.items():
        field.redis.restore(key, 0, value, replace=True)
    field.redis.set("muster:generation", "of the Redis that was")
    until(lambda: not field.redis.exists(*keys), what="what is over has gone")
    assert field.live_states(half) == {ROUTED: 2000 - BLOCK}
    field.flush((half, {s: SUCCEEDED | 16 for s in range(BLOCK, 2000)}))
    assert field.wait_closed(half) == {SUCCEEDED: 2000}
    field.check_nothing_left()


def test_what_ends_while_a_redis_of_the_past_is_filled_goes_from_it(stack):
    """The last ones of a block: nothing of it is routed any more, and what stands there may be wrong for all that ended before."""
    stack.start(workers=0)
    field = Field(stack, 2000)
    batch = field.submit([1, 2, 1999])
    field.wait_routed(batch)
    with stack.postgres.connect(stack.database) as db:
        db.autocommit = False
        db.cursor().execute("LOCK TABLE ack_log IN ACCESS EXCLUSIVE MODE")
        field.redis.set("muster:generation", "of the Redis that was")
        until(lambda: (field.redis.get("muster:generation") or b"").startswith(b"filling"), what="Redis being filled")
        until(lambda: field.redis.info("commandstats").get("cmdstat_scan"), what="looked through")
        field.flush((batch, {s: SUCCEEDED | 16 for s in (1, 2)}), sql=lambda text, *args: db.cursor().execute(text, args))
    until(stack.filled, what="Redis filled")
    assert not field.redis.exists(field.key(0, f"state:{batch}"))
    assert field.live_states(batch) == {QUEUED: 1}


def test_batches_never_routed_need_no_redis(make_stack):
    stack = make_stack()
    stack.start(workers=0)
    field = Field(stack, 3000)
    stack.redis.kill()
    stack.dispatchers[0].wait_event("redis_lost")
    canceled, expired, waiting = field.submit(range(3000)), field.submit([1, 2], expires_in_ms=300), field.submit([3])
    field.cancel(canceled)
    assert field.wait_closed(canceled) == {CANCELED: 3000}
    assert field.wait_closed(expired) == {EXPIRED: 2}
    stack.redis.restart()
    field.wait_routed(waiting)
    assert field.live_states(waiting) == {QUEUED: 1}


def test_the_log_is_written_anew_when_little_of_it_is_alive(field):
    batch = field.submit([1, 2])
    field.flush((batch, {1: SUCCEEDED | 16}))
    at = now_ms()
    field.sql("INSERT INTO ack_log SELECT %s, n, %s, decode('00000000000100000100000001000000', 'hex') || '\\x0100000005'"
              " FROM generate_series(2, 14000) n", field.stream, at)
    field.n = 14000
    until(lambda: field.sql("SELECT count(*) FROM ack_log") == [(1,)], what="one row")
    (stream, row_at, entries), = field.sql("SELECT stream, at_ms, entries FROM ack_log")
    assert stream != field.stream and abs(row_at - at) < patient(5000)
    assert bytes(entries) == struct.pack("<QIIIB", batch, field.tenant, 1, 1, SUCCEEDED | 16)
    field.flush((batch, {2: FAILED | 16}))
    assert field.wait_closed(batch) == {SUCCEEDED: 1, FAILED: 1}
    field.check_nothing_left()


def test_a_leader_that_resigns_is_followed_at_once(stack):
    stack.dispatcher_flags += ["--leader-lease", "600s"]
    stack.start(dispatchers=2, workers=0)
    until(lambda: stack.sql("SELECT 1 FROM lease"), what="a leader")
    (holder, epoch), = stack.sql("SELECT holder, epoch FROM lease")
    leads = next(d for d in stack.dispatchers if d.events("leading"))
    follows = next(d for d in stack.dispatchers if d is not leads)
    assert leads.stop() == 0
    follows.wait_event("leading", timeout=10)
    (holder2, epoch2), = stack.sql("SELECT holder, epoch FROM lease")
    assert holder2 != holder and epoch2 > epoch


def test_a_leader_whose_lease_was_taken_writes_nothing_more(stack):
    stack.start(workers=0)
    field = Field(stack, 100)
    batch = field.submit(range(10))
    field.wait_routed(batch)
    field.sql("UPDATE lease SET holder = 'another', epoch = epoch + 1, expires_ms = %s", now_ms() + 3600000)
    field.flush((batch, {s: SUCCEEDED | 16 for s in range(10)}))
    lost = stack.dispatchers[0].wait_line(lambda l: "event=leader_starts_over" in l or "event=lease_lost" in l)
    assert "why=fenced" in lost or "reason=taken" in lost
    assert field.stored(batch) == {} and field.sql("SELECT count(*) FROM ack_log") == [(1,)]
    # The other one's lease runs out, and all is read again.
    field.sql("UPDATE lease SET expires_ms = 0")
    assert field.wait_closed(batch) == {SUCCEEDED: 10}


def test_leaders_killed_under_load_lose_nothing(stack):
    """Leaders end at any moment, once with Redis emptied; every outcome of the log is in the blocks in the end."""
    stack.start(dispatchers=2, workers=0)
    field = Field(stack, 5000)
    dice, truth, todo = random.Random(4), {}, []
    for kills in range(5):
        for _ in range(25):
            seqs = range(5000) if dice.random() < 0.1 else sorted(dice.sample(range(5000), dice.choice([1, 1, 2, 50, 2000])))
            batch = field.submit(seqs, priority=dice.choice([1, 2, 3]))
            truth[batch] = {s: dice.choice([SUCCEEDED, FAILED, REJECTED]) for s in seqs}
            todo += [(batch, s) for s in seqs]
        dice.shuffle(todo)
        for _ in range(40):
            part, todo = todo[:len(todo) // 60 + 1], todo[len(todo) // 60 + 1:]
            groups = {}
            for b, s in part:
                groups.setdefault(b, {})[s] = truth[b][s] | 16
            field.flush(*groups.items())
        (holder,), = field.sql("SELECT holder FROM lease WHERE name = 'leader'")
        leads = [d for d in stack.dispatchers if d.events("leading")]
        victim = max(leads, key=lambda d: int(d.events("leading")[-1]["epoch"]))
        victim.kill()
        if kills == 2:
            field.redis.flushall()
        stack.restart(victim)
        until(lambda: field.sql("SELECT 1 FROM lease WHERE holder <> %s AND expires_ms > 0", holder), what="another leader")
    while todo:
        part, todo = todo[:3000], todo[3000:]
        groups = {}
        for b, s in part:
            groups.setdefault(b, {})[s] = truth[b][s] | 16
        field.flush(*groups.items())
    for batch, want in truth.items():
        assert field.wait_closed(batch, 60) == dict(sorted(Counter(want.values()).items()))
        assert field.stored(batch) == want
    field.check_nothing_left()


def test_the_leaders_own_batches_need_no_hint(stack):
    """What another dispatcher accepts is announced, what the leader's does is not; both come to their end."""
    stack.start(dispatchers=2, workers=0)
    stack.start_worker("--answer-self")
    leads = next(d for d in stack.dispatchers if d.events("leading"))
    leads.wait_event("leader_loaded")
    tenant = stack.make_tenant()
    clients = {d is leads: stack.client(tenant, dispatcher=d) for d in stack.dispatchers}
    ids = [f"own-{i:04d}" for i in range(1100)]
    stack.import_devices(clients[True], ids)
    events = stack.redis.client().pubsub()
    events.subscribe("muster:events")
    until(lambda: events.get_message(timeout=1) is None, what="the subscription")
    batches = {True: [], False: []}
    for i in range(30):
        for own, client in clients.items():
            for target in (stack.pb.Target(devices=stack.pb.DeviceIds(ids=[ids[i]])), stack.pb.Target(all=True)):
                batches[own].append(stack.submit(client, target=target).batch.id)
    for own, client in clients.items():
        for batch in batches[own]:
            seen = stack.watch(client, batch)
            assert seen.progress.succeeded == seen.device_count
    accepted, closed = set(), set()
    while closed != set(batches[True] + batches[False]):
        message = events.get_message(timeout=patient(10))
        assert message, f"{len(closed)} batches were said to be closed"
        word, _, number = str(message["data"], "ascii").partition(" ")
        {"accepted": accepted, "closed": closed}.get(word, set()).add(int(number or 0))
    assert accepted and accepted <= set(batches[False])


@pytest.mark.parametrize("how", ["expired", "canceled"])
def test_what_the_log_has_told_since_redis_was_filled_a_new_leader_does_not_end_unsent(stack, how):
    stack.start(workers=0)
    field = Field(stack, 100)
    batch = field.submit(range(100))
    field.wait_routed(batch)
    field.redis.flushall()
    until(stack.filled, what="Redis filled")
    assert stack.dispatchers[0].stop() == 0
    field.flush((batch, {5: SENT | 16}))
    if how == "expired":
        field.sql("UPDATE batch SET expires_ms = %s WHERE id = %s", now_ms(), batch)
    else:
        field.cancel(batch)
    stack.restart(stack.dispatchers[0])
    if how == "expired":
        assert field.wait_closed(batch) == {EXPIRED: 99, TIMED_OUT: 1}
    else:
        until(lambda: field.sql("SELECT 1 FROM batch WHERE id = %s AND canceled_ms IS NOT NULL", batch), what="canceled")
        assert field.live_states(batch) == {CANCELED: 99, SENT: 1}


def test_a_leader_that_takes_over_knows_how_long_somebody_may_still_have_to_tell(stack):
    stack.start(workers=0)
    field = Field(stack, 1000)
    batch, others = field.submit_beside_others()
    field.redis.flushall()
    until(stack.filled, what="Redis filled")
    assert stack.dispatchers[0].stop() == 0
    field.sql("UPDATE batch SET expires_ms = %s WHERE id = %s", now_ms(), batch)
    stack.restart(stack.dispatchers[0]).wait_event("leader_loaded")
    field.wait_asked(1)
    field.wait_beyond_a_second(others)
    assert field.live_states(batch) == {QUEUED: 100}
