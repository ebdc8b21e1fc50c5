"""Who waits for whom: classes and tenants at the leader and in a worker, and what keeps others back on one device."""
import struct
import time

import pytest
from harness.hand_router import SUCCEEDED, HandRouter, command_id
from harness.patience import fewer, patient
from harness.until import until
from test_leader import BLOCK, ROUTED, Field

# Of dispatcher/leader_room.h, leader_queue.h, moves.h and route.h.
ROOM, LYING, TURN, MOVES, ENTRY = 65536, 1024, 4096 + BLOCK + 64, 17 * BLOCK, 8192 + BLOCK

# A worker that takes nothing for two seconds keeps nobody waiting, and a machine that stands still looks like one. What was
# not within half of that is tried again, with another worker.
JAM_S, WORKERS = 1, range(1, 9)


class Inbox:
    """Of a worker that does not take, so that what stands in it can be looked at."""

    def __init__(self, field, worker, name):
        self.redis, self.key = field.redis, f"{{w{worker}}}:inbox:{name}"

    @staticmethod
    def items(entry):
        """(tenant, batch, number of commands) of each."""
        while entry:
            batch, tenant, _, n = struct.unpack_from("<QIIH", entry, 1)
            size = 19 + (128 if n == 0xffff else 2 * n)
            yield tenant, batch, sum(map(int.bit_count, entry[19:147])) if n == 0xffff else n
            entry = entry[size:]

    def commands(self):
        return sum(n for entry in self.redis.lrange(self.key, 0, -1) for _, _, n in self.items(entry))

    def take(self):
        """What the first entry holds, in order."""
        entry = self.redis.lpop(self.key)
        return list(self.items(entry)) if entry else []


def tenants(stack, count, blocks, worker):
    """Tenants whose devices are all connected to a worker, which is played."""
    out = [Field(stack, blocks * BLOCK) for _ in range(count)]
    out[0].lease(worker)
    for f in out:
        f.presence(lambda s: worker)
    return out


def submit_together(fields, priority):
    """A batch to all devices of each, in one transaction."""
    calls = []
    for f in fields:
        f.requests += 1
        n = len(f.blocks)
        calls.append(f"SELECT batch_id FROM accept_batch({f.tenant}, 'r{f.requests}', repeat('h', 32)::bytea, '', '\\x0a00',"
                     f" {priority}::smallint, {n * BLOCK}, 0, NULL, {int(time.time() * 1000)}, {int(time.time() * 1000) + 3600000},"
                     f" ARRAY(SELECT generate_series(0, {n - 1})), ARRAY(SELECT 0::smallint FROM generate_series(1, {n})),"
                     f" ARRAY(SELECT decode(repeat('ff', 128), 'hex') FROM generate_series(1, {n})))")
    return [row[0] for row in fields[0].sql(" UNION ALL ".join(calls))]


def test_a_workers_inbox_is_bounded_and_tenants_take_turns(stack):
    """What does not fit waits QUEUED; as the worker takes, tenants go on in turns; what is urgent waits for nothing of it."""
    stack.start(workers=0)
    for worker in WORKERS:
        a, b = tenants(stack, 2, 200, worker)
        bulk = Inbox(a, worker, "bulk")
        moved, quick = time.monotonic(), True
        batches = submit_together([a, b], 3)
        until(lambda: bulk.commands() >= LYING, what="an inbox that is full, or will be")
        urgent, taken, most, passed = b.submit([5], priority=1), [], bulk.commands(), None
        deadline = time.monotonic() + patient(60)
        while sum(n for _, _, n in taken) < 2 * 200 * BLOCK or not passed:
            assert time.monotonic() < deadline, "not routed on"
            if not passed and (passed := Inbox(a, worker, "urgent").take()):
                assert passed == [(b.tenant, urgent, 1)]
            elif passed and (more := bulk.take()):
                taken += more
                most = max(most, bulk.commands())
                now = time.monotonic()
                quick, moved = quick and now - moved < JAM_S, now
        if quick:
            break
    assert quick, "this machine is too slow to say"
    assert most <= ROOM + MOVES + ENTRY
    assert [batch for _, batch, _ in taken].count(batches[0]) == 200
    # One may have begun a little earlier.
    order = [tenant for tenant, _, _ in taken]
    both = max(order.index(a.tenant), order.index(b.tenant))
    end = min(len(order) - 1 - order[::-1].index(t) for t in (a.tenant, b.tenant))
    for at in range(both, end):
        ahead = order[both:at].count(a.tenant) - order[both:at].count(b.tenant)
        assert abs(ahead) <= 2 * TURN // BLOCK, order[both:at]
    for f, batch in ((a, batches[0]), (b, batches[1])):
        f.wait_routed(batch)
        assert f.live_states(batch) == {ROUTED: 200 * BLOCK}


