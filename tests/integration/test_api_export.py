"""ExportCommands: all of it, parts of it, again from where it broke off, and readers that do not keep up."""
import base64
import time

import grpc
import pytest
from harness.grpc_server import DATA, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, Raw, frame, message
from harness.patience import patient
from harness.reports import without_quarantine
from harness.until import until

EXPORT = "/muster.v1.CommandService/ExportCommands"


@pytest.fixture
def client(api):
    return api.client(api.make_tenant())


def export(api, client, batch_id, **fields):
    """The messages of a whole export."""
    return list(client.commands.ExportCommands(api.pb.ExportCommandsRequest(batch_id=batch_id, **fields)))


def commands_of(messages):
    return [c for m in messages for c in m.commands]


def refused(api, call):
    """(code, reason, fields) of a call that must fail."""
    with pytest.raises(grpc.RpcError) as e:
        list(call())
    reason, violations = api.stubs.details(e.value)
    return e.value.code(), reason, set(violations)


def batch_in_many_states(api, client, ids, step):
    """Every `step`th device is deleted: its command is canceled, and when that was is recorded."""
    pb = api.pb
    api.import_devices(client, ids)
    b = api.submit(client).batch
    for d in ids[::step]:
        client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id=d))
    until(lambda: [c.device_id for c in api.list_commands(client, b.id, states=[pb.COMMAND_STATE_CANCELED])
                   if c.HasField("updated_at")] == ids[::step])
    return b


def test_an_export_is_the_list(api, client):
    """More than a part of blocks, dense and not."""
    pb, ids = api.pb, [f"e{i:05d}" for i in range(12000)]
    b = batch_in_many_states(api, client, ids, 4000)
    messages = export(api, client, b.id)
    assert [c.device_id for c in commands_of(messages)] == ids
    assert commands_of(messages) == api.list_commands(client, b.id)
    assert all(0 < len(m.commands) <= 8192 and m.resume_token for m in messages) and len(messages) >= 3
    canceled = commands_of(export(api, client, b.id, states=[pb.COMMAND_STATE_CANCELED, pb.COMMAND_STATE_FAILED]))
    assert [c.device_id for c in canceled] == ids[::4000]
    assert all(c.state == pb.COMMAND_STATE_CANCELED and c.HasField("updated_at") for c in canceled)
    assert not export(api, client, b.id, states=[pb.COMMAND_STATE_TIMED_OUT])
    assert len(commands_of(export(api, client, b.id, states=[pb.COMMAND_STATE_UNSPECIFIED]))) == len(ids)
    # A few devices, far apart.
    few = ids[3:12000:3000] + ids[-2:]
    sparse = api.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=few[::-1]))).batch
    assert [c.device_id for c in commands_of(export(api, client, sparse.id))] == few
    assert [c.device_id for c in api.list_commands(client, sparse.id)] == few


def test_going_on_where_it_broke_off(api, client):
    ids = [f"r{i:05d}" for i in range(11000)]
    b = batch_in_many_states(api, client, ids, 2000)
    whole = export(api, client, b.id)
    assert len(whole) >= 3
    for n, m in enumerate(whole):
        rest = export(api, client, b.id, resume_token=m.resume_token)
        assert commands_of(whole[:n + 1]) + commands_of(rest) == commands_of(whole)
    # A caller that leaves in the middle.
    call = client.commands.ExportCommands(api.pb.ExportCommandsRequest(batch_id=b.id))
    first = next(call)
    call.cancel()
    assert commands_of([first] + export(api, client, b.id, resume_token=first.resume_token)) == commands_of(whole)


def after_instead(token, after):
    """The token of somebody who knows how they are made: field 2 is where to go on, 1 the method, and the rest binds it."""
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    end = 2 + raw[1]
    assert raw[0] == 0x0a and raw[end] == 0x10
    rest = end + 1
    while raw[rest] & 0x80:
        rest += 1
    n, number = after % 2**64, b""
    while n > 0x7f:
        number, n = number + bytes([n & 0x7f | 0x80]), n >> 7
    return base64.urlsafe_b64encode(raw[:end + 1] + number + bytes([n]) + raw[rest + 1:]).decode().rstrip("=")


def test_what_is_refused(api, client):
    pb = api.pb
    api.import_devices(client, [f"x{i:04d}" for i in range(1100)])
    b, other = api.submit(client).batch, api.submit(client).batch

    def ask(who=client, **fields):
        return lambda: who.commands.ExportCommands(pb.ExportCommandsRequest(**dict({"batch_id": b.id}, **fields)))

    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert refused(api, ask(batch_id=0)) == (invalid, "INVALID_FIELD", {"batch_id"})
    assert refused(api, ask(states=[99])) == (invalid, "INVALID_FIELD", {"states"})
    not_found = (grpc.StatusCode.NOT_FOUND, "BATCH_NOT_FOUND", set())
    assert refused(api, ask(batch_id=2**46)) == not_found
    assert refused(api, ask(who=api.client(api.make_tenant()))) == not_found
    bad_token = (invalid, "PAGE_TOKEN_INVALID", {"resume_token"})
    token = export(api, client, b.id)[0].resume_token
    page = client.commands.ListCommands(pb.ListCommandsRequest(batch_id=b.id, page_size=10)).next_page_token
    for fields in ({"resume_token": "x"}, {"resume_token": "ÿ" * 200}, {"resume_token": token[:-3]}, {"resume_token": page},
                   {"resume_token": token, "batch_id": other.id}, {"resume_token": token, "states": [2]}):
        assert refused(api, ask(**fields)) == bad_token, fields
    for after in (2**63 - 1, -1, -2**63):
        assert refused(api, ask(resume_token=after_instead(token, after))) == bad_token, after
    # The last token of all: nothing is left.
    assert not export(api, client, b.id, resume_token=export(api, client, b.id)[-1].resume_token)


