"""What workers are told of a batch together with what is routed to them, so that they need not look it up; and when they do
so all the same."""
import signal

import pytest
from harness.hand_router import command_id
from harness.stack import have
from harness.until import until

pytestmark = pytest.mark.skipif(not have("muster-worker", "muster-dispatcher"), reason="muster-worker is not built")


def done(device, delivery):
    device.wait_published(device.ack(delivery))


def ready(router, worker, seq):
    """A device whose worker has found its inbox empty since it began."""
    device = router.device(seq).connect(worker.address)
    until(lambda: router.presence(seq))
    first = router.open([seq])
    router.route(first, [seq])
    done(device, device.next())
    return device


def test_what_it_was_told_a_worker_does_not_look_up(router, worker):
    with ready(router, worker, 1) as device:
        batch = router.open([1])
        router.route(batch, [1], told=True)
        delivery = device.next()
        assert delivery.command_id == command_id(batch, router.tenant, 1) and delivery.command.lock.message == "locked"
        done(device, delivery)


def test_of_what_it_knew_to_be_canceled_a_worker_believes_nothing_else(router, worker):
    with ready(router, worker, 1) as device:
        batch, after = router.open([1]), router.open([1])
        router.cancel(router.presence(1), batch)
        until(lambda: router.redis.smembers(f"cancel:{batch}"))
        router.route(batch, [1], told=True)
        router.route(after, [1])
        assert device.next().command_id == command_id(after, router.tenant, 1)


def test_what_lay_there_when_the_connection_was_lost_is_looked_up(router, worker):
    """It may have been canceled, and the worker not told, while nobody saw that it was there."""
    with ready(router, worker, 1) as device:
        worker.signal(signal.SIGSTOP)
        router.redis.client_kill_filter(_type="normal", skipme=True)
        batch = router.open([1])
        router.route(batch, [1], told=True)
        # else being attached anew, for which this waits, the device would be given it
        router.redis.delete(*(f"{router.place(1)}:{what}" for what in ("open", "presence")))
        worker.signal(signal.SIGCONT)
        until(lambda: router.presence(1))
        after = router.open([1])
        router.route(after, [1])
        assert device.next().command_id == command_id(after, router.tenant, 1)


def test_batches_to_one_device_are_not_looked_up(stack):
    stack.start(dispatchers=1, workers=1)
    client = stack.client(stack.make_tenant("told"))
    stack.import_devices(client, ["phone"])
    token = stack.tokens(client, ["phone"])["phone"]
    pb, redis = stack.pb, stack.redis.client()
    target = pb.Target(devices=pb.DeviceIds(ids=["phone"]))
    with stack.device("phone", token).connect(stack.workers[0].address) as device:
        stack.submit(client, target=target)
        done(device, device.next())
        with redis.monitor() as monitor:
            batch = stack.submit(client, target=target).batch.id
            done(device, device.next())
            redis.echo("that was it")
            seen = []
            while "that was it" not in (command := monitor.next_command()["command"]):
                seen.append(command)
        assert any(c.startswith(f"SET batch:{batch} ") for c in seen)
        assert f"GET batch:{batch}" not in seen
