"""Batches with a key take the place of what older ones with the same key have not sent."""
import contextlib
import signal
import threading
import time

import grpc
import pytest
from harness.answers import progress
from harness.device import good
from harness.oracle import check
from harness.patience import fewer, lasting
from harness.until import until



@pytest.fixture
def client(api):
    return api.client(api.make_tenant())


def batch_of(delivery):
    return int(delivery.command_id[:13].replace("-", ""), 16)


def only(pb, *ids):
    return pb.Target(devices=pb.DeviceIds(ids=ids))


def states(api, client, batch):
    pb = api.pb
    return {c.device_id: pb.CommandState.Name(c.state).removeprefix("COMMAND_STATE_") for c in api.list_commands(client, batch)}


# --- which commands -------------------------------------------------------------------------------------------------------

def test_only_the_same_key_tenant_and_device(api, client):
    pb = api.pb
    other = api.client(api.make_tenant())
    ids = [f"d{i:04}" for i in range(2100)]  # three blocks
    api.register(client, *ids)
    api.register(other, "d0000")
    first = api.submit(client, supersede_key="wifi").batch
    assert first.supersede_key == "wifi" and not first.HasField("control")
    apart = [api.submit(client).batch.id, api.submit(client, supersede_key="wifi ").batch.id,
             api.submit(other, supersede_key="wifi").batch.id]
    some = [ids[i] for i in (0, 1, 1023, 1024, 2099)]
    second = api.submit(client, supersede_key="wifi", target=only(pb, *some)).batch.id
    api.watch(client, first.id, until=lambda b: progress(b) == {"superseded": 5, "queued": 2095})
    got = states(api, client, first.id)
    assert {d for d in ids if got[d] == "SUPERSEDED"} == set(some)
    assert api.sql("SELECT count(*) FROM commands(%s) WHERE state = 'SUPERSEDED'", first.id) == [(5,)]
    third = api.submit(client, supersede_key="wifi").batch.id
    assert progress(api.watch(client, first.id)) == {"superseded": 2100}
    assert progress(api.watch(client, second)) == {"superseded": 5}
    api.watch(client, third, until=lambda b: b.progress.queued == 2100)
    for c, batch, n in ((client, apart[0], 2100), (client, apart[1], 2100), (other, apart[2], 1)):
        assert progress(c.commands.GetBatch(pb.GetBatchRequest(batch_id=batch)).batch) == {"queued": n}
    assert client.commands.GetBatch(pb.GetBatchRequest(batch_id=third)).batch.supersede_key == "wifi"
    # Of what is closed nothing is kept to look for.
    until(lambda: api.sql("SELECT DISTINCT batch_id FROM batch_key WHERE batch_id = ANY (%s)", [first.id, second, third])
          == [(third,)], what="the keys of closed batches are forgotten")
    until(lambda: not api.sql("SELECT 1 FROM batch_control WHERE request > handled"), what="nothing is left asked for")


def test_what_is_sent_goes_to_its_own_end_and_the_newer_comes_behind(api, client):
    pb = api.pb
    tokens = api.register(client, "busy", "away")
    with api.device("busy", tokens["busy"]) as busy:
        busy.connect(api.workers[0].address)
        first = api.submit(client, supersede_key="k").batch.id
        delivery = busy.next()
        assert batch_of(delivery) == first
        waiting = api.submit(client, supersede_key="k").batch.id  # behind it, in the worker's hands
        api.watch(client, first, until=lambda b: progress(b) == {"superseded": 1, "sent": 1})
        api.watch(client, waiting, until=lambda b: b.progress.routed == 1)
        last = api.submit(client, supersede_key="k").batch.id
        assert progress(api.watch(client, waiting)) == {"superseded": 2}
        assert busy.deliveries.empty()
        busy.ack(delivery)
        assert progress(api.watch(client, first)) == {"succeeded": 1, "superseded": 1}
        delivery = busy.next()
        assert batch_of(delivery) == last
        busy.ack(delivery)
        api.watch(client, last, until=lambda b: progress(b) == {"succeeded": 1, "queued": 1})
        assert busy.deliveries.empty()


