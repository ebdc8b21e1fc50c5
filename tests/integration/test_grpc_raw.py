"""The gRPC server and peers no stock client is like: HTTP/2 frames by hand (RFC 9113, gRPC over HTTP2)."""
import os
import signal
import struct
import time

import grpc
import pytest
from harness.grpc_server import (CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY,
                                 RST_STREAM, SETTINGS, WINDOW_UPDATE, GrpcServer, Raw, frame, literal, message, request_fields)
from harness.in_time import in_time
from harness.patience import lasting, patient
from harness.stubs import ROOT

EMPTY = "/grpc.testing.TestService/EmptyCall"
UNARY = "/grpc.testing.TestService/UnaryCall"
INPUT = "/grpc.testing.TestService/StreamingInputCall"
OUTPUT = "/grpc.testing.TestService/StreamingOutputCall"
DUPLEX = "/grpc.testing.TestService/FullDuplexCall"
NO_ERROR, PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 0, 1, 11

pytestmark = pytest.mark.skipif(
    not os.path.exists(os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), "grpc-test-server")),
    reason="grpc-test-server is not built")


@pytest.fixture(scope="module")
def server(session_folder):
    s = GrpcServer(session_folder)
    yield s
    s.stop()


@pytest.fixture
def raw(server):
    connections = []

    def make(**kwargs):
        connections.append(Raw(server.port, **kwargs))
        return connections[-1]

    yield make
    for c in connections:
        c.close()


@pytest.fixture(scope="module")
def pb(stubs):
    return stubs.module("grpc.testing.messages_pb2")


@pytest.fixture(autouse=True)
def still_serves(server, stubs):
    """Whatever a test did, the next caller is served."""
    yield
    empty = stubs.module("grpc.testing.empty_pb2").Empty()
    with grpc.insecure_channel(server.address) as channel:
        stub = stubs.module("grpc.testing.test_pb2_grpc").TestServiceStub(channel)
        assert stub.EmptyCall(empty, timeout=patient(10)) == empty


def call(raw, path, body=message(b""), **kwargs):
    """One whole call on a connection of its own: what finish() gives."""
    c = raw()
    return c.finish(c.call(path, body, **kwargs))


# --- the request's header block -----------------------------------------------------------------------------------------

def test_a_plain_call(raw):
    headers, data, reset = call(raw, EMPTY)
    assert headers == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}
    assert (data, reset) == (message(b""), None)


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc;charset=utf-8"])
def test_content_types(raw, content_type):
    assert call(raw, EMPTY, content_type=content_type)[0]["grpc-status"] == "0"


@pytest.mark.parametrize("content_type", ["application/json", "application/grpc+json", "application/grpc-web", "", None])
def test_other_content_types_are_415(raw, content_type):
    headers, data, _ = call(raw, EMPTY, content_type=content_type)
    assert headers[":status"] == "415" and data == b""


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_other_methods_are_405(raw, method):
    assert call(raw, EMPTY, method=method)[0][":status"] == "405"


@pytest.mark.parametrize("path", ["/", "/grpc.testing.TestService/", "/grpc.testing.TestService/EmptyCall/x", "/x/y",
                                  "/grpc.testing.TestService/emptycall"])
def test_unknown_paths_are_unimplemented(raw, path):
    headers, _, _ = call(raw, path)
    assert (headers[":status"], headers["grpc-status"]) == ("200", "12")


def test_missing_pseudo_headers_reset_the_stream(raw):
    c = raw()
    stream = c.open(literal(":method", "POST") + literal(":scheme", "http"), end=True)
    assert c.finish(stream)[2] == PROTOCOL_ERROR


def test_unknown_encodings_are_unimplemented(raw):
    headers, _, _ = call(raw, EMPTY, extra=[("grpc-encoding", "snappy")])
    assert (headers["grpc-status"], headers["grpc-accept-encoding"]) == ("12", "identity")
    assert call(raw, EMPTY, extra=[("grpc-encoding", "identity")])[0]["grpc-status"] == "0"


