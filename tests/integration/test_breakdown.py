"""A batch by platform and wave, and how long its commands took: against a model, while it runs, and as it is watched."""
import json
import random
import struct

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from harness.answers import progress
from harness.device import good
from harness.until import until

EVERYTHING = {"by_platform": True, "by_wave": True, "latency": True}
SUCCEEDED, FAILED, REJECTED, TIMED_OUT, CANCELED = 5, 6, 7, 8, 10


@pytest.fixture
def tenant(api):
    return api.make_tenant(role=1)


@pytest.fixture
def client(api, tenant):
    return api.client(tenant)


def get(api, client, batch, **wishes):
    return client.commands.GetBatch(api.pb.GetBatchRequest(batch_id=batch, **wishes)).batch


def total(parts):
    counts = {}
    for p in parts:
        assert sum(progress(p).values()) == p.devices
        for k, v in progress(p).items():
            counts[k] = counts.get(k, 0) + v
    return counts


def write_outcomes(api, batch, dice):
    """Gives a closed batch other ends, each with its time; [(state, ms)] by number."""
    outcomes = {}
    for block, first, targets in api.sql("SELECT block, first, targets FROM batch_block WHERE batch_id = %s", batch):
        states, times = bytearray(8 * len(targets)), bytearray(32 * len(targets))
        for i in range(8 * len(targets)):
            if not bytes(targets)[i // 8] >> i % 8 & 1:
                continue
            state = dice.choice([SUCCEEDED] * 6 + [FAILED, REJECTED, TIMED_OUT, CANCELED])
            ms = int(10 ** dice.uniform(0, 9))
            states[i], times[4 * i:4 * i + 4] = state | 16, struct.pack("<I", ms)
            outcomes[block * 1024 + first + i] = (state, ms)
        api.sql("UPDATE batch_block SET states = %s, times = %s WHERE batch_id = %s AND block = %s", bytes(states), bytes(times),
                batch, block)
    counts = [sum(s == n for s, _ in outcomes.values()) for n in range(12)]
    api.sql("UPDATE batch SET counts = %s WHERE id = %s", counts, batch)
    return outcomes


def test_against_a_model(api, client):
    """5,000 devices in five blocks, a canary among them; some are no more registered."""
    pb, dice, n = api.pb, random.Random(4), 5000
    ids = [f"d{i:04d}" for i in range(n)]
    platforms = [dice.choice((0, 1, 1, 5)) for _ in range(n)]
    client.devices.ImportDevices(iter([pb.ImportDevicesRequest(devices=[
        pb.Device(id=d, platform=p) for d, p in zip(ids, platforms)])]))
    canary = sorted(dice.sample(range(n), 30))
    client.devices.CreateGroup(pb.CreateGroupRequest(name="canary", device_ids=[ids[i] for i in canary]))
    batch = api.submit(client, steering=pb.Steering(waves=[
        pb.Wave(group="canary"), pb.Wave(devices=1500, by_hand=True), pb.Wave(percent=20, by_hand=True), pb.Wave(by_hand=True)]))
    batch = batch.batch.id
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
    api.watch(client, batch)
    outcomes = write_outcomes(api, batch, dice)
    assert len(outcomes) == n
    for i in (7, 1024, 4999):
        client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id=ids[i]))
        platforms[i] = 0

    b = get(api, client, batch, **EVERYTHING)
    names = {SUCCEEDED: "succeeded", FAILED: "failed", REJECTED: "rejected", TIMED_OUT: "timed_out", CANCELED: "canceled"}

    def counted(numbers):
        counts = {}
        for i in numbers:
            name = names[outcomes[i][0]]
            counts[name] = counts.get(name, 0) + 1
        return counts
    assert progress(b) == counted(range(n)) == total(b.platforms) == total(b.waves)
    assert [p.platform for p in b.platforms] == [0, 1, 5]
    for p in b.platforms:
        assert progress(p) == counted(i for i in range(n) if platforms[i] == p.platform)
    rest = [i for i in range(n) if i not in set(canary)]
    waves = [canary, rest[:1500], rest[1500:2500], rest[2500:]]
    assert [(w.wave, w.devices, w.released) for w in b.waves] == \
        [(1, 30, True), (2, 1500, False), (3, 1000, False), (4, n - 2530, False)]
    for w, members in zip(b.waves, waves):
        assert progress(w) == counted(members)

    took = sorted(ms for state, ms in outcomes.values() if state in (SUCCEEDED, FAILED, REJECTED))
    assert b.latency.commands == len(took) == sum(x.commands for x in b.latency.buckets) and b.latency.max_ms == took[-1]
    for q, said in ((0.5, b.latency.p50_ms), (0.9, b.latency.p90_ms), (0.99, b.latency.p99_ms)):
        exact = took[-(-len(took) * int(q * 100) // 100) - 1]
        assert exact <= said <= exact * 1.0625 + 1, q
    below = 0
    for x in b.latency.buckets:
        assert x.commands == sum(below < ms <= x.up_to_ms for ms in took)
        below = x.up_to_ms

    plain = get(api, client, batch)
    assert progress(plain) == progress(b) and not plain.platforms and not plain.waves and not plain.HasField("latency")
    only = get(api, client, batch, by_wave=True)
    assert only.waves == b.waves and not only.platforms and not only.HasField("latency")


def test_while_it_runs(api, client):
    """Wave after wave, as GetBatch and watchers with different wishes see it; the last message is exact."""
    pb = api.pb
    ids = [f"r{i}" for i in range(6)]
    api.import_devices(client, ids, platforms=(1, 5))
    tokens = api.tokens(client, ids)
    devices = [api.device(d, tokens[d], answer=good(pb)) for d in ids[:5]]
    try:
        for d in devices:
            d.connect(api.workers[0].address)
        batch = api.submit(client, steering=pb.Steering(waves=[pb.Wave(devices=2), pb.Wave(by_hand=True)])).batch.id
        wishes = [{}, {"by_platform": True}, {"by_wave": True, "latency": True}]
        watchers = [client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=batch, interval_ms=100, **w), timeout=120)
                    for w in wishes]
        # The time of an outcome comes with its being durable, a little after the outcome.
        b = until(lambda: (lambda b: b if b.latency.commands == 2 else None)(get(api, client, batch, **EVERYTHING)))
        assert [(w.released, progress(w)) for w in b.waves] == [(True, {"succeeded": 2}), (False, {"held": 4})]
        assert {p.platform: progress(p) for p in b.platforms} == {1: {"succeeded": 1, "held": 2}, 5: {"succeeded": 1, "held": 2}}
        assert 0 < b.latency.p50_ms <= b.latency.max_ms
        client.control.ReleaseWave(pb.ReleaseWaveRequest(batch_id=batch))
        b = until(lambda: (lambda b: b if b.progress.succeeded == 5 else None)(get(api, client, batch, **EVERYTHING)))
        assert [(w.released, progress(w)) for w in b.waves] == [(True, {"succeeded": 2}), (True, {"succeeded": 3, "queued": 1})]
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
        for watcher, w in zip(watchers, wishes):
            messages = [m.batch for m in watcher]
            assert messages[-1].state == pb.BATCH_STATE_CLOSED
            for m in messages:
                assert bool(m.platforms) == ("by_platform" in w) and bool(m.waves) == ("by_wave" in w)
                assert m.HasField("latency") == ("latency" in w)
                if m.platforms:
                    assert total(m.platforms) == progress(m)
                if m.waves:
                    assert total(m.waves) == progress(m)
            assert progress(messages[-1]) == {"succeeded": 5, "canceled": 1}
        assert messages[-1].latency.commands == 5
        # Whoever comes later gets one message, whatever he wishes.
        for w in wishes:
            (m,) = client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=batch, **w), timeout=60)
            assert progress(m.batch) == {"succeeded": 5, "canceled": 1} and bool(m.batch.waves) == ("by_wave" in w)
    finally:
        for d in devices:
            d.close()


