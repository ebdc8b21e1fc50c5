"""Stopping: pause and resume, cancel for some devices, a tenant held, everything held. Each with real daemons and devices."""
import json
import signal
import threading
import time

import grpc
import pytest
from harness.answers import progress, refused
from harness.device import good
from harness.in_time import in_time
from harness.oracle import check
from harness.patience import fewer, lasting, patient
from harness.until import until


@pytest.fixture
def client(api):
    return api.client(api.make_tenant())


@pytest.fixture
def admin(api):
    """A client that may hold everything, and leaves nothing held."""
    c = api.client(api.make_tenant(role=1))
    yield c
    for h in c.control.ListHolds(api.pb.ListHoldsRequest()).holds:
        scope = {"tenant": h.tenant} if h.tenant else {"all": True}
        c.control.Release(api.pb.ReleaseRequest(**scope))


def settled(stack, client, batch, state):
    """Waits until the batch's control is in this state; the batch."""
    return stack.watch(client, batch, until=lambda b: b.control.state == state)


# --- pause, resume ----------------------------------------------------------------------------------------------------

def test_paused_is_not_sent_and_resumed_is(api, client):
    pb = api.pb
    tokens = api.register(client, "silent", "late", "never")
    with api.device("silent", tokens["silent"]) as silent:
        silent.connect(api.workers[0].address)
        first = api.submit(client).batch.id
        delivery = silent.next()
        answer = client.control.PauseBatch(pb.PauseBatchRequest(batch_id=first, reason="a closer look")).batch
        assert answer.control.state in (pb.CONTROL_STATE_PAUSING, pb.CONTROL_STATE_PAUSED)
        paused = settled(api, client, first, pb.CONTROL_STATE_PAUSED)
        assert paused.control.reason == "a closer look" and paused.control.HasField("since")
        assert progress(client.commands.GetBatch(pb.GetBatchRequest(batch_id=first)).batch) == {"sent": 1, "held": 2}
        with api.device("late", tokens["late"], answer=good(pb)) as late:
            late.connect(api.workers[0].address)
            # What comes after it, with the same priority, is not kept back by it.
            second = api.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=["late"]))).batch.id
            api.watch(client, second)
            assert late.deliveries.qsize() == 1
            # What was sent goes to its own end.
            silent.wait_published(silent.ack(delivery))
            assert progress(api.watch(client, first, until=lambda b: b.progress.succeeded)) == {"succeeded": 1, "held": 2}
            again = client.control.PauseBatch(pb.PauseBatchRequest(batch_id=first, reason="other")).batch
            assert again.control.reason == "a closer look"  # as it was
            client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=first, reason="fine"))
            seen = api.watch(client, first, until=lambda b: b.progress.succeeded == 2)
            assert progress(seen) == {"succeeded": 2, "queued": 1}
            assert settled(api, client, first, pb.CONTROL_STATE_RUNNING).control.reason == "fine"
    actions = [r[0] for r in api.sql("SELECT action FROM audit WHERE detail = %s ORDER BY id", str(first))]
    assert actions == ["submit_batch", "pause_batch", "resume_batch"]


def test_paused_in_the_workers_hands(api, client):
    """One command in flight: what waits behind it in the session is taken back too."""
    pb = api.pb
    tokens = api.register(client, "busy")
    with api.device("busy", tokens["busy"]) as busy:
        busy.connect(api.workers[0].address)
        first, second, third = [api.submit(client).batch.id for _ in range(3)]
        delivery = busy.next()
        client.control.PauseBatch(pb.PauseBatchRequest(batch_id=second))
        settled(api, client, second, pb.CONTROL_STATE_PAUSED)
        assert progress(client.commands.GetBatch(pb.GetBatchRequest(batch_id=second)).batch) == {"held": 1}
        busy.ack(delivery)
        assert int(busy.next().command_id[:13].replace("-", ""), 16) == third
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=second))
        settled(api, client, second, pb.CONTROL_STATE_RUNNING)
    assert first < second


