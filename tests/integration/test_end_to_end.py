"""From a gRPC call to every device's acknowledgement: two dispatchers, two workers, simulated and stock devices."""
import concurrent.futures
import itertools
import secrets
import threading

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from harness import oracle
from harness.in_time import in_time
from harness.patience import fewer, patient
from harness.stack import Stack, have
from harness.until import until

pytestmark = pytest.mark.skipif(not have("muster-dispatcher", "muster-worker", "muster-fleet"), reason="not all is built")


@pytest.fixture(scope="module")
def site(tmp_path_factory, postgres, module_redis, certificates, stubs):
    """Two dispatchers and two workers that repeat a NOT_NOW soon."""
    s = Stack(tmp_path_factory.mktemp("stack"), postgres, module_redis, certificates, stubs,
              worker_flags=["--not-now-retry", "200ms"])
    s.start(dispatchers=2, workers=2)
    yield s
    s.stop()


class Tenant:
    """A tenant of the test's own with a client on each dispatcher."""

    def __init__(self, site):
        self.site, self.pb = site, site.pb
        self.tenant = site.make_tenant(f"e2e-{secrets.token_hex(4)}")
        self.a, self.b = (site.client(self.tenant, d) for d in site.dispatchers)
        self.fleets = []

    def devices(self, count, **kwargs):
        return self.site.make_devices(self.a, count, **kwargs)

    def fleet(self, tokens, *flags, wait=True):
        self.fleets.append(self.site.start_fleet(tokens, *flags, wait=wait))
        return self.fleets[-1]

    def submit(self, client=None, **fields):
        return self.site.submit(client or self.a, **fields)

    def watch(self, batch_id, until_true=None, client=None):
        return self.site.watch(client or self.b, batch_id, until_true)

    def cancel(self, batch_id):
        return self.b.commands.CancelBatch(self.pb.CancelBatchRequest(batch_id=batch_id)).batch

    def device(self, device_id, token, answer=None, worker=0):
        return self.site.device(device_id, token, answer=answer).connect(self.site.workers[worker].address)

    def ack(self, delivery, outcome=1, **fields):
        return self.pb.Acknowledgement(command_id=delivery.command_id, outcome=outcome, **fields)


@pytest.fixture
def tenant(site):
    t = Tenant(site)
    yield t
    for fleet in t.fleets:
        fleet.stop()


def counts(batch):
    return {f.name: v for f, v in batch.progress.ListFields()}


def test_every_device_is_accounted_for_by_every_witness(site, tenant):
    count = 2 * fewer(200)
    fleet = tenant.fleet(tenant.devices(count), "--failed", "0.1", "--rejected", "0.1", "--payload", "10")
    batch = tenant.submit().batch
    assert (batch.device_count, batch.state) == (count, site.pb.BATCH_STATE_OPEN)
    last = tenant.watch(batch.id)
    record = fleet.dump()
    oracle.check(site, tenant.b, [batch.id], record)
    by_outcome = {o: sum(1 for r in record.values() if r[2] == o.upper()) for o in ("succeeded", "failed", "rejected")}
    assert counts(last) == by_outcome and sum(by_outcome.values()) == count and all(by_outcome.values())
    (stored,), = site.sql("SELECT counts FROM batch WHERE id = %s AND closed_ms IS NOT NULL", batch.id)
    assert (stored[5], stored[6], stored[7], sum(stored)) == (*by_outcome.values(), count)
    assert all(r[3] for r in record.values()), "an acknowledgement without PUBACK"
    assert last.closed_at.ToMilliseconds() >= last.created_at.ToMilliseconds()
    payloads = [c for c in site.list_commands(tenant.a, batch.id) if c.result.payload]
    assert len(payloads) == by_outcome["succeeded"]


