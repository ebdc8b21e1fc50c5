"""muster verify: what differs between PostgreSQL, Redis and the workers is named and repaired, what is in transit is not."""
import contextlib
import json
import signal
import struct
import threading
import time

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from harness.stack import OPERATOR, have
from harness.until import until
from test_recovery import Load

pytestmark = pytest.mark.skipif(not have("muster", "muster-dispatcher", "muster-worker", "muster-fleet"),
                                reason="not all is built")

QUEUED, ROUTED, SENT, SUCCEEDED, FAILED = range(2, 7)
DEVICES = 8
NOBODY = 4242


class Verify:
    """Runs it on a stack; what it said."""

    def __init__(self, cli, stack, tenant, dispatcher=None):
        self.cli, self.env = cli, stack.cli_env(tenant, dispatcher)

    def __call__(self, *flags, check=0):
        done = self.cli("verify", "--json", *flags, env=self.env, check=check)
        said = [json.loads(line) for line in done.stdout.splitlines()]
        self.summary = said.pop()["summary"]
        return {f["difference"].removeprefix("DIFFERENCE_").lower(): f for f in (s["finding"] for s in said)}


class Injured:
    """Redis of a tenant's first block, to be spoilt by hand."""

    def __init__(self, stack, tenant):
        self.stack, self.tenant, self.redis = stack, tenant.number, stack.redis.client()
        (self.stream,), = stack.sql("INSERT INTO ack_stream (worker, created_ms) VALUES ('by hand', 0) RETURNING id")
        self.n = 0

    def key(self, what):
        return f"{{t{self.tenant}.b0}}:{what}"

    def byte(self, batch, seq, state):
        self.redis.setrange(self.key(f"state:{batch}"), 4 + seq, bytes([state]))

    def presence(self, seq, worker=None):
        if worker is not None:
            self.redis.setrange(self.key("presence"), 2 * seq, struct.pack("<H", worker))
        return struct.unpack("<H", self.redis.getrange(self.key("presence"), 2 * seq, 2 * seq + 1) or b"\0\0")[0]

    def log(self, batch, seq, state):
        """PostgreSQL alone learns of an outcome."""
        self.n += 1
        entry = struct.pack("<QII", batch, self.tenant, 1) + struct.pack("<IB", seq, state | 1 << 4)
        self.stack.sql("INSERT INTO ack_log VALUES (%s, %s, %s, %s)", self.stream, self.n, int(time.time() * 1000), entry)


@contextlib.contextmanager
def again_and_again(spoil):
    """What mends itself within a second is spoilt all the while."""
    over = threading.Event()

    def work():
        while not over.wait(0.01):
            spoil()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def acks(stack):
    return lambda d: stack.pb.Acknowledgement(command_id=d.command_id, outcome=1)


