"""A command that keeps breaking its device's connection is not sent for ever."""
from harness.answers import progress
from harness.until import until

MOST = 3


def make(stack):
    client = stack.client(stack.make_tenant())
    stack.import_devices(client, ["a", "b"])
    return client, stack.tokens(client, ["a", "b"])


def get_and_lose(stack, token, worker=0, orderly=False):
    """The device connects, gets a command, and is gone."""
    a = stack.device("a", token).connect(stack.workers[worker].address)
    delivery = a.next()
    if orderly:
        a.close()
    else:
        a.drop()
    until(lambda: sum(w.figures()["muster_worker_sessions"] for w in stack.workers) == 0, what="it is gone")
    return delivery


def test_a_command_that_breaks_connections(make_stack):
    stack = make_stack(worker_flags=["--quarantine-after", MOST]).start(workers=2)
    pb = stack.pb
    client, tokens = make(stack)
    retry = pb.Retry(failed=True, attempts=15)
    bad = stack.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=["a"])), retry=retry).batch.id
    behind = stack.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=["a"]))).batch.id
    # Who says that he goes, or whose worker goes, is not counted.
    first = get_and_lose(stack, tokens["a"], orderly=True)
    for i in range(MOST - 1):
        assert get_and_lose(stack, tokens["a"], worker=i % 2).command_id == first.command_id
    assert progress(client.commands.GetBatch(pb.GetBatchRequest(batch_id=bad)).batch) == {"sent": 1}
    assert get_and_lose(stack, tokens["a"]).command_id == first.command_id
    assert progress(stack.watch(client, bad)) == {"failed": 1}
    ended, = stack.list_commands(client, bad)
    assert ended.result.text == f"quarantined: its device's connection was lost {MOST} times while it was sent"
    assert sum(w.figures()["muster_worker_quarantined_total"] for w in stack.workers) == 1
    assert any(w.events("command_quarantined") for w in stack.workers)
    # What is behind it goes on, and what the device says of it later changes nothing.
    answer = lambda d: pb.Acknowledgement(command_id=d.command_id, outcome=pb.OUTCOME_SUCCEEDED)  # noqa: E731
    with stack.device("a", tokens["a"], answer=answer) as a:
        a.connect(stack.workers[1].address)
        a.wait_published(a.ack(first))
        assert progress(stack.watch(client, behind)) == {"succeeded": 1}
    assert progress(client.commands.GetBatch(pb.GetBatchRequest(batch_id=bad)).batch) == {"failed": 1}
    until(lambda: not stack.redis.client().keys("broken:*"), what="nothing is left of it in Redis")


def test_a_worker_that_stops_is_not_the_commands_fault(make_stack):
    stack = make_stack(worker_flags=["--quarantine-after", 1]).start(workers=1)
    pb = stack.pb
    client, tokens = make(stack)
    a = stack.device("a", tokens["a"]).connect(stack.workers[0].address)
    batch = stack.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=["a"]))).batch.id
    delivery = a.next()
    assert stack.workers[0].stop() == 0
    stack.workers[0] = stack.start_worker()
    stack.workers.pop()
    a.client.loop_stop()
    answer = lambda d: pb.Acknowledgement(command_id=d.command_id, outcome=pb.OUTCOME_SUCCEEDED)  # noqa: E731
    with stack.device("a", tokens["a"], answer=answer) as again:
        again.connect(stack.workers[0].address)
        assert again.next().command_id == delivery.command_id
        assert progress(stack.watch(client, batch)) == {"succeeded": 1}
    assert stack.workers[0].figures()["muster_worker_quarantined_total"] == 0
