"""A round of muster chaos: ten of each kill, three of every other fault, and every promise kept."""
import json
import subprocess

from harness.daemons import cli, program

ROUND_S = 420  # four minutes on two idle cores
KILLS, OTHERS = 10, 3
KILLED = ("kill-dispatcher", "kill-worker", "kill-redis", "kill-postgres")


def test_the_same_seed_makes_the_same_schedule():
    first = cli("chaos", "--print-schedule", "--seed", 7, check=0).stdout
    assert first == cli("chaos", "--print-schedule", "--seed", 7, check=0).stdout
    assert first != cli("chaos", "--print-schedule", "--seed", 8, check=0).stdout
    kinds = [line.split()[0] for line in cli("chaos", "--list-faults", check=0).stdout.splitlines()]
    for kind in kinds:
        assert first.count(f" {kind} ") == (KILLS if kind in KILLED else OTHERS)


def test_a_round_of_everything():
    with subprocess.Popen([program("muster"), "chaos", "--seed", "1", "--devices", "1000", "--kills", str(KILLS),
                           "--others", str(OTHERS), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            out, told = run.communicate(timeout=ROUND_S)
        except subprocess.TimeoutExpired:
            run.terminate()  # it takes its children down
            out, told = run.communicate()
            raise AssertionError(f"not done within {ROUND_S} s:\n{told[-6000:]}") from None
    print(told)
    assert out, told[-6000:]
    said = json.loads(out)
    assert said["good"] and run.returncode == 0, f"{json.dumps(said['broken'], indent=1)}\n{told[-6000:]}"
    for kind, fault in said["faults"].items():
        assert fault["injected"] + fault["skipped"] == (KILLS if kind in KILLED else OTHERS), kind
        if fault["skipped"]:
            assert kind in ("fill-wal", "fill-aof", "step-clock") and f"{kind}" in told
    assert said["commands"] > 5000 and said["states"]["SUCCEEDED"] > 0.8 * said["commands"]
    assert said["canceled_batches"] > 0 and said["repeated"] > 0