@pytest.mark.parametrize("timeout,status", [("10S", "0"), ("99999999H", "0"), ("0n", "4"), ("1u", "4"), ("1", "13"),
                                            ("x", "13"), ("123456789S", "13"), ("-1S", "13")])
def test_timeouts(raw, timeout, status):
    body = message(b"") if status == "0" else b""
    c = raw()
    stream = c.open(request_fields(DUPLEX if status == "4" else EMPTY, extra=[("grpc-timeout", timeout)]))
    if status == "0":
        c.send(frame(DATA, END_STREAM, stream, body))
    assert c.finish(stream)[0]["grpc-status"] == status


def test_the_server_keeps_the_deadline(raw):
    c = raw()
    start = time.monotonic()
    stream = c.open(request_fields(DUPLEX, extra=[("grpc-timeout", "200m")]))
    headers, _, _ = c.finish(stream)
    assert headers["grpc-status"] == "4"
    assert 0.19 < time.monotonic() - start < patient(5)


@pytest.mark.parametrize("value,want", [("q6s", "q6s"), ("q6s=", "q6s"), ("q6urq6s,q6s=", "q6urq6s"), ("!!", None), ("", "")])
def test_binary_metadata_padded_or_not_and_joined(raw, value, want):
    headers, _, _ = call(raw, EMPTY, extra=[("x-grpc-test-echo-trailing-bin", value)])
    assert headers["grpc-status"] == "0"
    assert headers.get("x-grpc-test-echo-trailing-bin") == want


def test_a_header_list_over_the_limit_is_431(raw):
    c = raw()
    stream = c.open(request_fields(EMPTY), end=False)
    c.send(frame(DATA, END_STREAM, stream, message(b"")))
    assert c.finish(stream)[0]["grpc-status"] == "0"
    block = request_fields(EMPTY) + b"".join(literal(f"x-{n}", "v" * 1000) for n in range(17))
    stream, c.next_id = c.next_id, c.next_id + 2
    c.send(frame(HEADERS, END_STREAM, stream, block[:16000]) + frame(CONTINUATION, END_HEADERS, stream, block[16000:]))
    headers, _, _ = c.finish(stream)
    assert (headers[":status"], headers["grpc-status"]) == ("431", "8")
    # The connection lives on.
    assert c.finish(c.call(EMPTY, message(b"")))[0]["grpc-status"] == "0"


def test_a_continuation_flood_ends_the_connection(raw):
    c = raw()
    c.send(frame(HEADERS, 0, 1, request_fields(EMPTY)))
    with pytest.raises(OSError):
        for n in range(100000):
            c.send(frame(CONTINUATION, 0, 1, literal(f"x-{n}", "v")))
        assert c.closed()
        raise ConnectionResetError


def test_a_header_bomb_ends_the_connection(server, raw):
    """One entry of the table, named again and again: a few KiB that decode to megabytes."""
    before = server.rss()
    c = raw()
    entry = b"\x40" + literal("x-bomb", "v" * 3900)[1:]
    block = request_fields(EMPTY) + entry + b"\xbe" * 12000
    c.send(frame(HEADERS, END_HEADERS, 1, block))
    code, debug = c.goaway()
    assert code == ENHANCE_YOUR_CALM and b"header_list" in debug
    assert c.closed()
    assert server.rss() - before < 20e6


# --- messages -------------------------------------------------------------------------------------------------------------

def test_data_frames_need_not_align_with_messages(raw, pb):
    request = pb.SimpleRequest(response_size=10, payload=pb.Payload(body=b"abc" * 100)).SerializeToString()
    c = raw()
    stream = c.open(request_fields(UNARY))
    body = message(request)
    c.send(b"".join(frame(DATA, 0, stream, body[i:i + 1]) for i in range(len(body))) + frame(DATA, END_STREAM, stream))
    headers, data, _ = c.finish(stream)
    assert headers["grpc-status"] == "0"
    assert pb.SimpleResponse.FromString(data[5:]).payload.body == b"\0" * 10


