"""Rollout: waves and thresholds, with real daemons and devices."""
import concurrent.futures
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from harness.answers import progress, refused
from harness.crowd import Crowd
from harness.in_time import in_time
from harness.oracle import check
from harness.patience import fewer


@pytest.fixture
def client(api):
    return api.client(api.make_tenant(role=2))


def test_waves_by_success_by_time_and_by_hand(api):
    in_time(lambda span: waves_by_success_by_time_and_by_hand(api, api.client(api.make_tenant(role=2)), span), 1)


def waves_by_success_by_time_and_by_hand(api, client, span):
    pb = api.pb
    with Crowd(api, client, 10) as crowd:
        batch = api.submit(client, steering=pb.Steering(waves=[
            pb.Wave(devices=2), pb.Wave(percent=30, success_percent=100), pb.Wave(devices=1, by_hand=True),
            pb.Wave(after=Duration(seconds=span.seconds))])).batch.id
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 5, "held": 5})
        assert crowd.got() == [0, 1, 2, 3, 4]
        client.control.PauseBatch(pb.PauseBatchRequest(batch_id=batch))
        api.watch(client, batch, until=lambda b: b.control.state == pb.CONTROL_STATE_PAUSED)
        # A wave that is released while the batch is paused goes out when it is resumed.
        assert client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch)).batch.id == batch
        api.watch(client, batch, until=lambda b: b.control.state == pb.CONTROL_STATE_PAUSED)
        time.sleep(0.5)
        assert crowd.got() == [0, 1, 2, 3, 4]
        span.begin()
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        seen = api.watch(client, batch, until=lambda b: b.progress.succeeded >= 6)
        span.kept()
        assert progress(seen) == {"succeeded": 6, "held": 4} and seen.control.waves_released == 3
        seen = api.watch(client, batch)
        assert progress(seen) == {"succeeded": 10} and all(crowd.at[i] - span.began >= span.seconds for i in range(6, 10))
        assert [d.deliveries.qsize() for d in crowd.devices] == [1] * 10
        refused(api, grpc.StatusCode.FAILED_PRECONDITION, "BATCH_ENDING",
                lambda: client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch)))


def test_a_wave_can_be_released_before_it_is_due(api, client):
    pb = api.pb
    api.import_devices(client, ["a", "b", "c"])
    batch = api.submit(client, steering=pb.Steering(waves=[
        pb.Wave(devices=1), pb.Wave(devices=1, success_percent=100), pb.Wave(success_percent=100)])).batch.id
    api.watch(client, batch, until=lambda b: progress(b) == {"queued": 1, "held": 2})
    for n in (2, 3):
        client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
        api.watch(client, batch, until=lambda b: b.progress.queued == n)
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "NO_MORE_WAVES",
            lambda: client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch)))
    plain = api.submit(client).batch.id
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "NO_MORE_WAVES",
            lambda: client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=plain)))
    refused(api, grpc.StatusCode.NOT_FOUND, "BATCH_NOT_FOUND",
            lambda: client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=2 ** 40)))


def test_a_wave_is_released_by_its_number_once(api, client):
    pb = api.pb
    api.import_devices(client, [f"n{i}" for i in range(4)])
    batch = api.submit(client, steering=pb.Steering(waves=[
        pb.Wave(devices=1), pb.Wave(devices=1, by_hand=True), pb.Wave(devices=1, by_hand=True), pb.Wave(by_hand=True)])).batch.id
    api.watch(client, batch, until=lambda b: progress(b) == {"queued": 1, "held": 3})

    def release(wave):
        return client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch, wave=wave))
    # Two at once, and whoever asks again because the answer was lost, release one.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: release(2), range(8)))
    api.watch(client, batch, until=lambda b: b.control.waves_released == 2 and b.control.state == pb.CONTROL_STATE_RUNNING)
    release(1), release(2)
    api.wait_routed(api.submit(client).batch.id)  # the leader has looked at what was asked before
    seen = client.commands.GetBatch(pb.GetBatchRequest(batch_id=batch)).batch
    assert progress(seen) == {"queued": 2, "held": 2} and seen.control.waves_released == 2
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "WAVE_NOT_NEXT", lambda: release(4))
    for wave in (5, 2 ** 32 - 1):
        refused(api, grpc.StatusCode.FAILED_PRECONDITION, "NO_MORE_WAVES", lambda w=wave: release(w))
    release(3)
    api.watch(client, batch, until=lambda b: b.progress.queued == 3)
    plain = api.submit(client).batch.id
    refused(api, grpc.StatusCode.FAILED_PRECONDITION, "NO_MORE_WAVES",
            lambda: client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=plain, wave=2)))