def test_a_rough_fleet_still_ends_with_every_command_terminal(site, tenant):
    count = fewer(200)
    fleet = tenant.fleet(tenant.devices(count), "--crash", "0.1", "--duplicate", "0.3", "--not-now", "0.2", "--churn", "20",
                         "--think", "1ms..20ms", "--backoff", "50ms")
    batches = [tenant.submit(c).batch.id for c in (tenant.a, tenant.b, tenant.a)]
    for b in batches:
        assert counts(tenant.watch(b)) == {"succeeded": count}
    oracle.check(site, tenant.a, batches, fleet.dump())


def test_offline_devices_get_their_commands_when_they_connect(site, tenant):
    count = fewer(150)
    tokens = tenant.devices(count)
    first, second = tenant.submit().batch.id, tenant.submit(tenant.b).batch.id
    tenant.watch(first, lambda b: counts(b) == {"queued": count})
    fleet = tenant.fleet(tokens)
    for b in (first, second):
        assert counts(tenant.watch(b)) == {"succeeded": count}
    oracle.check(site, tenant.a, [first, second], fleet.dump())


def test_targets_reach_whom_they_name_and_nobody_else(site, tenant):
    pb = site.pb
    tokens = tenant.devices(120, platforms=(1, 2, 3, 4, 5, 6))
    ids = list(tokens)
    fleet = tenant.fleet(tokens)
    tenant.a.devices.CreateGroup(pb.CreateGroupRequest(name="east", device_ids=ids[:30]))
    tenant.a.devices.CreateGroup(pb.CreateGroupRequest(name="west", device_ids=ids[20:50]))
    wanted = {
        "ids": (pb.Target(devices=pb.DeviceIds(ids=[*ids[5:12], ids[5], "nobody"])), set(ids[5:12])),
        "groups": (pb.Target(groups=pb.GroupNames(names=["east", "west"])), set(ids[:50])),
        "platform": (pb.Target(platform=pb.PLATFORM_ANDROID), set(ids[4::6])),
        "all": (pb.Target(all=True), set(ids)),
    }
    batches = {}
    for name, (target, who) in wanted.items():
        answer = tenant.submit(target=target)
        assert answer.batch.device_count == len(who), name
        assert list(answer.unknown_device_ids) == (["nobody"] if name == "ids" else [])
        batches[answer.batch.id] = who
    for b in batches:
        tenant.watch(b)
    record = fleet.dump()
    oracle.check(site, tenant.a, list(batches), record)
    for b, who in batches.items():
        told = {c.command_id for c in site.list_commands(tenant.b, b)}
        assert {d for d, c in record if c in told} == who


def test_a_request_sent_many_times_at_once_to_both_dispatchers_is_one_batch(site, tenant):
    fleet = tenant.fleet(tenant.devices(50))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda c: tenant.submit(c, request_id="once"), [tenant.a, tenant.b] * 8))
    assert len({a.batch.id for a in answers}) == 1 and sum(not a.replayed for a in answers) == 1
    tenant.watch(answers[0].batch.id)
    record = fleet.dump()
    assert len(record) == 50 and all(r[:2] == (1, 1) for r in record.values())
    with pytest.raises(grpc.RpcError) as refused:
        tenant.submit(tenant.b, request_id="once", command=site.pb.Command(unlock=site.pb.UnlockCommand()))
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert site.stubs.details(refused.value)[0] == "REQUEST_ID_REUSED"


def test_one_tenant_sees_nothing_of_another(site, tenant):
    pb, other = site.pb, Tenant(site)
    mine = tenant.fleet(tenant.devices(20))
    tokens = other.devices(20)  # the same ids
    batch = tenant.submit().batch.id
    tenant.watch(batch)
    theirs = other.fleet(tokens)
    command = site.list_commands(tenant.a, batch)[0].command_id
    for call in (lambda: other.a.commands.GetBatch(pb.GetBatchRequest(batch_id=batch)),
                 lambda: other.a.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch)),
                 lambda: list(other.a.commands.WatchBatch(pb.WatchBatchRequest(batch_id=batch))),
                 lambda: other.a.commands.ListCommands(pb.ListCommandsRequest(batch_id=batch)),
                 lambda: other.a.commands.GetCommand(pb.GetCommandRequest(command_id=command))):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert not other.a.commands.ListBatches(pb.ListBatchesRequest()).batches
    own = other.submit().batch.id
    other.watch(own)
    assert {c for _, c in theirs.dump()} == {c.command_id for c in site.list_commands(other.a, own)}
    assert len(mine.dump()) == 20
    theirs.stop()


