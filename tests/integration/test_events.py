"""Events: each told once to who reads on from what it has seen, in the order of their numbers, with what happened."""
import concurrent.futures
import contextlib
import json
import os
import subprocess
import threading
import time

import grpc
import pytest
from harness.daemons import cli, program
from harness.faketime import LIBRARY, needs_faketime
from harness.until import until

APPROVER = 4


class Tenant:
    def __init__(self, api, devices=3):
        self.api, self.pb = api, api.pb
        self.tenant = api.make_tenant()
        self.client = api.client(self.tenant)
        self.ids = [f"e-{i}" for i in range(devices)]
        api.import_devices(self.client, self.ids, platforms=(1, 5))

    @contextlib.contextmanager
    def watch(self, client=None, **fields):
        """An iterator over what is told."""
        call = (client or self.client).events.WatchEvents(self.pb.WatchEventsRequest(**fields), timeout=120)
        try:
            yield call
        finally:
            call.cancel()

    def read(self, count, **fields):
        """The first `count` events from the beginning, or a token, on."""
        if "resume_token" not in fields:
            fields["from_beginning"] = True
        with self.watch(**fields) as call:
            out = []
            for m in call:
                if m.HasField("event"):
                    out.append(m)
                if len(out) == count:
                    return out

    def until_kind(self, kind, batch, **fields):
        """The batch's events up to the first of the kind."""
        with self.watch(from_beginning=True, batch_id=batch, **fields) as call:
            out = []
            for m in call:
                if m.HasField("event"):
                    out.append(m.event)
                    if m.event.kind == kind:
                        return out

    def connect(self, outcome=None):
        pb = self.pb
        tokens = self.api.tokens(self.client, self.ids)
        devices = [self.api.device(d, tokens[d], answer=lambda m, i=i: pb.Acknowledgement(
            command_id=m.command_id, outcome=outcome(i) if outcome else pb.OUTCOME_SUCCEEDED)) for i, d in enumerate(self.ids)]
        for d in devices:
            d.connect(self.api.workers[0].address)
        return devices


def names(pb, events):
    return [pb.EventKind.Name(e.kind).removeprefix("EVENT_KIND_") for e in events]


def test_a_batch_from_acceptance_to_completion(api):
    t, pb = Tenant(api), api.pb
    with t.watch() as call:
        first = next(call)
        assert not first.HasField("event") and first.resume_token == "0"
        batch = api.submit(t.client).batch
        accepted = next(call)
        e = accepted.event
        assert (e.id, e.kind, e.batch_id, e.device_count) == (1, pb.EVENT_KIND_BATCH_ACCEPTED, batch.id, 3)
        assert e.at.ToMilliseconds() == batch.created_at.ToMilliseconds()
        devices = t.connect(lambda i: pb.OUTCOME_FAILED if i == 1 else pb.OUTCOME_SUCCEEDED)
        done = next(call).event
    assert (done.id, done.kind, done.batch_id, done.device_count) == (2, pb.EVENT_KIND_BATCH_COMPLETED, batch.id, 3)
    assert (done.progress.succeeded, done.progress.failed) == (2, 1)
    one = api.submit(t.client, target=pb.Target(devices=pb.DeviceIds(ids=t.ids[:1]))).batch
    assert names(pb, t.until_kind(pb.EVENT_KIND_BATCH_COMPLETED, one.id)) == ["BATCH_ACCEPTED", "BATCH_COMPLETED"]
    assert [m.event.id for m in t.read(3, resume_token=accepted.resume_token)] == [2, 3, 4]
    for d in devices:
        d.close()


