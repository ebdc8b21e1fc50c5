"""MQTT byte by byte, for what a stock client would never send."""
import socket
import struct

from .patience import patient

CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 11, 13, 14


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack(">H", len(s)) + s


def varint(n):
    out = b""
    while True:
        n, low = n >> 7, n & 127
        out += bytes([low | (128 if n else 0)])
        if not n:
            return out


def packet(first, body=b""):
    return bytes([first]) + varint(len(body)) + body


def connect(version, user, password, keepalive=60, properties=b"", flags=0xc2, client_id="c"):
    body = text("MQTT") + bytes([version, flags]) + struct.pack(">H", keepalive)
    if version == 5:
        body += varint(len(properties)) + properties
    return packet(0x10, body + text(client_id) + text(user) + text(password))


def subscribe(version, topic, qos=1, packet_id=1, properties=b""):
    head = struct.pack(">H", packet_id) + (varint(len(properties)) + properties if version == 5 else b"")
    return packet(0x82, head + text(topic) + bytes([qos]))


def unsubscribe(version, topic, packet_id=1):
    return packet(0xa2, struct.pack(">H", packet_id) + (b"\0" if version == 5 else b"") + text(topic))


def publish(version, topic, payload, packet_id=1, qos=1, properties=b""):
    head = text(topic) + (struct.pack(">H", packet_id) if qos else b"")
    return packet(0x30 | qos << 1, head + (varint(len(properties)) + properties if version == 5 else b"") + payload)


def puback(packet_id):
    return packet(0x40, struct.pack(">H", packet_id))


class RawClient:
    def __init__(self, address, timeout=20):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), patient(timeout))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left = b""

    def send(self, *packets):
        self.socket.sendall(b"".join(packets))
        return self

    def _more(self):
        got = self.socket.recv(65536)
        self.left += got
        return got

    def read(self):
        """(kind, first byte's flags, body) of the next packet; None at the end of the connection."""
        while True:
            length, shift, at = 0, 0, 1
            while at < len(self.left) and self.left[at] & 0x80:
                length |= (self.left[at] & 127) << shift
                shift, at = shift + 7, at + 1
            if at < len(self.left):
                length |= self.left[at] << shift
                at += 1
                if len(self.left) >= at + length:
                    first, body = self.left[0], self.left[at:at + length]
                    self.left = self.left[at + length:]
                    return first >> 4, first & 15, body
            if not self._more():
                assert not self.left, f"half a packet: {self.left!r}"
                return None

    def expect(self, kind):
        """The body of the next packet, which must be of this kind."""
        got = self.read()
        assert got and got[0] == kind, f"wanted {kind}, got {got}"
        return got[2]

    def expect_end(self):
        try:
            assert self.read() is None
        except ConnectionResetError:
            pass

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
