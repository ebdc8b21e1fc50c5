"""What keeps a command: each reason by itself and together with others, as GetCommand, ListDeviceCommands and the command line
tell it; and what is told of commands that are over, of devices that are no more, of what is nobody's."""
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from harness.answers import refusal, refused
from harness.device import good
from harness.stack import OPERATOR
from harness.until import until


@pytest.fixture
def tenant(api):
    return api.make_tenant(role=1)


@pytest.fixture
def client(api, tenant):
    return api.client(tenant)


def at(delta):
    t = Timestamp()
    t.FromMilliseconds(int((time.time() + delta) * 1000))
    return t


def command_id(api, client, batch, device):
    return next(c.command_id for c in api.list_commands(client, batch) if c.device_id == device)


def ask(api, client, batch, device):
    """The command of this device as GetCommand tells it."""
    return client.commands.GetCommand(api.pb.GetCommandRequest(command_id=command_id(api, client, batch, device))).command


def names(api, command):
    return [api.pb.PendingReason.Name(p.reason)[len("PENDING_REASON_"):] for p in command.pending]


def to(api, *ids):
    return api.pb.Target(devices=api.pb.DeviceIds(ids=ids))


# --- what holds a batch, on a device that never came ------------------------------------------------------------------

def hold_for_approval(api, client, tenant):
    pb = api.pb
    policy = pb.GuardPolicy(enabled=True, commands=["wipe"], devices_per_hour=1, percent_per_hour=100,
                            cooling_off=Duration(seconds=600), approval_lifetime=Duration(seconds=3600))
    client.admin.SetGuardPolicy(pb.SetGuardPolicyRequest(tenant=tenant.name, policy=policy))
    return api.submit(client, command=pb.Command(wipe=pb.WipeCommand())).batch


def cool_off(api, client, tenant):
    pb = api.pb
    held = hold_for_approval(api, client, tenant)
    a = client.commands.GetBatch(pb.GetBatchRequest(batch_id=held.id)).batch.approval
    approver = api.client(api.make_key(tenant.number, 4))
    approver.commands.ApproveBatch(pb.ApproveBatchRequest(batch_id=held.id, target_digest=a.target_digest,
                                                          command_hash=a.command_hash))
    return held


def pause(api, client, _):
    batch = api.submit(client).batch
    client.control.PauseBatch(api.pb.PauseBatchRequest(batch_id=batch.id, reason="a closer look"))
    api.watch(client, batch.id, until=lambda b: b.control.state == api.pb.CONTROL_STATE_PAUSED)
    return batch


def hold(api, client, _):
    batch = api.submit(client).batch
    client.control.Hold(api.pb.HoldRequest(reason="stolen key"))
    return batch


def steered(**steering):
    def make(api, client, _):
        return api.submit(client, steering=api.pb.Steering(**{k: v(api.pb) if callable(v) else v for k, v in steering.items()})).batch
    return make


def window(pb):
    hour = int(time.time() // 3600 + 2) % 24  # opens in one to two hours
    return pb.Window(**{"from": f"{hour:02d}:00", "until": f"{(hour + 1) % 24:02d}:00"}, time_zone="UTC")


def waves(pb):
    return [pb.Wave(devices=2), pb.Wave(devices=1, success_percent=90), pb.Wave(by_hand=True)]


HOLDS = {
    "nothing": (lambda api, client, _: api.submit(client).batch, ["OFFLINE"], {}),
    "approval": (hold_for_approval, ["APPROVAL", "OFFLINE"], {"until": True, "words": "muster batch approve"}),
    "cooling off": (cool_off, ["COOLING_OFF", "OFFLINE"], {"until": True}),
    "not before": (steered(not_before=lambda pb: at(600)), ["NOT_BEFORE", "OFFLINE"], {"until": True}),
    "window": (steered(window=window), ["WINDOW", "OFFLINE"], {"until": True, "time_zone": "Asia/Kolkata"}),
    "wave": (steered(waves=waves), ["WAVE", "OFFLINE"], {"wave": 3, "waves": 3, "words": "90 percent of the 2 devices"}),
    "wave by hand": (steered(waves=lambda pb: [pb.Wave(devices=3), pb.Wave(by_hand=True)]), ["WAVE", "OFFLINE"],
                      {"wave": 2, "waves": 2, "words": "by hand (muster batch release"}),
    "wave by time": (steered(waves=lambda pb: [pb.Wave(percent=75), pb.Wave(after=Duration(seconds=60))]), ["WAVE", "OFFLINE"],
                   {"wave": 2, "words": "60 s after"}),
    "rate": (steered(rate=lambda pb: pb.Rate(devices=1, per=Duration(seconds=3600))), ["RATE", "OFFLINE"],
             {"words": "at 1 devices in 3600 s"}),
    "pause": (pause, ["PAUSED", "OFFLINE"], {"said": "a closer look", "since": True, "words": "paused: a closer look"}),
    "tenant hold": (hold, ["TENANT_HELD", "OFFLINE"], {"said": "stolen key", "since": True}),
}


@pytest.mark.parametrize("how", HOLDS)
def test_what_holds_a_batch(api, client, tenant, how):
    make, reasons, fields = HOLDS[how]
    pb = api.pb
    client.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[
        pb.Device(id=f"h{i}", platform=1, attributes={"time_zone": "Asia/Kolkata"}) for i in range(4)])]))
    batch = make(api, client, tenant)
    fields = dict(fields)
    device = fields.pop("device", "h3")
    c = until(lambda: (lambda c: c if names(api, c) == reasons else None)(ask(api, client, batch.id, device)),
              what=lambda: names(api, ask(api, client, batch.id, device)))
    first = c.pending[0]
    for field, value in fields.items():
        if field == "words":
            assert value in first.words
        elif value is True:
            assert first.HasField(field)
        else:
            assert getattr(first, field) == value
    assert all(p.words for p in c.pending) and not c.pending[-1].HasField("since")  # never seen
    assert c.HasField("expires_at")
    # One device's list tells the same.
    (listed,) = client.devices.ListDeviceCommands(pb.ListDeviceCommandsRequest(device_id=device)).commands
    assert [p.reason for p in listed.pending] == [p.reason for p in c.pending] and listed.expires_at == c.expires_at
    if how == "tenant hold":
        client.control.Release(pb.ReleaseRequest())


