"""The worker's lean TLS records against TLS stacks we did not write: OpenSSL, GnuTLS, NSS; and the fleet's against
OpenSSL. A client program is a pipe: what it is given on standard input goes out in records, what comes is on its output."""
import os
import ssl
import subprocess

import pytest
from harness import raw_mqtt
from harness.daemons import program
from harness.stack import Stack, have
from harness.until import until

pytestmark = pytest.mark.skipif(not have("muster-worker", "muster-dispatcher", "muster-fleet"), reason="not built")

TOPIC_COMMANDS, TOPIC_ACKS = "devices/{}/commands", "devices/{}/acks"


@pytest.fixture(scope="module")
def lean(tmp_path_factory, postgres, module_redis, certificates, stubs):
    s = Stack(tmp_path_factory.mktemp("lean"), postgres, module_redis, certificates, stubs,
              worker_flags=["--tls-records", "lean"])
    s.start()
    yield s
    s.stop()


@pytest.fixture
def fleet_of_one(lean):
    """(client of a new tenant, device id, token)"""
    client = lean.client(lean.make_tenant())
    (device, token), = lean.make_devices(client, 1).items()
    return client, device, token


class Pipe(raw_mqtt.RawClient):
    """MQTT through a TLS client program."""

    def __init__(self, *command, log):  # pylint: disable=super-init-not-called
        with open(log, "wb") as err:
            self.program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err)
        self.left = b""

    def send(self, *packets):
        self.program.stdin.write(b"".join(packets))
        self.program.stdin.flush()
        return self

    def _more(self):
        got = os.read(self.program.stdout.fileno(), 65536)
        self.left += got
        return got

    def close(self):
        self.program.kill()
        self.program.wait()
        self.program.stdin.close()
        self.program.stdout.close()


class Tunnel(raw_mqtt.RawClient):
    """MQTT in records of Python's OpenSSL that are ours to cut, join and break on their way."""

    def __init__(self, address, trust, session=None):
        super().__init__(address)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = trust.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost", session=session)
        while not self._try(self.tls.do_handshake)[0]:
            self._receive()
        self.socket.sendall(self.outgoing.read())

    @staticmethod
    def _try(call, *args):
        try:
            return True, call(*args)
        except ssl.SSLWantReadError:
            return False, b""

    def _receive(self):
        self.socket.sendall(self.outgoing.read())
        got = self.socket.recv(65536)
        self.incoming.write(got) if got else self.incoming.write_eof()
        return got

    def record(self, data):
        """What `data` is sealed to."""
        self.tls.write(data)
        return self.outgoing.read()

    def send(self, *packets):
        self.socket.sendall(self.record(b"".join(packets)))
        return self

    def _more(self):
        while True:
            done, got = self._try(self.tls.read, 65536)
            if done:
                self.left += got
                return got
            if not self._receive():
                return b""


def log_in(mqtt, device, token):
    mqtt.send(raw_mqtt.connect(4, device, token))
    assert mqtt.expect(raw_mqtt.CONNACK) == b"\0\0"
    mqtt.send(raw_mqtt.subscribe(4, TOPIC_COMMANDS.format(device)))
    assert mqtt.expect(raw_mqtt.SUBACK)[-1] == 1


def ping(mqtt):
    mqtt.send(raw_mqtt.packet(0xc0))
    mqtt.expect(raw_mqtt.PINGRESP)


def obey(mqtt, stack, client, device):
    """One command, delivered and acknowledged."""
    batch = stack.submit(client).batch
    body = mqtt.expect(raw_mqtt.PUBLISH)
    at = 2 + int.from_bytes(body[:2], "big")
    delivery = stack.pb.Delivery.FromString(body[at + 2:])
    ack = stack.pb.Acknowledgement(command_id=delivery.command_id, outcome=1)
    mqtt.send(raw_mqtt.puback(int.from_bytes(body[at:at + 2], "big")),
              raw_mqtt.publish(4, TOPIC_ACKS.format(device), ack.SerializeToString(), 7))
    mqtt.expect(raw_mqtt.PUBACK)
    assert stack.watch(client, batch.id).progress.succeeded == 1


def s_client(stack, tmp_path, *flags):
    return Pipe("openssl", "s_client", "-connect", stack.workers[0].address, "-CAfile", stack.certificates.ca,
                "-verify_return_error", "-brief", *flags, log=tmp_path / "openssl.log")


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_256_GCM_SHA384"])
def test_openssl(lean, fleet_of_one, tmp_path, suite):
    client, device, token = fleet_of_one
    with s_client(lean, tmp_path, "-ciphersuites", suite) as mqtt:
        log_in(mqtt, device, token)
        obey(mqtt, lean, client, device)
        ping(mqtt)
    assert suite in (tmp_path / "openssl.log").read_text()


def test_key_updates_of_openssl(lean, fleet_of_one, tmp_path):
    """"k" changes its own key, "K" asks for ours too; the answer comes with the next words."""
    client, device, token = fleet_of_one
    messages = tmp_path / "messages"

    def updates(arrow):
        return sum(line.startswith(arrow) and "KeyUpdate" in line for line in messages.read_text().splitlines())

    with s_client(lean, tmp_path, "-msg", "-msgfile", messages) as mqtt:
        log_in(mqtt, device, token)
        for n, letter in enumerate([b"k\n", b"K\n", b"K\n", b"k\n"], 1):
            mqtt.send(letter)
            until(lambda n=n: updates(">>>") == n, what=f"key update {n}")
            ping(mqtt)
        assert updates("<<<") == 2
        obey(mqtt, lean, client, device)


