"""Dynamic batches: devices that come to be meant later get the command too."""
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from harness.answers import progress, refused
from harness.in_time import in_time
from harness.oracle import check
from harness.patience import fewer
from harness.until import until


@pytest.fixture
def client(api):
    return api.client(api.make_tenant(role=2))


class Crowd:
    """Devices that are registered and connected as they come."""

    def __init__(self, api, client):
        self.api, self.client, self.devices = api, client, {}

    def come(self, *ids, platform=1):
        pb = self.api.pb
        self.api.import_devices(self.client, ids, platforms=(platform,))
        tokens = self.api.tokens(self.client, ids)
        for d in ids:
            self.devices[d] = self.api.device(d, tokens[d], answer=lambda m: pb.Acknowledgement(
                command_id=m.command_id, outcome=pb.OUTCOME_SUCCEEDED))
            self.devices[d].connect(self.api.workers[0].address)

    def got(self):
        return {d: device.deliveries.qsize() for d, device in self.devices.items() if device.deliveries.qsize()}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for d in self.devices.values():
            d.close()


def submit(api, client, target, **fields):
    return api.submit(client, target=target, dynamic=True, **fields)


def groups(api, *names):
    return api.pb.Target(groups=api.pb.GroupNames(names=names))


def test_who_is_registered_later_gets_it_too(api, client):
    pb = api.pb
    with Crowd(api, client) as crowd:
        # Nobody is there yet.
        answer = submit(api, client, pb.Target(all=True))
        batch = answer.batch.id
        assert answer.batch.dynamic and answer.batch.device_count == 0
        crowd.come("a", "b")
        seen = api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 2})
        assert seen.device_count == seen.control.joined == 2
        crowd.come("c")
        api.import_devices(client, [f"away{i}" for i in range(1100)])  # another block, and the rest of the first
        seen = api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 3, "queued": 1100})
        assert seen.device_count == 1103 and seen.state == pb.BATCH_STATE_OPEN
        assert crowd.got() == {"a": 1, "b": 1, "c": 1}
        client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="away7"))
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 3, "queued": 1099, "canceled": 1})
        rows = {c.device_id: c.state for c in api.list_commands(client, batch)}
        assert len(rows) == 1103 and rows["c"] == pb.COMMAND_STATE_SUCCEEDED
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"succeeded": 3, "canceled": 1100}
        crowd.come("d")
        assert crowd.got() == {"a": 1, "b": 1, "c": 1}


def test_who_becomes_a_member_or_matches_gets_it_and_who_leaves_keeps_it(api, client):
    pb = api.pb
    with Crowd(api, client) as crowd:
        crowd.come("a", "b", "c")
        api.import_devices(client, ["away"])
        client.devices.CreateGroup(pb.CreateGroupRequest(name="some", device_ids=["b", "away"]))
        by_group = submit(api, client, groups(api, "some")).batch.id
        by_filter = submit(api, client, pb.Target(filter='tag = "x"')).batch.id
        by_platform = submit(api, client, pb.Target(platform=pb.PLATFORM_ANDROID)).batch.id
        api.watch(client, by_group, until=lambda b: progress(b) == {"succeeded": 1, "queued": 1})
        # "a" stands before "b" in the same block, and "away" is no member any more.
        client.devices.UpdateGroup(pb.UpdateGroupRequest(name="some", add_device_ids=["a"], remove_device_ids=["away"]))
        api.watch(client, by_group, until=lambda b: progress(b) == {"succeeded": 2, "queued": 1})
        client.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[
            pb.Device(id="c", platform=pb.PLATFORM_IOS, tags=["x"])])]))
        seen = api.watch(client, by_filter, until=lambda b: progress(b) == {"succeeded": 1})
        assert seen.control.joined == 1
        # A platform that a device did not have when it was registered.
        crowd.come("d", platform=pb.PLATFORM_ANDROID)
        api.watch(client, by_platform, until=lambda b: progress(b) == {"succeeded": 1})
        assert crowd.got() == {"a": 1, "b": 1, "c": 1, "d": 1}
        for batch in (by_group, by_filter, by_platform):
            client.control.SealBatch(pb.SealBatchRequest(batch_id=batch))
        assert progress(api.watch(client, by_filter)) == progress(api.watch(client, by_platform)) == {"succeeded": 1}
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=by_group))
        assert progress(api.watch(client, by_group)) == {"succeeded": 2, "canceled": 1}