def test_results_that_fill_several_messages(api, client):
    """Large results are cut into messages that clients take by default, and none is lost."""
    pb, ids = api.pb, [f"big{i:03d}" for i in range(300)]
    api.import_devices(client, ids)
    b = api.submit(client).batch
    result = pb.CommandResult(text="ü" * 500, payload=b"p" * 20000).SerializeToString()
    api.sql("INSERT INTO command_result SELECT %s, seq, %s FROM device WHERE tenant_id = "
            "(SELECT tenant_id FROM batch WHERE id = %s) AND id LIKE 'big%%' AND seq %% 2 = 0 RETURNING seq", b.id, result, b.id)
    messages = export(api, client, b.id)
    assert [c.device_id for c in commands_of(messages)] == ids and len(messages) >= 2
    assert [len(c.result.payload) for c in commands_of(messages)] == [20000, 0] * 150
    assert all(m.ByteSize() < 4 * 1024 * 1024 for m in messages)
    assert commands_of(messages) == api.list_commands(client, b.id)
    again = export(api, client, b.id, resume_token=messages[0].resume_token)
    assert commands_of(messages[:1]) + commands_of(again) == commands_of(messages)


def test_a_tenants_exports_are_bounded(api):
    """Callers that do not read hold their exports open; one more is refused, and another tenant's is not."""
    pb, tenants = api.pb, [api.make_tenant(), api.make_tenant()]
    mine, theirs = map(api.client, tenants)
    for c in (mine, theirs):
        api.import_devices(c, [f"many-{i:05d}" for i in range(12000)])
    b, other = api.submit(mine).batch.id, api.submit(theirs).batch.id
    raws = [slow_reader(api, tenants[0], b, window=0) for _ in range(16)]
    for raw in raws:
        raw.until(lambda kind, *_: kind == HEADERS)
    assert refused(api, lambda: mine.commands.ExportCommands(pb.ExportCommandsRequest(batch_id=b))) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", set())
    assert len(commands_of(export(api, theirs, other))) == 12000
    for raw in raws:
        raw.close()
    end = time.monotonic() + patient(20)
    while True:  # the dispatcher has to see that they have gone
        try:
            assert len(commands_of(export(api, mine, b))) == 12000
            return
        except grpc.RpcError:
            assert time.monotonic() < end


def slow_reader(api, tenant, batch, window):
    """A connection whose stream of an export has so many bytes of window, and no more until it says so."""
    d = api.dispatchers[0]
    raw = Raw(d.port, preface=False, ca=api.certificates.ca_bytes())
    raw.send(PREFACE + frame(SETTINGS, 0, 0, b"\0\4" + window.to_bytes(4, "big")) +
             frame(WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
    raw.stream = raw.call(EXPORT, message(api.pb.ExportCommandsRequest(batch_id=batch).SerializeToString()),
                          extra=[("authorization", f"Bearer {tenant.key}")])
    return raw


def resident(daemon):
    with open(f"/proc/{daemon.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096


def wait_idle(daemon):
    """Until its processor time does not grow any more."""
    before, still = -1, 0
    while still < 5:
        with open(f"/proc/{daemon.pid}/schedstat", encoding="ascii") as f:
            now = int(f.read().split()[0]) // 10**7
        still, before = (still + 1, now) if now == before else (0, now)
        time.sleep(0.05)


def test_a_reader_that_stops_costs_the_dispatcher_little(stack):
    """What it has not taken is not fetched; when it reads again it gets everything."""
    api, d = stack, stack.start_dispatcher(env=without_quarantine())
    tenant = api.make_tenant()
    client = api.client(tenant)
    ids = [f"{i:06d}-" + "long" * 29 for i in range(100000)]  # 19 MB of commands
    api.import_devices(client, ids)
    b = api.submit(client).batch
    list(client.commands.ExportCommands(api.pb.ExportCommandsRequest(batch_id=b.id, states=[api.pb.COMMAND_STATE_FAILED])))
    wait_idle(d)
    before = resident(d)
    raw = slow_reader(api, tenant, b.id, window=65535)
    data = bytearray(raw.until(lambda kind, *_: kind == DATA)[3])
    wait_idle(d)
    assert resident(d) - before < 15 * 1024 * 1024  # a part that was fetched; with ASan's redzones the most
    raw.send(frame(WINDOW_UPDATE, 0, raw.stream, (1 << 30).to_bytes(4, "big")))
    while True:
        kind, flags, stream, payload = raw.read()
        if stream == raw.stream and kind == DATA:
            data += payload
        if stream == raw.stream and flags & END_STREAM:
            break
    raw.close()
    seen = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        seen += [c.device_id for c in api.pb.ExportCommandsResponse.FromString(bytes(data[5:5 + size])).commands]
        del data[:5 + size]
    assert seen == ids
