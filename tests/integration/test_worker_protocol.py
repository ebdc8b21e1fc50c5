"""A worker against clients that break, stretch or barely keep the rules of MQTT."""
import struct
import time

import pytest
from harness.hand_router import QUEUED, REJECTED, SUCCEEDED, HandRouter, command_id, sign
from harness.patience import patient
from harness.raw_mqtt import (CONNACK, DISCONNECT, PINGRESP, PUBACK, PUBLISH, SUBACK, UNSUBACK, RawClient, connect, packet,
                              puback, publish, subscribe, text, unsubscribe)
from harness.stack import Stack, have
from harness.until import until

pytestmark = pytest.mark.skipif(not have("muster-worker"), reason="muster-worker is not built")

PINGREQ = packet(0xc0)


@pytest.fixture(scope="module")
def stack(tmp_path_factory, postgres, module_redis, certificates, stubs):
    """One installation for all tests here; each has a tenant of its own."""
    s = Stack(tmp_path_factory.mktemp("worker"), postgres, module_redis, certificates, stubs)
    HandRouter(s)
    yield s
    s.stop()


@pytest.fixture(scope="module")
def worker(stack):
    return stack.start_worker("--listen-plain", "127.0.0.1:0", "--in-flight", "5", "--keepalive-max", "100")


@pytest.fixture
def login(router, worker):
    """Opens a connection and logs device `seq` in; with `subscribed`, its SUBACK has come."""
    clients = []

    def make(version=5, seq=0, subscribed=False, **fields):
        c = RawClient(worker.ready["plain"])
        clients.append(c)
        c.send(connect(version, router.ids[seq], router.token(seq), **fields))
        assert c.expect(CONNACK)[:2] == b"\0\0"
        if subscribed:
            c.send(subscribe(version, topic(router, seq)))
            c.expect(SUBACK)
        return c
    yield make
    for c in clients:
        c.close()


def topic(router, seq, end="commands"):
    return f"devices/{router.ids[seq]}/{end}"


def ack(router, batch, seq=0):
    return router.pb.Acknowledgement(command_id=command_id(batch, router.tenant, seq), outcome=1).SerializeToString()


# --- before CONNECT ---

@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00\x00", PINGREQ, b"\x10\xff\xff\xff\xff",
                                  packet(0x10, text("MQTX") + b"\4\2\0\0\0\0"), packet(0x11, b"")])
def test_who_does_not_begin_with_connect_is_closed(worker, junk):
    with RawClient(worker.ready["plain"]) as c:
        c.send(junk)
        c.expect_end()


def test_other_versions_get_their_answer(router, worker):
    for version, answer in ((3, b"\0\1"), (6, b"\0\x84\0")):
        with RawClient(worker.ready["plain"]) as c:
            c.send(connect(5 if version == 6 else 4, "d", "t").replace(b"MQTT\5", b"MQTT\6").replace(b"MQTT\4", b"MQTT\3"))
            assert c.expect(CONNACK) == answer
            c.expect_end()
    with RawClient(worker.ready["plain"]) as c:
        c.send(packet(0x10, text("MQIsdp") + b"\3\2\0\0" + text("c")))
        assert c.expect(CONNACK) == b"\0\1"


def test_a_login_without_name_or_token_is_refused(worker):
    for version, code in ((4, b"\0\4"), (5, b"\0\x86\0")):
        with RawClient(worker.ready["plain"]) as c:
            c.send(packet(0x10, text("MQTT") + bytes([version, 2]) + b"\0\0" + (b"\0" if version == 5 else b"") + text("c")))
            assert c.expect(CONNACK) == code
            c.expect_end()


def test_a_crowd_with_tokens_of_a_new_key_is_let_in(stack, router, worker):
    (key,), = stack.sql("INSERT INTO signing_key (secret, created_ms) VALUES (%s, 0) RETURNING id", b"c" * 32)
    crowd = [RawClient(worker.ready["plain"]) for _ in range(4)]
    for seq, c in enumerate(crowd):
        c.send(connect(4, router.ids[seq], sign(router.ids[seq], router.tenant, seq, key_id=key, secret=b"c" * 32)))
    for c in crowd:
        with c:
            assert c.expect(CONNACK) == b"\0\0"


def test_a_crowd_does_not_stand_in_line_at_redis_one_by_one(stack, worker):
    crowd = HandRouter(stack, devices=1000)
    clients = []

    def scripts():
        return crowd.redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    before = scripts()
    crowd.redis.client_pause(60000, all=False)  # what writes waits until all have come
    for seq, name in enumerate(crowd.ids):
        clients.append(RawClient(worker.ready["plain"]))
        clients[-1].send(connect(4, name, crowd.token(seq)), subscribe(4, topic(crowd, seq)))
        clients[-1].expect(CONNACK)
        clients[-1].expect(SUBACK)
    crowd.redis.client_unpause()
    until(lambda: all(crowd.presence(seq) for seq in range(1000)), what="all are attached")
    assert scripts() - before < 20  # some of them renew the lease
    for c in clients:
        c.close()


