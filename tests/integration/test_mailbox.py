"""A device has no more open commands than it may have."""
import grpc
import pytest
from harness.until import until

MOST = 4


def only(pb, *ids):
    return pb.Target(devices=pb.DeviceIds(ids=ids))


@pytest.fixture
def stack(make_stack):
    return make_stack(dispatcher_flags=["--mailbox-max", MOST]).start(dispatchers=2)


def refused(stack, client, **fields):
    """What is said of a batch that is refused; None when it was accepted."""
    try:
        stack.submit(client, **fields)
    except grpc.RpcError as e:
        assert e.code() == grpc.StatusCode.FAILED_PRECONDITION, e
        return e
    return None


def full_devices(stack):
    return sum(d.figures()["muster_dispatcher_full_devices"] for d in stack.dispatchers)


def test_full_mailboxes(stack):
    pb = stack.pb
    tenant = stack.make_tenant()
    clients = [stack.client(tenant, dispatcher=d) for d in stack.dispatchers]
    other = stack.client(stack.make_tenant())
    ids = [f"d{i:04}" for i in range(1100)]
    stack.import_devices(clients[0], ids)
    stack.import_devices(other, ids[:2])
    tokens = stack.tokens(clients[0], ids[:1])
    some = [ids[i] for i in range(0, 1100, 50)]
    batches = [stack.submit(clients[i % 2], target=only(pb, *some)).batch.id for i in range(MOST - 1)]
    for c in clients:
        stack.watch(c, batches[-1], until=lambda b: b.progress.queued == len(some))
    assert full_devices(stack) == 0
    first = stack.submit(clients[0], request_id="the last one", target=only(pb, *some)).batch.id
    batches.append(first)
    # Whoever is asked knows it a moment later, of one device and of many; nothing is half done.
    for c in clients:
        for of_a_block in (ids[0], ids[1050]):
            until(lambda: refused(stack, c, target=only(pb, of_a_block), validate_only=True), what="a mailbox is full")
        code, violations = stack.stubs.details(refused(stack, c, target=only(pb, ids[50], ids[51])))
        assert code == "MAILBOX_FULL" and list(violations.items()) == [("target", "d0050 has as many open commands as it may")]
        error = refused(stack, c)
        assert f"{len(some)} of the devices" in error.details()
        assert error.details().endswith(f": {MOST}")
    assert full_devices(stack) == len(some)
    (made,), = stack.sql("SELECT count(*) FROM batch WHERE tenant_id = %s", tenant.number)
    assert made == MOST
    # Others are not concerned, nor is what was accepted before.
    assert refused(stack, clients[1], target=only(pb, ids[1], ids[1099])) is None
    assert refused(stack, other) is None
    again = stack.submit(clients[1], request_id="the last one", target=only(pb, *some))
    assert again.replayed and again.batch.id == first
    # Who has done something has room again, also by a cancel, and also when another leads.
    stack.start_worker()
    answer = lambda d: pb.Acknowledgement(command_id=d.command_id, outcome=pb.OUTCOME_FAILED)  # noqa: E731
    with stack.device(ids[0], tokens[ids[0]], answer=answer) as device:
        device.connect(stack.workers[0].address)
        until(lambda: full_devices(stack) == len(some) - 1, what="it has done something")
    for c in clients:
        until(lambda c=c: not refused(stack, c, target=only(pb, ids[0]), validate_only=True), what="there is room")
    stack.dispatchers[0].kill()
    stack.dispatchers.pop(0)
    stack.dispatchers[0].wait_event("leader_loaded")
    until(lambda: full_devices(stack) == len(some) - 1, what="the next leader has counted")
    assert refused(stack, clients[1], target=only(pb, ids[50]))
    clients[1].commands.CancelBatch(pb.CancelBatchRequest(batch_id=batches[0]))
    until(lambda: not refused(stack, clients[1], target=only(pb, *some), validate_only=True), what="there is room")