def test_the_request_is_what_it_was(api, client):
    pb = api.pb
    api.register(client, "a")
    one = api.submit(client, request_id="r", supersede_key="k")
    again = api.submit(client, request_id="r", supersede_key="k")
    assert again.replayed and again.batch.id == one.batch.id and again.batch.supersede_key == "k"
    assert progress(client.commands.GetBatch(pb.GetBatchRequest(batch_id=one.batch.id)).batch) == {"queued": 1}
    for key, code, reason in (("other", grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
                              ("", grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
                              ("x" * 129, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")):
        with pytest.raises(grpc.RpcError) as e:
            api.submit(client, request_id="r", supersede_key=key)
        assert e.value.code() == code and api.stubs.details(e.value)[0] == reason
    api.submit(client, validate_only=True, supersede_key="k")
    assert progress(client.commands.GetBatch(pb.GetBatchRequest(batch_id=one.batch.id)).batch) == {"queued": 1}
    api.submit(client, supersede_key="x" * 128)


# --- steered, held, canceled ----------------------------------------------------------------------------------------------

def test_paused_and_delayed_batches(api, client):
    pb = api.pb
    tokens = api.register(client, "a", "b")
    paused = api.submit(client, supersede_key="k").batch.id
    client.control.PauseBatch(pb.PauseBatchRequest(batch_id=paused))
    later = pb.Steering()
    later.not_before.FromJsonString("2100-01-01T00:00:00Z")
    late = pb.SubmitBatchRequest().expires_at
    late.GetCurrentTime()
    late.seconds += 86400
    later.not_before.FromSeconds(late.seconds - 3600)
    delayed = api.submit(client, supersede_key="k", steering=later, expires_at=late, target=only(pb, "b")).batch.id
    api.watch(client, paused, until=lambda b: progress(b) == {"superseded": 1, "held": 1})
    client.control.ResumeBatch(pb.ResumeBatchRequest(batch_id=paused))
    with api.device("a", tokens["a"], answer=good(pb)) as a, api.device("b", tokens["b"], answer=good(pb)) as b:
        a.connect(api.workers[0].address)
        b.connect(api.workers[0].address)
        assert progress(api.watch(client, paused)) == {"superseded": 1, "succeeded": 1}
        newest = api.submit(client, supersede_key="k").batch.id
        assert progress(api.watch(client, delayed)) == {"superseded": 1}
        assert progress(api.watch(client, newest)) == {"succeeded": 2}
        assert [batch_of(d.next()) for d in (b, a, a)] == [newest, paused, newest]
        assert a.deliveries.empty() and b.deliveries.empty()


def test_waves(api, client):
    """The older one's unreleased waves are superseded too; of the newer one's only the first is sent."""
    pb = api.pb
    ids = [f"w{i:03}" for i in range(100)]
    api.register(client, *ids)
    waves = pb.Steering(waves=[pb.Wave(percent=10), pb.Wave(by_hand=True)])
    first = api.submit(client, supersede_key="k", steering=waves).batch.id
    second = api.submit(client, supersede_key="k", steering=waves, target=only(pb, *ids[5:50])).batch.id
    api.watch(client, first, until=lambda b: b.progress.superseded == 45)
    third = api.submit(client, supersede_key="k", steering=waves).batch.id
    assert progress(api.watch(client, first)) == {"superseded": 100}
    assert progress(api.watch(client, second)) == {"superseded": 45}
    # Each of the third is HELD until its wave; the first wave of ten waits for its devices.
    until(lambda: api.redis.client().exists(f"batch:{third}"), what="the third is routed")
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=third))
    assert progress(api.watch(client, third)) == {"canceled": 100}


def test_a_batch_that_waits_for_approval_supersedes_when_it_is_approved(api):
    pb = api.pb
    tenant = api.make_tenant()
    admin = api.client(tenant)
    approver = api.client(api.make_key(tenant.number, 4))
    operator = api.client(api.make_key(tenant.number, 2))
    ids = [f"g{i}" for i in range(20)]
    api.register(admin, *ids)
    policy = pb.GuardPolicy(enabled=True, commands=["wipe"], devices_per_hour=5, percent_per_hour=100)
    policy.approval_lifetime.FromSeconds(3600)
    policy.cooling_off.FromMilliseconds(0)
    policy.delay.FromMilliseconds(0)
    admin.admin.SetGuardPolicy(pb.SetGuardPolicyRequest(tenant=tenant.name, policy=policy))
    wipe = pb.Command(wipe=pb.WipeCommand())
    first = api.submit(operator, supersede_key="k").batch.id
    held, rejected = [api.submit(operator, supersede_key="k", command=wipe).batch for _ in range(2)]
    assert held.approval.state == rejected.approval.state == pb.APPROVAL_STATE_PENDING
    newer = api.submit(operator, supersede_key="k", target=only(pb, "g3")).batch.id
    api.watch(operator, first, until=lambda b: progress(b) == {"superseded": 1, "queued": 19})
    approver.commands.RejectBatch(pb.RejectBatchRequest(batch_id=rejected.id))
    api.watch(operator, rejected.id)
    assert progress(operator.commands.GetBatch(pb.GetBatchRequest(batch_id=first)).batch) == {"superseded": 1, "queued": 19}
    approver.commands.ApproveBatch(pb.ApproveBatchRequest(
        batch_id=held.id, target_digest=held.approval.target_digest, command_hash=held.approval.command_hash))
    assert progress(api.watch(operator, first)) == {"superseded": 20}
    # What came while it was held is newer, and stands.
    api.watch(operator, held.id, until=lambda b: progress(b) == {"superseded": 1, "queued": 19})
    assert progress(operator.commands.GetBatch(pb.GetBatchRequest(batch_id=newer)).batch) == {"queued": 1}


def test_an_older_one_that_is_being_canceled(api, client):
    pb = api.pb
    api.register(client, "a", "b")
    first = api.submit(client, supersede_key="k").batch.id
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=first))
    second = api.submit(client, supersede_key="k").batch.id
    assert sum(progress(api.watch(client, first)).values()) == 2
    api.watch(client, second, until=lambda b: b.progress.queued == 2)