def test_what_waits_is_queued(stack):
    """While the inbox is full; a worker that takes nothing for two seconds keeps nobody waiting, though."""
    stack.start(workers=0)
    for worker in WORKERS:
        (a,) = tenants(stack, 1, 300, worker)
        began = time.monotonic()
        (batch,) = submit_together([a], 3)
        bulk = Inbox(a, worker, "bulk")
        until(lambda: bulk.commands() >= LYING, what="an inbox that is full, or will be")
        lying, routed = bulk.commands(), a.sql("SELECT 1 FROM batch WHERE id = %s AND routed_ms IS NOT NULL", batch)
        quick = time.monotonic() - began < JAM_S
        a.wait_routed(batch)
        if quick:
            break
    assert quick, "this machine is too slow to say"
    assert lying <= ROOM + MOVES + ENTRY and not routed
    assert a.live_states(batch) == {ROUTED: 300 * BLOCK} and bulk.commands() == 300 * BLOCK


@pytest.mark.parametrize("inbox, priority", [("bulk", 3), ("normal", 2)])
def test_tenants_take_turns_in_a_worker(stack, inbox, priority):
    """One command behind 1,800 of another tenant, which came with it, for devices that do not answer."""
    count = max(400, fewer(1800))
    half = count * BLOCK // 1800
    large, small = HandRouter(stack, devices=count), HandRouter(stack, devices=1)
    small.ids = ["other-0"]
    stack.sql("UPDATE device SET id = 'other-0' WHERE tenant_id = %s", small.tenant)
    stack.start_worker()
    tokens = {large.ids[seq]: large.token(seq) for seq in range(count)}
    fleet = stack.start_fleet({**tokens, "other-0": small.token(0)}, "--hold")
    until(lambda: small.presence(0) and all(large.presence(seq) for seq in (0, count - 1)), what="presence")
    pushed = []
    for r in (large, small):
        r.push = lambda worker, _, item: pushed.append((worker, item))
    for r, seqs in ((large, range(half)), (large, range(half, count)), (small, [0])):
        r.route(r.open(seqs, priority=priority), seqs)
    (worker,) = {worker for worker, _ in pushed}
    stack.redis.client().rpush(f"{{w{worker}}}:inbox:{inbox}", b"".join(item for _, item in pushed))
    until(lambda: fleet.stats()["received"] == count + 1, what="every device has its command")
    fleet.dump()
    with open(fleet.record_path, encoding="ascii") as f:
        came = sorted((int(line.split()[6]), line.split()[0]) for line in f)
    mine = [at for at, device in came if device == "other-0"]
    before = sum(at < mine[0] for at, _ in came)
    assert len(mine) == 1 and before < count // 2, f"behind {before} of the other tenant"


# --- what keeps others back on one device ---

@pytest.fixture
def alone(stack):
    """(router, worker): a worker without a dispatcher."""
    return HandRouter(stack, devices=4), stack.start_worker()


def take(device, router, *batches, last=True):
    """Its next deliveries, which are of these batches; when they are the last, nothing else comes."""
    out = [device.next() for _ in batches]
    assert [d.command_id for d in out] == [command_id(b, router.tenant, 1) for b in batches]
    assert not last or device.deliveries.empty()
    return out


def limited(router, ms, priority=2):
    """A batch whose command keeps others back for so long; 0: until it is answered."""
    batch = router.open([1], priority=priority)
    now = int(time.time() * 1000)
    router.put_spec(batch, router.pb.Command(lock=router.pb.LockCommand()).SerializeToString(), priority, now, now + 3600000,
                    head_ms=ms)
    return batch


@pytest.mark.parametrize("waiting", [
    pytest.param([(2, 0), (2, 0)], id="the next of its class"),
    pytest.param([(1, 0)], id="an urgent one"),
    pytest.param([(3, 1000), (3, 0)], id="bulk ones, one after another"),
])
def test_an_unanswered_command_keeps_others_back_for_its_time(alone, waiting):
    router, worker = alone
    first = limited(router, 2000)
    began = time.monotonic()  # it is sent later
    with router.device(1).connect(worker.address) as device:
        silent = take(device, router, first)
        behind = [limited(router, ms, priority) for priority, ms in waiting]
        for batch, (priority, _) in zip(behind, waiting):
            router.route(batch, [1], {1: "urgent", 2: "normal", 3: "bulk"}[priority])
        silent += take(device, router, behind[0], last=waiting[0][1] == 0)
        assert time.monotonic() - began >= 1.9
        if waiting[0][1] == 0:  # this one keeps the others back until it is answered
            assert device.deliveries.empty()
            device.wait_published(device.ack(silent.pop()))
        for batch in behind[1:]:
            silent += take(device, router, batch)
            assert time.monotonic() - began >= 1.9 + waiting[0][1] / 1000
        # Late outcomes count, and nothing comes twice.
        for delivery in silent:
            device.wait_published(device.ack(delivery))
        assert device.deliveries.empty()
        until(lambda: {router.log()[b, 1] & 15 for b in (first, *behind)} == {SUCCEEDED})