def test_steering_thresholds_and_waves(api):
    t, pb = Tenant(api, 6), api.pb
    batch = api.submit(t.client, steering=pb.Steering(
        waves=[pb.Wave(devices=2), pb.Wave(by_hand=True)],
        thresholds=[pb.Threshold(percent=50, minimum=2, action=pb.THRESHOLD_ACTION_PAUSE)])).batch.id
    devices = t.connect(lambda i: pb.OUTCOME_FAILED if i < 2 else pb.OUTCOME_SUCCEEDED)
    paused = t.until_kind(pb.EVENT_KIND_BATCH_PAUSED, batch)
    assert names(pb, paused) == ["BATCH_ACCEPTED", "THRESHOLD_HIT", "BATCH_PAUSED"] and paused[1].reason
    t.client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch, reason='it is "fine"'))
    t.client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
    done = t.until_kind(pb.EVENT_KIND_BATCH_COMPLETED, batch)
    assert names(pb, done[3:]) == ["BATCH_RESUMED", "WAVE_RELEASED", "BATCH_COMPLETED"]
    assert done[3].reason == 'it is "fine"' and done[4].wave == 2
    assert (done[5].progress.failed, done[5].progress.succeeded) == (2, 4)
    for d in devices:
        d.close()
    t = Tenant(api, 6)
    batch = api.submit(t.client, steering=pb.Steering(
        waves=[pb.Wave(devices=4), pb.Wave(by_hand=True)],
        thresholds=[pb.Threshold(percent=50, minimum=2, action=pb.THRESHOLD_ACTION_ABORT, per_platform=True)])).batch.id
    devices = t.connect(lambda i: pb.OUTCOME_FAILED if i % 2 else pb.OUTCOME_SUCCEEDED)
    hit = t.until_kind(pb.EVENT_KIND_THRESHOLD_HIT, batch)
    assert names(pb, hit) == ["BATCH_ACCEPTED", "THRESHOLD_HIT"]
    assert hit[1].reason == f"threshold 50 % of {pb.Platform.Name(5)}: 2 of 2 went wrong"
    t.client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    for d in devices:
        d.close()
    stopped = api.submit(t.client).batch.id
    t.client.control.PauseBatch(pb.PauseBatchRequest(batch_id=stopped, reason="wait"))
    t.client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=stopped))
    end = t.until_kind(pb.EVENT_KIND_BATCH_COMPLETED, stopped)
    assert names(pb, end) == ["BATCH_ACCEPTED", "BATCH_PAUSED", "BATCH_CANCELED", "BATCH_COMPLETED"]
    assert end[1].reason == "wait" and end[3].progress.canceled == 6
    t.client.control.Hold(pb.HoldRequest(reason="stop"))
    t.client.control.Release(pb.ReleaseRequest())
    with t.watch(from_beginning=True, kinds=[pb.EVENT_KIND_TENANT_HELD, pb.EVENT_KIND_TENANT_RELEASED]) as call:
        told = [m.event for _, m in zip(range(2), (m for m in call if m.HasField("event")))]
    assert names(pb, told) == ["TENANT_HELD", "TENANT_RELEASED"] and told[0].reason == "stop"


def test_approvals(api):
    t, pb = Tenant(api), api.pb
    approver = api.client(api.make_key(t.tenant.number, APPROVER))

    def policy(approval_ms):
        p = pb.GuardPolicy(enabled=True, commands=["wipe"], devices_per_hour=0, percent_per_hour=100)
        p.approval_lifetime.FromMilliseconds(approval_ms)
        t.client.admin.SetGuardPolicy(pb.SetGuardPolicyRequest(tenant=t.tenant.name, policy=p))

    def wipe():
        return api.submit(t.client, command=pb.Command(wipe=pb.WipeCommand())).batch

    policy(60000)
    b = until(lambda: (lambda w: w if w.HasField("approval") else None)(wipe()))
    approver.commands.ApproveBatch(pb.ApproveBatchRequest(
        batch_id=b.id, target_digest=b.approval.target_digest, command_hash=b.approval.command_hash, reason="ticket"))
    events = t.until_kind(pb.EVENT_KIND_BATCH_RELEASED, b.id)
    assert names(pb, events) == ["BATCH_ACCEPTED", "APPROVAL_NEEDED", "BATCH_APPROVED", "BATCH_RELEASED"]
    assert events[1].device_count == 3 and events[2].reason == "ticket"
    b = wipe()
    approver.commands.RejectBatch(pb.RejectBatchRequest(batch_id=b.id, reason="no"))
    events = t.until_kind(pb.EVENT_KIND_BATCH_COMPLETED, b.id)
    assert names(pb, events) == ["BATCH_ACCEPTED", "APPROVAL_NEEDED", "BATCH_REJECTED", "BATCH_CANCELED", "BATCH_COMPLETED"]
    policy(1000)
    b = wipe()
    events = t.until_kind(pb.EVENT_KIND_BATCH_COMPLETED, b.id)
    assert names(pb, events) == ["BATCH_ACCEPTED", "APPROVAL_NEEDED", "APPROVAL_EXPIRED", "BATCH_CANCELED", "BATCH_COMPLETED"]