def test_one_data_frame_may_hold_many_messages(raw, pb):
    one = message(pb.StreamingInputCallRequest(payload=pb.Payload(body=b"12345")).SerializeToString())
    c = raw()
    stream = c.open(request_fields(INPUT))
    body = one * 500
    for at in range(0, len(body), 7001):
        c.send(frame(DATA, 0, stream, body[at:at + 7001]))
    c.send(frame(DATA, END_STREAM, stream))
    headers, data, _ = c.finish(stream)
    assert headers["grpc-status"] == "0"
    assert pb.StreamingInputCallResponse.FromString(data[5:]).aggregated_payload_size == 2500


def test_padded_data(raw):
    c = raw()
    stream = c.open(request_fields(EMPTY))
    c.send(frame(DATA, END_STREAM | 8, stream, b"\x10" + message(b"") + b"\0" * 16))
    assert c.finish(stream)[0]["grpc-status"] == "0"


@pytest.mark.parametrize("path,body,status", [
    (UNARY, b"", "13"),                                # no message
    (UNARY, message(b"") * 2, "13"),                   # two
    (UNARY, message(b"")[:3], "13"),                   # half a prefix
    (UNARY, b"\0\0\0\0\5ab", "13"),                   # half a message
    (INPUT, message(b"") + b"\0\0\0\0\5ab", "13"),
    (UNARY, message(b"\xff\xff\xff"), "13"),           # no protobuf
    (UNARY, message(b"x", compressed=1), "13"),        # compressed, but nobody said how
    (UNARY, message(b"x", compressed=7), "13"),
    (UNARY, b"\0\xff\xff\xff\xff", "8"),              # 4 GiB
    (INPUT, message(b"") + b"\0\4\0\0\1", "8"),        # 64 MiB and a byte
    (INPUT, b"", "0"),
])
def test_bad_messages(raw, path, body, status):
    assert call(raw, path, body)[0]["grpc-status"] == status


def test_a_message_over_the_limit_is_not_buffered(server, raw):
    before = server.rss()
    c = raw()
    stream = c.open(request_fields(UNARY))
    c.send(frame(DATA, 0, stream, b"\0\xff\xff\xff\xff" + b"x" * 10000))
    headers, _, reset = c.finish(stream)
    assert headers["grpc-status"] == "8"
    # The rest is not wanted: the stream is reset, and what still comes is ignored.
    got = c.until(lambda kind, flags, number, payload: kind == RST_STREAM and number == stream)
    assert int.from_bytes(got[3], "big") == NO_ERROR
    for _ in range(20):
        c.send(frame(DATA, 0, stream, b"x" * 10000))
    assert c.finish(c.call(EMPTY, message(b"")))[0]["grpc-status"] == "0"
    assert server.rss() - before < 8e6


def test_a_message_that_decodes_to_gigabytes_is_refused(server, raw, pb):
    """Thirty million empty parts of two bytes each."""
    c = raw()
    stream = c.open(request_fields(OUTPUT))
    body = message(b"\x12\0" * 30_000_000)
    window, at = 65535, 0
    conn_window = 65535
    c.sock.settimeout(patient(60))
    while at < len(body):
        n = min(16384, len(body) - at, window, conn_window)
        if n == 0:
            got = c.read()
            if got[0] == HEADERS:
                break
            if got[0] == WINDOW_UPDATE:
                more = int.from_bytes(got[3], "big")
                window, conn_window = (window + more, conn_window) if got[2] else (window, conn_window + more)
            elif got[0] == SETTINGS and not got[1]:
                for i in range(0, len(got[3]), 6):
                    if got[3][i:i + 2] == b"\0\4":
                        window += int.from_bytes(got[3][i + 2:i + 6], "big") - 65535
            continue
        c.send(frame(DATA, END_STREAM if at + n == len(body) else 0, stream, body[at:at + n]))
        at, window, conn_window = at + n, window - n, conn_window - n
    assert c.finish(stream)[0]["grpc-status"] == "8"


