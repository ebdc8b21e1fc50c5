"""The gRPC test server (tests/grpc_server) and HTTP/2 by hand, for what no stock client sends."""
import ctypes
import os
import socket
import ssl
import struct

from .daemons import program
from .patience import patient
from .process import Process
from .reports import without_quarantine

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class GrpcServer:
    """Runs build/grpc-test-server; `address` is where it listens."""

    def __init__(self, folder, certificates=None, args=()):
        self.ca = certificates.ca_bytes() if certificates else None
        tls = ["--tls-cert", certificates.cert, "--tls-key", certificates.key] if certificates else []
        self.process = Process([program("grpc-test-server"), *tls, *args], os.path.join(folder, "grpc-test-server.log"), env=without_quarantine())
        line = self.process.wait_line(lambda l: l.startswith("port="))
        self.port = int(line.split("=")[1])
        self.address = f"127.0.0.1:{self.port}"

    def rss(self):
        """Resident memory in bytes."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self):
        status = self.process.stop()
        assert status == 0, "\n".join(self.process.lines[-60:])


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """One field, never indexed, without Huffman (RFC 7541, 6.2.3)."""
    def string(data):
        data = data.encode() if isinstance(data, str) else data
        if len(data) < 127:
            return bytes([len(data)]) + data
        out, rest = b"\x7f", len(data) - 127
        while rest >= 128:
            out += bytes([rest % 128 + 128])
            rest //= 128
        return out + bytes([rest]) + data
    return b"\x10" + string(name) + string(value)


def request_fields(path, method="POST", content_type="application/grpc", extra=()):
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "test"), ("te", "trailers")]
    if content_type:
        fields.append(("content-type", content_type))
    return b"".join(literal(n, v) for n, v in [*fields, *extra])


def message(payload, compressed=0):
    return struct.pack(">BI", compressed, len(payload)) + payload


class _Field(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("value", ctypes.c_void_p), ("name_len", ctypes.c_size_t),
                ("value_len", ctypes.c_size_t), ("flags", ctypes.c_uint8)]


class Inflater:
    """HPACK (RFC 7541) of one direction of a connection, by nghttp2's decoder."""
    LIB = ctypes.CDLL("libnghttp2.so.14")

    def __init__(self):
        self.state = ctypes.c_void_p()
        assert self.LIB.nghttp2_hd_inflate_new(ctypes.byref(self.state)) == 0
        self.LIB.nghttp2_hd_inflate_hd2.restype = ctypes.c_ssize_t

    def decode(self, block):
        """A list of (name, value)."""
        fields, data = [], ctypes.create_string_buffer(block, len(block))
        at = 0
        while True:
            nv, flags = _Field(), ctypes.c_int()
            used = self.LIB.nghttp2_hd_inflate_hd2(
                self.state, ctypes.byref(nv), ctypes.byref(flags), ctypes.byref(data, at),
                ctypes.c_size_t(len(block) - at), 1)
            assert used >= 0, used
            at += used
            if flags.value & 2:
                fields.append((ctypes.string_at(nv.name, nv.name_len).decode(),
                               ctypes.string_at(nv.value, nv.value_len).decode()))
            if flags.value & 1:
                self.LIB.nghttp2_hd_inflate_end_headers(self.state)
                return fields
            assert used or flags.value & 2


class Raw:
    """An HTTP/2 connection made of bare frames. What comes back is collected by stream."""

    def __init__(self, port, preface=True, timeout=20, ca=None):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=patient(timeout))
        if ca:
            context = ssl.create_default_context(cadata=ca.decode())
            context.set_alpn_protocols(["h2"])
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.buffer = b""
        self.next_id = 1
        self.inflater = Inflater()
        self.fields = []  # of the header block read last
        if preface:
            self.send(PREFACE + frame(SETTINGS))

    def send(self, data):
        self.sock.sendall(data)

    def open(self, fields, end=False):
        """Sends HEADERS, returns the stream's id."""
        stream, self.next_id = self.next_id, self.next_id + 2
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, fields))
        return stream

    def call(self, path, body=b"", **kwargs):
        stream = self.open(request_fields(path, **kwargs))
        self.send(frame(DATA, END_STREAM, stream, body))
        return stream

    def read(self):
        """The next frame as (kind, flags, stream, payload); None when the server has closed."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.buffer += data
        size = int.from_bytes(self.buffer[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
        payload, self.buffer = self.buffer[9:9 + size], self.buffer[9 + size:]
        if kind == HEADERS:
            self.fields = self.inflater.decode(payload)
        return kind, flags, stream, payload

    def until(self, match):
        """The first frame for which match(kind, flags, stream, payload) is true; None when the server closes first."""
        while True:
            got = self.read()
            if got is None or match(*got):
                return got

    def finish(self, stream):
        """Everything of one stream until its end: ({field: value}, DATA joined, RST code or None)."""
        headers, data = {}, bytearray()
        while True:
            got = self.read()
            assert got is not None, "the server has closed the connection"
            kind, flags, number, payload = got
            if number != stream:
                continue
            if kind == HEADERS:
                headers.update(self.fields)
            elif kind == DATA:
                data += payload
            elif kind == RST_STREAM:
                return headers, bytes(data), int.from_bytes(payload, "big")
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                return headers, bytes(data), None

    def goaway(self):
        """Waits for a GOAWAY that ends the connection: (code, debug); None when it closes without one."""
        got = self.until(lambda kind, *_: kind == GOAWAY)
        return (int.from_bytes(got[3][4:8], "big"), got[3][8:]) if got else None

    def closed(self):
        """Waits until the server has closed."""
        return self.until(lambda *_: False) is None

    def close(self):
        self.sock.close()