def test_whoever_resumes_skips_nothing(api):
    """Many write at once, one of them slowly; a reader that begins anew after each part has seen each number once."""
    t, pb = Tenant(api, 1), api.pb
    slow = api.postgres.connect(api.database)
    slow.autocommit = False
    slow.cursor().execute("SELECT event_add(%s, 15, 0, 1, '{\"reason\":\"slow\"}')", (t.tenant.number,))
    total, stop = 300, threading.Event()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = [pool.submit(api.submit, t.client, target=pb.Target(devices=pb.DeviceIds(ids=t.ids))) for _ in range(total)]
        seen, token = [], None
        while len(seen) < total + 1:
            fields = {"resume_token": token} if token else {}
            part = t.read(min(29, total + 1 - len(seen)), **fields)
            seen += [m.event for m in part]
            token = part[-1].resume_token
            if len(seen) > 100 and not stop.is_set():
                stop.set()
                slow.commit()  # behind many that began later
                slow.close()
        batches = {f.result().batch.id for f in made}
    assert [e.id for e in seen] == list(range(1, total + 2))
    assert {e.batch_id for e in seen if e.kind == pb.EVENT_KIND_BATCH_ACCEPTED} == batches
    late = [e for e in seen if e.reason == "slow"]
    assert len(late) == 1 and late[0].id > 100


def test_only_ones_own_and_what_is_asked_for(api):
    t, other, pb = Tenant(api), Tenant(api), api.pb
    a, b = api.submit(t.client).batch.id, api.submit(t.client).batch.id
    api.submit(other.client)
    assert [m.event.batch_id for m in t.read(2)] == [a, b]
    assert [m.event.batch_id for m in t.read(1, batch_id=b)] == [b]
    t.client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=a))
    assert names(pb, [m.event for m in t.read(1, kinds=[pb.EVENT_KIND_BATCH_CANCELED])]) == ["BATCH_CANCELED"]
    for fields, field in (({"resume_token": "x"}, "resume_token"), ({"resume_token": "999999"}, "resume_token"),
                          ({"kinds": [77]}, "kinds[0]"), ({"batch_id": -1}, "batch_id"),
                          ({"resume_token": "1", "from_beginning": True}, "from_beginning")):
        with pytest.raises(grpc.RpcError) as e, t.watch(**fields) as call:
            next(call)
        assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert field in api.stubs.details(e.value)[1]


def test_a_token_is_of_its_tenant_and_of_what_has_happened(api):
    t, other, pb = Tenant(api), Tenant(api), api.pb
    for tenant in (t, t, other, other):
        api.submit(tenant.client)
    mine, theirs = t.read(2), other.read(2)
    assert [m.event.id for m in t.read(1, resume_token=mine[0].resume_token)] == [2]
    assert [m.event.id for m in t.read(1, resume_token="1")] == [2]  # of before

    def gone(tenant, token):
        with pytest.raises(grpc.RpcError) as e, tenant.watch(resume_token=token) as call:
            next(call)
        assert api.stubs.details(e.value)[0] == "EVENTS_GONE"
    gone(t, theirs[0].resume_token)
    # The database is as it was after the first event, then something else happens.
    api.sql("WITH h AS (UPDATE event_head SET last = 1 WHERE tenant_id = %s) DELETE FROM event_log WHERE tenant_id = %s AND last > 1"
            " RETURNING 1", t.tenant.number, t.tenant.number)
    api.submit(t.client)
    until(lambda: api.sql("SELECT last FROM event_head WHERE tenant_id = %s", t.tenant.number) == [(2,)])
    gone(t, mine[1].resume_token)
    assert [m.event.id for m in t.read(1, resume_token=mine[0].resume_token)] == [2]
    with t.watch() as call:  # what is told at the beginning is one, too
        token = next(call).resume_token
    assert token.startswith("2-") and token != mine[1].resume_token
    api.submit(t.client)
    assert t.read(1, resume_token=token)[0].event.id == 3
    for bad in ("1-", "1-0", "1-0000000g", "-1", "1-000000000", "0x1"):
        with pytest.raises(grpc.RpcError) as e, t.watch(resume_token=bad) as call:
            next(call)
        assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_slow_readers_miss_nothing_and_old_events_go(api):
    t, pb = Tenant(api), api.pb
    text = "x" * 200
    api.sql("INSERT INTO ledger_inbox (event_tenants, events) SELECT array_agg(%s::integer), array_agg('15,0,1,{\"reason\":\"' || i"
            " || '" + text + "\"}') FROM generate_series(1, 20000) i", t.tenant.number)
    until(lambda: api.sql("SELECT last FROM event_head WHERE tenant_id = %s", t.tenant.number) == [(20000,)])
    with t.watch(from_beginning=True) as call:
        first = [next(call) for _ in range(3)]
        assert first[2].event.id == 2
        rest = [m.event.id for _, m in zip(range(19998), call)]  # the reader had stopped for a while
    assert rest == list(range(3, 20001))
    api.sql("DELETE FROM event_log WHERE tenant_id = %s AND last < 10000", t.tenant.number)
    with pytest.raises(grpc.RpcError) as e, t.watch(resume_token="17") as call:
        next(call)
    assert api.stubs.details(e.value)[0] == "EVENTS_GONE"
    assert t.read(1)[0].event.id > 9000