def test_a_threshold_pauses_and_resuming_goes_on(api, client):
    pb = api.pb
    with Crowd(api, client, 8, lambda i: pb.OUTCOME_FAILED if i < 2 else pb.OUTCOME_SUCCEEDED) as crowd:
        batch = api.submit(client, steering=pb.Steering(
            waves=[pb.Wave(devices=4), pb.Wave(by_hand=True)],
            thresholds=[pb.Threshold(percent=50, minimum=4, action=pb.THRESHOLD_ACTION_PAUSE)])).batch.id
        seen = api.watch(client, batch, until=lambda b: b.control.state == pb.CONTROL_STATE_PAUSED)
        assert progress(seen) == {"failed": 2, "succeeded": 2, "held": 4} and "2 of 4 went wrong" in seen.control.reason
        client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"failed": 2, "succeeded": 6}
        assert len(crowd.got()) == 8


def test_a_threshold_aborts(api, client):
    pb = api.pb
    with Crowd(api, client, 6, lambda i: pb.OUTCOME_REJECTED) as crowd:
        batch = api.submit(client, steering=pb.Steering(
            waves=[pb.Wave(devices=2), pb.Wave(after=Duration(seconds=1000))],
            thresholds=[pb.Threshold(percent=1, minimum=2, action=pb.THRESHOLD_ACTION_ABORT)])).batch.id
        seen = api.watch(client, batch)
        assert progress(seen) == {"rejected": 2, "canceled": 4} and seen.HasField("canceled_at")
        assert "2 of 2 went wrong" in seen.control.reason and crowd.got() == [0, 1]


def test_what_breaks_one_platform_goes_on_elsewhere(api, client):
    pb = api.pb
    with Crowd(api, client, 12, lambda i: pb.OUTCOME_FAILED if i % 2 else pb.OUTCOME_SUCCEEDED) as crowd:
        batch = api.submit(client, steering=pb.Steering(
            waves=[pb.Wave(devices=4), pb.Wave(by_hand=True)],
            thresholds=[pb.Threshold(percent=50, minimum=2, action=pb.THRESHOLD_ACTION_PAUSE, per_platform=True)])).batch.id
        # The others of the wave may be a little behind.
        api.watch(client, batch, until=lambda b: list(b.control.stopped_platforms) == [pb.PLATFORM_ANDROID] and
                  b.control.state == pb.CONTROL_STATE_RUNNING and progress(b) == {"failed": 2, "succeeded": 2, "held": 8})
        client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
        api.watch(client, batch, until=lambda b: progress(b) == {"failed": 2, "succeeded": 6, "held": 4})
        assert crowd.got() == [0, 1, 2, 3, 4, 6, 8, 10]
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"failed": 6, "succeeded": 6}


def test_what_breaks_one_platform_is_canceled_there_alone(api, client):
    pb = api.pb
    with Crowd(api, client, 12, lambda i: pb.OUTCOME_FAILED if i % 2 else pb.OUTCOME_SUCCEEDED) as crowd:
        # Stopped first, then canceled: the second threshold looks at what is stopped, too.
        batch = api.submit(client, steering=pb.Steering(
            waves=[pb.Wave(devices=4), pb.Wave(devices=2, by_hand=True), pb.Wave(by_hand=True)],
            thresholds=[pb.Threshold(percent=50, minimum=2, action=pb.THRESHOLD_ACTION_PAUSE, per_platform=True),
                        pb.Threshold(percent=50, minimum=3, action=pb.THRESHOLD_ACTION_ABORT, per_platform=True)])).batch.id
        api.watch(client, batch, until=lambda b: list(b.control.stopped_platforms) == [pb.PLATFORM_ANDROID] and
                  b.control.state == pb.CONTROL_STATE_RUNNING)
        client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=batch))
        client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
        seen = api.watch(client, batch, until=lambda b: b.control.state == pb.CONTROL_STATE_RUNNING and
                         progress(b) == {"failed": 3, "succeeded": 3, "canceled": 3, "held": 3})
        assert list(seen.control.canceled_platforms) == [pb.PLATFORM_ANDROID] and not seen.control.stopped_platforms
        assert "3 of 3 went wrong" in seen.control.reason and not seen.HasField("cancel_requested_at")
        client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"failed": 3, "succeeded": 6, "canceled": 3}
        assert crowd.got() == [0, 1, 2, 3, 4, 5, 6, 8, 10]


