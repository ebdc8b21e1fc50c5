"""Time: not before, maintenance windows in the devices' zones, delivery and execution timeouts."""
import datetime
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from harness.answers import progress, refused
from harness.device import good
from harness.faketime import ahead, needs_faketime
from harness.in_time import in_time

UTC = datetime.timezone.utc


@pytest.fixture
def client(api):
    return api.client(api.make_tenant(role=2))


def seconds(s):
    return Duration(seconds=int(s), nanos=int(s % 1 * 1e9))


def at(delta):
    t = Timestamp()
    t.FromMilliseconds(int((time.time() + delta) * 1000))
    return t


def make(api, client, ids, zones=()):
    pb = api.pb
    client.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[
        pb.Device(id=d, platform=1, attributes={"time_zone": z} if z else {})
        for d, z in zip(ids, list(zones) + [""] * len(ids))])]))
    return api.tokens(client, ids)


# --- rules, as PostgreSQL computes them -------------------------------------------------------------------------------

ALL, MON_FRI, SUN = 0x7f, 0x1f, 0x40
WINDOWS = [  # zone, days, from, until, now (UTC), opens and closes (UTC)
    ("UTC", ALL, "09:00", "17:00", "2026-11-25 08:00", "2026-11-25 09:00", "2026-11-25 17:00"),
    ("UTC", ALL, "09:00", "17:00", "2026-11-25 09:00", "2026-11-25 09:00", "2026-11-25 17:00"),    # opens now
    ("UTC", ALL, "09:00", "17:00", "2026-11-25 16:59", "2026-11-25 09:00", "2026-11-25 17:00"),
    ("UTC", ALL, "09:00", "17:00", "2026-11-25 17:00", "2026-11-26 09:00", "2026-11-26 17:00"),    # closed now
    ("UTC", ALL, "22:00", "05:00", "2026-11-25 23:59", "2026-11-25 22:00", "2026-11-26 05:00"),    # across midnight
    ("UTC", ALL, "22:00", "05:00", "2026-11-26 00:01", "2026-11-25 22:00", "2026-11-26 05:00"),
    ("UTC", MON_FRI, "22:00", "05:00", "2026-11-28 03:00", "2026-11-27 22:00", "2026-11-28 05:00"),  # Friday's, on Saturday
    ("UTC", MON_FRI, "22:00", "05:00", "2026-11-28 05:00", "2026-11-30 22:00", "2026-12-01 05:00"),  # then Monday's
    ("Asia/Tokyo", ALL, "02:00", "04:00", "2026-11-25 16:00", "2026-11-25 17:00", "2026-11-25 19:00"),  # tomorrow there
    ("America/New_York", SUN, "01:30", "02:30", "2026-11-01 05:00", "2026-11-01 06:30", "2026-11-01 07:30"),  # 1:30 came twice
    ("Europe/Berlin", ALL, "01:00", "04:00", "2026-03-29 00:30", "2026-03-29 00:00", "2026-03-29 02:00"),  # an hour is left out
    ("Europe/Berlin", ALL, "01:00", "04:00", "2026-10-25 00:30", "2026-10-24 23:00", "2026-10-25 03:00"),  # one comes twice
    ("Europe/Berlin", SUN, "02:10", "02:50", "2026-03-28 00:00", "2026-03-29 01:10", "2026-03-29 01:50"),  # in the hour left out
    ("Asia/Kolkata", ALL, "00:00", "00:30", "2026-11-25 18:00", "2026-11-25 18:30", "2026-11-25 19:00"),  # half hours
]


