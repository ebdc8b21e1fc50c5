"""What callers see while PostgreSQL or Redis is away, and that nothing is half done."""
import time
import urllib.error
import urllib.request

import grpc
import pytest
from harness.answers import refused
from harness.patience import patient
from harness.until import until


@pytest.fixture
def api(make_stack):
    stack = make_stack()
    stack.start(workers=0)
    return stack


def ready(api):
    try:
        with urllib.request.urlopen(f"http://{api.dispatchers[0].admin}/readyz", timeout=patient(10)) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as e:
        assert e.code == 503
        return False


def serving(api):
    pb2, stub = (api.stubs.module(f"grpc.health.v1.health_pb2{part}") for part in ("", "_grpc"))
    answer = stub.HealthStub(api.client(None).channel).Check(pb2.HealthCheckRequest(), timeout=patient(10))
    return answer.status == pb2.HealthCheckResponse.SERVING


def test_postgres_away_and_back(api):
    pb = api.pb
    c = api.client(api.make_tenant())
    api.import_devices(c, ["a", "b"])
    first = api.submit(c, request_id="first")
    assert ready(api) and serving(api)
    api.postgres.kill()
    until(lambda: not ready(api))
    assert not serving(api)
    unavailable = grpc.StatusCode.UNAVAILABLE
    for call in (lambda: api.submit(c, request_id="second"),
                 lambda: c.commands.GetBatch(pb.GetBatchRequest(batch_id=first.batch.id)),
                 lambda: list(c.commands.WatchBatch(pb.WatchBatchRequest(batch_id=first.batch.id))),
                 lambda: api.import_devices(c, ["c"]),
                 lambda: c.commands.CancelBatch(pb.CancelBatchRequest(batch_id=first.batch.id))):
        refused(api, unavailable, "STORE_UNAVAILABLE", call)
    api.postgres.start()
    until(lambda: ready(api))
    until(lambda: serving(api))
    assert api.submit(c, request_id="first").replayed
    assert [b.id for b in c.commands.ListBatches(pb.ListBatchesRequest()).batches] == [first.batch.id]
    assert not api.submit(c, request_id="second").replayed
    assert [d.id for d in c.devices.ListDevices(pb.ListDevicesRequest()).devices] == ["a", "b"]


def test_redis_away(api):
    pb = api.pb
    c = api.client(api.make_tenant())
    api.import_devices(c, [f"d{i}" for i in range(2000)])
    before = api.submit(c).batch
    api.redis.kill()
    b = api.submit(c).batch
    assert b.device_count == 2000
    for batch in (before, b):
        until(lambda x=batch: c.commands.GetBatch(pb.GetBatchRequest(batch_id=x.id)).batch.progress.queued == 2000)
    assert len(api.list_commands(c, b.id)) == 2000
    device = c.devices.GetDevice(pb.GetDeviceRequest(device_id="d7")).device
    assert device.id == "d7" and device.connection != pb.CONNECTION_ONLINE
    assert len(c.devices.ListDeviceCommands(pb.ListDeviceCommandsRequest(device_id="d7")).commands) == 2
    c.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="d7"))
    assert ready(api)
    api.redis.start()
    c.commands.CancelBatch(pb.CancelBatchRequest(batch_id=b.id))
    assert api.watch(c, b.id).progress.canceled == 2000


def test_watches_live_through_a_loss_of_redis(api):
    pb = api.pb
    c = api.client(api.make_tenant())
    api.import_devices(c, ["a"])
    b = api.submit(c).batch
    call = c.commands.WatchBatch(pb.WatchBatchRequest(batch_id=b.id, interval_ms=100))
    assert next(call).batch.progress.queued == 1
    api.redis.kill()
    api.redis.start()
    c.commands.CancelBatch(pb.CancelBatchRequest(batch_id=b.id))
    last = [m.batch for m in call][-1]
    assert last.state == pb.BATCH_STATE_CLOSED and last.progress.canceled == 1


def test_drain_ends_watches_and_the_process(api):
    pb = api.pb
    c = api.client(api.make_tenant())
    api.import_devices(c, ["a"])
    b = api.submit(c).batch
    call = c.commands.WatchBatch(pb.WatchBatchRequest(batch_id=b.id))
    next(call)
    began = time.monotonic()
    assert api.dispatchers[0].stop() == 0
    assert time.monotonic() - began < patient(8)
    with pytest.raises(grpc.RpcError) as e:
        list(call)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE


def test_two_dispatchers(api):
    """What one accepts the other knows; a watch on either sees the end."""
    pb = api.pb
    other = api.start_dispatcher()
    tenant = api.make_tenant()
    a, b = api.client(tenant), api.client(tenant, other)
    api.import_devices(a, ["x", "y"])
    first = api.submit(a, request_id="r")
    again = api.submit(b, request_id="r")
    assert again.replayed and again.batch.id == first.batch.id
    watches = [c.commands.WatchBatch(pb.WatchBatchRequest(batch_id=first.batch.id)) for c in (a, b)]
    for w in watches:
        next(w)
    b.commands.CancelBatch(pb.CancelBatchRequest(batch_id=first.batch.id))
    for w in watches:
        assert [m.batch for m in w][-1].progress.canceled == 2
