"""Fences: a worker or a leader that was paused, or whose words were long on their way, does no harm when it goes on."""
import signal
import socket

import paho.mqtt.client as mqtt
import pytest
from harness import raw_mqtt
from harness.hand_router import ROUTED, SUCCEEDED, HandRouter, command_id
from harness.patience import lasting, patient
from harness.stack import have
from harness.until import until
from harness.wire import Wire
from test_leader import Field

pytestmark = pytest.mark.skipif(not have("muster-dispatcher", "muster-worker"), reason="not all is built")


@pytest.fixture
def wire(stack, tmp_path):
    """Between one process and the Redis of the stack."""
    w = Wire(tmp_path / "wire", stack.redis.socket)
    yield w
    w.close()


def queues():
    """{(local port, remote port): (bytes not yet taken by the peer's kernel, bytes not yet read)} of TCP connections."""
    out = {}
    with open("/proc/net/tcp", encoding="ascii") as f:
        for line in list(f)[1:]:
            parts = line.split()
            local, remote = (int(parts[i].rsplit(":", 1)[1], 16) for i in (1, 2))
            out[local, remote] = tuple(int(n, 16) for n in parts[4].split(":"))
    return out


def kinds(data):
    """The kinds of the packets that are whole, and what is left behind them."""
    out = []
    while True:
        length, at = 0, 1
        while at < len(data) and (at == 1 or data[at - 1] & 0x80):
            length |= (data[at] & 127) << 7 * (at - 1)
            at += 1
        if at == 1 or data[at - 1] & 0x80 or len(data) < at + length:
            return out, data
        out.append(data[0] >> 4)
        data = data[at + length:]


class Slow(raw_mqtt.RawClient):
    """A device that reads when it is told to."""

    def __init__(self, address, router, seq):
        super().__init__(address)
        self.id = router.ids[seq]
        self.send(raw_mqtt.connect(5, self.id, router.token(seq)))
        self.expect(raw_mqtt.CONNACK)
        self.send(raw_mqtt.subscribe(5, f"devices/{self.id}/commands"))
        self.expect(raw_mqtt.SUBACK)
        self.ports = self.socket.getpeername()[1], self.socket.getsockname()[1]

    def read_all(self):
        """All that either kernel has."""
        got = b""
        self.socket.setblocking(False)
        while True:
            try:
                got += self.socket.recv(1 << 20)
            except BlockingIOError:
                now = queues()
                if now[self.ports][0] == 0 and now[self.ports[::-1]][1] == 0:
                    break
        self.socket.settimeout(patient(20))
        return got

    def read_to_end(self):
        """All that comes until the worker closes the connection."""
        got = b""
        try:
            while more := self.socket.recv(1 << 20):
                got += more
        except ConnectionResetError:
            pass
        return got


def stop_past_its_lease(router, worker):
    """SIGSTOP, and the leader finds the number dead."""
    number = worker.ready["worker"]
    worker.signal(signal.SIGSTOP)
    until(lambda: not router.redis.exists(f"worker:{number}"))
    router.redis.set(f"worker:{number}", "")


def test_a_paused_worker_sends_not_a_byte_more_and_takes_late_acknowledgements(stack, router):
    worker = stack.start_worker("--lease", lasting(4), "--in-flight", "255", "--listen-plain", "127.0.0.1:0")
    device = Slow(worker.ready["plain"], router, 1)
    until(lambda: router.presence(1))
    lock = router.pb.Command(lock=router.pb.LockCommand(message="x" * 60000))
    batches = [router.open([1], lock) for _ in range(200)]
    for batch in batches:
        router.route(batch, [1])
    # More than both kernels hold; the rest waits in the worker.
    until(lambda: queues()[device.ports][0] > 0 and router.redis.llen(f"{{w{worker.ready['worker']}}}:inbox:normal") == 0)
    stop_past_its_lease(router, worker)
    had = device.read_all()
    assert 60000 < len(had) < 200 * 60000
    ack = router.pb.Acknowledgement(command_id=command_id(batches[0], router.tenant, 1), outcome=1)
    device.send(raw_mqtt.publish(5, f"devices/{device.id}/acks", ack.SerializeToString()))
    worker.signal(signal.SIGCONT)
    rest = device.read_to_end()
    # Between two packets the device may be told that this is the end.
    assert rest == b"" or (kinds(had)[1] == b"" and kinds(rest) == ([raw_mqtt.DISCONNECT], b"")), "a byte after the lease"
    assert worker.wait_event("worker_fenced")["paused"] == "yes"
    until(lambda: router.log().get((batches[0], 1), 0) & 15 == SUCCEEDED)
    numbers = until(lambda: len(e := worker.events("worker_number")) == 2 and e)
    assert numbers[0]["worker"] != numbers[1]["worker"]
    device.close()


def test_an_answer_that_was_long_on_its_way_is_no_lease(stack, router, wire):
    """The renewal's OK is read after the lease is over: the worker must not announce devices under the dead number."""
    worker = stack.start_worker("--lease", lasting(4), "--redis", wire.url)
    number = int(worker.ready["worker"])
    device = router.device(1, protocol=mqtt.MQTTv5).connect(worker.address)
    until(lambda: router.presence(1) == number)
    wire.hold("down")
    wire.wait_held(b":1\r\n", "down")
    until(lambda: not router.redis.exists(f"worker:{number}"))
    router.redis.set(f"worker:{number}", "")
    router.redis.set(f"{router.place(1)}:presence", bytes(2048))  # reaped
    with router.redis.monitor() as told:
        wire.release("down")
        worker.wait_event("worker_fenced")
        until(lambda: router.presence(1) not in (0, number))
        router.redis.echo("the end")
        commands = []
        while not commands or commands[-1][0] != "ECHO":
            commands.append(told.next_command()["command"].split())
    # EVALSHA, hash, number of keys, two keys, worker, prefix, slots, most: an attach
    assert not [c for c in commands if c[0] == "EVALSHA" and len(c) == 9 and c[5] == str(number)]
    device.close()


