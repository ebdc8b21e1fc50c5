"""make bench-scale with a handful of devices: it measures all it reports, and keeps what other modes have measured."""
import json
import os
import subprocess
import sys

import pytest
from harness.patience import patient
from harness.stack import have
from harness.stubs import ROOT

pytestmark = pytest.mark.skipif(not have("muster-fleet", "muster-worker", "muster-dispatcher"), reason="not built")

SCALE = [sys.executable, os.path.join(ROOT, "bench", "scale.py")]


def test_a_small_fleet_is_measured(tmp_path):
    path = tmp_path / "scale.json"
    path.write_text('{"lean": {"all_s": 4.5}}')
    done = subprocess.run([*SCALE, "--devices", "64", "--rounds", "1", "--idle", "0.2", "--output", str(path)],
                          capture_output=True, text=True, timeout=patient(100), check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())
    assert results["lean"] == {"all_s": 4.5}
    measured = results["openssl"]
    assert measured["devices"] == 64 and measured["workers"] == 2 and measured["fault_count"] == 0
    for key in ("connect_s", "connect_worker_us", "worker_rss_bytes", "fleet_pss_bytes", "idle_worker_us_s", "first_s", "all_s",
                "worker_us_per_cmd", "push_ack_p99_ms"):
        assert measured[key] > 0, key
    assert "submit → last durable outcome" in done.stdout


def test_what_does_not_fit_is_refused_with_the_reason():
    done = subprocess.run([*SCALE, "--devices", "100000000"], capture_output=True, text=True, timeout=patient(60), check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("bench-scale: 100,000,000 devices (openssl) need about 4,")