def test_each_injury_is_named_and_repaired(stack, cli):
    stack.start(workers=2)
    stack.start_worker("--lease", "60s")  # it will be stopped, and is not to be called dead
    tenant = stack.make_tenant()
    client = stack.client(tenant)
    tokens = stack.make_devices(client, DEVICES)
    ids = list(tokens)
    silent = [stack.device(d, tokens[d]).connect(stack.workers[0].address) for d in ids[:2]]
    idle = stack.device(ids[2], tokens[ids[2]]).connect(stack.workers[0].address)
    number, unlisted, stopped = (int(w.ready["worker"]) for w in stack.workers)
    hand = Injured(stack, tenant)
    until(lambda: [hand.presence(s) for s in range(3)] == [number] * 3)
    hand.presence(2, 0)
    batches = [stack.submit(client).batch.id for _ in range(9)]
    until(lambda: not stack.sql("SELECT 1 FROM batch WHERE routed_ms IS NULL"))
    verify = Verify(cli, stack, tenant)
    assert set(verify(check=1)) == {"session_without_presence"}  # of the idle one, so far

    spec, states, listed, wrong, impossible, behind, ahead, differ, hint = batches
    redis = hand.redis
    redis.delete(f"batch:{spec}")
    redis.delete(hand.key(f"state:{states}"))
    redis.zrem(hand.key("open"), struct.pack("<HH", 0, DEVICES) + b"%d" % listed)
    hand.byte(wrong, 5, 0)
    hand.byte(impossible, 5, 15)
    hand.log(behind, 5, SUCCEEDED)
    hand.byte(ahead, 6, SUCCEEDED | 1 << 4)
    hand.log(differ, 5, FAILED)
    hand.byte(differ, 5, SUCCEEDED | 1 << 4)
    hand.presence(2, number)
    hand.byte(hint, 2, ROUTED)
    redis.set(hand.key("state:999999"), b"\1\0\0\0\2")
    redis.zadd(hand.key("open"), {struct.pack("<HH", 0, 1) + b"999998": 2 ** 48 + 999998})
    redis.set("batch:999997", b"spec")
    hand.presence(7, NOBODY)
    hand.presence(6, number)
    hand.presence(1, 0)
    redis.rpush(f"{{w{NOBODY + 1}}}:inbox:normal", b"a hint")
    stack.workers[2].signal(signal.SIGSTOP)
    with again_and_again(lambda: redis.srem("workers", unlisted)):
        found = verify(check=1)
    stack.workers[2].signal(signal.SIGCONT)
    until(lambda: redis.sismember("workers", unlisted), what="listed with its next renewal")
    assert set(found) == {
        "spec_missing", "states_missing", "not_listed", "wrong_devices", "impossible_state", "redis_behind", "redis_ahead",
        "outcomes_differ", "not_in_hands", "states_left", "listed_left", "spec_left", "presence_of_nobody",
        "presence_without_session", "session_without_presence", "inbox_of_nobody", "worker_not_listed", "worker_silent"}
    assert verify.summary["found"] == verify.summary["left"] == 18
    behind_found, nobody = found["redis_behind"], found["presence_of_nobody"]
    assert (behind_found["tenant"], behind_found["batchId"], behind_found["count"]) == (tenant.name, str(behind), 1)
    assert (behind_found["postgres"], behind_found["redis"]) == ("SUCCEEDED", "QUEUED")
    assert (nobody["worker"], nobody["count"], nobody["redis"]) == (NOBODY, 1, f"worker {NOBODY}")
    assert found["states_missing"]["batchId"] == str(states) and found["states_missing"]["count"] == DEVICES
    assert found["worker_silent"]["worker"] == stopped and found["worker_not_listed"]["worker"] == unlisted
    assert found["session_without_presence"]["worker"] == number

    repaired = verify("--repair")
    assert verify.summary["found"] == 16 and "left" not in verify.summary
    assert repaired["redis_behind"]["repair"] == "routed again" and "worker_silent" not in repaired
    assert not verify()
    assert idle.next().command_id.startswith(f"00000000-{batches[0]:04x}-")  # its hint came again
    for device in [*silent, idle]:
        device.close()
    answering = [stack.device(d, tokens[d], answer=acks(stack)).connect(stack.workers[1].address) for d in ids]
    for batch in batches:
        closed = stack.watch(client, batch)
        assert closed.progress.succeeded + closed.progress.failed == DEVICES
    for device in answering:
        device.close()
    assert not verify()
    assert not [k for k in redis.scan_iter("*") if b":state:" in k or k.startswith(b"batch:")]


def test_what_is_put_right_by_itself_is_not_named(stack, cli):
    """Also when that takes longer than from one look to the next, as when a process has stood still."""
    stack.start()
    tenant = stack.make_tenant()
    stack.make_devices(stack.client(tenant), 2)
    hand, verify = Injured(stack, tenant), Verify(cli, stack, tenant)
    hand.presence(1, NOBODY)
    mended = threading.Timer(3, hand.presence, (1, 0))
    mended.start()
    assert not verify() and "found" not in verify.summary
    mended.join()
    hand.presence(1, NOBODY)
    assert set(verify(check=1)) == {"presence_of_nobody"}


