"""muster chaos: its schedule. The round itself is a ring of its own: tests/run.py --chaos."""
from harness.daemons import cli

KILLED = ("kill-dispatcher", "kill-worker", "kill-redis", "kill-postgres")


def test_the_same_seed_makes_the_same_schedule():
    first = cli("chaos", "--print-schedule", "--seed", 7, check=0).stdout
    assert first == cli("chaos", "--print-schedule", "--seed", 7, check=0).stdout
    assert first != cli("chaos", "--print-schedule", "--seed", 8, check=0).stdout
    for line in cli("chaos", "--list-faults", check=0).stdout.splitlines():
        kind = line.split()[0]
        assert first.count(f" {kind} ") == (10 if kind in KILLED else 3), kind


def test_a_fault_that_is_none_is_refused():
    assert "kill-nobody" in cli("chaos", "--fault", "kill-nobody", check=2).stderr