# --- many at once, and with what breaks -----------------------------------------------------------------------------------

def test_who_was_superseded_is_not_asked_for_again(api, client):
    """While a device that was sent the first one does not answer, any number may come: of those only the devices that are new to it."""
    pb = api.pb
    tokens = api.register(client, "sent", "a", "b", "c")

    def superseded(batch):
        return [r[0] for r in api.sql("SELECT bit_count(bitmap_bits(slots)) FROM batch_cancel WHERE batch_id = %s ORDER BY request",
                                      batch)]
    with api.device("sent", tokens["sent"]) as sent:
        sent.connect(api.workers[0].address)
        first = api.submit(client, supersede_key="k").batch.id
        delivery = sent.next()
        newer = [api.submit(client, target=only(pb, *ids), supersede_key="k").batch.id
                 for ids in (["a"], ["a"], ["a", "b"], ["b"], ["sent", "a", "b"], ["sent", "a"])]
        until(lambda: all(api.sql("SELECT closed_ms IS NOT NULL FROM batch WHERE id = %s", b) == [(True,)] for b in newer[:3]))
        assert superseded(first) == [1, 2, 3]
        until(lambda: states(api, client, newer[4]) == {"sent": "SUPERSEDED", "a": "SUPERSEDED", "b": "QUEUED"})
        until(lambda: states(api, client, first) == {"sent": "SENT", "a": "SUPERSEDED", "b": "SUPERSEDED", "c": "QUEUED"})
        sent.ack(delivery)
        assert batch_of(sent.next()) == newer[5]
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=first))
    api.watch(client, first)