def test_without_a_leader_what_only_it_repairs_is_named(stack, cli):
    stack.start()
    tenant = stack.make_tenant()
    redis = stack.redis.client()
    stack.sql("UPDATE lease SET holder = 'another', epoch = epoch + 1, expires_ms = %s", int(time.time() * 1000) + 3600000)
    leader = stack.dispatchers[0]  # hears of it with a renewal or with a write, whichever is first
    until(lambda: leader.events("lease_lost") or leader.events("leader_starts_over"))
    redis.set("muster:generation", "of another Redis")
    redis.sadd("workers", NOBODY)
    verify = Verify(cli, stack, tenant)
    assert set(verify(check=1)) == {"generation", "worker_not_reaped"}
    stack.sql("UPDATE lease SET expires_ms = 0")
    until(lambda: not redis.sismember("workers", NOBODY))
    assert not verify("--repair")


def test_one_tenant_and_who_may(stack, cli):
    stack.start()
    first, second = stack.make_tenant(), stack.make_tenant()
    for tenant in (first, second):
        stack.make_devices(stack.client(tenant), 2)
    for tenant in (first, second):
        Injured(stack, tenant).presence(1, NOBODY)
    verify = Verify(cli, stack, first)
    only = verify("--tenant", second.name, check=1)
    assert only["presence_of_nobody"]["tenant"] == second.name and verify.summary["found"] == 1
    assert not verify("--repair") or verify.summary["found"] == 2
    verify.env = stack.cli_env(stack.make_key(first.number, OPERATOR))
    refused = cli("verify", env=verify.env, check=3)
    assert "PERMISSION_DENIED" in refused.stderr
    assert "TENANT_NOT_FOUND" in cli("verify", "--tenant", "none", env=stack.cli_env(first), check=3).stderr


def test_what_is_held_does_not_differ_and_stays_held(stack, cli):
    """Paused, not due yet, of a tenant that is held: nothing is told, and filling Redis again keeps it so."""
    pb = stack.pb
    stack.start()
    tenant, held = stack.make_tenant(), stack.make_tenant()
    client = stack.client(tenant)
    (device_id, token), = stack.make_devices(client, 1).items()
    stack.make_devices(stack.client(held), 1)
    paused = stack.submit(client).batch.id
    client.control.PauseBatch(pb.PauseBatchRequest(batch_id=paused))
    later = Timestamp(seconds=int(time.time()) + 3600)
    stack.submit(client, steering=pb.Steering(not_before=later))
    client.control.Hold(pb.HoldRequest(tenant=held.name))
    stack.submit(stack.client(held))
    verify = Verify(cli, stack, tenant)
    with stack.device(device_id, token).connect(stack.workers[0].address) as device:
        hand = Injured(stack, tenant)
        until(lambda: hand.presence(0))
        assert not verify()
        hand.byte(paused, 0, 15)
        assert set(verify("--repair")) == {"impossible_state"}
        assert not verify()
        hand.redis.flushall()
        until(lambda: stack.filled() and hand.presence(0))
        assert not verify()
        assert device.deliveries.empty()
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=paused))
        assert device.next().command_id.startswith(f"00000000-{paused:04x}-")


def test_nothing_is_told_of_a_healthy_stack_under_load(make_stack, cli):
    load = Load(make_stack)
    verify = Verify(cli, load.stack, load.tenant)
    load.start()
    looks = 0
    while load.thread.is_alive() or looks < 3:
        assert not verify()
        looks += 1
    load.check()
    assert not verify()


def test_all_agree_after_chaos(make_stack, cli):
    load = Load(make_stack)
    load.start()
    leader = load.leader()
    load.stack.workers[1].kill()
    load.stack.redis.client().flushall()
    leader.kill()
    at = 1 - load.stack.dispatchers.index(leader)
    load.check(dispatcher=at)
    redis = load.stack.redis.client()
    until(lambda: redis.scard("workers") == 1)
    # Nobody's lease, as who was slow to look at it leaves it when it was forgotten meanwhile.
    redis.set("worker:65535", b"")
    verify = Verify(cli, load.stack, load.tenant, load.stack.dispatchers[at])
    assert not verify()
    assert verify.summary["workers"] == 1