def ms(text):
    return int(datetime.datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize("zone, days, begin, end, now, opens, closes", WINDOWS)
def test_windows(api, zone, days, begin, end, now, opens, closes):
    minutes = [int(t[:2]) * 60 + int(t[3:]) for t in (begin, end)]
    got = api.sql("SELECT * FROM next_window(%s, %s, %s, %s, %s)", zone, days, *minutes, ms(now))
    assert [[datetime.datetime.fromtimestamp(v / 1000, UTC).strftime("%Y-%m-%d %H:%M") for v in row] for row in got] == \
        [[opens, closes]]


def test_unknown_zones(api):
    assert api.sql("SELECT is_time_zone('Europe/Berlin'), is_time_zone('Mars/Base'), is_time_zone(''), is_time_zone('a b'),"
                   " is_time_zone('../etc/passwd')") == [(True, False, False, False, False)]
    assert api.sql("SELECT * FROM next_window('Mars/Base', 127, 0, 60, 0)") == []


def test_only_names_of_the_database_are_zones(api):
    """PostgreSQL takes what looks like an offset for a rule of its own: nobody means that."""
    names = {"Europe/Berlin": True, "UTC": True, "Etc/GMT-9": True, "GMT+0": True, "EST5EDT": True, "etc/gmt+3": True,
             "America/Port-au-Prince": True, "Berlin+1": False, "Europe/Berlim+1": False, "XYZ-2": False, "CEST": False, "": False}
    assert api.sql("SELECT n, is_iana_zone(n) FROM unnest(%s) AS n", list(names)) == list(names.items())


# --- the zone of a device ---------------------------------------------------------------------------------------------

def test_the_zone_of_a_device(api, client, cli, tmp_path):
    """A field of its record, and the attribute that it always was."""
    pb = api.pb
    bad = grpc.StatusCode.INVALID_ARGUMENT

    def give(*devices, **fields):
        client.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=devices, **fields)]))

    def zones():
        told = {d.id: (d.time_zone, d.attributes.get("time_zone", "")) for d in
                client.devices.ListDevices(pb.ListDevicesRequest()).devices}
        for d in told:
            one = client.devices.GetDevice(pb.GetDeviceRequest(device_id=d)).device
            assert (one.time_zone, one.attributes.get("time_zone", "")) == told[d]
        assert all(field == attribute for field, attribute in told.values())
        return {d: field for d, (field, _) in told.items()}

    give(pb.Device(id="field", time_zone="Europe/Berlin"), pb.Device(id="attribute", attributes={"time_zone": "Asia/Tokyo"}),
         pb.Device(id="both", time_zone="UTC", attributes={"time_zone": "UTC", "site": "x"}), pb.Device(id="none"))
    first = {"field": "Europe/Berlin", "attribute": "Asia/Tokyo", "both": "UTC", "none": ""}
    assert zones() == first
    give(*[pb.Device(id=d, tags=["t"]) for d in first])
    assert zones() == first  # empty leaves it
    give(pb.Device(id="field", time_zone="Asia/Tokyo"), pb.Device(id="attribute", attributes={"time_zone": ""}))
    assert zones() == {**first, "field": "Asia/Tokyo", "attribute": ""}
    assert [d.id for d in client.devices.ListDevices(pb.ListDevicesRequest(
        filter="attr.time_zone = Asia/Tokyo")).devices] == ["field"]
    give(pb.Device(id="both", tags=["t"]), replace_labels=True)
    assert zones()["both"] == ""
    for device, field in ((pb.Device(id="x", time_zone="UTC", attributes={"time_zone": "Asia/Tokyo"}), "devices[0].time_zone"),
                          (pb.Device(id="x", time_zone="x" * 64), "devices[0].time_zone"),
                          (pb.Device(id="x", time_zone="Mars/Base"), "devices.attributes.time_zone"),
                          (pb.Device(id="x", time_zone="Berlin+1"), "devices.attributes.time_zone")):
        assert set(refused(api, bad, "INVALID_FIELD", lambda: give(device))) == {field}
    assert "x" not in zones()

    tenant = api.make_tenant(role=2)
    env, file = api.cli_env(tenant), tmp_path / "devices"
    file.write_text('id,platform,time_zone\na,ios,Europe/Berlin\nb,ios,\n')
    assert "2 created" in cli("device", "import", file, env=env, check=0).stdout
    file.write_text('{"id": "c", "time_zone": "Asia/Tokyo"}\n')
    cli("device", "import", file, env=env, check=0)
    assert "time zone    Europe/Berlin" in cli("device", "get", "a", env=env, check=0).stdout
    listed = [line.split() for line in cli("device", "list", env=env, check=0).stdout.splitlines()[1:]]
    assert [(line[0], line[-1]) for line in listed if "/" in line[-1]] == [("a", "Europe/Berlin"), ("c", "Asia/Tokyo")]
    file.write_text('{"id": "c", "time_zone": 2}\n')
    assert "time_zone texts" in cli("device", "import", file, env=env, check=2).stderr