def test_several_platforms_are_canceled_at_once(api, client):
    pb = api.pb
    with Crowd(api, client, 8, lambda i: pb.OUTCOME_REJECTED) as crowd:
        batch = api.submit(client, steering=pb.Steering(
            waves=[pb.Wave(devices=4), pb.Wave(by_hand=True)],
            thresholds=[pb.Threshold(percent=1, minimum=2, action=pb.THRESHOLD_ACTION_ABORT, per_platform=True)])).batch.id
        seen = api.watch(client, batch)
        assert progress(seen) == {"rejected": 4, "canceled": 4} and crowd.got() == [0, 1, 2, 3]
        assert list(seen.control.canceled_platforms) == [pb.PLATFORM_IOS, pb.PLATFORM_ANDROID]


def test_where_it_is_canceled_nothing_is_tried_again(api, client):
    """What was sent to the platform before fails, or is put off, later."""
    pb = api.pb
    retry = pb.Retry(failed=True, attempts=5, factor=1)
    retry.initial.FromSeconds(1)
    ids = [f"d{i}" for i in range(6)]
    tokens = api.register(client, *ids, platforms=(1, 5))
    devices = [api.device(d, tokens[d]) for d in ids]
    for d in devices:
        d.connect(api.workers[0].address)
    batch = api.submit(client, retry=retry, steering=pb.Steering(
        thresholds=[pb.Threshold(percent=50, action=pb.THRESHOLD_ACTION_ABORT, per_platform=True)])).batch.id
    deliveries = [d.next() for d in devices]

    def answer(i, outcome):
        devices[i].wait_published(devices[i].ack(deliveries[i], outcome))
    answer(1, pb.OUTCOME_REJECTED)
    seen = api.watch(client, batch, until=lambda b: b.control.canceled_platforms and
                     b.control.state == pb.CONTROL_STATE_RUNNING)
    assert progress(seen) == {"rejected": 1, "sent": 5} and list(seen.control.canceled_platforms) == [pb.PLATFORM_ANDROID]
    for i, outcome in ((3, pb.OUTCOME_FAILED), (5, pb.OUTCOME_NOT_NOW), (0, pb.OUTCOME_FAILED), (2, pb.OUTCOME_SUCCEEDED)):
        answer(i, outcome)
    assert devices[0].next().attempt == 2
    answer(0, pb.OUTCOME_SUCCEEDED)
    answer(4, pb.OUTCOME_SUCCEEDED)
    assert progress(api.watch(client, batch)) == {"rejected": 1, "succeeded": 3, "canceled": 2}
    assert all(d.deliveries.empty() for d in devices)
    for d in devices:
        d.close()


def test_a_canary_group_goes_first(api, client):
    pb = api.pb
    with Crowd(api, client, 10) as crowd:
        client.devices.CreateGroup(pb.CreateGroupRequest(name="pilots", device_ids=["d0003", "d0007", "d0008"]))
        batch = api.submit(client, target=pb.Target(all=True, exclude=pb.Target(devices=pb.DeviceIds(ids=["d0007"]))),
                           steering=pb.Steering(waves=[pb.Wave(group="pilots"), pb.Wave(devices=2, success_percent=100),
                                                       pb.Wave(by_hand=True)])).batch.id
        api.watch(client, batch, until=lambda b: progress(b) == {"succeeded": 4, "held": 5})
        assert crowd.got() == [0, 1, 3, 8]  # the pilots that are meant, then the first two of the others
        # Who becomes a pilot now is none of this batch's.
        client.devices.UpdateGroup(pb.UpdateGroupRequest(name="pilots", add_device_ids=["d0009"], remove_device_ids=["d0003"]))
        client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
        assert progress(api.watch(client, batch)) == {"succeeded": 9}
        assert api.sql("SELECT kind, sum(bit_count(slots))::int FROM batch_part WHERE batch_id = %s GROUP BY 1", batch) == [(1, 2)]
        by_filter = api.submit(client, steering=pb.Steering(waves=[pb.Wave(filter="platform = android"), pb.Wave(by_hand=True)]))
        api.watch(client, by_filter.batch.id, until=lambda b: progress(b) == {"succeeded": 5, "held": 5})
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=by_filter.batch.id))
        api.watch(client, by_filter.batch.id)
        assert [i for i, d in enumerate(crowd.devices) if d.deliveries.qsize() == 2] == [1, 3, 5, 9]
        assert crowd.devices[7].deliveries.qsize() == 1