def test_extended_authentication_is_refused(router, worker):
    with RawClient(worker.ready["plain"]) as c:
        c.send(connect(5, router.ids[0], router.token(0), properties=b"\x15" + text("SCRAM")))
        assert c.expect(CONNACK) == b"\0\x8c\0"
        c.expect_end()


def test_who_says_nothing_or_hardly_anything_is_closed(worker):
    """CONNECT must come whole in its time: each byte of it does not begin that anew. Nor does it matter how long it says it is."""
    with RawClient(worker.ready["plain"], timeout=30) as c, RawClient(worker.ready["plain"], timeout=0.25) as slow:
        c.send(b"\x10")
        slow.send(b"\x10\xff\x3f")
        began = time.monotonic()
        with pytest.raises((AssertionError, BrokenPipeError, ConnectionResetError)):  # half a packet, and then the end
            while time.monotonic() - began < patient(20):
                slow.send(b"\0")
                try:
                    assert slow.socket.recv(1)
                except TimeoutError:
                    pass
        assert 9 < time.monotonic() - began < patient(15)
        c.expect_end()
        assert 9 < time.monotonic() - began < patient(15)


# --- CONNECT ---

def test_connack_of_5_byte_for_byte(router, worker):
    with RawClient(worker.ready["plain"]) as c:
        c.send(connect(5, router.ids[1], router.token(1), client_id="", keepalive=300))
        assert c.expect(CONNACK) == (b"\0\0" + bytes([25 + len(text(router.ids[1]))]) +
                                     b"\x21\0\x20" b"\x24\1" b"\x25\0" b"\x27\0\2\0\0" b"\x22\0\0" b"\x28\0" b"\x29\0" b"\x2a\0"
                                     b"\x13\0\x64" b"\x12" + text(router.ids[1]))


def waiting(worker):
    """Events that are not durable yet."""
    return worker.figures()["muster_worker_events_waiting"]


def test_one_byte_at_a_time(router, worker):
    batch = router.open([0])
    with RawClient(worker.ready["plain"]) as c:
        for byte in connect(5, router.ids[0], router.token(0)) + subscribe(5, topic(router, 0)) + PINGREQ:
            c.send(bytes([byte]))
        c.expect(CONNACK)
        assert c.expect(SUBACK)[-1] == 1
        kinds = {c.read()[0], c.read()[0]}
        assert kinds == {PINGRESP, PUBLISH}
        for byte in publish(5, topic(router, 0, "acks"), ack(router, batch), packet_id=9):
            c.send(bytes([byte]))
        assert c.expect(PUBACK) == b"\0\x09"
    assert router.state(batch, 0)[0] == SUCCEEDED


def test_all_in_one_piece(router, worker):
    batch = router.open([0])
    with RawClient(worker.ready["plain"]) as c:
        c.send(connect(4, router.ids[0], router.token(0)), subscribe(4, topic(router, 0)), PINGREQ,
               publish(4, topic(router, 0, "acks"), ack(router, batch), packet_id=7))
        c.expect(CONNACK)
        c.expect(SUBACK)
        c.expect(PINGRESP)
        kinds = {}
        while PUBACK not in kinds:
            kind, _, body = c.read()
            kinds[kind] = body
        assert kinds[PUBACK] == b"\0\7"
    assert router.log()[batch, 0] & 15 == SUCCEEDED


def test_a_will_is_taken_and_forgotten(router, worker):
    with RawClient(worker.ready["plain"]) as c:
        body = text("MQTT") + b"\5\xce\0\x3c\0" + text("c") + b"\0" + text("some/topic") + text("gone")
        c.send(packet(0x10, body + text(router.ids[0]) + text(router.token(0))), PINGREQ)
        c.expect(CONNACK)
        c.expect(PINGRESP)


# --- after CONNECT ---

