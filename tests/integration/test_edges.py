"""Edges of time: clocks that step while something waits, a cancel that meets an acknowledgement, a device that goes while its
command is held, queued or with it."""
import datetime
import time

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from harness.answers import progress
from harness.device import good
from harness.faketime import needs_faketime, under
from harness.patience import patient
from harness.until import until


@pytest.fixture
def client(api):
    return api.client(api.make_tenant(role=2))


def at(seconds):
    t = Timestamp()
    t.FromMilliseconds(int((time.time() + seconds) * 1000))
    return t


# --- clocks -----------------------------------------------------------------------------------------------------------

class Clock:
    """A file from which a daemon's time of day gets its step, a moment after it is written."""

    def __init__(self, path):
        self.path = str(path)
        self.step(0)
        self.under = under(f"FAKETIME_TIMESTAMP_FILE={self.path}", "FAKETIME_CACHE_DURATION=1")

    def step(self, seconds):
        with open(self.path, "w", encoding="ascii") as f:
            f.write(f"{seconds:+d}\n")


@needs_faketime
@pytest.mark.parametrize("hour", [3600, -3600])
def test_a_leaders_clock_steps_by_an_hour(make_stack, tmp_path, hour):
    """While one batch waits for its moment, another for its outcome, one for its device: nothing early, nothing left."""
    stack = make_stack()
    pb = stack.pb
    clock = Clock(tmp_path / "clock")
    leader = stack.start_dispatcher(under=clock.under)
    worker = stack.start_worker()
    client = stack.client(stack.make_tenant())
    tokens = stack.make_devices(client, 2, prefix="e")
    silent_id, away_id = tokens
    only = pb.Target(devices=pb.DeviceIds(ids=[silent_id]))
    with stack.device(silent_id, tokens[silent_id]) as silent:
        silent.connect(worker.address)
        begin = time.time()
        sent = stack.submit(client, target=only, steering=pb.Steering(timeouts=pb.Timeouts(execution=Duration(seconds=8)))).batch.id
        silent.next()
        stack.watch(client, sent, until=lambda b: b.progress.sent)
        early = stack.submit(client, target=only, steering=pb.Steering(not_before=at(6))).batch.id
        away = stack.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=[away_id]))).batch.id
        expires = stack.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=[away_id])), expires_at=at(9)).batch.id
        clock.step(hour)
        leader.wait_event("clock_stepped")
        assert progress(stack.watch(client, sent)) == {"timed_out": 1}
        assert time.time() - begin > 7.5
        assert silent.next().command_id.startswith(f"00000000-{early:04x}")  # behind the one that timed out
        assert time.time() - begin > 6
        assert progress(stack.watch(client, expires)) == {"expired": 1}
        assert time.time() - begin > 9
    seen = client.commands.GetBatch(pb.GetBatchRequest(batch_id=away)).batch
    assert progress(seen) == {"queued": 1} and seen.state == pb.BATCH_STATE_OPEN
    with stack.device(away_id, tokens[away_id], answer=good(pb)) as device:
        device.connect(worker.address)
        assert progress(stack.watch(client, away)) == {"succeeded": 1}  # folded and closed at once, not in an hour