def test_waves_that_are_out_hold_nothing(api, client):
    api.import_devices(client, [f"w{i}" for i in range(4)])
    batch = steered(waves=waves)(api, client, None)
    assert until(lambda: names(api, ask(api, client, batch.id, "w1")) == ["OFFLINE"])
    assert ask(api, client, batch.id, "w2").pending[0].wave == 2
    assert ask(api, client, batch.id, "w3").pending[0].wave == 3


def test_a_canary_is_first_wherever_it_stands(api, client):
    api.import_devices(client, [f"c{i}" for i in range(4)])
    client.devices.CreateGroup(api.pb.CreateGroupRequest(name="canaries", device_ids=["c3"]))
    batch = steered(waves=lambda pb: [pb.Wave(group="canaries"), pb.Wave(devices=2, by_hand=True), pb.Wave(by_hand=True)])(
        api, client, None)
    until(lambda: names(api, ask(api, client, batch.id, "c3")) == ["OFFLINE"])
    assert [ask(api, client, batch.id, f"c{i}").pending[0].wave for i in range(3)] == [2, 2, 3]


def test_several_things_hold_it(api, client, tenant):
    """All are told, what must go first stands first; the kill switch too."""
    pb = api.pb
    api.import_devices(client, ["m"])
    batch = api.submit(client, steering=pb.Steering(not_before=at(3600))).batch
    client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch.id))
    client.control.Hold(pb.HoldRequest(reason="tenant"))
    client.control.Hold(pb.HoldRequest(all=True, reason="all"))
    try:
        c = ask(api, client, batch.id, "m")
        assert names(api, c) == ["PAUSED", "NOT_BEFORE", "TENANT_HELD", "ALL_HELD", "OFFLINE"]
        assert [p.said for p in c.pending] == ["", "", "tenant", "all", ""]
    finally:
        client.control.Release(pb.ReleaseRequest(all=True))
        client.control.Release(pb.ReleaseRequest())
    # Held for approval and paused.
    held = hold_for_approval(api, client, tenant)
    wiped = api.client(api.make_key(tenant.number, OPERATOR))
    assert names(api, ask(api, wiped, batch.id, "m"))[:2] == ["PAUSED", "NOT_BEFORE"] and held.id > batch.id


def test_a_platform_that_is_stopped(api, client):
    pb = api.pb
    api.import_devices(client, ["ios-1", "android-1", "ios-2"], platforms=(1, 5))
    tokens = api.tokens(client, ["ios-1"])
    with api.device("ios-1", tokens["ios-1"],
                    answer=lambda d: pb.Acknowledgement(command_id=d.command_id, outcome=pb.OUTCOME_FAILED)) as d:
        d.connect(api.workers[0].address)
        batch = api.submit(client, steering=pb.Steering(thresholds=[pb.Threshold(
            percent=1, action=pb.THRESHOLD_ACTION_PAUSE, per_platform=True)])).batch
        api.watch(client, batch.id, until=lambda b: list(b.control.stopped_platforms) == [1])
        until(lambda: names(api, ask(api, client, batch.id, "ios-2")) == ["PLATFORM_STOPPED", "OFFLINE"])
        stopped = ask(api, client, batch.id, "ios-2").pending[0]
        assert stopped.said and stopped.said in stopped.words and "IOS" in stopped.words
        assert names(api, ask(api, client, batch.id, "android-1")) == ["OFFLINE"]