# --- not before -------------------------------------------------------------------------------------------------------

def test_not_before(api):
    in_time(lambda span: not_before(api, api.client(api.make_tenant(role=2)), span), 2)


def not_before(api, client, span):
    pb = api.pb
    tokens = make(api, client, ["a", "b"])
    with api.device("a", tokens["a"], answer=good(pb)) as a:
        a.connect(api.workers[0].address)
        span.begin()
        begin = time.time()
        b = api.submit(client, steering=pb.Steering(not_before=at(span.seconds))).batch
        assert b.control.state == pb.CONTROL_STATE_WAITING and b.steering.HasField("not_before")
        seen = client.commands.GetBatch(pb.GetBatchRequest(batch_id=b.id)).batch
        assert progress(seen) == {"held": 2} and seen.control.state == pb.CONTROL_STATE_WAITING
        # What has no such wish goes first.
        api.watch(client, api.submit(client).batch.id, until=lambda x: x.progress.succeeded)
        had = a.deliveries.qsize()
        span.kept()
        assert had == 1
        seen = api.watch(client, b.id, until=lambda x: x.progress.succeeded)
        assert time.time() - begin >= span.seconds and progress(seen) == {"succeeded": 1, "queued": 1}
        assert seen.control.state == pb.CONTROL_STATE_RUNNING


def test_waiting_can_be_paused_canceled_and_canceled_for_some(api, client):
    pb = api.pb
    tokens = make(api, client, ["a", "b", "c"])
    batch = api.submit(client, steering=pb.Steering(not_before=at(2))).batch.id
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch, target=pb.Target(devices=pb.DeviceIds(ids=["b"]))))
    client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
    api.watch(client, batch, until=lambda b: progress(b) == {"canceled": 1, "held": 2})
    later = api.submit(client, steering=pb.Steering(not_before=at(1000))).batch.id
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=later))
    assert progress(api.watch(client, later)) == {"canceled": 3}
    with api.device("a", tokens["a"], answer=good(pb)) as a, api.device("c", tokens["c"], answer=good(pb)) as c:
        a.connect(api.workers[0].address)
        c.connect(api.workers[0].address)
        time.sleep(2.5)  # its time comes while it is paused
        assert a.deliveries.empty()
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"canceled": 1, "succeeded": 2}


def test_waiting_outlives_its_leader(make_stack):
    stack = make_stack()
    pb = stack.pb
    stack.start(dispatchers=2)
    client = stack.client(stack.make_tenant(), dispatcher=stack.dispatchers[1])
    tokens = make(stack, client, ["a"])
    told, begin = [], at(7)

    def answer(delivery):
        told.append(time.time())
        return good(pb)(delivery)
    batch = stack.submit(client, steering=pb.Steering(not_before=begin)).batch.id
    stack.dispatchers[0].kill()
    with stack.device("a", tokens["a"], answer=answer) as a:
        a.connect(stack.workers[0].address)
        stack.dispatchers[1].wait_event("leader_loaded")
        assert progress(stack.watch(client, batch)) == {"succeeded": 1}
        assert a.next().attempt == 1 and told[0] >= begin.ToMilliseconds() / 1000


# --- windows ----------------------------------------------------------------------------------------------------------

def clock(zone_offset_h, delta_min):
    """HH:MM of a clock so many hours from UTC, so many minutes from now."""
    t = datetime.datetime.now(UTC) + datetime.timedelta(hours=zone_offset_h, minutes=delta_min)
    return t.strftime("%H:%M")


