"""Asking for batches and commands, watching, cancelling: with a leader, and with devices where there is something to tell."""
import threading
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from harness.answers import progress, refused
from harness.grpc_server import DATA, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, Raw, frame, message
from harness.in_time import in_time
from harness.patience import patient
from harness.until import until


@pytest.fixture
def client(api):
    return api.client(api.make_tenant())


def outcome(pb, kind, **fields):
    return lambda d: pb.Acknowledgement(command_id=d.command_id, outcome=kind, **fields)


def wait_online(client, pb, device_id):
    """The SUBACK does not wait for Redis."""
    until(lambda: client.devices.GetDevice(pb.GetDeviceRequest(device_id=device_id)).device.connection == pb.CONNECTION_ONLINE)


def test_list_batches(api, client):
    pb = api.pb
    api.import_devices(client, ["a"])
    made = [api.submit(client, description=f"n{i}").batch.id for i in range(7)]
    assert made == sorted(made)
    out, token = [], ""
    while True:
        a = client.commands.ListBatches(pb.ListBatchesRequest(page_size=3, page_token=token))
        assert len(a.batches) <= 3
        out += a.batches
        token = a.next_page_token
        if not token:
            break
    assert [b.id for b in out] == made[::-1] and [b.description for b in out] == [f"n{i}" for i in range(6, -1, -1)]
    assert not any(b.HasField("progress") for b in out)
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=made[2]))
    closed = api.watch(client, made[2])
    assert progress(closed) == {"canceled": 1}
    listed = client.commands.ListBatches(pb.ListBatchesRequest(state=pb.BATCH_STATE_CLOSED)).batches
    assert [b.id for b in listed] == [made[2]] and progress(listed[0]) == {"canceled": 1}
    listed = client.commands.ListBatches(pb.ListBatchesRequest(state=pb.BATCH_STATE_OPEN)).batches
    assert [b.id for b in listed] == [m for m in made[::-1] if m != made[2]]


def test_a_page_ends_before_it_is_too_large(api, client):
    pb = api.pb
    api.import_devices(client, ["a"])
    command = pb.Command(custom=pb.CustomCommand(type="x", payload=bytes(65000)))
    made = [api.submit(client, command=command).batch.id for _ in range(70)]
    out, token, pages = [], "", 0
    while True:
        a = client.commands.ListBatches(pb.ListBatchesRequest(page_size=1000, page_token=token))
        assert a.ByteSize() < 4 * 1024 * 1024
        out += [b.id for b in a.batches]
        token, pages = a.next_page_token, pages + 1
        if not token:
            break
    assert out == made[::-1] and pages > 1


def test_unknown_batch(api, client):
    pb = api.pb
    for call in (lambda: client.commands.GetBatch(pb.GetBatchRequest(batch_id=2**47)),
                 lambda: client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=2**47)),
                 lambda: client.commands.ListCommands(pb.ListCommandsRequest(batch_id=2**47)),
                 lambda: list(client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=2**47)))):
        refused(api, grpc.StatusCode.NOT_FOUND, "BATCH_NOT_FOUND", call)
    for call in (lambda: client.commands.GetBatch(pb.GetBatchRequest()),
                 lambda: client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=-1)),
                 lambda: list(client.commands.WatchBatch(pb.WatchBatchRequest()))):
        assert set(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", call)) == {"batch_id"}
    assert set(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda: list(
        client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=1, interval_ms=99))))) == {"interval_ms"}