def test_pause_and_resume_and_pause_again(api, client):
    pb = api.pb
    tokens = api.register(client, "a")
    batch = api.submit(client).batch.id
    for _ in range(5):
        client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
    settled(api, client, batch, pb.CONTROL_STATE_RUNNING)
    client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
    settled(api, client, batch, pb.CONTROL_STATE_PAUSED)
    with api.device("a", tokens["a"], answer=good(pb)) as a:
        a.connect(api.workers[0].address)
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"succeeded": 1}
        assert a.deliveries.qsize() == 1


def test_cancel_of_a_paused_batch(api, client):
    pb = api.pb
    api.register(client, "a", "b")
    batch = api.submit(client).batch.id
    client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    assert progress(api.watch(client, batch)) == {"canceled": 2}
    for call in (lambda: client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch)),
                 lambda: client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch)),
                 lambda: client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch, target=pb.Target(all=True)))):
        refused(api, grpc.StatusCode.FAILED_PRECONDITION, "BATCH_ENDING", call)
    until(lambda: not api.sql("SELECT 1 FROM batch_control WHERE request > handled"), what="nothing is left asked for")


def test_a_paused_batch_expires(api, client):
    pb = api.pb
    api.register(client, "a")

    def attempt(span):
        at = pb.SubmitBatchRequest().expires_at
        at.FromMilliseconds(int((time.time() + span.seconds) * 1000))
        batch = api.submit(client, expires_at=at).batch.id
        client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
        settled(api, client, batch, pb.CONTROL_STATE_PAUSED)
        span.kept()
        assert progress(api.watch(client, batch)) == {"expired": 1}
    in_time(attempt, 1.5)


def test_a_device_deleted_while_its_command_is_held(api, client):
    pb = api.pb
    api.register(client, "a", "b")
    batch = api.submit(client).batch.id
    client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
    settled(api, client, batch, pb.CONTROL_STATE_PAUSED)
    client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="a"))
    assert progress(api.watch(client, batch, until=lambda b: b.progress.canceled)) == {"canceled": 1, "held": 1}


# --- cancel for some --------------------------------------------------------------------------------------------------

def test_cancel_for_some_devices(api, client):
    pb = api.pb
    ids = [f"d{i:04}" for i in range(2500)]  # three blocks
    tokens = api.register(client, *ids)
    with api.device("d0007", tokens["d0007"]) as sent:
        sent.connect(api.workers[0].address)
        batch = api.submit(client).batch.id
        delivery = sent.next()
        some = [ids[i] for i in (0, 7, 1023, 1024, 2048, 2499)]
        answer = client.commands.CancelBatch(pb.CancelBatchRequest(
            batch_id=batch, target=pb.Target(devices=pb.DeviceIds(ids=some))))
        assert answer.devices == 6 and not answer.batch.HasField("cancel_requested_at")
        settled(api, client, batch, pb.CONTROL_STATE_RUNNING)
        got = {c.device_id: c.state for c in api.list_commands(client, batch)}
        assert {d for d in ids if got[d] == pb.COMMAND_STATE_CANCELED} == set(some) - {"d0007"}
        assert got["d0007"] == pb.COMMAND_STATE_SENT  # it has it: its outcome counts
        sent.ack(delivery)
        api.watch(client, batch, until=lambda b: b.progress.succeeded == 1)
    # The others are still sent.
    with api.device("d0001", tokens["d0001"], answer=good(pb)) as other, \
            api.device("d1024", tokens["d1024"], answer=good(pb)) as out:
        out.connect(api.workers[0].address)
        other.connect(api.workers[0].address)
        assert other.next()
        api.watch(client, batch, until=lambda b: b.progress.succeeded == 2)
        assert out.deliveries.empty()


def test_cancel_for_some_while_paused_and_twice(api, client):
    """Also when two requests are carried out, and written, at once."""
    pb = api.pb
    ids = [f"d{i}" for i in range(20)]
    api.register(client, *ids)
    client.devices.CreateGroup(pb.CreateGroupRequest(name="g", device_ids=ids[:2]))
    batch = api.submit(client).batch.id
    client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
    for target in [pb.Target(groups=pb.GroupNames(names=["g"]))] + [
            pb.Target(devices=pb.DeviceIds(ids=ids[i:i + 2])) for i in range(1, 16)]:
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch, target=target))
    api.watch(client, batch, until=lambda b: progress(b) == {"canceled": 17, "held": 3})
    settled(api, client, batch, pb.CONTROL_STATE_PAUSED)
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch, target=pb.Target(all=True)))
    assert progress(api.watch(client, batch)) == {"canceled": 20}