def test_cancel_ends_what_was_not_sent_and_lets_the_rest_go_on(site, tenant):
    tokens = tenant.devices(30)
    online = dict(itertools.islice(tokens.items(), 10))
    hold, asked = threading.Event(), threading.Semaphore(0)

    def answer(delivery):
        asked.release()
        hold.wait(patient(60))
        return tenant.ack(delivery)
    devices = [tenant.device(d, t, answer) for d, t in online.items()]
    first = tenant.submit().batch.id
    for _ in devices:
        assert asked.acquire(timeout=patient(20))
    second = tenant.submit().batch.id  # waits behind the first on ten devices, for the device on twenty
    assert tenant.cancel(second).cancel_requested_at.ToMilliseconds() > 0
    tenant.cancel(first)
    done = tenant.watch(second)
    assert counts(done) == {"canceled": 30} and done.canceled_at.ToMilliseconds() > 0
    tenant.watch(first, lambda b: b.HasField("canceled_at"))
    hold.set()
    assert counts(tenant.watch(first)) == {"succeeded": 10, "canceled": 20}
    for d in devices:
        assert d.deliveries.qsize() == 1
        d.close()
    fleet = tenant.fleet(tokens)
    third = tenant.submit().batch.id
    tenant.watch(third)
    assert {c for _, c in fleet.dump()} == {c.command_id for c in site.list_commands(tenant.a, third)}


def test_what_is_not_done_in_time_ends(site, tenant):
    tokens = tenant.devices(12)
    ids = list(tokens)
    silent = tenant.device(ids[0], tokens[ids[0]])

    def sent(span):
        expires = Timestamp()
        expires.GetCurrentTime()
        expires.seconds += span.seconds
        batch = tenant.submit(expires_at=expires).batch.id
        silent.next()
        span.kept()
        return batch
    batch = in_time(sent, 2)
    done = tenant.watch(batch)
    assert counts(done) == {"timed_out": 1, "expired": 11}
    assert dict(site.sql("SELECT state, count(*) FROM commands(%s) GROUP BY 1", batch)) == {"TIMED_OUT": 1, "EXPIRED": 11}
    silent.close()
    fleet = tenant.fleet(tokens)
    later = tenant.submit().batch.id
    tenant.watch(later)
    assert {c for _, c in fleet.dump()} == {c.command_id for c in site.list_commands(tenant.a, later)}


def test_results_come_back_and_update_the_device(site, tenant):
    pb = site.pb
    (device_id, token), = tenant.devices(1).items()
    replies = {
        "query_information": dict(information=pb.DeviceInformation(os_version="17.2.1", model="iPhone15,2",
                                                                   serial_number="S1", items={"battery_level": "0.81"})),
        "back_up": dict(backup_reference="s3://b/1"),
        "custom": dict(payload=b"\x00\xff"),
        "lock": dict(code=12, text="no passcode: ä"),
    }
    outcomes = {"lock": pb.OUTCOME_FAILED}
    device = tenant.device(device_id, token, lambda d: tenant.ack(
        d, outcomes.get(d.command.WhichOneof("kind"), pb.OUTCOME_SUCCEEDED), **replies[d.command.WhichOneof("kind")]))
    commands = {"query_information": pb.QueryInformationCommand(), "back_up": pb.BackUpCommand(),
                "custom": pb.CustomCommand(type="x.y", payload=b"1"), "lock": pb.LockCommand()}
    for kind, command in commands.items():
        batch = tenant.submit(command=pb.Command(**{kind: command})).batch.id
        tenant.watch(batch)
        (listed,) = site.list_commands(tenant.b, batch)
        got = tenant.b.commands.GetCommand(pb.GetCommandRequest(command_id=listed.command_id)).command
        assert got.result == pb.CommandResult(**replies[kind]) and got == listed
        assert got.state == (pb.COMMAND_STATE_FAILED if kind == "lock" else pb.COMMAND_STATE_SUCCEEDED)
    shown = tenant.b.devices.GetDevice(pb.GetDeviceRequest(device_id=device_id)).device
    assert shown.information == replies["query_information"]["information"] and shown.connection == pb.CONNECTION_ONLINE
    history = tenant.a.devices.ListDeviceCommands(pb.ListDeviceCommandsRequest(device_id=device_id)).commands
    assert [c.state for c in history] == [pb.COMMAND_STATE_FAILED] + [pb.COMMAND_STATE_SUCCEEDED] * 3
    device.close()