def in_whole_seconds(span):
    """The moment at which the span is over, or up to a second later."""
    return Timestamp(seconds=int(time.time()) + 1 + span.seconds)


def test_it_is_open_until_it_expires(api):
    pb = api.pb

    def attempt(span):
        client = api.client(api.make_tenant(role=2))
        with Crowd(api, client) as crowd:
            crowd.come("a")
            span.begin()
            at = in_whole_seconds(span)
            batch = submit(api, client, pb.Target(all=True), expires_at=at).batch.id
            empty = submit(api, client, pb.Target(platform=pb.PLATFORM_TVOS), expires_at=at).batch.id
            api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 1})
            crowd.come("b")
            api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 2})
            span.kept()
            seen = api.watch(client, batch)
            assert progress(seen) == {"succeeded": 2} and seen.closed_at.ToMilliseconds() >= at.ToMilliseconds()
            assert progress(api.watch(client, empty)) == {}
            assert crowd.got() == {"a": 1, "b": 1}
    in_time(attempt, 2)


def test_it_is_open_until_it_is_sealed(api, client):
    pb = api.pb
    with Crowd(api, client) as crowd:
        crowd.come("a")
        batch = submit(api, client, pb.Target(all=True)).batch.id
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 1})
        sealed = client.control.SealBatch(pb.SealBatchRequest(batch_id=batch)).batch
        assert sealed.control.sealed
        seen = api.watch(client, batch)
        assert seen.state == pb.BATCH_STATE_CLOSED and seen.control.sealed and not seen.HasField("canceled_at")
        pre = grpc.StatusCode.FAILED_PRECONDITION
        refused(api, pre, "BATCH_ENDING", lambda: client.control.SealBatch(pb.SealBatchRequest(batch_id=batch)))
        plain = api.submit(client, steering=pb.Steering(not_before=Timestamp(seconds=int(time.time()) + 1000))).batch.id
        refused(api, pre, "NOT_DYNAMIC", lambda: client.control.SealBatch(pb.SealBatchRequest(batch_id=plain)))
        refused(api, grpc.StatusCode.NOT_FOUND, "BATCH_NOT_FOUND",
                lambda: client.control.SealBatch(pb.SealBatchRequest(batch_id=2 ** 40)))
        assert crowd.got() == {"a": 1}


def test_it_ends_while_it_is_found_out_who_is_meant(api, client):
    """PostgreSQL does not tell it in time."""
    pb = api.pb
    with Crowd(api, client) as crowd:
        crowd.come("a")
        batch = submit(api, client, pb.Target(all=True)).batch.id
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 1})
        locks = api.postgres.connect(api.database)
        locks.autocommit = False
        locks.cursor().execute("LOCK TABLE device_block IN ACCESS EXCLUSIVE MODE")
        client.devices.CreateGroup(pb.CreateGroupRequest(name="some", device_ids=["a"]))  # has it looked at again
        until(lambda: api.sql(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%device_block%'"))
        client.control.SealBatch(pb.SealBatchRequest(batch_id=batch))
        assert api.watch(client, batch).state == pb.BATCH_STATE_CLOSED
        locks.close()
        # The next one is looked at behind that.
        batch = submit(api, client, pb.Target(all=True)).batch.id
        crowd.come("b")
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 2})


@pytest.mark.parametrize("end", ("cancel", "expiry"))
def test_who_has_joined_and_was_not_sent_to_ends_with_the_batch(api, end):
    """Redis knows of others in the same block, not of him: what is held goes nowhere."""
    in_time(lambda span: who_has_joined_and_was_not_sent_to(api, api.client(api.make_tenant(role=2)), end, span), 4)


