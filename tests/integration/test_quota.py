"""Quotas of tenants: devices, open batches, commands a second; what goes beyond is refused whole, by all dispatchers together."""
import concurrent.futures
import time

import grpc
import pytest
from harness.answers import refusal
from harness.stack import OPERATOR
from harness.until import until

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def api(module_stack_without_worker):
    module_stack_without_worker.start_dispatcher()
    return module_stack_without_worker


class Fleet:
    """A tenant with `count` devices and a quota; `clients` has one for each dispatcher."""

    def __init__(self, api, count=10, **quota):
        self.api, self.pb = api, api.pb
        self.tenant = api.make_tenant()
        key = api.make_key(self.tenant.number, OPERATOR)
        self.admin = api.client(self.tenant)
        self.clients = [api.client(key, d) for d in api.dispatchers]
        self.ids = [f"q-{i:05d}" for i in range(count)]
        api.import_devices(self.admin, self.ids)
        if quota:
            self.set(**quota)

    def set(self, **quota):
        return self.admin.admin.SetQuota(self.pb.SetQuotaRequest(tenant=self.tenant.name, quota=self.pb.Quota(**quota))).quota

    def get(self):
        return self.admin.admin.GetQuota(self.pb.GetQuotaRequest(tenant=self.tenant.name))

    def submit(self, count=1, dispatcher=0, **fields):
        target = self.pb.Target(devices=self.pb.DeviceIds(ids=self.ids[:count]))
        return self.api.submit(self.clients[dispatcher], target=target, **fields)

    def crowd(self, n, count=1):
        """n submits at once by all dispatchers; (accepted, refused with this reason)."""
        def one(i):
            try:
                return self.submit(count, i % len(self.clients)).batch.id
            except grpc.RpcError as e:
                assert e.code() == EXHAUSTED, e
                return self.api.stubs.details(e)[0]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            out = list(pool.map(one, range(n)))
        return [x for x in out if isinstance(x, int)], [x for x in out if isinstance(x, str)]

    def cancel(self, batch):
        """Canceled and closed."""
        self.clients[0].commands.CancelBatch(self.pb.CancelBatchRequest(batch_id=batch))
        until(lambda: self.api.sql("SELECT closed_ms IS NOT NULL FROM batch WHERE id = %s", batch) == [(True,)])

    def batches(self):
        (n, blocks), = self.api.sql("SELECT count(DISTINCT b.id), count(k.*) FROM batch b LEFT JOIN batch_block k"
                                    " ON k.batch_id = b.id WHERE b.tenant_id = %s", self.tenant.number)
        return n, blocks


def refused(api, reason, call):
    """The refusal's metadata, and its RetryInfo in ms."""
    error = refusal(api, EXHAUSTED, reason, call)
    (status,) = [v for name, v in error.trailing_metadata() if name == "grpc-status-details-bin"]
    for any_message in api.stubs.status.Status.FromString(status).details:
        retry = api.stubs.error_details.RetryInfo()
        if any_message.Unpack(retry):
            return api.stubs.metadata(error), retry.retry_delay.ToMilliseconds()
    raise AssertionError("no RetryInfo")


@pytest.mark.parametrize("count", [1, 3])
def test_open_batches(api, count):
    """By the way of one device and by that of many: the limit, what is repeated, and what has closed."""
    f = Fleet(api, open_batches=2)
    first = f.submit(count, request_id="first").batch
    f.submit(count)
    before = f.batches()
    for dispatcher in (0, 1):
        metadata, retry_ms = refused(api, "QUOTA_BATCHES", lambda: f.submit(count, dispatcher, request_id="third"))
        assert metadata == {"limit": "2"} and retry_ms == 1000
    assert f.batches() == before
    again = f.submit(count, request_id="first")
    assert again.replayed and again.batch.id == first.id
    assert f.get().open_batches == 2
    f.cancel(first.id)
    f.submit(count, request_id="third")
    refused(api, "QUOTA_BATCHES", lambda: f.submit(count))
    assert f.submit(count, request_id="first").replayed
    assert f.get().open_batches == 2