def test_a_device_gets_its_commands_in_order_one_at_a_time_urgent_first(site, tenant):
    pb = site.pb
    (device_id, token), = tenant.devices(1).items()
    bulk = [tenant.submit(priority=pb.PRIORITY_BULK).batch.id for _ in range(3)]
    normal = [tenant.submit(c, priority=pb.PRIORITY_NORMAL).batch.id for c in (tenant.a, tenant.b, tenant.a)]
    urgent = [tenant.submit(priority=pb.PRIORITY_URGENT).batch.id for _ in range(3)]
    for b in (*bulk, *normal, *urgent):
        until(lambda b=b: site.sql("SELECT 1 FROM batch WHERE id = %s AND routed_ms IS NOT NULL", b))
    got = []
    with tenant.device(device_id, token) as device:
        for _ in range(9):
            delivery = device.next()
            assert device.deliveries.empty(), "two in flight"
            got.append(int(delivery.command_id[:8] + delivery.command_id[9:13], 16))
            device.ack(delivery)
    assert got == urgent + normal + bulk


def test_devices_that_do_not_answer_hold_nobody_up(site, tenant):
    """More of them than may be unanswered at a time where devices answer at once."""
    count = fewer(3000)
    fleet = tenant.fleet(tenant.devices(count), "--hold")
    batch = tenant.submit(priority=site.pb.PRIORITY_BULK).batch
    until(lambda: fleet.stats()["received"] == count, what="every device has its command")
    assert fleet.stats()["answered"] == 0
    fleet.go()
    assert tenant.watch(batch.id).progress.succeeded == count


def test_watchers_see_the_end_on_either_dispatcher(site, tenant):
    count = fewer(100)
    tenant.fleet(tenant.devices(count), "--think", "50ms..200ms")
    batch = tenant.submit().batch.id
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda c: list(c.commands.WatchBatch(
            site.pb.WatchBatchRequest(batch_id=batch, interval_ms=100)))[-1].batch, [tenant.a, tenant.b] * 2))
    assert all(counts(b) == {"succeeded": count} and b.state == site.pb.BATCH_STATE_CLOSED for b in ends)
    late = list(tenant.b.commands.WatchBatch(site.pb.WatchBatchRequest(batch_id=batch)))
    assert len(late) == 1 and late[0].batch.state == site.pb.BATCH_STATE_CLOSED


def test_a_worker_that_drains_gives_its_devices_to_the_other(stack):
    stack.start(dispatchers=1, workers=2)
    client, count = stack.client(stack.make_tenant()), fewer(100)
    fleet = stack.start_fleet(stack.make_devices(client, count), "--think", "1ms..50ms", "--backoff", "50ms")
    batches = [stack.submit(client).batch.id for _ in range(3)]
    stack.watch(client, batches[0], lambda b: b.progress.succeeded >= count * 3 // 10)
    assert stack.workers[0].stop() == 0
    for b in batches:
        assert counts(stack.watch(client, b)) == {"succeeded": count}
    oracle.check(stack, client, batches, fleet.dump())