def test_gnutls(lean, fleet_of_one, tmp_path):
    """With new keys of its own, and asking for ours. What it says goes to a terminal, since to a file it would come late."""
    client, device, token = fleet_of_one
    host, port = lean.workers[0].address.rsplit(":", 1)
    said, terminal = os.openpty()
    with Pipe("gnutls-cli", "--x509cafile", lean.certificates.ca, "--logfile", os.ttyname(terminal), "--inline-commands",
              "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3", "--port", port, host, log=tmp_path / "gnutls.log") as mqtt:
        log_in(mqtt, device, token)
        for which in b"^rekey^\n", b"^rekey1^\n", b"^rekey1^\n":
            mqtt.send(raw_mqtt.unsubscribe(4, "no such topic\n"))  # its commands begin a line
            mqtt.expect(raw_mqtt.UNSUBACK)
            mqtt.send(which)
            text = b""
            while b"Rekey was completed" not in text:
                text += os.read(said, 4096)
            ping(mqtt)
        obey(mqtt, lean, client, device)
    os.close(terminal)
    os.close(said)


def test_nss(lean, fleet_of_one, tmp_path):
    client, device, token = fleet_of_one
    host, port = lean.workers[0].address.rsplit(":", 1)
    subprocess.run(["certutil", "-N", "-d", tmp_path, "--empty-password"], check=True)
    subprocess.run(["certutil", "-A", "-d", tmp_path, "-n", "authority", "-t", "C,,", "-i", lean.certificates.ca], check=True)
    with Pipe("tstclnt", "-h", host, "-a", "localhost", "-p", port, "-d", tmp_path, "-V", "tls1.3:tls1.3", "-u",
              log=tmp_path / "nss.log") as mqtt:
        log_in(mqtt, device, token)
        obey(mqtt, lean, client, device)
        ping(mqtt)


def tunnel(stack):
    return Tunnel(stack.workers[0].address, ssl.create_default_context(cafile=stack.certificates.ca))


def test_tls_1_2_stays_with_openssl(lean, fleet_of_one):
    client, device, token = fleet_of_one
    old = ssl.create_default_context(cafile=lean.certificates.ca)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Tunnel(lean.workers[0].address, old) as mqtt:
        assert mqtt.tls.version() == "TLSv1.2"
        log_in(mqtt, device, token)
        obey(mqtt, lean, client, device)


def test_records_cut_and_joined(lean, fleet_of_one):
    client, device, token = fleet_of_one
    with tunnel(lean) as mqtt:
        for byte in mqtt.record(raw_mqtt.connect(4, device, token)):
            mqtt.socket.sendall(bytes([byte]))
        mqtt.expect(raw_mqtt.CONNACK)
        joined = b"".join(mqtt.record(bytes([b])) for b in raw_mqtt.subscribe(4, TOPIC_COMMANDS.format(device)))
        half = mqtt.record(raw_mqtt.packet(0xc0))
        mqtt.socket.sendall(joined + half[:9])
        mqtt.expect(raw_mqtt.SUBACK)
        mqtt.socket.sendall(half[9:])
        mqtt.expect(raw_mqtt.PINGRESP)
        obey(mqtt, lean, client, device)


def test_the_ticket_before_the_takeover_resumes(lean, fleet_of_one):
    client, device, token = fleet_of_one
    trust = ssl.create_default_context(cafile=lean.certificates.ca)
    with Tunnel(lean.workers[0].address, trust) as mqtt:
        log_in(mqtt, device, token)
        session = mqtt.tls.session
        assert session.has_ticket and not mqtt.tls.session_reused
    with Tunnel(lean.workers[0].address, trust, session) as mqtt:
        assert mqtt.tls.session_reused
        log_in(mqtt, device, token)
        obey(mqtt, lean, client, device)


def test_close_notify_is_answered(lean, fleet_of_one):
    _, device, token = fleet_of_one
    with tunnel(lean) as mqtt:
        log_in(mqtt, device, token)
        while not mqtt._try(mqtt.tls.unwrap)[0]:
            assert mqtt._receive(), "the end came without close_notify"


def test_a_broken_record_is_told(lean, fleet_of_one):
    _, device, token = fleet_of_one
    with tunnel(lean) as mqtt:
        log_in(mqtt, device, token)
        record = bytearray(mqtt.record(raw_mqtt.packet(0xc0)))
        record[-1] ^= 1
        mqtt.socket.sendall(record)
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            mqtt.read()


def test_change_cipher_spec_after_the_handshake_is_refused(lean, fleet_of_one):
    _, device, token = fleet_of_one
    with tunnel(lean) as mqtt:
        log_in(mqtt, device, token)
        mqtt.socket.sendall(bytes([20, 3, 3, 0, 1, 1]))
        with pytest.raises(ssl.SSLError, match="UNEXPECTED_MESSAGE"):
            mqtt.read()


@pytest.mark.parametrize("records", ["lean", "openssl"])
def test_the_lean_fleet_comes_back_and_resumes(lean, records):
    """Its tickets come from OpenSSL's handshake, and are waited for before the takeover."""
    client = lean.client(lean.make_tenant())
    tokens = lean.make_devices(client, 50)
    worker = lean.workers[0] if records == "lean" else lean.start_worker("--tls-records", "openssl")
    fleet = lean.start_fleet(tokens, "--tls-records", "lean", "--resume", "--churn", "100", "--backoff", "10ms",
                             workers=[worker])
    for _ in range(3):
        batch = lean.submit(client).batch
        assert lean.watch(client, batch.id).progress.succeeded == 50
    until(lambda: fleet.stats()["reconnects"] >= 50, what="reconnects")
    stats = fleet.stats()
    assert stats["bad"] == 0 and stats["failures"] == 0
    fleet.quit()


def test_flag(lean):
    bad = subprocess.run([program("muster-worker"), "--tls-records", "fat"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert bad.stderr == "muster-worker: --tls-records fat: must be openssl or lean\n"