def test_two_dispatchers_accept_at_once(make_stack):
    """Of each device exactly the newest command is left, whoever accepted it."""
    stack = make_stack()
    pb = stack.pb
    stack.start(dispatchers=2, workers=1)
    tenant = stack.make_tenant()
    clients = [stack.client(tenant, dispatcher=d) for d in stack.dispatchers]
    ids = [f"d{i:04}" for i in range(1500)]
    stack.import_devices(clients[0], ids)
    made = []

    def submit(n):
        for i in range(15):
            some = ids if i % 5 == 0 else ids[(n * 37 + i * 101) % 1400:][:100] if i % 5 < 3 else [ids[i * 3]]
            made.append((stack.submit(clients[n % 2], supersede_key="k", target=only(pb, *some)).batch.id, set(some)))
    threads = [threading.Thread(target=submit, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(made) == 60
    made.sort()
    newest = {d: max(b for b, some in made if d in some) for d in ids}
    until(lambda: not stack.sql("SELECT 1 FROM batch_control WHERE request > handled"), 60, "all is carried out")
    for batch, some in made:
        got = states(stack, clients[0], batch)
        assert got == {d: "QUEUED" if newest[d] == batch else "SUPERSEDED" for d in some}


def test_it_waits_until_nobody_can_send_the_older_one(make_stack):
    """A worker that is stopped may have it, and send it as soon as it goes on."""
    stack = make_stack(worker_flags=["--lease", "60s"])
    pb = stack.pb
    stack.start(workers=2)
    client = stack.client(stack.make_tenant())
    tokens = stack.register(client, "a", "b")
    with stack.device("a", tokens["a"]) as a, stack.device("b", tokens["b"], answer=good(pb)) as b:
        a.connect(stack.workers[0].address)
        b.connect(stack.workers[1].address)
        first = stack.submit(client, target=only(pb, "a")).batch.id
        delivery = a.next()
        older = stack.submit(client, target=only(pb, "a"), supersede_key="k").batch.id
        stack.watch(client, older, until=lambda x: x.progress.routed)
        stack.workers[0].signal(signal.SIGSTOP)
        newer = stack.submit(client, supersede_key="k").batch.id
        plain = stack.submit(client, target=only(pb, "b")).batch.id
        stack.watch(client, plain)
        assert batch_of(b.next()) == plain  # the newer one would have gone before it
        assert progress(client.commands.GetBatch(pb.GetBatchRequest(batch_id=newer)).batch) == {"queued": 2}
        stack.workers[0].signal(signal.SIGCONT)
        assert progress(stack.watch(client, older)) == {"superseded": 1}
        assert batch_of(b.next()) == newer
        a.ack(delivery)
        stack.watch(client, first)
        assert batch_of(a.next()) == newer


def test_a_newer_one_never_goes_before_an_older_one(make_stack):
    """Whatever their priorities: devices get batches of one key in growing order only, and the newest always."""
    stack = make_stack()
    pb = stack.pb
    stack.start(dispatchers=2, workers=2)
    client = stack.client(stack.make_tenant(), dispatcher=stack.dispatchers[1])
    ids = [f"d{i}" for i in range(10)]
    tokens = stack.register(client, *ids)

    def slowly(delivery):
        time.sleep(0.03)
        return good(pb)(delivery)
    devices = [stack.device(d, tokens[d], answer=slowly) for d in ids]
    for i, d in enumerate(devices):
        d.connect(stack.workers[i % 2].address)
    keyed, plain = [], []
    for i in range(40):
        priority = (pb.PRIORITY_URGENT, pb.PRIORITY_NORMAL, pb.PRIORITY_BULK)[i % 3]
        if i % 6 == 5:
            plain.append(stack.submit(client, priority=priority).batch.id)
        else:
            keyed.append(stack.submit(client, priority=priority, supersede_key="k").batch.id)
    ended = {b: progress(stack.watch(client, b)) for b in keyed + plain}
    for d in devices:
        d.close()
        got = [batch_of(d.deliveries.get()) for _ in range(d.deliveries.qsize())]
        of_key = [b for b in got if b in keyed]
        assert of_key == sorted(set(of_key)) and of_key[-1] == keyed[-1], (d.id, of_key)
        assert set(plain) <= set(got)
    assert all(ended[b] == {"succeeded": 10} for b in plain) and ended[keyed[-1]] == {"succeeded": 10}
    assert all(set(ended[b]) <= {"succeeded", "superseded"} for b in keyed)
    assert any("superseded" in ended[b] for b in keyed)


@pytest.mark.parametrize("what", ["leader", "worker", "redis"])
def test_whatever_is_lost_in_between(make_stack, what):
    stack = make_stack(worker_flags=["--lease", lasting(1)])
    pb = stack.pb
    stack.start(dispatchers=2, workers=1)
    client = stack.client(stack.make_tenant(), dispatcher=stack.dispatchers[1])
    count = 15 * fewer(100)
    tokens = stack.make_devices(client, count)
    some = list(tokens)[count * 7 // 15:count * 14 // 15]
    first = stack.submit(client, supersede_key="k").batch.id
    stack.watch(client, first, until=lambda b: b.progress.queued == count)
    if what == "leader":
        stack.dispatchers[0].signal(signal.SIGSTOP)
    if what == "redis":
        stack.redis.client().flushall()
    if what == "worker":
        stack.workers[0].signal(signal.SIGSTOP)
    second = stack.submit(client, supersede_key="k", target=only(pb, *some)).batch.id
    if what == "leader":
        stack.dispatchers[0].kill()
        stack.dispatchers[1].wait_event("leader_loaded")
    if what == "worker":
        stack.workers[0].kill()
        stack.workers[0] = stack.start_worker()
        stack.workers.pop()
        stack.watch(client, first, until=lambda b: b.progress.superseded)  # before, whoever comes gets the older one
    fleet = stack.start_fleet(tokens, workers=[stack.workers[0]])
    assert progress(stack.watch(client, second)) == {"succeeded": len(some)}
    seen = progress(stack.watch(client, first))
    if what == "worker":  # nobody had the older ones
        assert seen == {"succeeded": count - len(some), "superseded": len(some)}
    assert seen.get("succeeded", 0) + seen.get("superseded", 0) == count and seen["succeeded"] >= count - len(some)
    record = fleet.dump()
    fleet.quit()
    check(stack, client, [first, second], record)


def test_the_command_line(api, cli):
    tenant = api.make_tenant(role=2)
    client = api.client(tenant)
    api.register(client, "a")
    env = api.cli_env(tenant)
    flags = ["batch", "submit", "--type", "lock", "--all", "--supersede-key", "profile wifi"]
    first = cli(*flags, env=env, check=0).stdout.split()[1].rstrip(":")
    out = cli(*flags, env=env, check=0).stdout
    assert "supersedes   older commands with the key profile wifi" in out
    assert progress(api.watch(client, int(first))) == {"superseded": 1}


# --- dynamic batches ------------------------------------------------------------------------------------------------------

def grow(client, pb, group, *ids):
    client.devices.UpdateGroup(pb.UpdateGroupRequest(name=group, add_device_ids=ids))


def dynamic(api, client, group):
    pb = api.pb
    client.devices.CreateGroup(pb.CreateGroupRequest(name=group))
    return api.submit(client, target=pb.Target(groups=pb.GroupNames(names=[group])), dynamic=True, supersede_key="wifi").batch.id


def test_who_joins_loses_the_older_ones_and_not_the_newer(api, client):
    pb = api.pb
    tokens = api.register(client, *(f"d{i:04}" for i in range(1100)))
    a, b, c, d = "d0001", "d0002", "d1030", "d1031"
    plain = api.submit(client, supersede_key="wifi", target=only(pb, a, b, c)).batch.id
    other = api.submit(client, supersede_key="vpn", target=only(pb, a)).batch.id
    first, second = dynamic(api, client, "first"), dynamic(api, client, "second")
    # The devices of a batch that joins: what is older is superseded, also of a dynamic one.
    grow(client, pb, "first", a, c)
    api.watch(client, first, until=lambda x: progress(x) == {"queued": 2})
    until(lambda: states(api, client, plain) == {a: "SUPERSEDED", b: "QUEUED", c: "SUPERSEDED"}, what="they stand so")
    grow(client, pb, "second", a, b)
    api.watch(client, second, until=lambda x: progress(x) == {"queued": 2})
    until(lambda: states(api, client, first) == {a: "SUPERSEDED", c: "QUEUED"}, what="they stand so")
    assert progress(api.watch(client, plain)) == {"superseded": 3}
    until(lambda: states(api, client, other) == {a: "QUEUED"}, what="they stand so")
    # Whom a newer one has addressed, or let join, joins no older one, when the newer one is over too.
    newest = api.submit(client, supersede_key="wifi", target=only(pb, d)).batch.id
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=newest))
    api.watch(client, newest)
    grow(client, pb, "first", b, d, "d0003")
    api.watch(client, first, until=lambda x: x.device_count == 3)
    until(lambda: states(api, client, first) == {a: "SUPERSEDED", c: "QUEUED", "d0003": "QUEUED"}, what="they stand so")
    # The one device gets the newest only.
    with api.device(a, tokens[a], answer=good(pb)) as device:
        device.connect(api.workers[0].address)
        assert {batch_of(device.next()), batch_of(device.next())} == {second, other}
        api.watch(client, other)
    # All is over, and nothing is kept to look for.
    for batch in (first, second):
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
        api.watch(client, batch)
    until(lambda: api.sql("SELECT (SELECT count(*) FROM batch_key WHERE batch_id = ANY (%(b)s)) + (SELECT count(*)"
                          " FROM batch_part WHERE batch_id = ANY (%(b)s) AND kind = 4)".replace("%(b)s", "%s"),
                          [first, second, plain, newest], [first, second, plain, newest]) == [(0,)])


def has_its_key(stack, batch):
    until(lambda: stack.sql("SELECT count(*) FROM batch_key WHERE batch_id = %s", batch) == [(1,)], what="it has its key")


@contextlib.contextmanager
def behind_a_stopped_worker(stack, client, *ids, joining=1):
    """(a batch to `ids` that the first of them has got, a dynamic one that `joining` next ones are about to join): the worker that may
    send the former is stopped, so that the join waits for it."""
    tokens = stack.register(client, *ids)
    plain = stack.submit(client, supersede_key="wifi").batch.id
    first = dynamic(stack, client, "first")
    stack.watch(client, plain, until=lambda x: progress(x) == {"queued": len(ids)})
    with stack.device(ids[0], tokens[ids[0]]) as device:
        device.connect(stack.workers[0].address)
        assert batch_of(device.next()) == plain
        stack.workers[0].popen.send_signal(signal.SIGSTOP)
        grow(client, stack.pb, "first", *ids[1:1 + joining])
        yield plain, first


def test_who_joins_waits_until_nobody_can_send_the_older_one(make_stack):
    """A worker that does not answer holds the older one: the device joins when its lease is over."""
    stack = make_stack(worker_flags=["--lease", "2s"]).start(1, 1)
    client = stack.client(stack.make_tenant())
    with behind_a_stopped_worker(stack, client, "a", "b") as (plain, first):
        stack.watch(client, first, until=lambda x: x.device_count == 1)
        until(lambda: states(stack, client, plain)["b"] == "SUPERSEDED", what="b has lost the older one")
        assert states(stack, client, plain)["a"] != "SUPERSEDED"
        stack.workers[0].popen.send_signal(signal.SIGCONT)
    assert states(stack, client, first) == {"b": "QUEUED"}


def test_who_has_lost_the_older_one_joins_though_it_is_sealed(make_stack):
    """Or he would be left with neither."""
    stack = make_stack(worker_flags=["--lease", "60s"]).start(1, 1)
    pb = stack.pb
    client = stack.client(stack.make_tenant())
    with behind_a_stopped_worker(stack, client, "a", "b", "c") as (plain, first):
        has_its_key(stack, first)
        assert not client.control.SealBatch(pb.SealBatchRequest(batch_id=first)).batch.device_count, "b has joined before"
        grow(client, pb, "first", "c")
        stack.workers[0].popen.send_signal(signal.SIGCONT)
        stack.watch(client, first, until=lambda x: progress(x) == {"queued": 1})
        until(lambda: states(stack, client, plain)["b"] == "SUPERSEDED", what="b has lost the older one")
    assert states(stack, client, plain)["c"] == "QUEUED"
    assert states(stack, client, first) == {"b": "QUEUED"}


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "open"])
def test_who_has_lost_the_older_one_joins_with_whoever_leads_next(make_stack, sealed):
    """Also when the batch was sealed before he leads, and whatever the devices are meant to have since."""
    stack = make_stack(worker_flags=["--lease", "60s"]).start(2, 1)
    pb = stack.pb
    client = stack.client(stack.make_tenant(), dispatcher=stack.dispatchers[1])
    with behind_a_stopped_worker(stack, client, "a", "b", "c", joining=2) as (plain, first):
        has_its_key(stack, first)
        stack.dispatchers[0].kill()
        stack.sql("UPDATE lease SET expires_ms = expires_ms + 3600000")
        client.devices.UpdateGroup(pb.UpdateGroupRequest(name="first", remove_device_ids=["c"]))
        if sealed:
            client.control.SealBatch(pb.SealBatchRequest(batch_id=first))
        assert not client.commands.GetBatch(pb.GetBatchRequest(batch_id=first)).batch.device_count, "they have joined before"
        assert not any("leader_loaded" in line for line in stack.dispatchers[1].lines)
        stack.sql("UPDATE lease SET expires_ms = 0")
        stack.dispatchers[1].wait_event("leader_loaded")
        stack.workers[0].popen.send_signal(signal.SIGCONT)
        stack.watch(client, first, until=lambda x: progress(x) == {"queued": 2}, timeout=30)
        until(lambda: states(stack, client, plain)["b"] == states(stack, client, plain)["c"] == "SUPERSEDED", what="they have lost it")
    assert states(stack, client, first) == {"b": "QUEUED", "c": "QUEUED"}
    # It ends with these if it is sealed; or others join after them.
    grow(client, pb, "first", "a")
    if not sealed:
        stack.watch(client, first, until=lambda x: x.device_count == 3)
        return
    for device in "b", "c":
        client.devices.DeleteDevice(pb.DeleteDeviceRequest(device_id=device))
    assert progress(stack.watch(client, first)) == {"canceled": 2}