def test_a_window_where_the_device_is(api, client):
    """Etc/GMT-9 is nine hours ahead: for it alone the window is open; then a device's zone changes."""
    pb = api.pb
    ids = ["east", "west", "none"]
    tokens = make(api, client, ids, ["Etc/GMT-9", "Etc/GMT+9"])
    devices = {d: api.device(d, tokens[d], answer=good(pb)) for d in ids}
    window = pb.Window(**{"from": clock(9, -30), "until": clock(9, 30)})
    try:
        for d in devices.values():
            d.connect(api.workers[0].address)
        batch = api.submit(client, steering=pb.Steering(window=window)).batch.id
        seen = api.watch(client, batch, until=lambda b: b.progress.succeeded)
        assert progress(seen) == {"succeeded": 1, "held": 2} and devices["east"].deliveries.qsize() == 1
        # By default it may be the zone of the batch.
        window.time_zone = "Etc/GMT-9"
        second = api.submit(client, steering=pb.Steering(window=window)).batch.id
        seen = api.watch(client, second, until=lambda b: b.progress.succeeded == 2)
        assert progress(seen) == {"succeeded": 2, "held": 1} and devices["west"].deliveries.empty()
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"succeeded": 1, "canceled": 2}
    finally:
        for d in devices.values():
            d.close()