def test_a_dynamic_batch_that_nobody_has_joined_is_open_too(api):
    f = Fleet(api, open_batches=2, commands_per_second=1, burst=10)
    pb, client = api.pb, f.clients[0]
    client.devices.CreateGroup(pb.CreateGroupRequest(name="nobody"))
    dynamic = dict(target=pb.Target(groups=pb.GroupNames(names=["nobody"])), dynamic=True)
    f.submit(10)  # all that is saved up, which such a batch does not take from
    first = api.submit(client, request_id="first", **dynamic).batch.id
    refused(api, "QUOTA_BATCHES", lambda: api.submit(client, **dynamic))
    assert api.submit(client, request_id="first", **dynamic).replayed
    assert f.get().open_batches == 2
    f.cancel(first)
    f.cancel(api.submit(client, **dynamic).batch.id)


@pytest.mark.parametrize("count", [1, 3])
def test_open_batches_of_all_dispatchers(api, count):
    f = Fleet(api, open_batches=20)
    made, not_made = f.crowd(80, count)
    assert len(made) == 20 and set(not_made) == {"QUOTA_BATCHES"} and f.batches()[0] == 20


def test_a_limit_knows_the_batches_before_it(api):
    f = Fleet(api)
    made, _ = f.crowd(5)
    assert f.set(open_batches=4).open_batches == 4
    refused(api, "QUOTA_BATCHES", f.submit)
    f.cancel(made[0])
    refused(api, "QUOTA_BATCHES", f.submit)
    f.cancel(made[1])
    f.submit()
    refused(api, "QUOTA_BATCHES", f.submit)
    f.set(open_batches=0)
    f.crowd(5)
    f.set(open_batches=10)
    f.submit()
    refused(api, "QUOTA_BATCHES", f.submit)


def test_rate(api):
    """A bucket of 1,000 commands that fills so slowly that the test's own time does not count."""
    f = Fleet(api, 400, commands_per_second=1, burst=1000)
    for _ in range(2):
        f.submit(400)
    before = f.batches()
    metadata, retry_ms = refused(api, "QUOTA_RATE", lambda: f.submit(400, 1))
    assert metadata == {"limit": "1", "burst": "1000"} and 100000 < retry_ms <= 200000
    assert f.batches() == before
    assert 200 <= f.get().commands_left < 300
    f.submit(100)
    api.sql("UPDATE quota SET filled_ms = filled_ms - 290000 WHERE tenant_id = %s", f.tenant.number)
    f.submit(390, 1)
    refused(api, "QUOTA_RATE", lambda: f.submit(390))
    # An unknown device makes no batch and takes nothing; one that is repeated takes nothing again.
    left = f.get().commands_left
    for _ in range(3):
        refusal(api, grpc.StatusCode.FAILED_PRECONDITION, "EMPTY_TARGET", lambda: api.submit(
            f.clients[0], target=api.pb.Target(devices=api.pb.DeviceIds(ids=["nobody"]))))
    assert f.get().commands_left >= left


def test_a_batch_beyond_the_burst_goes_when_all_is_saved_up(api):
    f = Fleet(api, 50, commands_per_second=1, burst=20)
    f.submit(50)
    assert -30 <= f.get().commands_left < 0
    _, retry_ms = refused(api, "QUOTA_RATE", f.submit)
    assert retry_ms <= 31000
    # A lower limit keeps the debt, none forgives it.
    f.set(commands_per_second=2, burst=5)
    refused(api, "QUOTA_RATE", f.submit)
    assert f.set(open_batches=100) == api.pb.Quota(open_batches=100)
    f.submit()
    f.set(commands_per_second=1, burst=20)
    f.submit(20)
    refused(api, "QUOTA_RATE", lambda: f.submit(10))


