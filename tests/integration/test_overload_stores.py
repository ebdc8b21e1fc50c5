"""More than PostgreSQL or Redis can do at the moment: memory stays bounded, the tenant that wants most is turned away first, the
others are served, and afterwards everything that was accepted comes to its end."""
import json
import subprocess
import threading
import time

import grpc
import pytest
from harness.daemons import program
from harness.patience import fewer, not_under_valgrind, patient
from harness.reports import memory_factor, without_quarantine
from harness.stack import have
from harness.until import until

pytestmark = pytest.mark.skipif(not have("muster-dispatcher", "muster-worker", "muster-fleet", "muster-submit-load"),
                                reason="not all is built")

# Each transaction that has touched the table takes a second more to commit, with its locks held, as on a slow disk.
SLOW = """
CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('test.slow', true) IS DISTINCT FROM txid_current()::text THEN
        PERFORM set_config('test.slow', txid_current()::text, true), pg_sleep(1);
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON batch DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit();
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ack_log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit();
"""
FAST = "DROP TRIGGER slow ON batch; DROP TRIGGER slow ON ack_log; DROP FUNCTION slow_commit()"

flood = not_under_valgrind("the callers are as slow as what they want to fill")


class Flood:
    """muster-submit-load of a tenant: commands to single devices, without looking at the answers."""

    def __init__(self, stack, tenant, ids, *flags):
        path = f"{stack.folder}/flood-ids"
        with open(path, "w", encoding="ascii") as f:
            f.writelines(f"{i}\n" for i in ids)
        self.popen = subprocess.Popen(
            [program("muster-submit-load"), "--target", stack.dispatchers[0].address, "--ca", stack.certificates.ca, "--api-key",
             tenant.key, "--ids", path, "--connections", "8", "--warmup", "0s", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self):
        """What it counted, and what it said of failures."""
        out, errors = self.popen.communicate(timeout=patient(120))
        return json.loads(out), errors


def open_batches(stack):
    return stack.sql("SELECT count(*) FROM batch WHERE closed_ms IS NULL")[0][0]


@flood
def test_a_flooding_tenant_is_turned_away_and_a_small_one_is_not(stack):
    """PostgreSQL takes a second for each commit."""
    stack.start_dispatcher(env=without_quarantine())
    stack.start_worker()
    large, small = stack.make_tenant(), stack.make_tenant()
    flooding, client = stack.client(large), stack.client(small, timeout=20)
    ids = [f"large-{n:04d}" for n in range(500)]
    stack.import_devices(flooding, ids)
    fleet = stack.start_fleet(stack.make_devices(client, 10, prefix="small"))
    dispatcher = stack.dispatchers[0]
    stack.submit(client)
    before = dispatcher.rss()
    stack.sql(SLOW)
    flood = Flood(stack, large, ids, "--rate", "2000", "--measure", "5s")
    until(lambda: dispatcher.figures()["muster_dispatcher_accept_shed_total"] > 0, what="the flood is turned away")
    with pytest.raises(grpc.RpcError) as refused:
        while True:
            stack.submit(flooding, target=stack.pb.Target(devices=stack.pb.DeviceIds(ids=ids[:1])))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stack.stubs.details(refused.value)[0] == "OVERLOADED" and b"RetryInfo" in dict(
        refused.value.trailing_metadata())["grpc-status-details-bin"]
    slowest, batches = 0, []
    for _ in range(3):
        began = time.monotonic()
        batches.append(stack.submit(client).batch.id)
        slowest = max(slowest, time.monotonic() - began)
    # Two commits, the one that has just begun and its own, and what a busy machine adds; in one line with the flood, 40.
    assert slowest < 10, "a small tenant waits behind a large one"
    told, errors = flood.end()
    assert told["failed"] > told["ok"] > 0 and "RESOURCE_EXHAUSTED" in errors
    assert dispatcher.rss() - before < (96 << 20) * memory_factor()
    stack.sql(FAST)
    for b in batches:
        assert stack.watch(client, b, timeout=60).progress.succeeded == 10
    assert fleet.stats()["lost"] == 0
    (mine,), = stack.sql("SELECT count(*) FROM batch WHERE tenant_id = %s", large.number)
    assert mine >= told["ok"], "what was answered is there"
    accepted = stack.submit(flooding, target=stack.pb.Target(devices=stack.pb.DeviceIds(ids=ids[:1])))
    assert accepted.batch.id and dispatcher.figures()["muster_dispatcher_accept_waiting"] == 0


@flood
def test_what_the_leader_does_not_get_to_is_not_accepted(stack):
    """Redis carries nothing out: batches are accepted until the leader has enough to do, then they wait, those of another
    tenant do not; and all of them come to their end."""
    stack.start(workers=0)
    stack.start_worker("--answer-self")
    large, small = stack.make_tenant(), stack.make_tenant()
    flooding, client = stack.client(large), stack.client(small)
    ids = [f"large-{n:04d}" for n in range(5000)]
    stack.import_devices(flooding, ids)
    stack.make_devices(client, 10, prefix="small")
    dispatcher = stack.dispatchers[0]
    stack.submit(client)
    redis = stack.redis.client()
    redis.client_pause(int(patient(120)) * 1000, all=False)
    floods = []

    def held():
        if not floods or floods[-1].popen.poll() is not None:  # a slow machine needs more than one
            floods.append(Flood(stack, large, ids, "--rate", "4000", "--measure", "4s"))
        figures = dispatcher.figures()
        return figures["muster_dispatcher_accept_held_total"] > 0 and figures
    figures = until(held, 60, "acceptance waits for the leader")
    assert figures["muster_dispatcher_waiting_batches"] < 6000
    began = time.monotonic()
    batch = stack.submit(client).batch.id
    assert time.monotonic() - began < 10, "a small tenant waits behind a large one"
    redis.client_unpause()
    assert sum(f.end()[0]["ok"] for f in floods) > 4000
    assert stack.watch(client, batch, timeout=60).progress.succeeded == 10
    until(lambda: open_batches(stack) == 0, 60, "every batch is closed")


def test_a_redis_that_stops_for_seconds_loses_nothing(stack):
    """Devices answer all the while; batches are accepted."""
    stack.start(workers=2)
    client, count = stack.client(stack.make_tenant()), fewer(400)
    fleet = stack.start_fleet(stack.make_devices(client, count), "--think", "1ms..50ms", "--churn", "20", "--backoff", "50ms")
    before = [d.rss() for d in [*stack.workers, *stack.dispatchers]]
    redis, ending, batches = stack.redis.client(), threading.Event(), []

    def submit():
        while not ending.wait(0.05):
            batches.append(stack.submit(client).batch.id)
    thread = threading.Thread(target=submit)
    thread.start()
    for _ in range(3):
        enough = len(batches) + 20
        redis.client_pause(1500)
        until(lambda enough=enough: len(batches) >= enough, what="batches are accepted meanwhile")
    ending.set()
    thread.join()
    for b in batches:
        assert stack.watch(client, b, timeout=60).progress.succeeded == count
    assert fleet.stats()["executed"] == count * len(batches)
    for d, was in zip([*stack.workers, *stack.dispatchers], before):
        assert d.rss() - was < (48 << 20) * memory_factor()