def test_a_worker_that_does_not_reach_redis_keeps_its_devices_under_a_new_number(make_stack):
    stack = make_stack()
    router = HandRouter(stack, devices=4)
    worker = stack.start_worker("--lease", lasting(3))
    number = int(worker.ready["worker"])
    device = router.device(1).connect(worker.address)
    until(lambda: router.presence(1) == number)
    stack.redis.kill()
    worker.wait_event("worker_lease_lapsed")
    stack.redis.restart()
    router.redis = stack.redis.client()
    router.vouch()
    assert worker.wait_event("worker_fenced")["paused"] == "no"
    until(lambda: router.presence(1) not in (0, number))
    batch = router.open([1])
    router.route(batch, [1])
    device.wait_published(device.ack(device.next()))
    assert not device.gone.is_set() and router.state(batch, 1) == (SUCCEEDED, 1)
    device.close()


def test_what_a_worker_held_is_not_sent_under_its_next_number(make_stack):
    """It did not reach Redis, and was taken for dead: what was canceled meanwhile it must not send, though it had it."""
    stack = make_stack()
    router = HandRouter(stack, devices=4)
    worker = stack.start_worker("--lease", lasting(3))
    number = int(worker.ready["worker"])
    device = router.device(1).connect(worker.address)
    until(lambda: router.presence(1) == number)
    first, second = router.open([1]), router.open([1])
    router.route(first, [1])
    delivery = device.next()
    router.route(second, [1])
    until(lambda: router.redis.llen(f"{{w{number}}}:inbox:normal") == 0)
    stack.redis.kill()
    worker.wait_event("worker_lease_lapsed")
    stack.redis.restart()
    router.redis = stack.redis.client()
    router.vouch()
    assert router.state(second, 1) == (ROUTED, 0)
    router.redis.set(f"worker:{number}", "")
    key = f"{router.place(1)}:state:{second}"
    router.redis.setrange(key, 4, bytes([10]))  # reaped, canceled
    worker.wait_event("worker_fenced")
    until(lambda: router.presence(1) not in (0, number))
    device.wait_published(device.ack(delivery))
    third = router.open([1])
    router.route(third, [1])
    got = []
    while not got or got[-1].command_id != command_id(third, router.tenant, 1):
        got.append(device.next())
        device.ack(got[-1])  # the first may come again
    assert command_id(second, router.tenant, 1) not in [d.command_id for d in got]
    device.close()


# --- leaders ---

def stop_leading(stack, leader):
    """SIGSTOP, and its successor leads, which must be another."""
    (before,), = stack.sql("SELECT epoch FROM lease WHERE name = 'leader'")
    leader.signal(signal.SIGSTOP)
    until(lambda: stack.sql("SELECT epoch FROM lease WHERE name = 'leader'") != [(before,)])
    until(lambda: any(d.events("leader_loaded") for d in stack.dispatchers if d is not leader))


@pytest.mark.parametrize("emptied", [False, True], ids=["", "emptied"])
def test_what_a_leader_was_about_to_route_does_not_come_after_the_cancel(stack, wire, emptied):
    """Spec and block of a batch are on their way when their leader is stopped; its successor confirms the cancel. A device
    that connects then must not be sent the command."""
    leader = stack.start_dispatcher("--redis", wire.url)
    leader.wait_event("redis_rebuilt")
    other = stack.start_dispatcher()
    worker = stack.start_worker()
    tenant = stack.make_tenant()
    client = stack.client(tenant, other)
    (device_id, token), = stack.make_devices(client, 1).items()
    wire.hold("up")
    batch = stack.submit(client).batch.id
    wire.wait_held(f":state:{batch}".encode())
    stop_leading(stack, leader)
    client.commands.CancelBatch(stack.pb.CancelBatchRequest(batch_id=batch))
    stack.watch(client, batch)
    redis = stack.redis.client()
    if emptied:
        redis.flushall()
        other.wait_event("redis_rebuilt")
    wire.release("up")
    leader.signal(signal.SIGCONT)
    leader.wait_event("lease_lost")
    with stack.device(device_id, token).connect(worker.address) as device:
        second = stack.submit(client).batch.id
        assert device.next().command_id.startswith(f"00000000-{second:04x}-"), "a canceled command was sent"
    assert not redis.exists(f"batch:{batch}") and not list(redis.scan_iter(f"*:state:{batch}"))


def test_a_leader_that_was_sweeping_does_not_reap_who_has_the_number_next(stack, wire):
    leader = stack.start_dispatcher("--redis", wire.url)
    leader.wait_event("leader_loaded")
    other = stack.start_dispatcher()
    field = Field(stack, 1024)
    field.presence(lambda s: 7)
    reap = field.key(0, "presence").encode()
    wire.hold("up", reap)
    field.redis.sadd("workers", 7)
    wire.wait_held(reap)
    stop_leading(stack, leader)
    until(lambda: other.events("worker_reaped"))
    assert not field.redis.sismember("workers", 7)
    field.lease(7)
    field.presence(lambda s: 7)
    field.redis.rpush("{w7}:inbox:normal", b"a hint")
    wire.release("up")
    leader.signal(signal.SIGCONT)
    leader.wait_event("lease_lost")
    assert field.redis.get(field.key(0, "presence")) == b"\7\0" * 1024
    assert field.redis.llen("{w7}:inbox:normal") == 1 and field.redis.sismember("workers", 7)