def test_watchers_that_come_and_go(api, client):
    """Nobody is told what was true when an earlier watcher left."""
    pb = api.pb
    api.import_devices(client, ["one"], platforms=(1,))
    batch = api.submit(client).batch.id

    def first(**wishes):
        call = client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=batch, interval_ms=100, **wishes), timeout=60)
        b = next(iter(call)).batch
        call.cancel()
        return b
    stays = client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=batch, interval_ms=100), timeout=60)
    assert [progress(p) for p in first(by_platform=True).platforms] == [{"queued": 1}]
    with api.device("one", api.tokens(client, ["one"])["one"]) as d:
        d.connect(api.workers[0].address)
        delivery = d.next()
        until(lambda: get(api, client, batch).progress.sent)
        assert [progress(p) for p in first(by_platform=True).platforms] == [{"sent": 1}]
        d.wait_published(d.ack(delivery))
    assert [m.batch for m in stays][-1].progress.succeeded == 1
    assert progress(first(by_wave=True)) == {"succeeded": 1}


def test_without_waves_or_answers(api, client):
    api.import_devices(client, ["x"], platforms=(5,))
    batch = api.submit(client).batch.id
    b = get(api, client, batch, **EVERYTHING)
    assert [(w.wave, w.devices, w.released) for w in b.waves] == [(1, 1, True)]
    assert b.HasField("latency") and b.latency.commands == 0 and not b.latency.buckets
    with pytest.raises(grpc.RpcError) as e:
        get(api, client, batch + 1000, **EVERYTHING)
    assert e.value.code() == grpc.StatusCode.NOT_FOUND


def test_command_line(api, client, tenant, cli):
    pb, env = api.pb, api.cli_env(tenant)
    api.import_devices(client, ["p0", "p1", "p2"], platforms=(1, 5, 1))
    with api.device("p0", api.tokens(client, ["p0"])["p0"], answer=good(pb)) as d:
        d.connect(api.workers[0].address)
        batch = api.submit(client, steering=pb.Steering(waves=[
            pb.Wave(devices=1), pb.Wave(after=Duration(seconds=3600))])).batch.id
        until(lambda: get(api, client, batch, latency=True).latency.commands)  # it is durable
    shown = cli("batch", "show", str(batch), "--by", "platform", "--by", "wave", "--latency", env=env).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["IOS", "2", "1", "SUCCEEDED,", "1", "HELD"] in lines and ["ANDROID", "1", "1", "HELD"] in lines
    assert ["wave", "1", "out", "1", "1", "SUCCEEDED"] in lines and ["wave", "2", "2", "2", "HELD"] in lines
    assert "from acceptance to outcome, 1 commands: p50 " in shown and "#" * 40 in shown
    plain = cli("batch", "show", str(batch), env=env).stdout
    assert plain == cli("batch", "get", str(batch), env=env).stdout and "IOS" not in plain
    told = json.loads(cli("batch", "show", str(batch), "--by", "wave", "--json", env=env).stdout)
    assert [w["devices"] for w in told["batch"]["waves"]] == [1, 2]
    assert "is none of platform, wave" in cli("batch", "show", "1", "--by", "group", env=env, check=2).stderr