@pytest.mark.parametrize("what, reason", [
    (packet(0x34, text("t") + b"\0\1\0"), 0x9b),                              # QoS 2
    (packet(0x36, text("t") + b"\0\1\0"), 0x81),                              # QoS 3
    (packet(0x31, text("t") + b"\0"), 0x9a),                                  # retain
    (packet(0x32, text("") + b"\0\1\3\x23\0\1"), 0x94),                       # topic alias
    (packet(0x32, text("t") + b"\0\1\x04\x01\0\x01\0"), 0x82),                # the same property twice
    (packet(0x32, text(b"\xff") + b"\0\1\0"), 0x81),                          # not UTF-8
    (packet(0x30, text("a/#") + b"\0"), 0x90),                                # wildcard in a name
    (packet(0x30, text("devices/other/acks") + b"\0"), 0x87),                 # not its topic, at QoS 0
    (connect(5, "d", "t"), 0x82),                                             # a second CONNECT
    (packet(0xf0, b"\x18\0"), 0x82),                                          # AUTH out of nowhere
    (packet(0x50, b"\0\1"), 0x82),                                            # PUBREC
    (packet(0x82, b"\0\1\2\x0b\1" + text("devices/device-0/commands") + b"\1"), 0xa1),  # Subscription Identifier
    (packet(0x82, b"\0\1\0"), 0x82),                                          # no filter
    (packet(0x80, b"\0\1\0" + text("t") + b"\1"), 0x81),                      # flags
    (b"\x30\xff\xff\xff\x7f", 0x95),                                          # too large
    (b"\x30\xff\xff\xff\xff", 0x81),                                          # no length at all
])
def test_who_breaks_the_rules_is_told_why_and_closed(login, what, reason):
    for version in (5, 4):
        c = login(version, subscribed=True)
        c.send(what)
        if version == 5:
            assert c.expect(DISCONNECT) == bytes([reason])
        c.expect_end()


def test_what_is_no_acknowledgement_is_refused(router, login):
    c = login(5)
    c.send(publish(5, topic(router, 0, "acks"), b"\xff\xff", packet_id=3))
    assert c.expect(PUBACK) == b"\0\3\x99"
    c.send(publish(5, topic(router, 0, "acks"), b"{nonsense", packet_id=4))
    assert c.expect(PUBACK) == b"\0\4\x99"
    c.send(publish(5, topic(router, 0, "acks"), ack(router, 1, seq=1), packet_id=5))
    assert c.expect(PUBACK) == b"\0\5\x87"
    c.send(publish(5, topic(router, 1, "acks"), ack(router, 1, seq=1), packet_id=6))
    assert c.expect(PUBACK) == b"\0\6\x87"
    c = login(4)
    c.send(publish(4, topic(router, 0, "acks"), b"\xff\xff", packet_id=3))
    c.expect_end()


@pytest.mark.parametrize("version", (4, 5))
def test_pubacks_come_in_the_order_of_the_publishes(router, login, version):
    """Whatever the order in which they become durable: here by the number of the batch (3.1.1: MQTT-4.6.0-2; 5.0: 4.6)."""
    batches = [router.open([0]) for _ in range(3)]
    c = login(version)
    for first in range(1, 301, 3):
        c.send(*[publish(version, topic(router, 0, "acks"), ack(router, batch), packet_id=first + n)
                 for n, batch in enumerate(reversed(batches))])
        assert [c.expect(PUBACK) for _ in batches] == [struct.pack(">H", first + n) for n in range(3)]


def test_a_refusal_waits_for_the_pubacks_before_it(router, login):
    c = login(5)
    c.send(publish(5, topic(router, 0, "acks"), ack(router, router.open([0])), packet_id=3),
           publish(5, topic(router, 0, "acks"), b"\xff\xff", packet_id=2),
           publish(5, topic(router, 0, "acks"), ack(router, router.open([0])), qos=0),
           publish(5, topic(router, 0, "acks"), ack(router, router.open([0])), packet_id=1))
    assert [c.expect(PUBACK) for _ in range(3)] == [b"\0\3", b"\0\2\x99", b"\0\1"]


def test_at_qos_0_a_device_does_not_fill_the_worker(stack, router, worker, login):
    """While nothing becomes durable a device is not read beyond some outcomes, though it waits for no PUBACK."""
    batch = router.open([0])
    c = login(5)
    db = stack.postgres.connect(stack.database)
    db.autocommit = False
    try:
        db.cursor().execute("LOCK TABLE ack_log IN ACCESS EXCLUSIVE MODE")
        c.send(*[publish(5, topic(router, 0, "acks"), ack(router, batch), qos=0) for _ in range(1000)], PINGREQ)
        until(lambda: waiting(worker) == 64)
        assert {waiting(worker) for _ in range(20)} == {64}
    finally:
        db.close()
    c.expect(PINGRESP)
    until(lambda: waiting(worker) == 0)


def test_more_unanswered_than_the_receive_maximum_is_an_error_of_5(router, login):
    c = login(5)
    c.send(*[publish(5, topic(router, 0, "acks"), ack(router, 1), packet_id=n) for n in range(1, 40)])
    while (got := c.read()) and got[0] == PUBACK:
        pass
    assert got == (DISCONNECT, 0, b"\x93")