@pytest.mark.parametrize("count", [1, 2])
def test_rate_of_all_dispatchers(api, count):
    f = Fleet(api, commands_per_second=1, burst=60)
    began = time.monotonic()
    made, not_made = f.crowd(120, count)
    most = (60 + time.monotonic() - began + 1) / count
    assert 60 / count <= len(made) <= most and set(not_made) == {"QUOTA_RATE"} and f.batches()[0] == len(made)


def test_others_of_a_group_go_on(api):
    """Batches of several tenants are committed together; one that may send nothing takes nothing from the others."""
    greedy, modest = Fleet(api, commands_per_second=1, burst=1, open_batches=1), Fleet(api, open_batches=40)
    free = Fleet(api)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        crowds = [pool.submit(f.crowd, 40) for f in (greedy, modest, free)]
        results = [len(c.result()[0]) for c in crowds]
    assert results == [1, 40, 40]


def test_devices(api):
    f = Fleet(api, 10, devices=12)
    f.api.import_devices(f.admin, f.ids)  # known ones are no more
    more = [f"more-{i}" for i in range(3)]
    metadata, _ = refused(api, "QUOTA_DEVICES", lambda: api.import_devices(f.admin, more))
    assert metadata == {"limit": "12"} and f.get().devices == 10
    assert api.sql("SELECT count(*) FROM device WHERE tenant_id = %s", f.tenant.number) == [(10,)]
    api.import_devices(f.admin, more[:2])
    refused(api, "QUOTA_DEVICES", lambda: api.import_devices(f.admin, more[2:]))
    first, = until(lambda: f.admin.admin.ListAudit(api.pb.ListAuditRequest(action="quota_refused")).entries, what="it is noted")
    assert (first.detail, first.devices, first.note, first.outcome) == ("QUOTA_DEVICES", 3, "1 import", "refused")
    f.admin.devices.DeleteDevice(api.pb.DeleteDeviceRequest(device_id=f.ids[0]))
    api.import_devices(f.admin, more[2:])
    # A lower limit removes nobody.
    f.set(devices=5)
    api.import_devices(f.admin, more)
    refused(api, "QUOTA_DEVICES", lambda: api.import_devices(f.admin, ["another"]))
    f.set()
    api.import_devices(f.admin, ["another"])


def test_setting(api):
    f, pb = Fleet(api), api.pb
    assert f.get() == pb.GetQuotaResponse(quota=pb.Quota(), devices=10)
    quota = pb.Quota(devices=1000, open_batches=20, commands_per_second=300, burst=4000)
    assert f.admin.admin.SetQuota(pb.SetQuotaRequest(tenant=f.tenant.name, quota=quota)).quota == quota
    f.submit(10)
    answer = f.get()
    assert answer.quota == quota and answer.devices == 10 and answer.open_batches == 1 and answer.commands_left >= 3990
    assert f.set() == pb.Quota() and api.sql("SELECT count(*) FROM quota WHERE tenant_id = %s", f.tenant.number) == [(0,)]
    assert api.sql("SELECT action, detail, outcome, key_id IS NOT NULL FROM audit WHERE tenant_id = %s"
                   " AND action = 'set_quota' ORDER BY id",
                   f.tenant.number) == [
        ("set_quota", "1000 devices, 20 open batches, 300 commands a second, burst 4000", "done", True),
        ("set_quota", "0 devices, 0 open batches, 0 commands a second, burst 0", "done", True)]