def test_a_newer_one_comes_while_they_join_a_sealed_one(make_stack):
    """Who is in it joins no more; the others do."""
    stack = make_stack(worker_flags=["--lease", "60s"]).start(1, 1)
    pb = stack.pb
    client = stack.client(stack.make_tenant())
    with behind_a_stopped_worker(stack, client, "a", "b", "c", joining=2) as (_, first):
        has_its_key(stack, first)
        assert not client.control.SealBatch(pb.SealBatchRequest(batch_id=first)).batch.device_count, "they have joined before"
        newest = stack.submit(client, supersede_key="wifi", target=only(pb, "b")).batch.id
        stack.workers[0].popen.send_signal(signal.SIGCONT)
        stack.watch(client, first, until=lambda x: progress(x) == {"queued": 1})
    assert states(stack, client, first) == {"c": "QUEUED"}
    assert states(stack, client, newest) == {"b": "QUEUED"}


def test_many_join_and_many_supersede_at_once(api, client):
    """Whatever the order, each device has at most one unsent command of the key, and of the newest that it has at all."""
    pb = api.pb
    ids = [f"m{i:03}" for i in range(60)]
    api.register(client, *ids)
    grown = [dynamic(api, client, f"g{i}") for i in range(3)]
    plain = []

    def submits():
        for i in range(20):
            plain.append(api.submit(client, supersede_key="wifi", target=only(pb, *ids[i::7])).batch.id)
    thread = threading.Thread(target=submits)
    thread.start()
    meant = set()
    for i in range(0, 60, 4):
        for k in range(3):
            grow(client, pb, f"g{(i + k) % 3}", *ids[i + k:i + k + 2])
            meant |= {(grown[(i + k) % 3], device) for device in ids[i + k:i + k + 2]}
    thread.join()
    batches = sorted(grown + plain)

    def settled():
        live, newest = {}, {}
        for batch in batches:
            for device, state in states(api, client, batch).items():
                assert state in ("QUEUED", "SUPERSEDED"), state
                newest[device] = batch
                if state == "QUEUED":
                    live.setdefault(device, []).append(batch)
        joined = all(newest.get(device, 0) >= batch for batch, device in meant)
        return (live, newest) if joined and all(len(b) == 1 for b in live.values()) else None
    live, newest = until(settled)
    assert {d: b[0] for d, b in live.items()} == newest
    for batch in batches:
        client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