# --- on the device ----------------------------------------------------------------------------------------------------

def test_on_the_device_and_behind(api, client):
    """In flight; behind that, in the worker's hands; the next of another class too."""
    pb = api.pb
    api.import_devices(client, ["d"])
    worker = int(api.redis.client().srandmember("workers")) if len(api.workers) == 1 else None
    with api.device("d", api.tokens(client, ["d"])["d"]) as d:
        d.connect(api.workers[0].address)
        first = api.submit(client, priority=pb.PRIORITY_NORMAL).batch.id
        delivery = d.next()
        second = api.submit(client, priority=pb.PRIORITY_NORMAL).batch.id
        urgent = api.submit(client, priority=pb.PRIORITY_URGENT).batch.id
        c = until(lambda: (lambda c: c if names(api, c) == ["IN_FLIGHT"] else None)(ask(api, client, first, "d")))
        assert c.pending[0].worker == worker and c.attempts == 1
        assert c.pending[0].since == c.updated_at and "worker" in c.pending[0].words and "1 time" in c.pending[0].words
        for batch, ahead in ((second, 2), (urgent, 1)):
            c = until(lambda b=batch, n=ahead: (lambda c: c if names(api, c) == ["BEHIND", "WORKER"] and c.pending[0].ahead == n
                                                else None)(ask(api, client, b, "d")))
            assert c.pending[0].command_id == delivery.command_id
            assert c.pending[1].worker == worker and "SENT" in c.pending[0].words
        # All three in one list.
        listed = client.devices.ListDeviceCommands(pb.ListDeviceCommandsRequest(device_id="d")).commands
        assert [names(api, c) for c in listed] == [["BEHIND", "WORKER"], ["BEHIND", "WORKER"], ["IN_FLIGHT"]]
        # Put off: it comes again.
        d.wait_published(d.ack(delivery, pb.OUTCOME_NOT_NOW))
        c = until(lambda: (lambda c: c if c.state == pb.COMMAND_STATE_QUEUED else None)(ask(api, client, first, "d")))
        assert names(api, c)[-1] == "AGAIN" and c.pending[-1].worker == worker
        assert d.next().command_id == command_id(api, client, urgent, "d")
    # It went away with what it had.
    until(lambda: names(api, ask(api, client, second, "d"))[0] == "OFFLINE")
    sent = until(lambda: (lambda c: c if c.state == pb.COMMAND_STATE_SENT else None)(ask(api, client, urgent, "d")))
    assert names(api, sent) == ["OFFLINE", "IN_FLIGHT"] and not sent.pending[1].worker


def test_what_is_tried_again_says_when(api, client):
    pb = api.pb
    api.import_devices(client, ["r"])
    with api.device("r", api.tokens(client, ["r"])["r"],
                    answer=lambda d: pb.Acknowledgement(command_id=d.command_id, outcome=pb.OUTCOME_FAILED)) as d:
        d.connect(api.workers[0].address)
        batch = api.submit(client, retry=pb.Retry(failed=True, attempts=3, initial=Duration(seconds=600))).batch.id
        c = until(lambda: (lambda c: c if names(api, c) == ["RETRY"] else None)(ask(api, client, batch, "r")))
        (again,) = c.pending
        assert 480 <= again.until.seconds - again.since.seconds <= 720 and "1 of 3 deliveries" in again.words
    until(lambda: names(api, ask(api, client, batch, "r")) == ["RETRY", "OFFLINE"])


