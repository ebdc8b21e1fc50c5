"""Peers that finish their TLS handshake and then take for ever over their first words, as a process of its own:
`slow_peers.py HOST:PORT COUNT MANNER NETWORK RATE` connects COUNT, RATE a second, and as fast makes those anew that are closed;
each says a byte a second. Prints "held" when each was connected once, and ends with its input.

Manners: connect (MQTT: a CONNECT), headers (HTTP/2: a header block), data (HTTP/2: a call whose message never ends), deaf (HTTP/2:
calls whose answers it gives no window)."""
import errno
import heapq
import resource
import select
import socket
import ssl
import struct
import sys
import time

from harness import raw_mqtt
from harness.grpc_server import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, message, request_fields

PER_SOURCE = 10000
NO_WINDOW = frame(SETTINGS, payload=struct.pack(">HI", 4, 0))
CHECK = request_fields("/grpc.health.v1.Health/Check")


def _calls(count):
    return b"".join(frame(HEADERS, END_HEADERS, n * 2 + 1, CHECK) + frame(DATA, END_STREAM, n * 2 + 1, message(b""))
                    for n in range(count))


# What is said at once, and what byte by byte from then on.
WORDS = {
    "connect": (b"", raw_mqtt.connect(4, "x" * 40, "y" * 200)),
    "headers": (PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, CHECK)[:9], CHECK),
    "data": (PREFACE + NO_WINDOW + frame(HEADERS, END_HEADERS, 1, CHECK) + frame(DATA, 0, 1, message(bytes(8000)))[:9],
             message(bytes(8000))),
    "deaf": (PREFACE + NO_WINDOW + _calls(50), b""),
}


class SlowPeers:
    def __init__(self, address, count, manner, network, rate):
        host, port = address.rsplit(":", 1)
        self.target, self.count, self.network, self.rate = (host, int(port)), count, network, rate
        self.words, self.drip = WORDS[manner]
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        if manner != "connect":
            self.context.set_alpn_protocols(["h2"])
        self.poll, self.peers, self.due = select.epoll(), {}, []
        self.made = self.held = self.closed = 0
        self.next = time.monotonic()

    def _begin(self):
        s = socket.socket()
        s.setblocking(False)
        s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        s.bind((f"127.{self.network}.{self.made // PER_SOURCE}.1", 0))
        self.made += 1
        if s.connect_ex(self.target) not in (0, errno.EINPROGRESS):
            raise OSError("can't connect")
        s = self.context.wrap_socket(s, do_handshake_on_connect=False)
        self.peers[s.fileno()] = s
        self.poll.register(s, select.EPOLLOUT)

    def _end(self, fd):
        self.poll.unregister(fd)
        self.peers.pop(fd).close()
        self.closed += 1

    def _go_on(self, fd):
        """With the handshake; then says its first words."""
        s = self.peers[fd]
        try:
            s.do_handshake()
        except ssl.SSLWantReadError:
            self.poll.modify(fd, select.EPOLLIN)
            return
        if self.words:
            s.send(self.words)
        self.held += 1
        self.poll.modify(fd, select.EPOLLRDHUP)
        heapq.heappush(self.due, (time.monotonic() + 1, fd, s, 0))

    def _say(self, now):
        while self.due and self.due[0][0] <= now:
            at, fd, s, n = heapq.heappop(self.due)
            if self.peers.get(fd) is not s or n == len(self.drip):
                continue
            try:
                s.send(self.drip[n:n + 1])
                heapq.heappush(self.due, (at + 1, fd, s, n + 1))
            except OSError:
                self._end(fd)

    def step(self, timeout):
        now = time.monotonic()
        while len(self.peers) < self.count and self.next <= now:
            self._begin()
            self.next = max(self.next, now - 0.1) + 1 / self.rate
        for fd, events in self.poll.poll(timeout, 256):
            try:
                if events & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
                    self._end(fd)
                else:
                    self._go_on(fd)
            except OSError:
                self._end(fd)
        self._say(time.monotonic())


def main(address, count, manner, network, rate):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    peers, told = SlowPeers(address, int(count), manner, int(network), float(rate)), False
    while sys.stdin not in select.select([sys.stdin], [], [], 0)[0]:
        peers.step(0.01)
        if not told and peers.held >= peers.count:
            told = True
            print("held", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
