"""Peers that hold connections open and never become anybody: as a class for tests, and as a process of its own for many
(`strangers.py HOST:PORT COUNT MANNER NETWORK AGAIN COMING`, which connects COMING a second (0: as fast as it can), prints "held" when
each was connected once, makes those that are closed anew, AGAIN a second, and ends with its input).

Manners: silent (says nothing), half (half a ClientHello), hello (a whole one, and never the client's next flight)."""
import errno
import resource
import select
import socket
import ssl
import sys
import time

MANNERS = ("silent", "half", "hello")
PER_SOURCE = 10000


def client_hello(alpn=None):
    """What a TLS client says first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols([alpn])
    came, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(came, said).do_handshake()
    except ssl.SSLWantReadError:
        return said.read()
    raise AssertionError("a handshake with nobody was finished")


class Strangers:
    """Connects `count` times from 127.`network`.0.1 and on, `coming` a second; with `again` makes those that were closed anew, so
    many a second."""

    def __init__(self, address, count, manner, network=2, again=0.0, coming=0.0):
        host, port = address.rsplit(":", 1)
        self.target, self.count, self.again, self.coming = (host, int(port)), count, again, coming
        self.due, self.began = 0.0, time.monotonic()
        hello = client_hello()
        self.words = {"silent": b"", "half": hello[:len(hello) // 2], "hello": hello}[manner]
        self.network, self.made = network, 0
        self.poll, self.sockets = select.epoll(), {}
        self.held = self.closed = 0

    def _begin(self):
        s = socket.socket()
        s.setblocking(False)
        s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        source = self.made // PER_SOURCE
        s.bind((f"127.{self.network}.{source // 250}.{source % 250 + 1}", 0))
        self.made += 1
        if s.connect_ex(self.target) not in (0, errno.EINPROGRESS):
            raise OSError("can't connect")
        self.sockets[s.fileno()] = s
        self.poll.register(s, select.EPOLLOUT | select.EPOLLIN | select.EPOLLRDHUP)

    def _end(self, fd):
        self.poll.unregister(fd)
        self.sockets.pop(fd).close()
        self.closed += 1

    def step(self, timeout=0.05):
        """Goes on with what can go on."""
        now = time.monotonic()
        most = min(self.count, int((now - self.began) * self.coming)) if self.coming else self.count
        while self.made < most and len(self.sockets) - self.held < 256:
            self._begin()
        while self.again and self.made >= self.count > len(self.sockets) and self.due <= now:
            self._begin()
            self.due = max(self.due, now - 0.1) + 1 / self.again
        for fd, events in self.poll.poll(timeout, 256):
            if events & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
                self._end(fd)
                continue
            try:
                if events & select.EPOLLOUT:
                    self.sockets[fd].send(self.words)
                    self.held += 1
                    self.poll.modify(fd, select.EPOLLIN | select.EPOLLRDHUP)
                elif not self.sockets[fd].recv(65536):
                    self._end(fd)
            except OSError:
                self._end(fd)

    def connect(self):
        """Until each has said its word, or was closed before it could."""
        while self.held + self.closed < self.count:
            self.step(0.01)
        return self

    def close(self):
        for fd in list(self.sockets):
            self._end(fd)
        self.poll.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def main(address, count, manner, network, again, coming):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Strangers(address, int(count), manner, int(network), float(again), float(coming)) as s:
        s.connect()
        print("held", flush=True)
        while sys.stdin not in select.select([sys.stdin], [], [], 0)[0]:
            s.step(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
