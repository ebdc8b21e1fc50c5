"""The simulation (tests/sim): whole installations on virtual time, and that it notices what it is there to notice.

MUSTER_SIM names one without sanitizers, which is ten times as fast: it runs what the oracle alone judges, and the build under
test (MUSTER_BUILD) fewer seeds, others, beside it. Without it the build under test runs all."""
import os
import re
import subprocess

import pytest
from harness.daemons import program
from harness.patience import fewer, patient
from harness.stubs import ROOT

SIM = os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), "muster-sim")
QUICK = os.path.join(ROOT, os.environ["MUSTER_SIM"]) if os.environ.get("MUSTER_SIM") else SIM
watched_too = pytest.mark.skipif(QUICK == SIM, reason="the build under test has run all of it")
# Of tests/sim/mutation.h: what the models do wrong, and seeds of which one at least must fail by it.
MISTAKES = {1: 60, 3: 4000, 4: 200, 6: 60, 8: 400, 9: 20, 10: 20, 12: 40, 14: 200, 15: 100, 16: 400}


def run(*options, timeout=120, by=QUICK):
    return subprocess.run([by, *map(str, options)], capture_output=True, text=True, timeout=timeout, check=False)


def run_good(*options, timeout=300, by=QUICK):
    done = run(*options, "--jobs", 2, timeout=patient(timeout), by=by)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]
    return done.stdout


def watched():
    """What is run by what programs under test are run by (MUSTER_TEST_WRAPPER): valgrind sees here what it sees nowhere else."""
    return program("muster-sim")


def all_of_it():
    return watched() if QUICK == SIM else QUICK


@pytest.mark.timeout(300)
def test_two_thousand_seeds():
    """A seed that fails prints its schedule, and `muster-sim --seed N --trace` does so again."""
    seeds = fewer(2000)
    assert f"{seeds} seeds, 0 failed" in run_good("--seeds", f"1..{seeds}", by=all_of_it())


@watched_too
@pytest.mark.timeout(300)
def test_seeds_under_sanitizers():
    assert "300 seeds, 0 failed" in run_good("--seeds", "2001..2300", by=watched())


@pytest.mark.timeout(300)
def test_what_went_wrong_once():
    """The faults that found what was mended, one scenario each, at other moments and with other callers."""
    run_good("--scenario", "all", "--seeds", f"1..{fewer(60)}", by=all_of_it())


@watched_too
@pytest.mark.timeout(300)
def test_what_went_wrong_once_under_sanitizers():
    run_good("--scenario", "all", "--seeds", "101..110", by=watched())


def test_the_same_seed_is_the_same_world():
    """To whoever builds it: what differed would have come from memory that was never set."""
    for seed in (7, 480, 9001):
        first, second = run("--seed", seed, by=SIM), run("--seed", seed)
        assert re.search(r"hash [0-9a-f]{16}", first.stdout) and first.stdout == second.stdout


def test_a_queue_that_is_given_backwards_is_noticed():
    """Where more waits for a device than it is given at once."""
    done = run("--scenario", "long-queue", "--seeds", "1..10", "--mutation", 11)
    assert done.returncode == 1 and re.search(r"gets batch \d+ before \d+", done.stdout)


def test_a_command_that_breaks_connections_for_ever_is_noticed():
    done = run("--scenario", "breaks-its-connection", "--seeds", "1..10", "--mutation", 13)
    assert done.returncode == 1 and re.search(r"is sent \d+ that has broken its connection \d+ times", done.stdout)


def test_what_a_dead_worker_may_have_sent_is_not_forgotten_unnoticed():
    done = run("--scenario", "killed-in-the-act", "--seeds", "1..200", "--mutation", 2, "--jobs", 2)
    assert done.returncode == 1 and re.search(r"is (CANCELED|EXPIRED), and the device has got it", done.stdout)


def test_what_a_former_leader_writes_is_noticed():
    done = run("--scenario", "written-too-late", "--seeds", "1..200", "--mutation", 5, "--jobs", 2)
    assert done.returncode == 1 and re.search(r"seed \d+ fails: at ", done.stdout)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake):
    done = run("--seeds", f"1..{MISTAKES[mistake]}", "--mutation", mistake, "--jobs", 2)
    assert done.returncode == 1
    assert re.search(r"seed \d+ fails: at ", done.stdout) and "its schedule:" in done.stdout