def test_what_is_behind_in_redis_is_fetched_past_an_unanswered_command(alone):
    """More than a session is given at once."""
    router, worker = alone
    first = limited(router, 2000)
    behind = [limited(router, 0) for _ in range(40)]
    began = time.monotonic()
    with router.device(1).connect(worker.address) as device:
        (silent,) = take(device, router, first, last=False)
        for batch in behind:
            device.wait_published(device.ack(take(device, router, batch)[0]))
            assert time.monotonic() - began >= 1.9
        late = limited(router, 0)
        router.route(late, [1])
        device.ack(take(device, router, late)[0])
        device.wait_published(device.ack(silent))
        until(lambda: len(router.log()) == 42 and {state & 15 for state in router.log().values()} == {SUCCEEDED})


def varint_field(message, number):
    """The value of a field of an encoded message that is a varint."""
    def varint():
        nonlocal message
        value = shift = 0
        while True:
            byte, message = message[0], message[1:]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    found = 0
    while message:
        tag = varint()
        value = varint()
        message = message[value:] if tag & 7 == 2 else message
        found = value if tag >> 3 == number else found
    return found


KINDS = [("lock", 5), ("unlock", 5), ("wipe", 5), ("lost_mode", 5), ("configure", 15), ("restrict_functions", 5),
         ("query_information", 5), ("install_application", 60), ("remove_application", 15), ("back_up", 24 * 60),
         ("restore", 24 * 60), ("restart", 15), ("custom", 60)]


def test_how_long_commands_keep_others_back(stack):
    """By their type, as workers are told; an execution timeout takes its place there."""
    stack.start(workers=0)
    tenant = stack.make_tenant()
    client, pb = stack.client(tenant), stack.pb
    stack.import_devices(client, ["one"])
    client.admin.SetGuardPolicy(pb.SetGuardPolicyRequest(tenant=tenant.name, policy=pb.GuardPolicy(
        enabled=False, approval_lifetime={"seconds": 3600})))
    whole = {"configure": pb.ConfigureCommand(profile_id="p", profile=b"x"), "custom": pb.CustomCommand(type="a.b"),
             "restrict_functions": pb.RestrictCommand(restrictions=[pb.Restriction(function=pb.FUNCTION_CAMERA)]),
             "install_application": pb.InstallApplicationCommand(application_id="com.example"),
             "remove_application": pb.RemoveApplicationCommand(application_id="com.example"),
             "restore": pb.RestoreCommand(backup_reference="there"),
             "lost_mode": pb.LostModeCommand(action=pb.LOST_MODE_ACTION_DISABLE)}
    assert {f.name for f in pb.Command.DESCRIPTOR.oneofs_by_name["kind"].fields} == {kind for kind, _ in KINDS}
    redis = stack.redis.client()
    for kind, minutes in KINDS:
        field = pb.Command.DESCRIPTOR.fields_by_name[kind]
        command = pb.Command(**{kind: whole.get(kind) or getattr(pb, field.message_type.name)()})
        batch = stack.submit(client, command=command).batch.id
        spec = until(lambda b=batch: redis.get(f"batch:{b}"))
        assert varint_field(spec, 11) == minutes * 60000, kind


def test_an_urgent_command_does_not_wait_for_answers_to_be_durable(stack):
    """What is answered is not in the way of an urgent command, but of others until it is stored."""
    router = HandRouter(stack, devices=4)
    worker = stack.start_worker("--flush-interval", "10s")
    first, normal, urgent = (router.open([1], priority=p) for p in (2, 2, 1))
    with router.device(1).connect(worker.address) as device:
        (delivery,) = take(device, router, urgent)
        began = time.monotonic()
        device.ack(delivery)
        more = router.open([1], priority=1)
        router.route(more, [1], "urgent")
        (second,) = take(device, router, more)
        assert time.monotonic() - began < 8 and router.log() == {}
        info = device.ack(second)
        (third,) = take(device, router, first)
        assert router.log()[urgent, 1] & 15 == SUCCEEDED
        device.wait_published(info)
        device.ack(third)
        device.ack(*take(device, router, normal))