@needs_faketime
def test_one_window_closes_while_another_opens(stack):
    """On the real clock of a dispatcher for which the minute ends in a few seconds."""
    pb = stack.pb
    off = round(51 - time.time() % 60)
    stack.start_dispatcher(under=ahead(off))
    stack.start_worker()
    edge = datetime.datetime.fromtimestamp((time.time() + off) // 60 * 60 + 60, UTC)
    early, then, late = [(edge + datetime.timedelta(minutes=m)).strftime("%H:%M") for m in (-30, 0, 30)]
    client = stack.client(stack.make_tenant())
    tokens = make(stack, client, ["silent", "away", "there"])
    with stack.device("silent", tokens["silent"]) as silent, \
            stack.device("there", tokens["there"], answer=good(pb)) as there:
        silent.connect(stack.workers[0].address)
        closes, opens = [stack.submit(client, steering=pb.Steering(window=pb.Window(**{"from": f, "until": u}))).batch.id
                         for f, u in ((early, then), (then, late))]
        assert silent.next().command_id.startswith(f"00000000-{closes:04x}")
        assert progress(stack.watch(client, closes, until=lambda b: b.progress.sent)) == {"sent": 1, "queued": 2}
        # What was sent stays with the device, what was not is held.
        assert progress(stack.watch(client, closes, until=lambda b: b.progress.held)) == {"sent": 1, "held": 2}
        there.connect(stack.workers[0].address)
        stack.watch(client, opens, until=lambda b: b.progress.succeeded)
        assert there.deliveries.qsize() == 1 and silent.deliveries.empty()
        assert progress(client.commands.GetBatch(pb.GetBatchRequest(batch_id=closes)).batch) == {"sent": 1, "held": 2}


def test_what_contradicts_itself_is_refused(api, client):
    pb = api.pb
    ids = ["a", "b"]
    make(api, client, ids, ["Etc/GMT-9"])
    pre, bad = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
    window = {"from": clock(0, -30), "until": clock(0, 30)}
    for reason, fields in (
            ("NEVER_SENT", dict(steering=pb.Steering(not_before=at(3600)), expires_at=at(3599))),
            ("TIMEOUT_AFTER_EXPIRY", dict(steering=pb.Steering(timeouts=pb.Timeouts(delivery=seconds(60))), expires_at=at(30))),
            ("WINDOW_NEVER_OPENS", dict(steering=pb.Steering(window=pb.Window(**window)), expires_at=at(3600))),
            ("WINDOW_NEVER_OPENS", dict(steering=pb.Steering(window=pb.Window(time_zone="Etc/GMT-9", **{
                "from": clock(9, -60), "until": clock(9, 60)}), not_before=at(7200)), expires_at=at(7300)))):
        refused(api, pre, reason, lambda: api.submit(client, **fields))
        refused(api, pre, reason, lambda: api.submit(client, validate_only=True, **fields))
    steering = pb.Steering(window=pb.Window(days=[1, 9, 1], **{"from": "24:00", "until": "7:00"}, time_zone="x" * 64),
                           timeouts=pb.Timeouts(delivery=seconds(0.5), execution=seconds(41 * 86400)))
    steering.not_before.nanos = -1
    assert set(refused(api, bad, "INVALID_FIELD", lambda: api.submit(client, steering=steering))) == {
        "steering.not_before", "steering.window.days[1]", "steering.window.days[2]", "steering.window.from",
        "steering.window.until", "steering.window.time_zone", "steering.timeouts.delivery", "steering.timeouts.execution"}
    assert set(refused(api, bad, "INVALID_FIELD", lambda: api.submit(client, steering=pb.Steering(
        window=pb.Window(**{"from": "07:00", "until": "07:00"}))))) == {"steering.window.until"}
    assert set(refused(api, bad, "INVALID_FIELD", lambda: api.submit(client, steering=pb.Steering(
        window=pb.Window(time_zone="Mars/Base", **window))))) == {"steering.window.time_zone"}
    assert set(refused(api, bad, "INVALID_FIELD", lambda: make(api, client, ["c"], ["Mars/Base"]))) == {
        "devices.attributes.time_zone"}
    assert not client.commands.ListBatches(pb.ListBatchesRequest()).batches  # nothing half done


def test_the_same_request_with_other_steering(api, client):
    pb = api.pb
    make(api, client, ["a"])
    steering = pb.Steering(not_before=at(1000))
    first = api.submit(client, request_id="r", steering=steering)
    again = api.submit(client, request_id="r", steering=steering)
    assert again.replayed and again.batch.id == first.batch.id
    for other in (None, pb.Steering(not_before=at(2000))):
        refused(api, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED",
                lambda: api.submit(client, request_id="r", steering=other))


# --- timeouts ---------------------------------------------------------------------------------------------------------

def test_delivery_timeout(api):
    """Unsent ends as EXPIRED; what is sent goes on."""
    in_time(lambda span: delivery_timeout(api, api.client(api.make_tenant(role=2)), span), 1)


def delivery_timeout(api, client, span):
    pb = api.pb
    tokens = make(api, client, ["silent", "away"])
    with api.device("silent", tokens["silent"]) as silent:
        silent.connect(api.workers[0].address)
        span.begin()
        batch = api.submit(client, steering=pb.Steering(timeouts=pb.Timeouts(delivery=seconds(span.seconds)))).batch.id
        delivery = silent.next()
        span.kept()
        api.watch(client, batch, until=lambda b: progress(b) == {"expired": 1, "sent": 1})
        silent.ack(delivery)
        assert progress(api.watch(client, batch)) == {"expired": 1, "succeeded": 1}
    assert time.time() < delivery.expires_at.ToMilliseconds() / 1000  # the device may still answer until then


def test_execution_timeout_and_what_waits_behind(api, client):
    pb = api.pb
    tokens = make(api, client, ["silent"])
    with api.device("silent", tokens["silent"]) as silent:
        silent.connect(api.workers[0].address)
        batch = api.submit(client, steering=pb.Steering(timeouts=pb.Timeouts(execution=seconds(1)))).batch.id
        behind = api.submit(client).batch.id
        delivery = silent.next()
        assert progress(api.watch(client, batch)) == {"timed_out": 1}
        second = silent.next()  # it keeps nothing back
        silent.wait_published(silent.ack(delivery))  # too late: taken, and without effect
        silent.ack(second)
        assert progress(api.watch(client, behind)) == {"succeeded": 1}
    assert progress(client.commands.GetBatch(pb.GetBatchRequest(batch_id=batch)).batch) == {"timed_out": 1}


def test_the_command_line(api, cli):
    tenant = api.make_tenant(role=2)
    client = api.client(tenant)
    make(api, client, ["a"])
    env = api.cli_env(tenant)
    out = cli("batch", "submit", "--type", "lock", "--all", "--not-before", "2h", "--window", "22:00-05:00", "--window-days",
              "sat,sun", "--window-zone", "Europe/Berlin", "--execution-timeout", "10m", env=env, check=0).stdout
    for said in ("not before   20", "window       22:00-05:00 SATURDAY SUNDAY, Europe/Berlin", "execution    within 600 s",
                 "control      WAITING", "1 HELD"):
        assert said in cli("batch", "get", out.split()[1].rstrip(":"), env=env, check=0).stdout, out
    for flags in (["--not-before", "soon"], ["--window", "22"], ["--window-days", "sat"], ["--window", "1:00-2:00", "--window-days", "x"]):
        cli("batch", "submit", "--type", "lock", "--all", *flags, env=env, check=2)