def tried_again(pb, wait=1):
    """Whatever FAILED is, five times."""
    r = pb.Retry(failed=True, attempts=5, factor=1)
    r.initial.FromSeconds(wait)
    return r


def devices_of(pb, *ids):
    return pb.Target(devices=pb.DeviceIds(ids=ids))


def kept(stack, batch):
    """How many rows say whom the batch is canceled for."""
    return stack.sql("SELECT count(*) FROM batch_cancel WHERE batch_id = %s", batch)[0][0]


def test_what_comes_back_of_those_it_is_canceled_for_ends(api, client):
    """What fails and would be tried again, and what is put off; the batch goes on, and is tried again, for others."""
    pb = api.pb
    tokens = api.register(client, "fails", "later", "other")
    with api.device("fails", tokens["fails"]) as fails, api.device("later", tokens["later"]) as later, \
            api.device("other", tokens["other"]) as other:
        deliveries = {}
        for d in (fails, later, other):
            d.connect(api.workers[0].address)
        batch = api.submit(client, retry=tried_again(pb)).batch.id
        for d in (fails, later, other):
            deliveries[d] = d.next()
        for ids in [("fails",)] + [("later",)] * 3 + [("later", "fails")]:
            client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch, target=devices_of(pb, *ids)))
        settled(api, client, batch, pb.CONTROL_STATE_RUNNING)
        assert kept(api, batch) == 1  # however often it was asked for
        # To be resumed is nothing for them.
        client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
        settled(api, client, batch, pb.CONTROL_STATE_PAUSED)
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        settled(api, client, batch, pb.CONTROL_STATE_RUNNING)
        fails.wait_published(fails.ack(deliveries[fails], pb.OUTCOME_FAILED, text="no room"))
        later.wait_published(later.ack(deliveries[later], pb.OUTCOME_NOT_NOW))
        seen = api.watch(client, batch, until=lambda b: b.progress.canceled == 2)
        assert progress(seen) == {"canceled": 2, "sent": 1} and seen.control.state == pb.CONTROL_STATE_RUNNING
        until(lambda: {c.device_id: c.result.text for c in api.list_commands(client, batch)}["fails"] == "no room",
              what="what it said is kept")
        later.close()
        with api.device("later", tokens["later"]) as again:
            again.connect(api.workers[0].address)
            other.wait_published(other.ack(deliveries[other], pb.OUTCOME_FAILED))
            assert other.next().attempt == 2  # which would have been their time, too
            assert fails.deliveries.empty() and later.deliveries.empty() and again.deliveries.empty()
            other.ack(deliveries[other])
            assert progress(api.watch(client, batch)) == {"canceled": 2, "succeeded": 1}
            assert fails.deliveries.empty() and again.deliveries.empty()
    until(lambda: not kept(api, batch), what="it is forgotten with the batch")


def test_who_is_put_off_is_not_sent_a_plain_batch_again(api, client):
    pb = api.pb
    tokens = api.register(client, "a", "b")
    with api.device("a", tokens["a"]) as a:
        a.connect(api.workers[0].address)
        batch = api.submit(client).batch.id
        delivery = a.next()
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch, target=devices_of(pb, "a")))
        settled(api, client, batch, pb.CONTROL_STATE_RUNNING)
        a.wait_published(a.ack(delivery, pb.OUTCOME_NOT_NOW))
        api.watch(client, batch, until=lambda b: progress(b) == {"canceled": 1, "queued": 1})
    with api.device("a", tokens["a"]) as a, api.device("b", tokens["b"], answer=good(pb)) as b:
        a.connect(api.workers[0].address)
        b.connect(api.workers[0].address)
        assert progress(api.watch(client, batch)) == {"canceled": 1, "succeeded": 1}
        assert a.deliveries.empty()