def test_half_messages_are_bounded_over_all(session_folder):
    server = GrpcServer(session_folder, args=["--max-buffered", "8MiB", "--max-message", "2MiB"])
    before, refused = server.rss(), 0
    connections = [Raw(server.port) for _ in range(3)]
    for c in connections:
        # The connection's window is opened right after the SETTINGS that open the streams' windows.
        assert c.until(lambda kind, flags, stream, payload: kind == WINDOW_UPDATE and stream == 0)
        for _ in range(8):
            stream = c.open(request_fields(UNARY))
            c.send(frame(DATA, 0, stream, b"\0" + (1000000).to_bytes(4, "big")))
            for _ in range(50):
                c.send(frame(DATA, 0, stream, b"x" * 10000))
        c.send(frame(PING, 0, 0, b"12345678"))
        while True:
            kind, flags, _, _ = c.read()
            if kind == HEADERS:
                assert dict(c.fields)["grpc-status"] == "8"
                refused += 1
            if kind == PING and flags & 1:
                break
    # Twelve megabytes were offered.
    assert 4 <= refused < 24
    assert server.rss() - before < 40e6
    for c in connections:
        c.close()
    server.stop()


# --- streams --------------------------------------------------------------------------------------------------------------

def test_a_reset_cancels_the_call(raw, pb):
    c = raw()
    request = message(pb.StreamingOutputCallRequest(
        response_parameters=[pb.ResponseParameters(size=1, interval_us=1000)] * 1000).SerializeToString())
    for _ in range(50):
        stream = c.call(OUTPUT, request)
        c.until(lambda kind, flags, number, payload: kind == DATA and number == stream)
        c.send(frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big")))
    assert c.finish(c.call(EMPTY, message(b"")))[0]["grpc-status"] == "0"


@pytest.mark.parametrize("tls", [False, True])
def test_a_peer_that_stops_reading_gets_the_rest_later(session_folder, certificates, pb, tls):
    """The windows are wide open, so that nothing but the socket tells the server to go on."""
    server = GrpcServer(session_folder, certificates if tls else None)
    c = Raw(server.port, preface=False, ca=server.ca)
    c.send(PREFACE + frame(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff") + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\0\0"))
    size, count = 30000, 1000
    request = pb.StreamingOutputCallRequest(
        response_parameters=[pb.ResponseParameters(size=size, interval_us=200)] * count)
    stream = c.call(OUTPUT, message(request.SerializeToString()))
    before, still = -1, 0
    # The server has come to a stop when its processor time does not grow any more.
    while still < 5:
        with open(f"/proc/{server.process.pid}/stat", encoding="ascii") as f:
            now = sum(map(int, f.read().split()[13:15]))
        still, before = (still + 1, now) if now == before else (0, now)
        time.sleep(0.1)
    headers, data, _ = c.finish(stream)
    assert headers["grpc-status"] == "0"
    assert len(data) > size * count
    c.close()
    server.stop()


def test_more_streams_than_allowed(raw):
    c = raw()
    # Until the server's SETTINGS are acknowledged, streams over the limit are refused one by one.
    streams = [c.open(request_fields(DUPLEX)) for _ in range(300)]
    got = c.until(lambda kind, flags, number, payload: kind == RST_STREAM and number == streams[256])
    assert int.from_bytes(got[3], "big") == 7
    c.send(frame(DATA, END_STREAM, streams[0]))
    assert c.finish(streams[0])[0]["grpc-status"] == "0"


def test_a_peer_that_goes_away_cancels_its_calls(raw):
    for _ in range(20):
        c = raw()
        for _ in range(50):
            c.open(request_fields(DUPLEX))
        c.close()


# --- floods ---------------------------------------------------------------------------------------------------------------

def flood(c, one, count=200000, batch=500):
    """Sends `one` again and again until the server closes; then the code and debug data of its GOAWAY."""
    try:
        for _ in range(count // batch):
            c.send(one * batch)
    except OSError:
        pass
    return c.goaway()


def test_too_many_pings(raw):
    c = raw()
    got = flood(c, frame(PING, 0, 0, b"12345678"))
    assert got is None or got == (ENHANCE_YOUR_CALM, b"too_many_pings")


def test_three_early_pings_end_the_connection_with_the_reason(raw):
    c = raw()
    c.send(b"".join(frame(PING, 0, 0, bytes([n] * 8)) for n in range(4)))
    assert c.goaway() == (ENHANCE_YOUR_CALM, b"too_many_pings")
    assert c.closed()


def test_pings_are_answered_and_allowed_after_data(raw):
    c = raw()
    for n in range(20):
        assert c.finish(c.call(EMPTY, message(b"")))[0]["grpc-status"] == "0"
        c.send(frame(PING, 0, 0, bytes([n] * 8)))
        got = c.until(lambda kind, flags, *_: kind == PING and flags & 1)
        assert got[3] == bytes([n] * 8)


def test_a_settings_flood(raw):
    got = flood(raw(), frame(SETTINGS))
    assert got is None or got[0] == ENHANCE_YOUR_CALM


def test_a_priority_flood(raw):
    got = flood(raw(), frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"))
    assert got is None or got[0] in (ENHANCE_YOUR_CALM, PROTOCOL_ERROR)


def test_an_empty_data_flood(raw):
    c = raw()
    stream = c.open(request_fields(DUPLEX))
    got = flood(c, frame(DATA, 0, stream))
    assert got is None or got[0] == ENHANCE_YOUR_CALM


def test_rapid_reset(raw):
    c = raw()
    fields = request_fields(EMPTY)
    got = ended = None
    try:
        for _ in range(5000):
            stream = c.open(fields)
            c.send(frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big")))
    except OSError:
        ended = True
    got = c.goaway()
    assert ended or got is not None
    assert got is None or got[0] != NO_ERROR


# --- connections ------------------------------------------------------------------------------------------------------------

def test_what_is_not_http2_is_closed(raw):
    c = raw(preface=False)
    c.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert c.closed()


@pytest.mark.parametrize("junk", [b"\xff" * 100, frame(DATA, 0, 0, b"x"), frame(HEADERS, END_HEADERS, 2, b"\x82"),
                                  frame(SETTINGS, 0, 0, b"x"), frame(CONTINUATION, 0, 1, b""),
                                  frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff")])
def test_junk_ends_the_connection_with_a_goaway(raw, junk):
    c = raw()
    c.send(junk)
    code, _ = c.goaway()
    assert code != NO_ERROR
    assert c.closed()


def test_silent_and_stalled_peers_are_closed(raw):
    start = time.monotonic()
    silent, half = raw(preface=False), raw(preface=False)
    half.send(PREFACE[:10])
    no_settings = raw(preface=False)
    no_settings.send(PREFACE)
    in_headers = raw()
    in_headers.send(frame(HEADERS, 0, 1, request_fields(EMPTY)))
    in_payload = raw()
    in_payload.send(frame(HEADERS, END_HEADERS, 1, request_fields(EMPTY))[:-5])
    healthy = raw()
    assert healthy.finish(healthy.call(EMPTY, message(b"")))[0]["grpc-status"] == "0"
    for c in (silent, half, no_settings, in_headers, in_payload):
        assert c.closed()
    assert 8 < time.monotonic() - start < patient(18)
    assert healthy.finish(healthy.call(EMPTY, message(b"")))[0]["grpc-status"] == "0"


def test_connections_are_bounded(session_folder):
    server = GrpcServer(session_folder, args=["--max-connections", "3"])
    kept = [Raw(server.port) for _ in range(3)]
    for c in kept:
        assert c.finish(c.call(EMPTY, message(b"")))[0]["grpc-status"] == "0"
    over = Raw(server.port, preface=False)
    assert over.closed()
    kept[0].close()
    deadline = time.monotonic() + patient(10)
    while True:
        c = Raw(server.port, preface=False)
        try:
            c.send(PREFACE + frame(SETTINGS))
            if c.read():
                break
        except OSError:
            pass
        assert time.monotonic() < deadline
    assert c.finish(c.call(EMPTY, message(b"")))[0]["grpc-status"] == "0"
    server.stop()


def test_who_is_silent_makes_room_for_who_is_not(session_folder):
    """Connections that never had a call admitted, of all ages: TCP only, a preface, half a header block."""
    server = GrpcServer(session_folder, args=["--max-connections", "3"])
    strangers = []
    for n in range(12):
        c = Raw(server.port, preface=n % 3 > 0)
        if n % 3 == 1:
            c.send(frame(HEADERS, 0, 1, request_fields(EMPTY)))
        if n % 3:
            assert c.read()
        strangers.append(c)
    c = Raw(server.port)
    assert c.finish(c.call(EMPTY, message(b"")))[0]["grpc-status"] == "0"
    for s in strangers[:4]:
        assert s.closed()
    server.stop()


def test_who_reads_no_answers_gets_no_more(session_folder):
    """Its window stays shut: what is answered is held, to a bound, and given up after some time."""
    in_time(lambda span: who_reads_no_answers(session_folder, span), 3)


def who_reads_no_answers(session_folder, span):
    server = GrpcServer(session_folder, args=["--unread-timeout", lasting(span.seconds)])
    c = Raw(server.port, preface=False)
    c.send(PREFACE + frame(SETTINGS, payload=struct.pack(">HI", 4, 0)))
    large = message(b"\x10\x80\x80\x40")  # SimpleRequest.response_size: 1 MiB
    refused, given_up = {}, set()
    before, healthy = server.rss(), Raw(server.port)
    span.begin()
    streams = [c.call(UNARY, large) for _ in range(100)]
    while len(refused) + len(given_up) < 100:
        kind, _, number, _ = c.read()
        if kind == RST_STREAM and number not in refused:  # who is refused before all has come is told not to send it
            given_up.add(number)
        elif kind == HEADERS and "grpc-status" in dict(c.fields):
            refused[number] = dict(c.fields)["grpc-status"]
        if len(refused) == 60:
            span.kept()  # nothing is given up yet
            assert server.rss() - before < 40 << 20 and not given_up
            assert healthy.finish(healthy.call(EMPTY, message(b"")))[0]["grpc-status"] == "0"
    assert set(refused.values()) == {"8"} and len(given_up) == 16 and given_up | set(refused) == set(streams)
    server.stop()


def test_drain_says_goaway_twice(session_folder):
    in_time(lambda span: drain_says_goaway_twice(session_folder, span), 2)


def drain_says_goaway_twice(session_folder, span):
    server = GrpcServer(session_folder)
    c = Raw(server.port)
    stream = c.open(request_fields(DUPLEX))
    c.send(frame(PING, 0, 0, b"12345678"))
    c.until(lambda kind, flags, *_: kind == PING and flags & 1)
    span.begin()
    server.process.signal(signal.SIGTERM)
    first = c.until(lambda kind, *_: kind == GOAWAY)[3]
    assert (int.from_bytes(first[:4], "big"), int.from_bytes(first[4:8], "big")) == (2**31 - 1, NO_ERROR)
    # A call that was on its way is still served.
    late = c.call(EMPTY, message(b""))
    assert c.finish(late)[0]["grpc-status"] == "0"
    span.kept()  # as long as it waits before it says the second
    second = c.until(lambda kind, *_: kind == GOAWAY)[3]
    assert (int.from_bytes(second[:4], "big"), int.from_bytes(second[4:8], "big")) == (late, NO_ERROR)
    c.send(frame(DATA, END_STREAM, stream))
    assert c.finish(stream)[0]["grpc-status"] == "0"
    assert c.closed()
    c.close()
    assert server.process.wait(10) == 0
