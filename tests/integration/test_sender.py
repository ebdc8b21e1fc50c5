"""muster-sender and the fleet's other tongues, over the brokers that Muster is measured beside: every command arrives once
and every answer is counted. Skipped where `make bench-deps` has not installed them."""
import json
import os
import subprocess
import sys

import pytest
from harness.daemons import Fleet, program
from harness.patience import patient
from harness.stubs import ROOT

sys.path.insert(0, os.path.join(ROOT, "bench"))

from measure import brokers  # noqa: E402

DEVICES, ROUNDS = 40, 3

SYSTEMS = {
    "mosquitto QoS 1 TLS": (brokers.Mosquitto, True, "mqtt", []),
    "mosquitto QoS 1 TLS lean fleet": (brokers.Mosquitto, True, "mqtt", ["--tls-records", "lean"]),
    "mosquitto QoS 1 saved": (brokers.Mosquitto, False, "mqtt", ["--keep-session"]),
    "mosquitto QoS 0": (brokers.Mosquitto, False, "mqtt-qos0", ["--qos", "0"]),
    "NATS TLS": (brokers.Nats, True, "nats", ["--nats"]),
    "NATS TLS lean fleet": (brokers.Nats, True, "nats", ["--nats", "--tls-records", "lean"]),
    "NATS": (brokers.Nats, False, "nats", ["--nats"]),
}


def start(kind, tmp_path, certificates=None, **options):
    if not brokers.have(kind):
        pytest.skip(f"{kind.PROGRAM} is not installed: make bench-deps")
    return kind(os.path.join(tmp_path, "broker"), certificates, **options)


def start_fleet(tmp_path, broker, *flags):
    return Fleet(["--connect", broker.address, "--devices", DEVICES, "--quiet", *flags], tmp_path / "record",
                 tmp_path / "fleet.log").wait_ready()


def send(broker, *flags):
    return subprocess.run([program("muster-sender"), "--connect", broker.address, "--devices", str(DEVICES), "--rounds", str(ROUNDS),
                           *flags], capture_output=True, text=True, timeout=patient(60), check=False)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_device_answers(name, tmp_path, certificates):
    kind, tls, protocol, fleet_flags = SYSTEMS[name]
    security = ["--ca", certificates.ca] if tls else ["--no-tls"]
    options = {"saved": True} if "saved" in name else {}
    with start(kind, tmp_path, certificates if tls else None, **options) as broker:
        fleet = start_fleet(tmp_path, broker, *security, *fleet_flags)
        done = send(broker, *security, "--protocol", protocol, "--window", "16")
        assert done.returncode == 0, done.stderr
        record = fleet.dump()
        last = fleet.quit()
    rounds = [json.loads(line) for line in done.stdout.splitlines()][1:]
    assert [r["round"] for r in rounds] == list(range(1, ROUNDS + 1))
    assert all(r["commands"] == DEVICES and 0 < r["p50_ms"] <= r["p99_ms"] for r in rounds)
    assert len(record) == DEVICES * ROUNDS
    assert len({command for _, command in record}) == DEVICES * ROUNDS
    # The broker lives throughout: nothing is sent twice.
    assert {entry[:3] for entry in record.values()} == {(1, 1, "SUCCEEDED")}
    assert last["answered"] == DEVICES * ROUNDS and last["lost"] == last["bad"] == last["failures"] == 0


def test_silence_and_failure_are_not_answers(tmp_path):
    with start(brokers.Mosquitto, tmp_path) as broker:
        silent = start_fleet(tmp_path, broker, "--no-tls", "--silent", "1")
        done = send(broker, "--no-tls", "--timeout", "200ms")
        assert (done.returncode, f"0 of {DEVICES} devices answered" in done.stderr) == (1, True), done.stderr
        silent.quit()
        failing = start_fleet(tmp_path, broker, "--no-tls", "--failed", "1")
        done = send(broker, "--no-tls")
        assert (done.returncode, f"0 of {DEVICES} devices answered" in done.stderr) == (1, True), done.stderr
        failing.quit()


def test_wrong_flags_are_named(tmp_path):
    for flags, word in ((["--protocol", "amqp"], "--protocol amqp"), (["--connect", "nowhere"], "--connect nowhere"),
                        (["--connect", "127.0.0.1:1", "--ca", "/nowhere.pem"], "--ca /nowhere.pem"),
                        (["--connect", "127.0.0.1:1", "--credentials", "/nowhere"], "--credentials /nowhere")):
        done = subprocess.run([program("muster-sender"), *flags], capture_output=True, text=True, timeout=patient(30), check=False)
        assert done.returncode != 0 and f"muster-sender: {word}" in done.stderr, done.stderr