def test_who_is_slower_than_events_are_kept_is_told(api):
    t, pb = Tenant(api), api.pb
    api.sql("INSERT INTO ledger_inbox (event_tenants, events) SELECT array_agg(%s::integer), array_agg('15,0,1,{\"reason\":\"' || i"
            " || '" + "x" * 200 + "\"}') FROM generate_series(1, 100000) i", t.tenant.number)
    until(lambda: api.sql("SELECT last FROM event_head WHERE tenant_id = %s", t.tenant.number) == [(100000,)])
    told = []
    with pytest.raises(grpc.RpcError) as e, t.watch(from_beginning=True) as call:
        told += [next(call).event.id for _ in range(3)]
        api.sql("DELETE FROM event_log WHERE tenant_id = %s AND last < 99000 RETURNING 1", t.tenant.number)
        for m in call:
            told.append(m.event.id)
            if told[-1] == 100000:
                break
    assert api.stubs.details(e.value)[0] == "EVENTS_GONE"
    assert told == list(range(len(told))) and len(told) < 98000


def test_old_events_are_forgotten_and_another_leader_goes_on(stack):
    stack.dispatcher_flags += ["--event-retention", "1s"]
    stack.start(dispatchers=2, workers=0)
    t = Tenant(stack)
    number = t.tenant.number
    first = stack.submit(t.client).batch.id
    until(lambda: stack.sql("SELECT last FROM event_head WHERE tenant_id = %s", number) == [(1,)])
    until(lambda: stack.sql("SELECT count(*) FROM event_log") == [(0,)])
    leader = next(d for d in stack.dispatchers if any("leading" in line for line in d.lines))
    left = next(d for d in stack.dispatchers if d is not leader)
    client = stack.client(t.tenant, dispatcher=left)
    with t.watch(client) as call:
        assert next(call).resume_token.startswith("1")
        leader.kill()
        second = stack.submit(client).batch.id
        assert next(call).event.batch_id == second > first


def test_command_line(api):
    t = Tenant(api)
    batch = api.submit(t.client).batch.id
    env = api.cli_env(t.tenant)
    shown = cli("events", "watch", "--from-beginning", "--count", 1, env=env, check=0).stdout
    assert "BATCH_ACCEPTED" in shown and f"batch {batch}, 3 devices" in shown
    line = json.loads(cli("events", "watch", "--from-beginning", "--count", 1, "--json", env=env, check=0).stdout)
    assert line["event"]["kind"] == "EVENT_KIND_BATCH_ACCEPTED" and line["resumeToken"].startswith("1-")
    later = api.submit(t.client).batch.id
    assert f"batch {later}" in cli("events", "watch", "--token", "1", "--count", 1, "--kind", "batch-accepted", env=env, check=0).stdout
    cli("events", "watch", "--kind", "nothing", env=env, check=2)
    assert cli("events", "watch", "--token", "12345", env=env).returncode == 3


@needs_faketime
def test_the_command_line_goes_on_after_a_quiet_time(stack):
    """Its minute of trying again begins when the dispatcher is lost, however long ago it has told anything."""
    stack.start(dispatchers=1, workers=0)
    t = Tenant(stack)
    dispatcher = stack.dispatchers[0]
    # A minute of its own is ten seconds.
    env = dict(os.environ, **stack.cli_env(t.tenant), LD_PRELOAD=LIBRARY[0], FAKETIME="+0 x6")
    watching = subprocess.Popen([program("muster"), "events", "watch", "--count", "1"], env=env, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(11)
        assert watching.poll() is None
        dispatcher.stop()
        stack.restart(dispatcher)
        batch = stack.submit(stack.client(t.tenant)).batch.id
        assert f"batch {batch}" in watching.communicate(timeout=30)[0] and watching.returncode == 0
    finally:
        watching.kill()
        watching.wait()