def test_when_the_device_was_seen(api, client, tenant):
    api.import_devices(client, ["seen"])
    hour = int(time.time() // 3600)
    batch = api.submit(client).batch.id
    for hours, begins in ((300, "day"), (3, "hour")):
        row = (hour - hours) // 24 * 24 + 23 if begins == "day" else hour - hours
        api.sql("INSERT INTO device_seen SELECT %s, %s, 0, set_bit(repeat('0', 1024)::bit(1024), 0, 1)", tenant.number, row)
        (offline,) = ask(api, client, batch, "seen").pending
        assert offline.since.seconds == ((hour - hours) // 24 * 24 if begins == "day" else row) * 3600
        device = client.devices.GetDevice(api.pb.GetDeviceRequest(device_id="seen")).device
        assert device.last_seen_at == offline.since


def test_without_redis(make_stack):
    s = make_stack().start()
    client = s.client(s.make_tenant())
    s.import_devices(client, ["d"])
    batch = s.submit(client).batch.id
    s.redis.kill()
    until(lambda: names(s, ask(s, client, batch, "d")) == ["REDIS_AWAY"])
    s.redis.start()
    until(lambda: names(s, ask(s, client, batch, "d")) == ["OFFLINE"], timeout=40)


# --- what is over, or nobody's ----------------------------------------------------------------------------------------

def test_what_is_over_waits_for_nothing(api, client):
    pb = api.pb
    api.import_devices(client, ["x", "y"])
    with api.device("x", api.tokens(client, ["x"])["x"], answer=good(pb)) as d:
        d.connect(api.workers[0].address)
        batch = api.submit(client).batch.id
        until(lambda: (lambda c: c.state == pb.COMMAND_STATE_SUCCEEDED and c.HasField("updated_at"))(
            ask(api, client, batch, "x")))  # the outcome is durable
        # One of an open batch that has ended itself; then of a closed one, each.
        for closed in (False, True):
            if closed:
                client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
                api.watch(client, batch)
            for device in ("x", "y") if closed else ("x",):
                c = ask(api, client, batch, device)
                assert not c.pending and not c.HasField("expires_at") and c.HasField("updated_at")
        assert ask(api, client, batch, "y").state == pb.COMMAND_STATE_CANCELED


def test_a_device_that_is_no_more(api, client):
    """Its commands can be asked for by their ids; it itself is not found."""
    pb = api.pb
    api.import_devices(client, ["gone", "stays"])
    batch = api.submit(client).batch.id
    command = command_id(api, client, batch, "gone")
    client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="gone"))
    c = until(lambda: (lambda c: c if c.state == pb.COMMAND_STATE_CANCELED else None)(
        client.commands.GetCommand(pb.GetCommandRequest(command_id=command)).command))
    assert c.device_id == "gone" and not c.pending
    refused(api, grpc.StatusCode.NOT_FOUND, "DEVICE_NOT_FOUND",
            lambda: client.devices.ListDeviceCommands(pb.ListDeviceCommandsRequest(device_id="gone")))
    assert names(api, ask(api, client, batch, "stays")) == ["OFFLINE"]


IDS = [("", "INVALID_FIELD"), ("no-id", "INVALID_FIELD"), ("00000000-0001-4000-8000-000100000003", "INVALID_FIELD"),
       ("00000000-0001-8000-8000-00010000000", "INVALID_FIELD"), ("00000000-0001-8000-8000-0001000000033", "INVALID_FIELD"),
       ("00000000-0001-8000-0000-000100000003", "INVALID_FIELD"), ("{}", "INVALID_FIELD")]


@pytest.mark.parametrize("text,reason", IDS)
def test_bad_command_ids(api, client, text, reason):
    violations = refused(api, grpc.StatusCode.INVALID_ARGUMENT, reason,
                         lambda: client.commands.GetCommand(api.pb.GetCommandRequest(command_id=text)))
    assert list(violations) == ["command_id"]


def test_what_is_nobodys_or_anothers_is_not_found(api, client):
    """Another tenant's command, one of a batch that never was, one of a device that is not in the batch: all the same."""
    pb = api.pb
    api.import_devices(client, ["mine", "left-out"])
    batch = api.submit(client, target=to(api, "mine")).batch.id
    command = command_id(api, client, batch, "mine")
    stranger = api.client(api.make_tenant())
    other = f"{command[:-8]}{1:08x}"  # the second device
    never = "ffffffff-ffff-8000" + command[18:]
    seen = []
    for c, text in ((stranger, command), (client, other), (client, never)):
        e = refusal(api, grpc.StatusCode.NOT_FOUND, "COMMAND_NOT_FOUND",
                    lambda c=c, t=text: c.commands.GetCommand(pb.GetCommandRequest(command_id=t)))
        seen.append(e.details())
    assert len(set(seen)) == 1
    assert client.commands.GetCommand(pb.GetCommandRequest(command_id=command.upper())).command.command_id == command
    for asked in ({"by_platform": True}, {"by_wave": True}, {"latency": True}):
        refusal(api, grpc.StatusCode.NOT_FOUND, "BATCH_NOT_FOUND",
                lambda a=asked: stranger.commands.GetBatch(pb.GetBatchRequest(batch_id=batch, **a)))


# --- the command line -------------------------------------------------------------------------------------------------

def test_command_line_says_why(api, client, tenant, cli):
    pb = api.pb
    api.import_devices(client, ["cli"])
    batch = pause(api, client, None).id
    command = command_id(api, client, batch, "cli")
    shown = cli("command", "show", command, env=api.cli_env(tenant)).stdout
    assert "waits for    the batch is paused: a closer look" in shown and "the device is not connected" in shown
    assert cli("command", "get", command, env=api.cli_env(tenant)).stdout == shown
    rows = cli("device", "commands", "cli", env=api.cli_env(tenant)).stdout.splitlines()
    assert rows[1].startswith(command) and rows[2].startswith("    the batch is paused") and len(rows) == 4