@pytest.mark.parametrize("request_of, code, reason", [
    (lambda pb, t: pb.SetQuotaRequest(tenant="nobody", quota=pb.Quota()), grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND"),
    (lambda pb, t: pb.SetQuotaRequest(tenant="", quota=pb.Quota()), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    (lambda pb, t: pb.SetQuotaRequest(tenant=t), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    (lambda pb, t: pb.SetQuotaRequest(tenant=t, quota=pb.Quota(burst=5)), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    (lambda pb, t: pb.SetQuotaRequest(tenant=t, quota=pb.Quota(devices=2**31)), grpc.StatusCode.INVALID_ARGUMENT,
     "INVALID_FIELD"),
    (lambda pb, t: pb.GetQuotaRequest(tenant="nobody"), grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND"),
    (lambda pb, t: pb.GetQuotaRequest(tenant="a b"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
])
def test_what_is_no_quota(api, request_of, code, reason):
    f = Fleet(api)
    request = request_of(api.pb, f.tenant.name)
    method = type(request).DESCRIPTOR.name.removesuffix("Request")
    refusal(api, code, reason, lambda: getattr(f.admin.admin, method)(request))
    refusal(api, grpc.StatusCode.PERMISSION_DENIED, "ROLE_INSUFFICIENT", lambda: getattr(f.clients[0].admin, method)(request))


def test_command_line(api, cli):
    f = Fleet(api)

    def quota(*flags, check=0):
        return cli("tenant", "quota", f.tenant.name, *flags, env=api.cli_env(f.tenant), check=check).stdout
    assert quota() == "devices       unlimited, 10 registered\nopen batches  unlimited, 0 open\ncommands      unlimited\n"
    assert quota("--devices", "12", "--rate", "50") == (
        "devices       12\nopen batches  unlimited\ncommands      50 a second, 50 at once\n")
    assert quota("--burst", "80", "--open-batches", "3") == (
        "devices       12\nopen batches  3\ncommands      50 a second, 80 at once\n")
    f.submit()
    assert quota().splitlines()[:2] == ["devices       12, 10 registered", "open batches  3, 1 open"]
    assert quota("--rate", "0") == "devices       12\nopen batches  3\ncommands      unlimited\n"
    quota("--burst", "5", check=3)


def test_who_joins_is_held_to_the_rate(api):
    f = Fleet(api, 0, commands_per_second=1, burst=3)
    pb = f.pb
    batch = api.submit(f.clients[0], dynamic=True).batch.id
    call = f.clients[0].commands.WatchBatch(pb.WatchBatchRequest(batch_id=batch, interval_ms=100), timeout=60)
    began = time.monotonic()
    api.import_devices(f.admin, [f"j-{i}" for i in range(6)])
    seen = [(0, 0)]
    while seen[-1][0] < 6:
        count, at = next(call).batch.device_count, time.monotonic() - began
        if count != seen[-1][0]:
            seen.append((count, at))
    call.cancel()
    # What was saved up at once, then a command a second, whatever the number of looks.
    assert seen[1][0] >= 3 and all(count <= 3 + at for count, at in seen), seen
    assert f.get().commands_left <= 3
    f.set()
    api.import_devices(f.admin, [f"k-{i}" for i in range(1100)])
    api.watch(f.clients[0], batch, until=lambda b: b.device_count == 1106)


def test_refusals_are_audited(api):
    """Whose and how many; a thousand a minute are two entries, also when the dispatcher ends before."""
    f = Fleet(api, 20, commands_per_second=1, burst=5)
    pb, dispatcher = f.pb, api.dispatchers[1]
    f.submit(5, dispatcher=1)

    def entries():
        return [(e.detail, e.devices, e.note, e.outcome, e.role, bool(e.address)) for e in reversed(f.admin.admin.ListAudit(
            pb.ListAuditRequest(action="quota_refused")).entries)]
    for _ in range(12):
        assert refusal(api, EXHAUSTED, "QUOTA_RATE", lambda: f.submit(20, dispatcher=1))
    until(lambda: entries(), what="the first is noted")
    assert entries() == [("QUOTA_RATE", 20, "1 batch", "refused", OPERATOR, True)]
    dispatcher.stop()
    api.restart(dispatcher)
    until(lambda: len(entries()) == 2, what="the others are")
    assert entries()[1] == ("QUOTA_RATE", 220, "11 batches", "refused", OPERATOR, True)