@needs_faketime
@pytest.mark.parametrize("hour", [3600, -3600])
def test_a_workers_clock_steps_by_an_hour(make_stack, tmp_path, hour):
    """What it holds behind another command is neither ended nor kept by it, and times it records are right."""
    stack = make_stack()
    pb = stack.pb
    clock = Clock(tmp_path / "clock")
    stack.start_dispatcher()
    worker = stack.start_worker(under=clock.under)
    client = stack.client(stack.make_tenant())
    tokens = stack.make_devices(client, 1, prefix="w")
    (name,) = tokens
    with stack.device(name, tokens[name]) as device:
        device.connect(worker.address)
        first = stack.submit(client).batch.id
        delivery = device.next()
        behind = stack.submit(client).batch.id
        begin = time.time()
        ends = stack.submit(client, expires_at=at(6)).batch.id
        clock.step(hour)
        time.sleep(1.2)  # the library looks once a second: nothing tells
        device.wait_published(device.ack(delivery))
        second = device.next()
        assert second.command_id.startswith(f"00000000-{behind:04x}")
        worker.wait_event("clock_stepped")
        # Nobody knows whether a worker that holds it has just sent it: see Batch.expires_at.
        assert progress(stack.watch(client, ends)) in ({"timed_out": 1}, {"expired": 1})
        assert time.time() - begin > 6
        device.wait_published(device.ack(second))
        assert progress(stack.watch(client, behind)) == {"succeeded": 1}
        assert device.deliveries.empty()
    for batch in (first, behind):
        (command,) = stack.list_commands(client, batch)
        assert abs(command.updated_at.ToMilliseconds() / 1000 - time.time()) < 60


# --- a cancel and an acknowledgement ----------------------------------------------------------------------------------

def ended(stack, client, batch):
    """Its progress once it is closed, also when PostgreSQL was away meanwhile."""
    until(lambda: stack.sql("SELECT 1 FROM batch WHERE id = %s AND closed_ms IS NOT NULL", batch), 60)
    return progress(client.commands.GetBatch(stack.pb.GetBatchRequest(batch_id=batch)).batch)


@pytest.mark.parametrize("order", ["acknowledged first", "canceled first", "confirmed first", "both while PostgreSQL is away"])
def test_a_cancel_meets_an_acknowledgement(make_stack, order):
    """What was sent ends as the device says, whichever comes first; what was not is canceled, and is never sent."""
    stack = make_stack()
    stack.start()
    pb = stack.pb
    client = stack.client(stack.make_tenant())
    tokens = stack.make_devices(client, 2, prefix="c")
    there, away = tokens
    with stack.device(there, tokens[there]) as device:
        device.connect(stack.workers[0].address)
        batch = stack.submit(client).batch.id
        behind = stack.submit(client).batch.id  # in the worker's hands, not sent: one is in flight
        delivery = device.next()

        def cancel(which=batch):
            return client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=which))

        def canceled(which):
            return client.commands.GetBatch(pb.GetBatchRequest(batch_id=which)).batch.HasField("canceled_at")

        if order == "acknowledged first":
            cancel(behind)
            until(lambda: canceled(behind))  # else a worker that has not heard of it yet may send it behind the answer
            device.wait_published(device.ack(delivery))
            cancel()
        elif order == "canceled first":
            cancel(behind)
            until(lambda: canceled(behind))
            cancel()
            device.ack(delivery)
        elif order == "confirmed first":
            cancel(behind)
            cancel()
            until(lambda: canceled(batch) and canceled(behind))
            device.ack(delivery)
        else:
            until(lambda: stack.sql("SELECT count(*) FROM batch WHERE routed_ms IS NULL") == [(0,)])
            cancel(behind)
            until(lambda: canceled(behind))
            cancel()
            stack.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                      " AND pid <> pg_backend_pid()")
            device.ack(delivery)
        assert ended(stack, client, batch) == {"succeeded": 1, "canceled": 1}
        assert ended(stack, client, behind) == {"canceled": 2}
        assert device.deliveries.empty()
    assert {c.device_id: c.state for c in stack.list_commands(client, batch)} == {
        there: pb.COMMAND_STATE_SUCCEEDED, away: pb.COMMAND_STATE_CANCELED}
    assert dict(stack.sql("SELECT device_id, state FROM commands(%s)", batch)) == {there: "SUCCEEDED", away: "CANCELED"}