def test_who_joins_gets_what_others_are_canceled_for(api, client):
    pb = api.pb
    tokens = api.register(client, "a")
    with api.device("a", tokens["a"]) as a:
        a.connect(api.workers[0].address)
        batch = api.submit(client, target=pb.Target(all=True), dynamic=True, retry=tried_again(pb)).batch.id
        delivery = a.next()
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch, target=pb.Target(all=True)))
        settled(api, client, batch, pb.CONTROL_STATE_RUNNING)
        tokens.update(api.register(client, "b"))
        with api.device("b", tokens["b"]) as b:
            b.connect(api.workers[0].address)
            joined = b.next()
            a.wait_published(a.ack(delivery, pb.OUTCOME_FAILED))
            b.wait_published(b.ack(joined, pb.OUTCOME_FAILED))
            assert b.next().attempt == 2
            b.ack(joined)
            api.watch(client, batch, until=lambda b: progress(b) == {"canceled": 1, "succeeded": 1})
            assert a.deliveries.empty()
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    assert progress(api.watch(client, batch)) == {"canceled": 1, "succeeded": 1}


def lose_redis(stack):
    """All that is in it, which the leader fills anew."""
    def filled():
        return sum(len(d.events("redis_rebuilt")) for d in stack.dispatchers)
    before = filled()
    stack.redis.client().flushall()
    until(lambda: filled() > before, what="Redis is filled again")


@pytest.mark.parametrize("what", ["leader", "redis"])
def test_what_comes_back_ends_whatever_is_lost_since(make_stack, what):
    stack = make_stack(worker_flags=["--lease", lasting(1), "--not-now-retry", "1s"])
    pb = stack.pb
    stack.start(dispatchers=2, workers=1)
    client = stack.client(stack.make_tenant(), dispatcher=stack.dispatchers[1])
    tokens = stack.register(client, "fails", "later", "other")
    with stack.device("fails", tokens["fails"]) as fails, stack.device("later", tokens["later"]) as later, \
            stack.device("other", tokens["other"]) as other:
        for d in (fails, later, other):
            d.connect(stack.workers[0].address)
        batch = stack.submit(client, retry=tried_again(pb)).batch.id
        deliveries = [d.next() for d in (fails, later, other)]
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch, target=devices_of(pb, "fails", "later")))
        settled(stack, client, batch, pb.CONTROL_STATE_RUNNING)
        if what == "leader":
            stack.dispatchers[0].kill()
            stack.dispatchers[1].wait_event("leader_loaded")
        else:
            lose_redis(stack)
        client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
        settled(stack, client, batch, pb.CONTROL_STATE_PAUSED)  # whoever leads has read what there is
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        settled(stack, client, batch, pb.CONTROL_STATE_RUNNING)
        for d, delivery, outcome in zip((fails, later), deliveries, (pb.OUTCOME_FAILED, pb.OUTCOME_NOT_NOW)):
            # What Redis has lost may come once more, before the answer or beside it.
            d.answer = lambda m, outcome=outcome: pb.Acknowledgement(command_id=m.command_id, outcome=outcome)
            d.wait_published(d.ack(delivery, outcome))
        assert progress(stack.watch(client, batch, until=lambda b: b.progress.canceled == 2)) == {"canceled": 2, "sent": 1}
        other.wait_published(other.ack(deliveries[2], pb.OUTCOME_FAILED))
        until(lambda: (c := [d.attempt for d in list(other.deliveries.queue)]) and c[-1] == 2, what="it is tried again")
        assert what == "redis" or (fails.deliveries.empty() and later.deliveries.empty())
        other.ack(deliveries[2])
        assert progress(stack.watch(client, batch)) == {"canceled": 2, "succeeded": 1}


