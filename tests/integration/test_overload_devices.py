"""Peers of a worker that want too much: crowds, half-open connections, devices that read nothing. Who behaves is served."""
import contextlib
import socket
import threading
import time

import pytest
from harness import raw_mqtt
from harness.patience import fewer, lasting, not_under_valgrind, patient
from harness.reports import memory_factor, without_quarantine
from harness.stack import have
from harness.strangers import MANNERS, Strangers
from harness.until import until

pytestmark = pytest.mark.skipif(not have("muster-dispatcher", "muster-worker", "muster-fleet"), reason="not all is built")

DESCRIPTORS = max(100, fewer(300))  # of which a worker leaves a quarter to all else than devices


def figure(daemon, name):
    return daemon.figures()[name]


@pytest.fixture
def narrow(stack):
    """A worker that may have few descriptors."""
    stack.start(workers=0)
    stack.start_worker(under=("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"))
    return stack


@pytest.mark.parametrize("manner", MANNERS)
def test_half_open_connections_keep_nobody_out(narrow, manner):
    """Six times as many as there are descriptors; devices that come after them are let in, those there before stay."""
    client = narrow.client(narrow.make_tenant())
    each = fewer(60)
    tokens = narrow.make_devices(client, 2 * each)
    early, late = dict(list(tokens.items())[:each]), dict(list(tokens.items())[each:])
    worker = narrow.workers[0]
    first = narrow.start_fleet(early)
    with Strangers(worker.address, 6 * DESCRIPTORS, manner) as strangers:
        strangers.connect()
        second = narrow.start_fleet(late)
        batch = narrow.submit(client).batch
        assert narrow.watch(client, batch.id, timeout=30).progress.succeeded == 2 * each
        # A worker that is slow has given some of them up before it needs their places.
        until(lambda: figure(worker, "muster_worker_strangers_dropped_total") + figure(worker, "muster_worker_handshakes_timed_out_total")
              >= 5 * DESCRIPTORS, what="as many are closed")
        for fleet in (first, second):
            done = fleet.stats()
            assert (done["ready"], done["failures"], done["lost"]) == (each, 0, 0)
    until(lambda: figure(worker, "muster_worker_strangers") == 0, what="no stranger is left")