def test_states_and_results_of_commands(api, client):
    pb = api.pb
    kinds = {"good": outcome(pb, pb.OUTCOME_SUCCEEDED, backup_reference="ref"),
             "bad": outcome(pb, pb.OUTCOME_FAILED, code=7, text="gr\u00fc\u00dfe"),
             "ugly": outcome(pb, pb.OUTCOME_REJECTED),
             "silent": None}
    ids = ["away", *kinds]
    api.import_devices(client, ids)
    tokens = api.tokens(client, ids)
    devices = [api.device(d, tokens[d], answer=answer) for d, answer in kinds.items()]
    try:
        for d in devices:
            d.connect(api.workers[0].address)
        b = api.submit(client, command=pb.Command(back_up=pb.BackUpCommand())).batch
        seen = api.watch(client, b.id, until=lambda x: progress(x) == {
            "queued": 1, "sent": 1, "succeeded": 1, "failed": 1, "rejected": 1})
        assert seen.state == pb.BATCH_STATE_OPEN and seen.device_count == 5

        def listed():
            return {c.device_id: c for c in api.list_commands(client, b.id)}
        # Results, and the times of outcomes, come with these being durable, a little after them.
        until(lambda: all(c.HasField("updated_at") for d, c in listed().items() if d != "away"))
        commands = listed()
        assert list(commands) == ids
        assert [c.state for c in commands.values()] == [
            pb.COMMAND_STATE_QUEUED, pb.COMMAND_STATE_SUCCEEDED, pb.COMMAND_STATE_FAILED, pb.COMMAND_STATE_REJECTED,
            pb.COMMAND_STATE_SENT]
        assert commands["good"].result.backup_reference == "ref" and commands["good"].attempts == 1
        assert (commands["bad"].result.code, commands["bad"].result.text) == (7, "gr\u00fc\u00dfe")
        assert not commands["ugly"].HasField("result") and not commands["away"].HasField("updated_at")
        assert commands["good"].updated_at.ToMilliseconds() >= b.created_at.ToMilliseconds()
        for device, c in commands.items():
            one = client.commands.GetCommand(pb.GetCommandRequest(command_id=c.command_id)).command
            history = client.devices.ListDeviceCommands(pb.ListDeviceCommandsRequest(device_id=device)).commands
            for told in (one, *history):
                told.ClearField("pending"), told.ClearField("expires_at")  # see test_answers.py
                assert told == c
        only = api.list_commands(client, b.id, states=[pb.COMMAND_STATE_FAILED, pb.COMMAND_STATE_SENT])
        assert [c.device_id for c in only] == ["bad", "silent"]
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=b.id))
        seen = api.watch(client, b.id, until=lambda x: x.HasField("canceled_at"))
        assert seen.state == pb.BATCH_STATE_CANCELING
        assert progress(seen) == {"canceled": 1, "sent": 1, "succeeded": 1, "failed": 1, "rejected": 1}
    finally:
        for d in devices:
            d.close()


def test_closed_batch(api, client):
    pb = api.pb
    api.import_devices(client, ["a", "b"])
    tokens = api.tokens(client, ["a", "b"])
    devices = [api.device(d, t, answer=outcome(pb, pb.OUTCOME_SUCCEEDED)) for d, t in tokens.items()]
    try:
        for d in devices:
            d.connect(api.workers[0].address)
        for d in devices:
            wait_online(client, pb, d.id)
        b = api.submit(client).batch
        messages = [m.batch for m in client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=b.id, interval_ms=100))]
        closed = messages[-1]
        assert closed.state == pb.BATCH_STATE_CLOSED and progress(closed) == {"succeeded": 2} and closed.HasField("closed_at")
        assert all(sum(progress(m).values()) == 2 for m in messages)
        assert client.commands.GetBatch(pb.GetBatchRequest(batch_id=b.id)).batch == closed
        # Too late: it stays as it is.
        assert client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=b.id)).batch == closed
        # Watching what is over: one message, the end.
        again = [m.batch for m in client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=b.id))]
        assert again == [closed]
        assert [c.state for c in api.list_commands(client, b.id)] == [pb.COMMAND_STATE_SUCCEEDED] * 2
        # The answer to the first request stays what it was.
        first = api.submit(client, request_id=b.request_id)
        assert first.replayed and first.batch == b
    finally:
        for d in devices:
            d.close()