def who_has_joined_and_was_not_sent_to(api, client, end, span):
    pb = api.pb
    with Crowd(api, client) as crowd:
        crowd.come("a", "b")
        span.begin()
        at = in_whole_seconds(span) if end == "expiry" else None
        batch = submit(api, client, pb.Target(all=True), expires_at=at).batch.id
        api.import_devices(client, ["away"])
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 2, "queued": 1})
        client.control.Hold(pb.HoldRequest(reason="drill"))
        crowd.come("c")
        api.watch(client, batch, until=lambda b: b.device_count == 4)
        if end == "cancel":
            client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
        else:
            span.kept()
        assert progress(api.watch(client, batch, timeout=30)) == {"succeeded": 2, "canceled" if end == "cancel" else "expired": 2}
        assert crowd.got() == {"a": 1, "b": 1}
        client.control.Release(pb.ReleaseRequest())


def test_who_joins_comes_with_the_last_wave_and_takes_his_turn(api, client):
    pb = api.pb
    with Crowd(api, client) as crowd:
        crowd.come("a", "b", "c", "d")
        client.devices.CreateGroup(pb.CreateGroupRequest(name="some", device_ids=["b", "c", "d"]))
        batch = submit(api, client, groups(api, "some"), steering=pb.Steering(
            rate=pb.Rate(devices=20), waves=[pb.Wave(devices=2), pb.Wave(by_hand=True)])).batch.id
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 2, "held": 1})
        # "a" is registered before all others, but is in the last wave; and so is "e".
        crowd.come("e")
        client.devices.UpdateGroup(pb.UpdateGroupRequest(name="some", add_device_ids=["a", "e"]))
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 2, "held": 3})
        assert crowd.got() == {"b": 1, "c": 1}
        client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
        api.watch(client, batch, until=lambda b: b.control.state == pb.CONTROL_STATE_PAUSED)
        crowd.come("f")
        client.devices.UpdateGroup(pb.UpdateGroupRequest(name="some", add_device_ids=["f"]))
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 2, "held": 4})
        client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 6})
        crowd.come("g")
        client.devices.UpdateGroup(pb.UpdateGroupRequest(name="some", add_device_ids=["g"]))
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 7})
        client.control.SealBatch(pb.SealBatchRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"succeeded": 7}
        assert crowd.got() == {d: 1 for d in "abcdefg"}


def test_who_is_barred_by_a_newer_one_is_in_the_wave_he_was(api, client):
    """And has not had his turn."""
    pb = api.pb
    ids = [f"b{i}" for i in range(6)]
    api.register(client, *ids)
    client.devices.CreateGroup(pb.CreateGroupRequest(name="barred", device_ids=ids))
    batch = submit(api, client, groups(api, "barred"), supersede_key="barred", steering=pb.Steering(
        rate=pb.Rate(devices=1, per=Duration(seconds=4)), waves=[pb.Wave(devices=4), pb.Wave(by_hand=True)])).batch.id
    api.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=ids[1:4])), supersede_key="barred")
    api.watch(client, batch, until=lambda b: b.progress.superseded == 3)
    seen = client.commands.GetBatch(pb.GetBatchRequest(batch_id=batch, by_wave=True)).batch
    assert [w.progress.superseded for w in seen.waves] == [3, 0]
    client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))  # its leader looks who is in which part
    api.watch(client, batch, until=lambda b: b.control.waves_released == 2)

    def turns():
        rows = api.sql("SELECT get_byte(slots, 0) FROM batch_part WHERE batch_id = %s AND kind = 3", batch)
        return rows[0][0] if rows and rows[0][0] & 1 << 4 else None
    assert until(turns, what="the next one has his turn") & 0b1100 == 0
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))


def test_nobody_of_a_platform_that_was_canceled_joins(api, client):
    pb = api.pb
    api.import_devices(client, ["a", "b"], platforms=(pb.PLATFORM_ANDROID, pb.PLATFORM_IOS))
    token = api.tokens(client, ["a"])["a"]
    device = api.device("a", token, answer=lambda m: pb.Acknowledgement(command_id=m.command_id, outcome=pb.OUTCOME_FAILED))
    device.connect(api.workers[0].address)
    batch = submit(api, client, pb.Target(all=True), steering=pb.Steering(thresholds=[
        pb.Threshold(percent=1, minimum=1, action=pb.THRESHOLD_ACTION_ABORT, per_platform=True)])).batch.id
    api.watch(client, batch, until=lambda b: list(b.control.canceled_platforms) == [pb.PLATFORM_ANDROID] and
              b.control.state == pb.CONTROL_STATE_RUNNING)
    api.import_devices(client, ["c", "d"], platforms=(pb.PLATFORM_ANDROID, pb.PLATFORM_IOS))
    seen = api.watch(client, batch, until=lambda b: progress(b) == {"failed": 1, "queued": 2})
    assert seen.control.joined == 1
    device.close()
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    api.watch(client, batch)


