"""Rate: how fast a batch goes out, with real daemons and devices."""
import threading
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from harness.answers import progress, refused
from harness.crowd import Crowd
from harness.oracle import check
from harness.patience import fewer, patient
from harness.until import until


@pytest.fixture
def client(api):
    return api.client(api.make_tenant(role=2))


def test_devices_take_turns_evenly_in_the_order_of_registration(api, client):
    pb = api.pb
    with Crowd(api, client, 30) as crowd:
        began = time.monotonic()
        batch = api.submit(client, steering=pb.Steering(rate=pb.Rate(devices=20))).batch
        assert batch.control.rate == 20
        assert progress(api.watch(client, batch.id)) == {"succeeded": 30}
        at = crowd.in_order()
        assert len(at) == 30 and [d.deliveries.qsize() for d in crowd.devices] == [1] * 30
        assert all(t - began >= i / 20 for i, t in enumerate(at)), [round(t - began, 2) for t in at]


def test_a_rate_goes_on_after_a_pause_without_what_it_missed(api, client):
    pb = api.pb
    with Crowd(api, client, 24) as crowd:
        began = time.monotonic()
        batch = api.submit(client, steering=pb.Steering(rate=pb.Rate(devices=8))).batch.id
        api.watch(client, batch, until=lambda b: b.progress.succeeded >= 3)
        client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
        seen = api.watch(client, batch, until=lambda b: b.control.state == pb.CONTROL_STATE_PAUSED)
        had = 24 - seen.progress.held
        until(lambda: len(crowd.at) >= had)  # what was sent has come
        paused = time.monotonic()
        time.sleep(1)
        resumed = time.monotonic()
        assert len(crowd.at) == had
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"succeeded": 24}
        at = crowd.in_order()
        assert all(t - began >= i / 8 for i, t in enumerate(at[:had]))
        # Turns that were due before the pause, and for which the leader had no time, come after it; it brought none itself.
        assert all(t - began - (resumed - paused) >= i / 8 for i, t in enumerate(at) if i >= had), (began, paused, resumed, at)


def test_a_rate_holds_within_waves_that_follow_success(api, client):
    pb = api.pb
    with Crowd(api, client, 20) as crowd:
        began = time.monotonic()
        batch = api.submit(client, steering=pb.Steering(
            rate=pb.Rate(devices=600, per=Duration(seconds=60)),
            waves=[pb.Wave(devices=5), pb.Wave(devices=5, success_percent=100), pb.Wave(by_hand=True)])).batch.id
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 10, "held": 10})
        assert sorted(crowd.at) == list(range(10))
        client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"succeeded": 20}
        at = crowd.in_order()
        assert all(t - began >= i / 10 for i, t in enumerate(at[:10]))


def test_a_rate_grows_while_it_goes_well(api, client):
    pb = api.pb
    with Crowd(api, client, 60) as crowd:
        began = time.monotonic()
        batch = api.submit(client, steering=pb.Steering(rate=pb.Rate(devices=5, growth=pb.RateGrowth(
            percent=1000, devices=5, success_percent=100, maximum=100)))).batch.id
        seen = api.watch(client, batch)
        assert progress(seen) == {"succeeded": 60} and seen.control.rate == 100
        assert crowd.in_order()[4] - began >= 4 / 5


def test_a_rate_stays_while_it_does_not(api, client):
    pb = api.pb
    failed = threading.Event()

    def outcome(i):
        """The bad one is among the first that are counted, though others have their turns at the same moment."""
        if i > 1:
            failed.wait(patient(20))
        return pb.OUTCOME_FAILED if i == 1 else pb.OUTCOME_SUCCEEDED
    with Crowd(api, client, 16, outcome) as crowd:
        acknowledged = crowd.devices[1].client.on_publish

        def on_publish(*args):
            acknowledged(*args)
            failed.set()
        crowd.devices[1].client.on_publish = on_publish
        began = time.monotonic()
        batch = api.submit(client, steering=pb.Steering(rate=pb.Rate(devices=8, growth=pb.RateGrowth(
            percent=1000, devices=4, success_percent=95)))).batch.id
        seen = api.watch(client, batch)
        assert progress(seen) == {"succeeded": 15, "failed": 1} and seen.control.rate == 8
        assert all(t - began >= i / 8 for i, t in enumerate(crowd.in_order()))


def test_who_is_away_has_had_his_turn_and_who_is_deleted_takes_none(api, client):
    pb = api.pb
    ids = [f"d{i}" for i in range(6)]
    api.import_devices(client, ids, platforms=(1,))
    batch = api.submit(client, steering=pb.Steering(rate=pb.Rate(devices=2, per=Duration(seconds=3600)))).batch.id
    api.watch(client, batch, until=lambda b: progress(b) == {"queued": 1, "held": 5})
    client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="d1"))  # while it is held
    client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id="d0"))  # while it is let go
    api.watch(client, batch, until=lambda b: progress(b) == {"canceled": 2, "held": 4})
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    assert progress(api.watch(client, batch)) == {"canceled": 6}
    assert api.sql("SELECT count(*) FROM batch_part WHERE batch_id = %s", batch) == [(0,)]