def test_a_canary_group_must_be_in_the_batch(api, client):
    pb = api.pb
    pre, bad = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
    api.import_devices(client, ["a", "b", "c"], platforms=(1,))
    for name, members in (("some", ["a"]), ("all", ["a", "b", "c"]), ("none", [])):
        client.devices.CreateGroup(pb.CreateGroupRequest(name=name, device_ids=members))

    def submit(*waves, **fields):
        return api.submit(client, steering=pb.Steering(waves=waves), **fields)
    rest = pb.Wave(by_hand=True)
    others = pb.Target(devices=pb.DeviceIds(ids=["b", "c"]))
    refused(api, pre, "CANARY_OUTSIDE_TARGET", lambda: submit(pb.Wave(group="some"), rest, target=others))
    refused(api, pre, "CANARY_OUTSIDE_TARGET", lambda: submit(pb.Wave(group="none"), rest, validate_only=True))
    refused(api, pre, "CANARY_OUTSIDE_TARGET", lambda: submit(pb.Wave(filter="platform = android"), rest))
    refused(api, pre, "WAVES_TOO_LARGE", lambda: submit(pb.Wave(group="all"), rest))
    refused(api, grpc.StatusCode.NOT_FOUND, "GROUP_NOT_FOUND", lambda: submit(pb.Wave(group="nobody"), rest))
    assert set(refused(api, bad, "INVALID_FIELD", lambda: submit(pb.Wave(group="some")))) == {"steering.waves[0]"}
    assert set(refused(api, bad, "INVALID_FIELD", lambda: submit(
        pb.Wave(devices=1), pb.Wave(group="some", by_hand=True), rest))) == {"steering.waves[1]"}
    assert set(refused(api, bad, "INVALID_FIELD", lambda: submit(pb.Wave(group="no name"), rest))) == {"steering.waves[0].group"}
    assert set(refused(api, bad, "INVALID_FIELD", lambda: submit(pb.Wave(filter="x y z"), rest))) == {"steering.waves[0].filter"}
    assert not client.commands.ListBatches(pb.ListBatchesRequest()).batches