def test_the_window_of_who_joins_is_that_of_his_zone(api, client):
    pb = api.pb
    hour = time.gmtime().tm_hour
    # Open now in UTC, and closed twelve hours away.
    window = pb.Window(**{"from": f"{(hour - 2) % 24:02}:00", "until": f"{(hour + 3) % 24:02}:00"})
    batch = submit(api, client, pb.Target(all=True), steering=pb.Steering(window=window)).batch.id
    client.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[
        pb.Device(id="here", platform=pb.PLATFORM_IOS),
        pb.Device(id="there", platform=pb.PLATFORM_IOS, attributes={"time_zone": "Pacific/Auckland"})])]))
    api.watch(client, batch, until=lambda b: progress(b) == {"queued": 1, "held": 1})
    states = {c.device_id: c.state for c in api.list_commands(client, batch)}
    assert states == {"here": pb.COMMAND_STATE_QUEUED, "there": pb.COMMAND_STATE_HELD}
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    api.watch(client, batch)


def test_the_same_request_gets_the_first_answer(api, client):
    pb = api.pb
    api.import_devices(client, ["a", "b"])
    request = dict(request_id="once", target=pb.Target(all=True), dynamic=True)
    first = api.submit(client, **request)
    api.import_devices(client, ["c"])
    api.watch(client, first.batch.id, until=lambda b: b.device_count == 3)
    again = api.submit(client, **request)
    assert again.replayed and again.target_digest == first.target_digest and again.batch.device_count == 2
    request["dynamic"] = False
    refused(api, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED", lambda: api.submit(client, **request))
    # A digest holds for those who are there.
    now = api.submit(client, validate_only=True, target=pb.Target(all=True)).target_digest
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "TARGET_CHANGED", lambda: submit(
        api, client, pb.Target(all=True), target_digest=first.target_digest))
    other = submit(api, client, pb.Target(all=True), target_digest=now).batch.id
    for b in (first.batch.id, other):
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=b))
        api.watch(client, b)


def test_what_is_refused(api, client):
    pb = api.pb
    pre, bad = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
    api.import_devices(client, ["a"])
    wipe = pb.Command(wipe=pb.WipeCommand())
    refused(api, pre, "DYNAMIC_GUARDED", lambda: submit(api, client, pb.Target(all=True), command=wipe))
    refused(api, pre, "DYNAMIC_GUARDED", lambda: submit(api, client, pb.Target(all=True), command=wipe, validate_only=True))
    remove = pb.Command(remove_application=pb.RemoveApplicationCommand(application_id="x"))
    refused(api, pre, "DYNAMIC_GUARDED", lambda: submit(api, client, pb.Target(all=True), command=remove))
    assert set(refused(api, bad, "INVALID_FIELD", lambda: submit(
        api, client, pb.Target(devices=pb.DeviceIds(ids=["a"]))))) == {"target.devices"}
    values = pb.Values(device_ids=["a"], variables=[pb.Variable(name="code", values=[b"1"])])
    lock = pb.Command(lock=pb.LockCommand(passcode="{{code}}"))
    for only in (False, True):
        refused(api, pre, "DYNAMIC_VALUES", lambda only=only: submit(
            api, client, pb.Target(all=True), values=values, command=lock, validate_only=only))
    many = pb.Target(all=True, exclude=pb.Target(devices=pb.DeviceIds(ids=[f"{i:0100}" for i in range(700)])))
    assert set(refused(api, bad, "INVALID_FIELD", lambda: submit(api, client, many))) == {"target"}
    batches = [submit(api, client, pb.Target(platform=pb.PLATFORM_TVOS)).batch.id for _ in range(64)]
    refused(api, pre, "DYNAMIC_TOO_MANY", lambda: submit(api, client, pb.Target(all=True)))
    client.control.SealBatch(pb.SealBatchRequest(batch_id=batches[0]))
    api.watch(client, batches[0])
    submit(api, client, pb.Target(all=True), validate_only=True)
    for b in batches[1:]:
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=b))
    for b in batches[1:]:
        assert progress(api.watch(client, b)) == {}