def test_what_is_wrong_is_named(api, client):
    pb = api.pb
    api.register(client, "a", "b")
    batch = api.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=["a"]))).batch.id
    bad, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    for request, fields in ((pb.CancelBatchRequest(batch_id=-1, target=pb.Target()), {"batch_id", "target"}),
                            (pb.CancelBatchRequest(batch_id=batch, target=pb.Target(devices=pb.DeviceIds(ids=["a", "?"]))),
                             {"target.devices.ids[1]"})):
        assert set(refused(api, bad, "INVALID_FIELD", lambda: client.commands.CancelBatch(request))) == fields
    assert set(refused(api, bad, "INVALID_FIELD", lambda: client.control.PauseBatch(
        pb.PauseBatchRequest(reason="x" * 257)))) == {"batch_id", "reason"}
    target = pb.Target(devices=pb.DeviceIds(ids=["a", "zz"]))
    assert list(refused(api, bad, "UNKNOWN_DEVICES", lambda: client.commands.CancelBatch(
        pb.CancelBatchRequest(batch_id=batch, target=target))).values()) == ["zz is not registered"]
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "OUTSIDE_BATCH", lambda: client.commands.CancelBatch(
        pb.CancelBatchRequest(batch_id=batch, target=pb.Target(devices=pb.DeviceIds(ids=["b"])))))
    refused(api, missing, "GROUP_NOT_FOUND", lambda: client.commands.CancelBatch(
        pb.CancelBatchRequest(batch_id=batch, target=pb.Target(groups=pb.GroupNames(names=["none"])))))
    other = api.client(api.make_tenant())
    for call in (lambda: other.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch)),
                 lambda: other.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch)),
                 lambda: other.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch, target=pb.Target(all=True)))):
        refused(api, missing, "BATCH_NOT_FOUND", call)
    reader, operator = api.client(api.make_tenant(role=3)), api.client(api.make_tenant(role=2))
    for call in (lambda: reader.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch)),
                 lambda: reader.control.Hold(pb.HoldRequest()),
                 lambda: operator.control.Hold(pb.HoldRequest(all=True)),
                 lambda: operator.control.Release(pb.ReleaseRequest(tenant="x"))):
        refused(api, grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT", call)
    assert not client.commands.GetBatch(pb.GetBatchRequest(batch_id=batch)).batch.HasField("control")  # nothing half done


# --- holds ------------------------------------------------------------------------------------------------------------

def test_a_tenant_that_is_held(api, client):
    pb = api.pb
    other = api.client(api.make_tenant())
    mine, others = api.register(client, "silent", "offline"), api.register(other, "o")
    with api.device("silent", mine["silent"]) as silent, api.device("o", others["o"], answer=good(pb)) as o:
        silent.connect(api.workers[0].address)
        o.connect(api.workers[0].address)
        batch = api.submit(client).batch.id
        delivery = silent.next()
        held = client.control.Hold(pb.HoldRequest(reason="stolen key"))
        assert held.hold.HasField("confirmed_at") and held.hold.reason == "stolen key"
        assert [(b.batch_id, progress(b)) for b in held.batches] == [(batch, {"sent": 1, "queued": 1})]
        again = client.control.Hold(pb.HoldRequest(reason="once more"))
        assert again.hold == held.hold
        assert [h.reason for h in client.control.ListHolds(pb.ListHoldsRequest()).holds] == ["stolen key"]
        assert "stolen key" not in [
            h.reason for h in api.client(api.make_tenant(role=2)).control.ListHolds(pb.ListHoldsRequest()).holds]
        # Accepted, not sent; also not to a device that connects, nor behind an answer.
        later = api.submit(client).batch.id
        silent.wait_published(silent.ack(delivery))
        with api.device("offline", mine["offline"], answer=good(pb)) as offline:
            offline.connect(api.workers[0].address)
            assert progress(api.watch(other, api.submit(other).batch.id)) == {"succeeded": 1}
            refused(api, grpc.StatusCode.NOT_FOUND, "NOT_HELD", lambda: other.control.Release(pb.ReleaseRequest()))
            assert silent.deliveries.empty() and offline.deliveries.empty()
            assert client.control.Release(pb.ReleaseRequest()).HasField("confirmed_at")
            assert [offline.next().attempt for _ in range(2)] == [1, 1]
            api.watch(client, batch)
            silent.ack(silent.next())
            assert progress(api.watch(client, later)) == {"succeeded": 2}
        assert offline.deliveries.empty() and silent.deliveries.empty()
    until(lambda: not api.sql("SELECT 1 FROM gate"), what="the gate is forgotten when all behind it is routed")


def test_everything_is_held_and_a_worker_that_begins_knows_it(api, admin):
    pb = api.pb
    client = api.client(api.make_tenant(role=2))
    tokens = api.register(client, "a")
    held = admin.control.Hold(pb.HoldRequest(all=True, reason="kill switch"))
    assert held.hold.HasField("confirmed_at") and held.hold.tenant == ""
    assert [h.tenant for h in client.control.ListHolds(pb.ListHoldsRequest()).holds] == [""]
    batch = api.submit(client).batch.id
    fresh = api.start_worker()
    with api.device("a", tokens["a"], answer=good(pb)) as a:
        a.connect(fresh.address)
        until(lambda: client.devices.GetDevice(pb.GetDeviceRequest(device_id="a")).device.connection ==
              pb.CONNECTION_ONLINE, what="the device is online")
        # A tenant of its own, held besides: it stays so.
        name = api.sql("SELECT t.name FROM tenant t JOIN batch b ON b.tenant_id = t.id WHERE b.id = %s", batch)[0][0]
        assert admin.control.Hold(pb.HoldRequest(tenant=name)).hold.tenant == name
        assert admin.control.Release(pb.ReleaseRequest(all=True)).HasField("confirmed_at")
        other = api.client(api.make_tenant())
        api.register(other, "o")
        api.watch(other, api.submit(other).batch.id, until=lambda b: b.progress.queued == 1)
        assert a.deliveries.empty()
        assert admin.control.Release(pb.ReleaseRequest(tenant=name)).HasField("confirmed_at")
        assert progress(api.watch(client, batch)) == {"succeeded": 1}


def test_a_hold_says_what_is_wrong(api, admin):
    pb = api.pb
    bad, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    assert set(refused(api, bad, "INVALID_FIELD", lambda: admin.control.Hold(
        pb.HoldRequest(all=False, reason="x" * 257)))) == {"all", "reason"}
    assert set(refused(api, bad, "INVALID_FIELD", lambda: admin.control.Hold(pb.HoldRequest(tenant="?")))) == {"tenant"}
    refused(api, missing, "TENANT_NOT_FOUND", lambda: admin.control.Hold(pb.HoldRequest(tenant="nobody")))
    # Also at once after a release, when the leader has yet to route what waited behind it.
    admin.control.Hold(pb.HoldRequest(all=True))
    assert admin.control.Release(pb.ReleaseRequest(all=True)).HasField("confirmed_at")
    refused(api, missing, "NOT_HELD", lambda: admin.control.Release(pb.ReleaseRequest(all=True)))
    assert not admin.control.ListHolds(pb.ListHoldsRequest()).holds


def test_the_command_line(api, client, admin, cli):
    pb = api.pb
    api.register(client, "a", "b")
    tenant = api.make_tenant(role=2)
    mine = api.client(tenant)
    api.register(mine, "a", "b")
    batch = str(api.submit(mine).batch.id)
    env = api.cli_env(tenant)
    cli("batch", "pause", batch, "--reason", "lunch", env=env, check=0)
    settled(api, mine, int(batch), pb.CONTROL_STATE_PAUSED)
    out = cli("batch", "get", batch, env=env, check=0).stdout
    assert "control      PAUSED since 20" in out and ": lunch" in out and "progress     2 HELD" in out
    out = cli("batch", "cancel", batch, "--device", "a", env=env, check=0).stdout
    assert "canceled for 1 of its devices" in out
    cli("batch", "cancel", batch, "--device", "a", "--platform", "ios", env=env, check=2)
    cli("batch", "resume", batch, env=env, check=0)
    api.watch(mine, int(batch), until=lambda b: progress(b) == {"canceled": 1, "queued": 1})
    assert "confirmed 20" in cli("hold", "--reason", "x", env=env, check=0).stdout
    assert f"{tenant.name}" in cli("holds", env=env, check=0).stdout
    assert "released 20" in cli("release", env=env, check=0).stdout
    cli("hold", "--all", env=env, check=3)
    cli("hold", "--all", "--tenant", "x", env=env, check=2)
    cli("hold", "--tenant", "x", "--tenant", "y", env=env, check=2)


def test_a_cancel_with_only_exclusions_spares_those(api, cli, tmp_path):
    """It was once taken for a cancel of the whole batch."""
    pb = api.pb
    tenant = api.make_tenant(role=2)
    mine, env = api.client(tenant), api.cli_env(tenant)
    api.register(mine, "a", "b", "vip", "outside")
    mine.devices.CreateGroup(pb.CreateGroupRequest(name="vips", device_ids=["vip", "outside"]))
    batch = str(api.submit(mine, target=pb.Target(devices=pb.DeviceIds(ids=["a", "b", "vip"]))).batch.id)
    nobody = tmp_path / "nobody"
    nobody.write_text("")
    cli("batch", "cancel", batch, "--exclude-devices-file", nobody, env=env, check=3)
    cli("batch", "cancel", batch, "--exclude-device", "vip", "--exclude-group", "vips", env=env, check=2)
    assert not api.sql("SELECT 1 FROM batch WHERE id = %s AND cancel_requested_ms IS NOT NULL", int(batch))
    out = cli("batch", "cancel", batch, "--exclude-group", "vips", env=env, check=0).stdout
    assert "canceled for 2 of its devices" in out
    api.watch(mine, int(batch), until=lambda b: progress(b) == {"canceled": 2, "queued": 1})
    assert {c.device_id for c in api.list_commands(mine, int(batch)) if c.state == pb.COMMAND_STATE_QUEUED} == {"vip"}
    # The whole batch only without any.
    assert "canceled for" not in cli("batch", "cancel", batch, env=env, check=0).stdout
    assert progress(api.watch(mine, int(batch))) == {"canceled": 3}


def test_a_hold_says_how_many_batches_are_open(api, admin, cli):
    """It lists the newest hundred."""
    pb = api.pb
    tenant = api.make_tenant(role=2)
    mine, other = api.client(tenant), api.client(api.make_tenant(role=2))
    api.register(mine, "a")
    api.register(other, "o")
    api.submit(other)
    first = api.submit(mine).batch.id
    batches = [api.submit(mine).batch.id for _ in range(100)]
    held = mine.control.Hold(pb.HoldRequest())
    assert held.open_batches == 101 and [b.batch_id for b in held.batches] == batches[::-1]
    out = cli("hold", env=api.cli_env(tenant), check=0).stdout
    assert "101 open batches; the newest 100 are these" in out and out.count(": 0 devices have got it; 1 QUEUED") == 100
    told = json.loads(cli("hold", "--json", env=api.cli_env(tenant), check=0).stdout)
    assert told["openBatches"] == 101 and len(told["batches"]) == 100
    # An admin's own key tells nothing of them; one of the tenant that he makes does.
    boss = api.cli_env(api.make_tenant(role=1))
    cli("batch", "commands", batches[0], env=boss, check=3)
    key = cli("key", "create", tenant.name, "--role", "read-only", env=boss, check=0).stdout.strip()
    assert ",a,QUEUED,0," in cli("batch", "commands", batches[0], "--format", "csv", env={**boss, "MUSTER_API_KEY": key},
                                 check=0).stdout
    assert cli("batch", "commands", batches[0], "--format", "csv", env={**boss, "MUSTER_API_KEY": key, "MUSTER_JSON": "true"},
               check=0).stdout.startswith("command_id,batch_id,device_id,state,attempts,")
    everything = admin.control.Hold(pb.HoldRequest(all=True))
    assert everything.open_batches >= 102 and len(everything.batches) == 100
    admin.control.Release(pb.ReleaseRequest(all=True))
    mine.commands.CancelBatch(pb.CancelBatchRequest(batch_id=first))
    api.watch(mine, first)
    held = mine.control.Hold(pb.HoldRequest())
    assert held.open_batches == 100 and len(held.batches) == 100
    assert "open batches" not in cli("hold", env=api.cli_env(tenant), check=0).stdout
    mine.control.Release(pb.ReleaseRequest())


def test_the_command_line_says_that_a_hold_is_not_confirmed(make_stack, cli):
    """By its exit status too: a worker that does not answer may still send."""
    stack = make_stack(worker_flags=["--lease", lasting(60)]).start(1, 1)
    env = stack.cli_env(stack.make_tenant(role=2))
    stack.workers[0].signal(signal.SIGSTOP)
    assert "NOT CONFIRMED" in cli("hold", "--reason", "stolen key", env=env, check=1).stdout
    assert "NOT CONFIRMED" in cli("holds", env=env, check=0).stdout
    told = json.loads(cli("hold", "--json", env=env, check=1).stdout)
    assert told["hold"]["reason"] == "stolen key" and "confirmedAt" not in told["hold"]
    stack.workers[0].signal(signal.SIGCONT)
    assert ", confirmed 20" in cli("hold", env=env, check=0).stdout
    stack.workers[0].signal(signal.SIGSTOP)
    assert "has not confirmed" in cli("release", env=env, check=1).stdout
    stack.workers[0].signal(signal.SIGCONT)


# --- with a crowd, and with what breaks -------------------------------------------------------------------------------

def test_nothing_is_sent_twice_or_lost_by_pausing_in_the_middle(stack):
    pb = stack.pb
    stack.start(workers=2)
    client, count = stack.client(stack.make_tenant()), fewer(2000)
    tokens = stack.make_devices(client, count)
    fleet = stack.start_fleet(tokens, "--think", "5ms")
    batches = [stack.submit(client, priority=pb.PRIORITY_NORMAL).batch.id for _ in range(3)]
    done = threading.Event()

    def pause_and_resume(batch):
        while not done.is_set():
            try:
                client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
                settled(stack, client, batch, pb.CONTROL_STATE_PAUSED)
                client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
                done.wait(patient(0.2))
            except (AssertionError, grpc.RpcError):
                return  # it is closed

    def hold_and_release():
        while not done.is_set():
            client.control.Hold(pb.HoldRequest())
            client.control.Release(pb.ReleaseRequest())
            done.wait(patient(0.4))
    threads = [threading.Thread(target=pause_and_resume, args=(b,)) for b in batches]
    threads.append(threading.Thread(target=hold_and_release))
    for t in threads:
        t.start()
    try:
        for b in batches:
            assert progress(stack.watch(client, b)) == {"succeeded": count}
    finally:
        done.set()
        for t in threads:
            t.join()
    record = fleet.dump()
    fleet.quit()
    check(stack, client, batches, record)


@pytest.mark.parametrize("what", ["leader", "worker", "redis"])
def test_held_stays_held_whatever_is_lost(make_stack, what):
    stack = make_stack(worker_flags=["--lease", lasting(1)])
    pb = stack.pb
    stack.start(dispatchers=2, workers=1)
    client = stack.client(stack.make_tenant(), dispatcher=stack.dispatchers[1])
    tokens = stack.make_devices(client, 50)
    paused, gated = stack.submit(client).batch.id, stack.submit(client).batch.id
    client.control.PauseBatch(pb.PauseBatchRequest(batch_id=paused))
    settled(stack, client, paused, pb.CONTROL_STATE_PAUSED)
    client.control.Hold(pb.HoldRequest())
    if what == "leader":
        stack.dispatchers[0].kill()
        stack.dispatchers[1].wait_event("leader_loaded")
    elif what == "worker":
        stack.workers[0].kill()
        stack.workers[0] = stack.start_worker()
        stack.workers.pop()
    else:
        lose_redis(stack)
    fleet = stack.start_fleet(tokens, workers=[stack.workers[0]])
    # A worker that is still without its lease answers later than this call.
    assert client.control.Release(pb.ReleaseRequest()).HasField("confirmed_at") or what == "redis"
    assert progress(stack.watch(client, gated)) == {"succeeded": 50}
    assert progress(stack.watch(client, paused, until=lambda b: b.progress.held == 50)) == {"held": 50}
    client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=paused))
    assert progress(stack.watch(client, paused)) == {"succeeded": 50}
    record = fleet.dump()
    fleet.quit()
    check(stack, client, [paused, gated], record)