def test_who_has_just_come_through_is_not_closed_for_the_next(stack):
    """With one place left: who may say CONNECT from now on is not taken for one that holds his place in silence."""
    stack.start(workers=0)
    worker = stack.start_worker("--listen-plain", "127.0.0.1:0",
                                under=("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"))
    client = stack.client(stack.make_tenant())
    stack.start_fleet(stack.make_devices(client, DESCRIPTORS - DESCRIPTORS // 4 - 1))

    def stranger():
        return peers.enter_context(raw_mqtt.RawClient(worker.ready["plain"]))

    def dropped():
        return figure(worker, "muster_worker_strangers_dropped_total")
    for _ in range(50):
        with contextlib.ExitStack() as peers:
            accepted, before, began = figure(worker, "muster_worker_accepted_total"), dropped(), time.monotonic()
            stranger(), stranger()
            until(lambda: figure(worker, "muster_worker_accepted_total") == accepted + 2, what="both came")
            kept = dropped() == before
            quick = time.monotonic() - began < 1
            assert kept or not quick, "the first was closed at once"
            until(lambda: stranger() and dropped() > before, what="who is silent for longer goes")
        until(lambda: figure(worker, "muster_worker_strangers") == 0, what="all are gone")
        if quick:
            return
    raise AssertionError("this machine is too slow to say")


@not_under_valgrind("before so many handshakes are under way, the first have been given up")
def test_handshakes_that_stop_halfway_are_bounded(stack):
    """More than may be under way: each takes memory, so those behind wait, and the slowest are closed for them."""
    stack.start(workers=0)
    stack.start_worker(env=without_quarantine())
    client = stack.client(stack.make_tenant())
    worker, tokens = stack.workers[0], stack.make_devices(client, 20)
    before = worker.rss()
    with Strangers(worker.address, 1500, "hello") as strangers:
        strangers.connect()
        fleet = stack.start_fleet(tokens)
        assert worker.rss() - before < (72 << 20) * memory_factor()
        until(lambda: figure(worker, "muster_worker_handshakes_dropped_total") > 400, what="the slowest are closed")
        assert (fleet.stats()["failures"], fleet.stats()["ready"]) == (0, 20)


def test_half_a_hello_takes_no_handshakes_place(stack):
    """Of those as many may be under way as there are peers here who have said a half, and they would be there for 5 s."""
    stack.start(workers=0)
    stack.start_worker(env=without_quarantine())
    client = stack.client(stack.make_tenant())
    worker, tokens = stack.workers[0], stack.make_devices(client, 20)
    before = worker.rss()
    with Strangers(worker.address, 1500, "half") as strangers:
        strangers.connect()
        fleet = stack.start_fleet(tokens)
        assert worker.rss() - before < (12 << 20) * memory_factor()
        assert figure(worker, "muster_worker_handshakes_dropped_total") == 0
        # Some of them for too long where the machine is slow.
        assert figure(worker, "muster_worker_strangers") + figure(worker, "muster_worker_handshakes_timed_out_total") == 1500
        assert (fleet.stats()["failures"], fleet.stats()["ready"]) == (0, 20)


def test_a_full_worker_says_so_at_once(narrow):
    """Who finds no room among devices is not left waiting at the door."""
    client = narrow.client(narrow.make_tenant())
    fleet = narrow.start_fleet(narrow.make_devices(client, DESCRIPTORS + 40), "--backoff", lasting(0.02), wait=False)
    worker = narrow.workers[0]
    until(lambda: figure(worker, "muster_worker_accepts_refused_total") > 100, 60, what="devices are turned away")
    assert fleet.stats()["ready"] > DESCRIPTORS // 2
    with raw_mqtt.RawClient(worker.address, timeout=5) as c:
        c.expect_end()


def test_a_device_that_reads_nothing_is_not_read(stack):
    """Each PINGREQ makes an answer: who reads none is stopped by TCP, and gets all of them when it reads again."""
    stack.start(workers=0)
    worker = stack.start_worker("--listen-plain", "127.0.0.1:0", env=without_quarantine())
    client = stack.client(stack.make_tenant())
    (device, token), = stack.make_devices(client, 1).items()
    pings, most = raw_mqtt.packet(0xc0) * 8192, 64 * 1024 * 1024
    with raw_mqtt.RawClient(worker.ready["plain"]) as c:
        c.send(raw_mqtt.connect(4, device, token, keepalive=0)).expect(raw_mqtt.CONNACK)
        before, sent = worker.rss(), 0
        c.socket.settimeout(2)
        while sent < most:
            try:
                sent += c.socket.send(pings)
            except socket.timeout:
                if figure(worker, "muster_worker_deaf_total"):
                    break
        assert sent < most // 2, "all of it is taken, and answered into the worker's memory"
        assert worker.rss() - before < 4 * 1024 * 1024
        c.socket.settimeout(patient(20))
        # One packet may have been sent by half.
        rest = threading.Thread(target=c.socket.sendall, args=(b"\0" * (sent % 2) + raw_mqtt.packet(0xc0),))
        rest.start()
        wanted, got = (sent + sent % 2 + 2) // 2, 0
        while got < wanted * 2:
            got += len(c.socket.recv(1 << 20))
        rest.join()
        assert got == wanted * 2
        assert figure(worker, "muster_worker_pings_total") == wanted


def test_a_fleet_that_comes_all_at_once_is_let_in_at_its_first_try(stack):
    """After its worker was killed, with another fleet at work on a second one: no attempt fails but those refused while
    nobody listened, and the others' commands go on."""
    stack.start(workers=2)
    client, many, few = stack.client(stack.make_tenant()), fewer(1000), fewer(100)
    tokens = stack.make_devices(client, many + few)
    crowd, steady = dict(list(tokens.items())[:many]), dict(list(tokens.items())[many:])
    coming, there = stack.workers
    working = stack.start_fleet(steady, workers=[there])
    fleet = stack.start_fleet(crowd, "--handshakes", "1000", "--backoff", "300ms", workers=[coming])
    coming.kill()
    until(lambda: fleet.stats()["ready"] == 0, what="all are lost")
    began = fleet.stats()["failures"]
    stack.restart(coming)
    for _ in range(5):
        stack.watch(client, stack.submit(client, target=stack.pb.Target(devices=stack.pb.DeviceIds(ids=list(steady)))).batch.id,
                    timeout=30)
    until(lambda: fleet.stats()["ready"] == many, 60, "all are back")
    worker = stack.workers[0]
    assert figure(worker, "muster_worker_accepted_total") == many, "each needed one connection"
    assert figure(worker, "muster_worker_handshakes_waited_total") > 0
    assert working.stats()["lost"] == 0
    assert fleet.stats()["refused"] == 0 and began <= fleet.stats()["failures"]
    batch = stack.submit(client).batch
    assert stack.watch(client, batch.id, timeout=30).progress.succeeded == many + few


def test_results_that_are_not_durable_yet_are_bounded(make_stack):
    """PostgreSQL is away: devices with results are not read any more when 32 MiB of them wait; each is durable in the end."""
    stack = make_stack()
    stack.start(workers=0)
    worker = stack.start_worker("--listen-plain", "127.0.0.1:0", env=without_quarantine())
    client = stack.client(stack.make_tenant())
    tokens = stack.make_devices(client, 100)
    batch = stack.submit(client).batch
    commands = {c.device_id: c.command_id for c in stack.list_commands(client, batch.id)}
    clients = {}
    for device, token in tokens.items():
        c = clients[device] = raw_mqtt.RawClient(worker.ready["plain"], timeout=60)
        c.send(raw_mqtt.connect(4, device, token, keepalive=0)).expect(raw_mqtt.CONNACK)
    before = worker.rss()
    stack.postgres.kill()
    until(lambda: figure(worker, "muster_worker_postgres_up") == 0, what="PostgreSQL is missed")

    def publish(device, c):
        ack = stack.pb.Acknowledgement(command_id=commands[device], outcome=1, payload=b"x" * 30000).SerializeToString()
        for n in range(30):
            c.send(raw_mqtt.publish(4, f"devices/{device}/acks", ack, packet_id=n + 1))
    senders = [threading.Thread(target=publish, args=item, daemon=True) for item in clients.items()]
    for s in senders:
        s.start()
    until(lambda: figure(worker, "muster_worker_choked_total") > 50, what="devices are not read any more")
    waiting = figure(worker, "muster_worker_result_bytes_waiting")
    assert 32 << 20 <= waiting < 36 << 20
    assert worker.rss() - before < (100 << 20) * memory_factor()
    stack.postgres.restart()
    for c in clients.values():
        assert {c.expect(raw_mqtt.PUBACK) for _ in range(30)} == {(n + 1).to_bytes(2, "big") for n in range(30)}
        c.close()
    for s in senders:
        s.join()
    until(lambda: figure(worker, "muster_worker_result_bytes_waiting") == 0, what="all is durable")
    assert stack.watch(client, batch.id, timeout=30).progress.succeeded == 100