def test_a_crowd_of_acknowledgements_of_3_1_1_is_taken_bit_by_bit(router, login):
    c = login(4)
    c.send(*[publish(4, topic(router, 0, "acks"), ack(router, 1), packet_id=n) for n in range(1, 301)], PINGREQ)
    packets = [c.read() for _ in range(301)]
    assert sorted(struct.unpack(">H", body)[0] for kind, _, body in packets if kind == PUBACK) == list(range(1, 301))
    assert sum(kind == PINGRESP for kind, _, _ in packets) == 1


def test_the_clients_receive_maximum_is_kept(router, login):
    batches = [router.open([0]) for _ in range(3)]
    c = login(5, properties=b"\x21\0\1", subscribed=True)
    for batch in batches:
        _, _, body = c.read()
        assert command_id(batch, router.tenant, 0).encode() in body
        c.send(PINGREQ)
        c.expect(PINGRESP)  # and nothing else before it
        at = 2 + len(topic(router, 0))
        c.send(puback(struct.unpack(">H", body[at:at + 2])[0]))


def test_what_is_larger_than_the_client_takes_is_rejected(router, login):
    pb = router.pb
    large = router.open([0], command=pb.Command(lock=pb.LockCommand(message="x" * 100)))
    small = router.open([0], command=pb.Command(lock=pb.LockCommand(message="x")))
    c = login(5, properties=b"\x27\0\0\0\x90", subscribed=True)
    _, _, body = c.read()
    assert command_id(small, router.tenant, 0).encode() in body
    until(lambda: router.log().get((large, 0)) == REJECTED)
    (stored,), = router.stack.sql("SELECT result FROM command_result WHERE batch_id = %s", large)
    assert "Maximum Packet Size" in pb.CommandResult.FromString(bytes(stored)).text


def test_a_subscription_at_qos_0_is_served_at_qos_0(router, login):
    batch = router.open([0])
    c = login(4)
    c.send(subscribe(4, topic(router, 0), qos=0))
    assert c.expect(SUBACK)[-1] == 0
    kind, flags, body = c.read()
    assert (kind, flags) == (PUBLISH, 0)
    assert body[2 + len(topic(router, 0)):].startswith(b"\x0a\x24")
    c.send(publish(4, topic(router, 0, "acks"), ack(router, batch), qos=0))
    until(lambda: router.log().get((batch, 0), 0) & 15 == SUCCEEDED)


def test_unsubscribing_gives_back_what_was_there(router, login):
    c = login(5, subscribed=True)
    until(lambda: router.presence(0))
    c.send(unsubscribe(5, topic(router, 0)))
    assert c.expect(UNSUBACK) == b"\0\1\0\0"
    until(lambda: router.presence(0) == 0)
    batch = router.open([0])
    c.send(unsubscribe(5, topic(router, 0)), PINGREQ)
    assert c.expect(UNSUBACK) == b"\0\1\0\x11"
    c.expect(PINGRESP)
    assert router.state(batch, 0) == (QUEUED, 0)
    c.send(subscribe(5, topic(router, 0)))
    c.expect(SUBACK)
    assert c.read()[0] == PUBLISH


def test_silence_past_the_keepalive_ends_the_connection(login):
    for version in (5, 4):
        began = time.monotonic()  # the worker reckons from a CONNECT that comes later
        c = login(version, keepalive=1)
        if version == 5:
            assert c.expect(DISCONNECT) == b"\x8d"
        c.expect_end()
        assert 1.4 < time.monotonic() - began < patient(9)


def test_pings_keep_the_connection(login):
    def answered(c):
        try:
            c.send(PINGREQ)
            return (c.read() or (None,))[0] == PINGRESP
        except OSError:
            return False
    for _ in range(10):
        began = sent = time.monotonic()
        c, quick = login(5, keepalive=1), True
        while quick and time.monotonic() - began < 3:
            time.sleep(0.2)  # what is tested is the passing of time
            before, sent = sent, time.monotonic()
            kept = answered(c)
            quick = time.monotonic() - before < 1
            assert kept or not quick
        if quick:
            return
    raise AssertionError("this machine is too slow to say")


def test_a_large_result_comes_through(router, login):
    batch = router.open([0])
    c = login(5, subscribed=True)
    assert c.read()[0] == PUBLISH
    message = router.pb.Acknowledgement(command_id=command_id(batch, router.tenant, 0), outcome=1, payload=b"x" * 32768)
    c.send(publish(5, topic(router, 0, "acks"), message.SerializeToString(), packet_id=2))
    assert c.expect(PUBACK) == b"\0\2"
    (stored,), = router.stack.sql("SELECT length(result) FROM command_result WHERE batch_id = %s", batch)
    assert stored > 32768