def test_a_rate_goes_on_under_another_leader(make_stack):
    stack = make_stack()
    pb = stack.pb
    stack.start(dispatchers=2)
    client = stack.client(stack.make_tenant(), dispatcher=stack.dispatchers[1])
    count, rate = fewer(800), fewer(250)
    tokens = stack.make_devices(client, count)
    stack.import_devices(client, [f"away{i}" for i in range(10)])
    fleet = stack.start_fleet(tokens)
    began = time.monotonic()
    # Who is away comes last; a second batch lets nobody go but its first, who is away, for an hour.
    batch = stack.submit(client, steering=pb.Steering(rate=pb.Rate(devices=rate))).batch.id
    slow = stack.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=[f"away{i}" for i in range(10)])),
                        steering=pb.Steering(rate=pb.Rate(devices=1, per=Duration(seconds=3600)))).batch.id
    stack.watch(client, slow, until=lambda b: progress(b) == {"queued": 1, "held": 9})
    stack.watch(client, batch, until=lambda b: b.progress.succeeded > count // 4)
    stack.dispatchers[0].kill()
    stack.dispatchers[1].wait_event("leader_loaded")
    stack.watch(client, batch, until=lambda b: progress(b) == {"succeeded": count, "queued": 10})
    assert time.monotonic() - began >= (count + 9) / rate
    # The turn that was given stands, and nobody has another one because there is another leader.
    stack.watch(client, slow, until=lambda b: progress(b) == {"queued": 1, "held": 9})
    for b in (batch, slow):
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=b))
        stack.watch(client, b)
    record = fleet.dump()
    fleet.quit()
    assert all(received == 1 for received, _, _, _ in record.values())
    check(stack, client, [batch], record)


def test_rates_that_make_no_sense_are_refused(api, client):
    pb = api.pb
    pre, bad = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
    api.import_devices(client, [f"d{i}" for i in range(20)])

    def submit(rate, **fields):
        return api.submit(client, steering=pb.Steering(rate=rate), **fields)
    for rate, fields in ((pb.Rate(), {"devices"}), (pb.Rate(devices=1000001), {"devices"}),
                         (pb.Rate(devices=1, per=Duration(nanos=1)), {"per"}), (pb.Rate(devices=1, per=Duration(seconds=3601)), {"per"}),
                         (pb.Rate(devices=10, growth=pb.RateGrowth(percent=100, success_percent=101, maximum=9)),
                          {"growth.percent", "growth.devices", "growth.success_percent", "growth.maximum"})):
        assert set(refused(api, bad, "INVALID_FIELD", lambda: submit(rate))) == {f"steering.rate.{f}" for f in fields}
    hour = Timestamp(seconds=int(time.time()) + 3600)
    slow = pb.Rate(devices=18, per=Duration(seconds=3600))
    with pytest.raises(grpc.RpcError) as e:
        submit(slow, expires_at=hour)
    assert e.value.code() == pre and "20 devices take 3800 seconds" in e.value.details()
    refused(api, pre, "RATE_TOO_SLOW", lambda: submit(slow, expires_at=hour, validate_only=True))
    refused(api, pre, "RATE_TOO_SLOW", lambda: api.submit(client, steering=pb.Steering(
        rate=slow, timeouts=pb.Timeouts(delivery=Duration(seconds=3600)))))
    # It might be done in time, if it grows.
    slow.growth.CopyFrom(pb.RateGrowth(percent=200, devices=5, success_percent=90))
    assert submit(slow, expires_at=hour, validate_only=True).batch.device_count == 20


def test_the_command_line(api, cli):
    tenant = api.make_tenant(role=2)
    client = api.client(tenant)
    api.import_devices(client, [f"d{i}" for i in range(20)])
    env = api.cli_env(tenant)
    out = cli("batch", "submit", "--type", "lock", "--all", "--rate", "60/h", "--rate-growth", "150%@10:95%:100",
              env=env, check=0).stdout
    for said in ("rate         60 devices in 3600 s", "growing      to 150 % after 10 outcomes, if 95 % of them are good",
                 "rate now     60"):
        assert said in out, out
    rate = client.commands.GetBatch(api.pb.GetBatchRequest(batch_id=int(out.split()[1].rstrip(":")))).batch.steering.rate
    assert (rate.growth.percent, rate.growth.devices, rate.growth.success_percent, rate.growth.maximum) == (150, 10, 95, 100)
    for flags in (["--rate", "x"], ["--rate", "1/d"], ["--rate-growth", "150%@10:95"], ["--rate", "1", "--rate-growth", "150%"],
                  ["--rate", "1", "--rate-growth", "150%@10:95:1x"], ["--rate", "1", "--rate-growth", "150:10:95"]):
        cli("batch", "submit", "--type", "lock", "--all", *flags, env=env, check=2)