class DeafWatcher:
    """Watches a batch over frames of its own, and takes no byte until it listens."""

    def __init__(self, api, tenant, batch_id):
        self.pb, self.buffer, self.ended = api.pb, bytearray(), False
        self.raw = Raw(api.dispatchers[0].port, preface=False, ca=api.certificates.ca_bytes())
        self.raw.send(PREFACE + frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0"))
        request = api.pb.WatchBatchRequest(batch_id=batch_id, interval_ms=100).SerializeToString()
        self.stream = self.raw.call("/muster.v1.CommandService/WatchBatch", message(request),
                                    extra=[("authorization", f"Bearer {tenant.key}")])
        self.raw.until(lambda kind, *_: kind == HEADERS)

    def listen(self):
        self.raw.send(frame(WINDOW_UPDATE, 0, self.stream, (1 << 20).to_bytes(4, "big")))

    def read(self):
        """The next batch told; None at the end of the stream."""
        while len(self.buffer) < 5 or len(self.buffer) < 5 + int.from_bytes(self.buffer[1:5], "big"):
            if self.ended:
                assert not self.buffer and self.raw.fields == [("grpc-status", "0")]
                return None
            kind, flags, stream, payload = self.raw.read()
            if stream == self.stream and kind == DATA:
                self.buffer += payload
            self.ended = stream == self.stream and bool(flags & END_STREAM)
        size = int.from_bytes(self.buffer[1:5], "big")
        told = self.pb.WatchBatchResponse.FromString(bytes(self.buffer[5:5 + size])).batch
        del self.buffer[:5 + size]
        return told


def test_a_watcher_that_does_not_read(api):
    """While it is deaf others see every step; nothing is kept for it but the message it has not taken. When it reads again it
    gets that one and then the newest."""
    pb, tenant, ids = api.pb, api.make_tenant(), [f"w{i:02d}" for i in range(21)]
    client = api.client(tenant)
    api.import_devices(client, ids)
    b = api.submit(client).batch
    deaf = DeafWatcher(api, tenant, b.id)
    others = client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=b.id, interval_ms=100))
    try:
        seen = [progress(next(others).batch).get("canceled", 0)]
        for n, d in enumerate(ids[:20], 1):
            client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id=d))
            while seen[-1] < n:
                seen.append(progress(next(others).batch).get("canceled", 0))
        assert len(seen) > 10
        deaf.listen()
        told = [progress(deaf.read()).get("canceled", 0)]
        while told[-1] < 20:
            told.append(progress(deaf.read()).get("canceled", 0))
        assert told[0] == 0 and len(told) <= 3, told
        client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id=ids[20]))
        last = [m for m in iter(deaf.read, None)][-1]
        assert last.state == pb.BATCH_STATE_CLOSED and progress(last) == {"canceled": 21}
    finally:
        others.cancel()
        deaf.raw.close()


def test_a_watcher_that_does_not_read_to_the_end(api):
    """The last message waits for it, too."""
    pb, tenant = api.pb, api.make_tenant()
    client = api.client(tenant)
    api.import_devices(client, ["only"])
    b = api.submit(client).batch
    deaf = DeafWatcher(api, tenant, b.id)
    try:
        client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="only"))
        closed = api.watch(client, b.id)
        deaf.listen()
        told = [m for m in iter(deaf.read, None)]
        assert told[-1] == closed and len(told) <= 2
    finally:
        deaf.raw.close()


def test_pages_of_commands(api, client):
    pb, ids = api.pb, [f"p{i:04d}" for i in range(2600)]
    api.import_devices(client, ids)
    b = api.submit(client).batch
    client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id=ids[1500]))
    out, token = [], ""
    while True:
        a = client.commands.ListCommands(pb.ListCommandsRequest(batch_id=b.id, page_size=999, page_token=token))
        out += a.commands
        token = a.next_page_token
        if not token:
            break
        assert len(a.commands) == 999
    assert [c.device_id for c in out] == ids
    assert len({c.command_id for c in out}) == len(ids)
    a = client.commands.ListCommands(pb.ListCommandsRequest(batch_id=b.id, page_size=2600))
    assert len(a.commands) == 2600 and not a.next_page_token
    a = client.commands.ListCommands(pb.ListCommandsRequest(batch_id=b.id, states=[pb.COMMAND_STATE_FAILED]))
    assert not a.commands and not a.next_page_token


def test_a_deleted_devices_commands_end(api, client):
    pb = api.pb
    api.import_devices(client, ["stay", "go"])
    b = api.submit(client).batch
    client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="go"))
    seen = api.watch(client, b.id, until=lambda x: progress(x).get("canceled") == 1)
    assert progress(seen) == {"queued": 1, "canceled": 1}


def test_a_device_deleted_while_its_batch_was_being_accepted(api):
    """The batch is written as if its target had been resolved before the deletion."""
    pb = api.pb
    tenant = api.make_tenant()
    c = api.client(tenant)
    api.import_devices(c, ["a"])
    before = int(time.time() * 1000)
    c.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="a"))
    until(lambda: api.sql("SELECT count(*) FROM device_cancel WHERE tenant_id = %s", tenant.number) == [(0,)])
    (batch,), = api.sql("SELECT batch_id FROM accept_batch(%s, 'late', '', '', %s, 2::smallint, 1, 0, NULL, %s, %s, '{0}',"
                        " '{0}', ARRAY['\\x01'::bytea])", tenant.number,
                        pb.Command(lock=pb.LockCommand()).SerializeToString(), before, before + 86400000)
    assert progress(api.watch(c, batch)) == {"canceled": 1}