@pytest.mark.parametrize("first, second", [("SUCCEEDED", "CANCELED"), ("CANCELED", "SUCCEEDED")])
def test_the_log_has_both_and_the_first_counts(make_stack, first, second):
    """However it came about: PostgreSQL's view, the API and the leader that folds agree."""
    stack = make_stack()
    stack.start_dispatcher()
    pb = stack.pb
    states = {"SUCCEEDED": 5, "CANCELED": 10}
    tenant = stack.make_tenant()
    client = stack.client(tenant)
    stack.import_devices(client, ["x"])
    batch = stack.submit(client).batch.id
    now = int(time.time() * 1000)

    def entries(name):  # proto/ack_log.h: batch, tenant, count; then seq, state byte
        return batch.to_bytes(8, "little") + tenant.number.to_bytes(4, "little") + (1).to_bytes(4, "little") + \
            (0).to_bytes(4, "little") + bytes([states[name] | 1 << 4])

    (stream,), = stack.sql("INSERT INTO ack_stream (worker, created_ms) VALUES ('by hand', %s) RETURNING id", now)
    stack.sql("INSERT INTO ack_log VALUES (%s, 1, %s, %s), (%s, 2, %s, %s)", stream, now, entries(first), stream, now + 5,
              entries(second))
    assert progress(stack.watch(client, batch)) == {first.lower(): 1}
    assert [c.state for c in stack.list_commands(client, batch)] == [states[first]]
    assert stack.sql("SELECT state FROM commands(%s)", batch) == [(first,)]


# --- a device that goes -----------------------------------------------------------------------------------------------

def closed_window(pb):
    """One that opens in an hour."""
    now = datetime.datetime.now(datetime.timezone.utc)
    edges = [(now + datetime.timedelta(minutes=m)).strftime("%H:%M") for m in (60, 90)]
    return pb.Window(**{"from": edges[0], "until": edges[1]})


@pytest.mark.parametrize("where", ["before its time", "window closed", "paused", "queued", "behind another", "put off"])
def test_a_device_is_deleted_while_its_command_is(api, client, where):
    """It ends as canceled, soon, and the other device's goes on."""
    pb = api.pb
    api.import_devices(client, ["go", "stay"])
    tokens = api.tokens(client, ["go", "stay"])
    steering = {"before its time": pb.Steering(not_before=at(3600)),
                "window closed": pb.Steering(window=closed_window(pb))}.get(where)
    device = api.device("go", tokens["go"])
    connected = where in ("behind another", "put off")
    try:
        if connected:
            device.connect(api.workers[0].address)
        if where == "behind another":
            api.submit(client)
            device.next()
        batch = api.submit(client, steering=steering).batch.id
        if where == "paused":
            client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
            api.watch(client, batch, until=lambda b: b.control.state == pb.CONTROL_STATE_PAUSED)
        if where == "put off":
            delivery = device.next()
            assert delivery.command_id.startswith(f"00000000-{batch:04x}")
            device.wait_published(device.ack(delivery, outcome=pb.OUTCOME_NOT_NOW))
        client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="go"))
        seen = api.watch(client, batch, until=lambda b: b.progress.canceled == 1)
        rest = {"held": 1} if where in ("before its time", "paused") else {"queued": 1}
        # What waits for its first window is told as queued.
        assert progress(seen) == {"canceled": 1, **rest}
        if connected:
            assert device.gone.wait(patient(20))
    finally:
        device.close()
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    assert progress(api.watch(client, batch)) == {"canceled": 2}


def test_a_device_is_deleted_after_its_command_was_sent(api, client):
    """It may have carried it out: so it is not canceled, and ends with its time to be carried out."""
    pb = api.pb
    api.import_devices(client, ["go", "stay"])
    tokens = api.tokens(client, ["go"])
    with api.device("go", tokens["go"]).connect(api.workers[0].address) as device:
        timeouts = pb.Timeouts(execution=Duration(seconds=3))
        batch = api.submit(client, steering=pb.Steering(timeouts=timeouts)).batch.id
        device.next()
        api.watch(client, batch, until=lambda b: b.progress.sent == 1)
        client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="go"))
        assert device.gone.wait(patient(20))
    assert progress(api.watch(client, batch, until=lambda b: b.progress.timed_out == 1)) == {"timed_out": 1, "queued": 1}
