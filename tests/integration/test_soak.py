"""The soak in short: a high rate of everything for a minute. What leaks in each command, batch or connection shows; hours are for
`make soak`. And the slope by which it judges."""
import os
import random
import sys

import pytest
from harness.patience import not_under_valgrind
from harness.reports import memory_factor, without_quarantine
from harness.stack import have
from harness.stubs import ROOT

sys.path.insert(0, os.path.join(ROOT, "bench"))

from measure import slope, soak, soak_load  # noqa: E402
from measure.installation import Installation  # noqa: E402

SECONDS, BATCHES_S, CHURN = 50, 40, 40
# In so short a time heaps still find their size: half of the smallest allocation, leaked in each of the commands, shows.
LEAST_BYTES = 3 * 1024 * 1024


def test_the_slope_is_that_of_most_samples():
    rng = random.Random(1)
    noise = [(x, 5.0 * x + rng.gauss(0, 3)) for x in range(2000)]
    spikes = [(x, y + (5000 if x % 10 == 3 else 0)) for x, y in noise]
    for points in (noise, spikes):
        each, low, high = slope.slope(points)
        assert low <= each <= high and 4.9 < low and high < 5.1
    assert abs(slope.slope([(x, rng.gauss(0, 1)) for x in range(500)])[0]) < 1e-3
    with pytest.raises(ValueError):
        slope.slope(noise[:5])


@pytest.mark.parametrize("key, first, last, low, flat", [
    ("worker-0", 0, 100 << 20, 1e5, False), ("worker-0", 0, 100 << 20, 10, True), ("worker-0", 0, 1000, 1e5, True),
    ("redis_descriptors", 10, 400, 3, False), ("redis_descriptors", 10, 12, 3, True)])
def test_the_verdict(key, first, last, low, flat):
    figure = {"first": first, "last": last, "low": low, "bound": soak.bound(key)}
    assert soak.flat(key, figure) is flat


@not_under_valgrind("memory is the program's and valgrind's together; what leaks is said when a program ends")
@pytest.mark.skipif(not have("muster-dispatcher", "muster-worker", "muster-fleet"), reason="not all is built")
def test_memory_stays_flat(monkeypatch):
    monkeypatch.setattr(soak, "SAMPLE_S", 0.5)
    monkeypatch.setattr(soak, "LEAST_BYTES", LEAST_BYTES * memory_factor())
    monkeypatch.setenv("ASAN_OPTIONS", without_quarantine()["ASAN_OPTIONS"])
    monkeypatch.setattr(soak_load, "TENANTS", (1000, 300, 100))
    monkeypatch.setattr(soak_load, "WEIGHTS", (30, 20, 15, 10, 25))
    monkeypatch.setattr(soak_load, "EXPIRY_S", (2, 6))
    with Installation(2) as i:
        i.stack.start_dispatcher()
        load = soak_load.Load(i.stack, BATCHES_S).start(CHURN)
        watched = soak.Soak(i, load)
        watched.run(SECONDS, lambda said: None)
        load.stop()
        results = watched.results(SECONDS)
        assert results["failed_calls"] == 0, results["errors"]
        assert results["commands"] > 5000
        assert results["flat"], soak.table(results)
        i.wait_batches("closed_ms", [b for b, in i.query("SELECT id FROM batch")], timeout=60)
