"""The message brokers Muster is measured beside, each in its documented fast setting, on a port of its own on loopback; and
what every such server has in common."""
import getpass
import os
import random
import re
import shutil
import socket
import subprocess
import time

from .installation import ROOT  # noqa: F401 - makes the tests' harness importable

from harness.process import Process  # noqa: E402

# Where Debian puts daemons; not in everybody's PATH.
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def have(broker):
    """Whether it is installed (make bench-deps)."""
    return shutil.which(broker.PROGRAM, path=PATH) is not None


def free_port():
    """One that nobody listens on now, below those that outgoing connections take theirs from (ip_local_port_range): a server
    may need seconds until it listens. These servers cannot choose one and say which."""
    while True:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.randrange(10000, 32000)))
            except OSError:
                continue
            return s.getsockname()[1]


class Broker:
    """`with Mosquitto(folder, certificates=None) as b:` b.address, b.pid. `certificates` None: plain."""

    PROGRAM = None

    def __init__(self, folder, certificates=None, **options):
        os.makedirs(folder, exist_ok=True)
        self.folder, self.certificates = folder, certificates
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.config = os.path.join(folder, "config")
        with open(self.config, "w", encoding="ascii") as f:
            f.writelines(line + "\n" for line in self.lines(**options))
        self.process = self.start(self.command(), os.path.join(folder, "log"))
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def command(self):
        return [shutil.which(self.PROGRAM, path=PATH), "-c", self.config]

    def start(self, command, log):
        return Process(command, log)

    def _wait(self, timeout=30):
        """Until it accepts connections: neither says so in a way to wait for."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if not self.process.alive() or time.monotonic() > deadline:
                    raise AssertionError(f"{self.PROGRAM} is not up:\n" + "\n".join(self.process.lines[-20:])) from None
                time.sleep(0.02)

    @property
    def pid(self):
        return self.process.pid

    @classmethod
    def version(cls):
        said = subprocess.run([shutil.which(cls.PROGRAM, path=PATH), cls.VERSION_FLAG], capture_output=True, text=True, check=False)
        return f"{cls.PROGRAM} {re.search(r'[0-9]+[.][0-9.]+', said.stdout + said.stderr)[0].rstrip('.')}"

    def stop(self):
        if self.process.alive():
            self.process.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Mosquitto(Broker):
    """Without a log, without $SYS, Nagle off, no bound on what is in flight or queued (mosquitto.conf(5)).

    `saved`: its persistence, a snapshot of sessions and messages every second, the shortest there is. A PUBLISH is
    confirmed before it is on disk all the same."""

    PROGRAM, VERSION_FLAG = "mosquitto", "-h"

    def lines(self, saved=False):
        out = [f"listener {self.port} 127.0.0.1", f"user {getpass.getuser()}", "allow_anonymous true",
               "set_tcp_nodelay true", "max_inflight_messages 0", "max_queued_messages 0", "log_type error",
               "connection_messages false", "sys_interval 0", f"persistence {'true' if saved else 'false'}"]
        if saved:
            out += [f"persistence_location {self.folder}/", "autosave_interval 1"]
        if self.certificates:
            out += [f"certfile {self.certificates.cert}", f"keyfile {self.certificates.key}"]
        return out


class Nats(Broker):
    """As it comes, but that it pings as seldom as the other systems' devices say that they are there, and waits longer than two
    seconds for a TLS handshake, which programs under valgrind need."""

    PROGRAM, VERSION_FLAG = "nats-server", "-v"

    def lines(self):
        out = [f'listen: "{self.address}"', 'ping_interval: "5m"']
        if self.certificates:
            out.append(f'tls {{ cert_file: "{self.certificates.cert}", key_file: "{self.certificates.key}", timeout: 30 }}')
        return out
