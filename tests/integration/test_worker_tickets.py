"""TLS sessions resumed at other workers, and the keys that make it possible."""
import os
import socket
import ssl

import pytest
from harness.stack import have

pytestmark = pytest.mark.skipif(not have("muster-worker"), reason="muster-worker is not built")

HOUR = 3600 * 1000


@pytest.fixture
def installed(stack):
    stack.start_dispatcher()
    return stack


def start_worker(stack):
    worker = stack.start_worker()
    worker.wait_event("ticket_keys")
    return worker


class Client:
    """Stock OpenSSL, one session from connection to connection."""

    def __init__(self, ca, version):
        self.context = ssl.create_default_context(cafile=ca)
        self.context.minimum_version = self.context.maximum_version = version
        self.session = None

    def resumes_at(self, worker):
        host, port = worker.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            with self.context.wrap_socket(plain, server_hostname=host, session=self.session) as s:
                # No MQTT: the worker closes; what it said before, the tickets, has been read by then.
                s.sendall(b"\xff\xff")
                try:
                    while s.recv(4096):
                        pass
                except OSError:
                    pass
                self.session = s.session
                return s.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_device_resumes_at_another_worker_and_after_a_restart(installed, version):
    first, second = start_worker(installed), start_worker(installed)
    client = Client(installed.certificates.ca, version)
    assert not client.resumes_at(first)
    assert client.resumes_at(second)
    assert client.resumes_at(first)
    assert first.stop() == 0
    again = installed.restart(first)
    again.wait_event("ticket_keys")
    assert client.resumes_at(again)


def keys(stack, fresh, rotate_ms=HOUR, keep_ms=4 * HOUR):
    return [(bytes(secret), age) for secret, age in
            stack.sql("SELECT secret, age_ms FROM tls_ticket_keys(%s, %s, %s)", fresh, rotate_ms, keep_ms)]


def grow_older(stack, ms):
    stack.sql("UPDATE tls_ticket_key SET created_ms = created_ms - %s RETURNING 1", ms)


def secrets(rows):
    return [secret for secret, _ in rows]


def test_a_new_key_each_hour_and_old_ones_go(installed):
    a, b, c = os.urandom(80), os.urandom(80), os.urandom(80)
    assert secrets(keys(installed, a)) == [a]
    assert secrets(keys(installed, b)) == [a]  # there is one young enough
    grow_older(installed, HOUR + 1)
    rows = keys(installed, b)
    assert secrets(rows) == [b, a]
    assert rows[0][1] < 60000 < HOUR < rows[1][1]
    grow_older(installed, 3 * HOUR)
    assert secrets(keys(installed, c)) == [c, b]  # `a` is past its time
    (left,), = installed.sql("SELECT count(*) FROM tls_ticket_key")
    assert left == 2


def test_the_newest_key_encrypts_once_all_workers_have_it(installed):
    start_worker(installed)
    grow_older(installed, 2 * HOUR)
    worker = start_worker(installed)  # adds a second one, which others don't have yet
    assert worker.wait_event("ticket_keys")["encrypting"] == "1"
    grow_older(installed, 5 * 60 * 1000)
    assert start_worker(installed).wait_event("ticket_keys")["encrypting"] == "0"