def test_it_grows_on_under_another_leader_and_without_redis(make_stack, cli):
    stack = make_stack()
    pb = stack.pb
    stack.start(dispatchers=2)
    tenant = stack.make_tenant()
    client = stack.client(tenant, dispatcher=stack.dispatchers[1])
    count = fewer(300)
    tokens = stack.make_devices(client, count)
    fleet = stack.start_fleet(tokens)
    batch = submit(stack, client, pb.Target(all=True)).batch.id
    stack.watch(client, batch, until=lambda b: progress(b) == {"succeeded": count})
    stack.import_devices(client, [f"early{i}" for i in range(100)])
    stack.watch(client, batch, until=lambda b: progress(b) == {"succeeded": count, "queued": 100})
    stack.redis.kill()
    stack.redis.start()
    stack.import_devices(client, [f"lost{i}" for i in range(1000)])
    stack.watch(client, batch, until=lambda b: progress(b) == {"succeeded": count, "queued": 1100})
    stack.dispatchers[0].kill()
    stack.import_devices(client, [f"late{i}" for i in range(1000)])
    stack.dispatchers[1].wait_event("leader_loaded")
    seen = stack.watch(client, batch, until=lambda b: progress(b) == {"succeeded": count, "queued": 2100})
    assert seen.control.joined == 2100
    more = {d: t for d, t in stack.tokens(client, ["early7", "lost999", "late999"]).items()}
    second = stack.start_fleet(more)
    stack.watch(client, batch, until=lambda b: progress(b) == {"succeeded": count + 3, "queued": 2097})
    cli("verify", env=stack.cli_env(tenant, stack.dispatchers[1]), check=0)
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    assert progress(stack.watch(client, batch)) == {"succeeded": count + 3, "canceled": 2097}
    record = {**fleet.dump(), **second.dump()}
    fleet.quit()
    second.quit()
    assert all(received == 1 for received, _, _, _ in record.values())
    check(stack, client, [batch], record)


def test_one_that_nobody_has_joined_is_sealed_while_nobody_leads(make_stack):
    stack = make_stack()
    pb = stack.pb
    stack.start(dispatchers=2)
    client = stack.client(stack.make_tenant(), dispatcher=stack.dispatchers[1])
    batch = submit(stack, client, pb.Target(all=True)).batch.id
    lease = stack.postgres.connect(stack.database)  # keeps it from the other, however long that takes
    lease.autocommit = False
    lease.cursor().execute("SELECT FROM lease WHERE name = 'leader' FOR UPDATE")
    stack.dispatchers[0].kill()
    client.control.SealBatch(pb.SealBatchRequest(batch_id=batch))
    assert not stack.dispatchers[1].events("leader_loaded")
    lease.close()
    stack.dispatchers[1].wait_event("leader_loaded")
    assert progress(stack.watch(client, batch, timeout=30)) == {}


def test_the_command_line(api, cli):
    tenant = api.make_tenant(role=2)
    client = api.client(tenant)
    env = api.cli_env(tenant)
    out = cli("batch", "submit", "--type", "lock", "--all", "--dynamic", env=env, check=0).stdout
    batch = out.split()[1].rstrip(":")
    assert "dynamic      0 joined" in out
    api.import_devices(client, ["a"])
    api.watch(client, int(batch), until=lambda b: b.device_count == 1)
    out = cli("batch", "seal", batch, env=env, check=0).stdout
    assert "dynamic      1 joined, sealed" in out
    client.commands.CancelBatch(api.pb.CancelBatchRequest(batch_id=int(batch)))
    api.watch(client, int(batch))