def test_a_deleted_device_is_thrown_out(api):
    """Its connection closes and its token is refused; what waits for it is canceled, what it was sent a moment ago is not."""
    pb = api.pb

    def attempt(span):
        client = api.client(api.make_tenant())
        api.import_devices(client, ["a"])
        token = api.tokens(client, ["a"])["a"]
        device = api.device("a", token)
        again = api.device("a", token)
        try:
            device.connect(api.workers[0].address)
            span.begin()
            timeouts = pb.Timeouts(execution=Duration(seconds=span.seconds))
            sent = api.submit(client, steering=pb.Steering(timeouts=timeouts)).batch.id
            assert device.next().command_id
            waits = api.submit(client).batch.id
            client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="a"))
            assert device.gone.wait(patient(20))
            span.kept()  # else what waits is sent when the first has timed out
            assert progress(api.watch(client, waits)) == {"canceled": 1}
            assert progress(api.watch(client, sent)) == {"timed_out": 1}
            again.connect(api.workers[0].address, subscribe=False)
            assert again.connack != 0
        finally:
            device.close()
            again.close()
    in_time(attempt, 1)


def test_revoked_tokens_close_their_connections(api, client):
    pb = api.pb
    api.import_devices(client, ["a"])
    device = api.device("a", api.tokens(client, ["a"])["a"])
    fresh = None
    try:
        device.connect(api.workers[0].address)
        token = api.tokens(client, ["a"], revoke_earlier=True)["a"]
        assert device.gone.wait(patient(20))
        device.close()
        fresh = api.device("a", token, answer=outcome(pb, pb.OUTCOME_SUCCEEDED))
        fresh.connect(api.workers[0].address)
        assert progress(api.watch(client, api.submit(client).batch.id)) == {"succeeded": 1}
    finally:
        device.close()
        if fresh:
            fresh.close()


def test_history_of_a_device(api, client):
    pb = api.pb
    api.import_devices(client, ["a", "b"])
    made = [api.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=["a"] if i % 3 else ["b"]))).batch.id
            for i in range(12)]
    mine = [m for i, m in enumerate(made) if i % 3]
    out, token = [], ""
    while True:
        a = client.devices.ListDeviceCommands(pb.ListDeviceCommandsRequest(device_id="a", page_size=3, page_token=token))
        out += a.commands
        token = a.next_page_token
        if not token:
            break
    assert [c.batch_id for c in out] == mine[::-1] and {c.device_id for c in out} == {"a"}


def test_bad_command_ids(api, client):
    pb = api.pb
    for bad in ("", "x", "0" * 36, "00000000-0000-4000-8000-000000000000", "\u00e4" * 18):
        assert set(refused(api, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", lambda b=bad: client.commands.GetCommand(
            pb.GetCommandRequest(command_id=b)))) == {"command_id"}


def test_many_watchers_cost_one_look(api, client):
    """However many watch a batch, it is looked at as often as for one."""
    pb = api.pb
    api.import_devices(client, ["a", "b"])
    b = api.submit(client).batch
    firsts, ends = threading.Barrier(13), []

    def run():
        last = None
        for n, m in enumerate(client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=b.id, interval_ms=200))):
            last = m.batch
            if n == 0:
                firsts.wait(patient(20))
        ends.append(last)
    threads = [threading.Thread(target=run) for _ in range(12)]
    for t in threads:
        t.start()
    firsts.wait(patient(20))

    def polls():
        return metric(api, "muster_dispatcher_progress_polls_total")
    assert metric(api, "muster_dispatcher_watchers") >= 12
    since, start = time.monotonic(), polls()
    while time.monotonic() - since < 1.0:
        assert polls() - start <= (time.monotonic() - since) / 0.2 + 3
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=b.id))
    for t in threads:
        t.join(patient(30))
    assert len(ends) == 12 and all(e.state == pb.BATCH_STATE_CLOSED for e in ends)


def metric(api, name):
    import urllib.request
    with urllib.request.urlopen(f"http://{api.dispatchers[0].admin}/metrics", timeout=patient(10)) as answer:
        for line in answer.read().decode().splitlines():
            if line.split(" ")[0] == name:
                return float(line.split(" ")[1])
    raise AssertionError(f"no metric {name}")


def test_a_watch_that_is_cancelled_is_forgotten(api, client):
    pb = api.pb
    api.import_devices(client, ["a"])
    b = api.submit(client).batch
    calls = [client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=b.id)) for _ in range(5)]
    for c in calls:
        next(c)
    for c in calls:
        c.cancel()
    end = time.monotonic() + patient(10)
    while metric(api, "muster_dispatcher_watchers") > 0:
        assert time.monotonic() < end
    with pytest.raises(grpc.RpcError) as e:
        list(client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=b.id), timeout=0.3))
    assert e.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