def test_full_ones_are_left_out(stack):
    pb = stack.pb
    tenant = stack.make_tenant()
    client, other = [stack.client(tenant, dispatcher=d) for d in stack.dispatchers]
    ids = [f"d{i:04}" for i in range(1100)]
    stack.import_devices(client, ids, platforms=(1, 5))
    full = ids[::10]
    for _ in range(MOST):
        stack.submit(client, target=only(pb, *full))
    for c in (client, other):  # it is told of each block
        until(lambda: all(refused(stack, c, target=only(pb, i), validate_only=True) for i in (full[0], full[-1])), what="mailboxes are full")
    said = stack.submit(other, validate_only=True, skip_full=True)
    assert said.batch.device_count == 990 and sum(p.devices for p in said.platforms) == 990
    assert said.skipped_count == 110 and list(said.skipped_device_ids) == full[:100]
    # What the digest stands for is who is left.
    made = stack.submit(other, request_id="some", skip_full=True, target_digest=said.target_digest)
    assert made.batch.device_count == 990 and made.target_digest == said.target_digest
    assert made.skipped_count == 110 and list(made.skipped_device_ids) == full[:100]
    assert refused(stack, client, target_digest=said.target_digest)
    listed = {c.device_id for c in stack.list_commands(client, made.batch.id)}
    assert len(listed) == 990 and not listed & set(full)
    # A request that comes again gets the same answer, and another one is another one.
    again = stack.submit(client, request_id="some", skip_full=True, target_digest=said.target_digest)
    assert again.replayed and again.skipped_count == 110 and list(again.skipped_device_ids) == full[:100]
    assert again.target_digest == said.target_digest
    with pytest.raises(grpc.RpcError) as e:
        stack.submit(client, request_id="some", target_digest=said.target_digest)
    assert e.value.code() == grpc.StatusCode.ALREADY_EXISTS
    # Nobody else is left.
    code, violations = stack.stubs.details(refused(stack, client, skip_full=True, target=only(pb, *full[:20])))
    assert code == "MAILBOX_FULL" and len(violations) == 1
    # Who is left out and has values is not outside; without a target too.
    lock = pb.Command(lock=pb.LockCommand(passcode="{{code}}"))
    values = pb.Values(device_ids=ids[9:12], variables=[pb.Variable(name="code", values=[b"1", b"2", b"3"])])
    for target in (None, only(pb, *ids[9:12])):
        b = stack.submit(client, command=lock, values=values, skip_full=True, target=target)
        assert b.batch.device_count == b.batch.values.device_count == 2 and list(b.skipped_device_ids) == [ids[10]]
    nobody = stack.submit(client, target=only(pb, ids[1]), skip_full=True)
    assert not nobody.skipped_count and nobody.batch.device_count == 1


def test_who_is_full_joins_when_it_has_room(stack):
    pb = stack.pb
    client = stack.client(stack.make_tenant())
    ids = ["full", "later", "free"]
    stack.import_devices(client, ids)
    batches = [stack.submit(client, target=only(pb, "full", "later")).batch.id for _ in range(MOST)]
    until(lambda: full_devices(stack) == 2, what="mailboxes are full")
    until(lambda: refused(stack, client, target=only(pb, "full"), validate_only=True), what="it is known")
    client.devices.CreateGroup(pb.CreateGroupRequest(name="some", device_ids=["full"]))
    some = pb.Target(groups=pb.GroupNames(names=["some"]))
    assert refused(stack, client, target=some, dynamic=True)
    said = stack.submit(client, target=some, dynamic=True, skip_full=True)
    assert said.batch.device_count == 0 and list(said.skipped_device_ids) == ["full"]
    batch = said.batch.id
    client.devices.UpdateGroup(pb.UpdateGroupRequest(name="some", add_device_ids=["later", "free"]))
    stack.watch(client, batch, until=lambda b: b.device_count == 1)
    assert [c.device_id for c in stack.list_commands(client, batch)] == ["free"]
    client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batches[0]))
    stack.watch(client, batch, until=lambda b: b.device_count == 3 and b.progress.queued == 3)
    until(lambda: full_devices(stack) == 2, what="they are full again")


def test_the_command_line(stack, cli):
    tenant = stack.make_tenant()
    client = stack.client(tenant)
    stack.import_devices(client, ["a", "b"])
    env = stack.cli_env(tenant)
    for _ in range(MOST):
        stack.submit(client, target=only(stack.pb, "a"))
    until(lambda: full_devices(stack) == 1, what="a mailbox is full")
    out = until(lambda: [x for x in [cli("batch", "submit", "--type", "lock", "--all", "--validate-only", env=env)]
                         if x.returncode], what="it is known")[0]
    assert out.returncode == 3 and "MAILBOX_FULL" in out.stderr and "a has as many open commands" in out.stderr
    out = cli("batch", "submit", "--type", "lock", "--all", "--skip-full", env=env, check=0).stdout
    assert "1 devices with full mailboxes, such as a" in out and "lock, 1 devices" in out