def test_waves_go_on_under_another_leader(make_stack):
    stack = make_stack()
    pb = stack.pb
    stack.start(dispatchers=2)
    client = stack.client(stack.make_tenant(), dispatcher=stack.dispatchers[1])
    count = 10 * fewer(300)
    tokens = stack.make_devices(client, count)
    fleet = stack.start_fleet(tokens)
    batch = stack.submit(client, steering=pb.Steering(waves=[
        pb.Wave(percent=10), pb.Wave(percent=30, success_percent=100), pb.Wave(by_hand=True)])).batch.id
    two_waves = {"succeeded": 4 * count // 10, "held": 6 * count // 10}
    stack.watch(client, batch, until=lambda b: progress(b) == two_waves)
    stack.dispatchers[0].kill()
    stack.dispatchers[1].wait_event("leader_loaded")
    assert progress(client.commands.GetBatch(pb.GetBatchRequest(batch_id=batch)).batch) == two_waves
    client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
    assert progress(stack.watch(client, batch)) == {"succeeded": count}
    record = fleet.dump()
    fleet.quit()
    assert all(received == 1 for received, _, _, _ in record.values())
    check(stack, client, [batch], record)


def test_what_contradicts_itself_is_refused(api, client):
    pb = api.pb
    api.import_devices(client, ["a", "b", "c"])
    pre, bad = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
    for waves in ([pb.Wave(percent=60), pb.Wave(percent=60, by_hand=True)],
                  [pb.Wave(devices=3), pb.Wave(by_hand=True)],
                  [pb.Wave(percent=70), pb.Wave(by_hand=True)]):  # rounded up, it is all of them
        refused(api, pre, "WAVES_TOO_LARGE", lambda: api.submit(client, steering=pb.Steering(waves=waves)))
        refused(api, pre, "WAVES_TOO_LARGE", lambda: api.submit(client, steering=pb.Steering(waves=waves), validate_only=True))
    for waves in ([pb.Wave(percent=1)], [pb.Wave(devices=2)], [pb.Wave(devices=1), pb.Wave(percent=10, success_percent=95)]):
        refused(api, pre, "WAVES_TOO_SMALL", lambda: api.submit(client, steering=pb.Steering(waves=waves)))
        refused(api, pre, "WAVES_TOO_SMALL", lambda: api.submit(client, steering=pb.Steering(waves=waves), validate_only=True))
    # Together they are all of them.
    api.submit(client, steering=pb.Steering(waves=[pb.Wave(percent=33), pb.Wave(percent=67, by_hand=True)]), validate_only=True)
    api.submit(client, steering=pb.Steering(waves=[pb.Wave(devices=1), pb.Wave(devices=2, by_hand=True)]), validate_only=True)
    steering = pb.Steering(
        waves=[pb.Wave(percent=101, by_hand=True), pb.Wave(devices=1), pb.Wave(by_hand=True),
               pb.Wave(devices=1, success_percent=101), pb.Wave(after=Duration())],
        thresholds=[pb.Threshold(), pb.Threshold(percent=101, action=2, per_platform=True)])
    assert set(refused(api, bad, "INVALID_FIELD", lambda: api.submit(client, steering=steering))) == {
        "steering.waves[0]", "steering.waves[0].release", "steering.waves[1].release", "steering.waves[2]",
        "steering.waves[3].release", "steering.waves[4].release", "steering.thresholds[0].percent",
        "steering.thresholds[0].action", "steering.thresholds[1].percent"}
    steering = pb.Steering(waves=[pb.Wave(devices=1)] + [pb.Wave(devices=1, by_hand=True)] * 16,
                           thresholds=[pb.Threshold(percent=1, action=1)] * 9)
    assert set(refused(api, bad, "INVALID_FIELD", lambda: api.submit(client, steering=steering))) == {
        "steering.waves", "steering.thresholds"}
    assert not client.commands.ListBatches(pb.ListBatchesRequest()).batches


def test_the_command_line(api, cli):
    tenant = api.make_tenant(role=2)
    client = api.client(tenant)
    api.import_devices(client, [f"d{i}" for i in range(20)])
    env = api.cli_env(tenant)
    out = cli("batch", "submit", "--type", "lock", "--all", "--wave", "10%", "--wave", "5:success=95", "--wave", "20%:after=2h",
              "--wave", "rest:hand", "--pause-at", "5%:100", "--abort-at", "20", "--stop-platform-at", "10%:20", "--abort-platform-at", "30%:20",
              env=env, check=0).stdout
    batch = out.split()[1].rstrip(":")
    cli("batch", "release", batch, env=env, check=0)
    api.watch(client, int(batch), until=lambda b: b.progress.queued == 7)
    out = cli("batch", "get", batch, env=env, check=0).stdout
    for said in ("waves        4", "threshold    PAUSE at 5 % of at least 100 outcomes", "threshold    ABORT at 20 %",
                 "threshold    PAUSE at 10 % of at least 20 outcomes a platform",
                 "threshold    ABORT at 30 % of at least 20 outcomes a platform", "released     wave 2", "7 QUEUED"):
        assert said in out, out
    client.devices.CreateGroup(api.pb.CreateGroupRequest(name="pilots", device_ids=["d3"]))
    for flags, said in ((["--canary", "pilots"], "canary       group pilots"),
                        (["--canary-filter", "device_id = d3", "--wave", "rest:success=100"], "canary       device_id = d3")):
        out = cli("batch", "submit", "--type", "lock", "--all", *flags, env=env, check=0).stdout
        assert "waves        2" in out and said in out, out
    cli("batch", "submit", "--type", "lock", "--all", "--canary", "a", "--canary-filter", "b", env=env, check=2)
    for flags in (["--wave", "x"], ["--wave", "1%:soon"], ["--wave", "1%x"], ["--pause-at", "x"], ["--pause-at", "1%:2x"]):
        cli("batch", "submit", "--type", "lock", "--all", *flags, env=env, check=2)
