#!/usr/bin/python3
"""Runs the rings of tests one after another, goes on after a failure, and ends with one line: "N passed, N failed".

Usage: run.py [--programs FILE...] [--pytest FILE_OR_FOLDER...] [--chaos MUSTER] [--fuzz FILE...] [--fuzz-wall N | --fuzz-seconds N] [--keep FOLDER]

Within a ring a few run side by side. Fuzz targets, one a core: all together within --fuzz-wall seconds, or each for --fuzz-seconds."""
import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree

PROGRAM_TIMEOUT_S = 300
PYTEST_TIMEOUT_S = 780 * float(os.environ.get("MUSTER_TEST_PATIENCE", "1"))
# A round of muster chaos: four minutes on two idle cores.
CHAOS_TIMEOUT_S, CHAOS_DEVICES, CHAOS_KILLS, CHAOS_OTHERS = 600, 1000, 10, 3
CHAOS_KILLED = ("kill-dispatcher", "kill-worker", "kill-redis", "kill-postgres")
# These tests wait more than they compute.
AT_ONCE = 2 * (os.cpu_count() or 1)


class Count:
    """Tests passed and failed, and the names of what failed; of threads."""

    def __init__(self):
        self.passed, self.failures, self.lock = 0, [], threading.Lock()

    def add(self, name, passed, failed, started, text=""):
        """`text` is shown when something failed."""
        with self.lock:
            self.passed += passed
            self.failures += failed
            print(f"{text if failed else ''}== {name}: {passed} passed, {len(failed)} failed, {time.monotonic() - started:.1f} s",
                  flush=True)


def run_program(path, count):
    """A cmocka program: counts what it says, and a crash or a hang as one failure more."""
    name, started = os.path.basename(path), time.monotonic()
    try:
        done = subprocess.run([path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PROGRAM_TIMEOUT_S, check=False)
        text, code = done.stdout.decode("utf-8", "replace"), done.returncode
    except subprocess.TimeoutExpired as timeout:
        text, code = (timeout.stdout or b"").decode("utf-8", "replace"), "timeout"
    passed = len(re.findall(r"^\[       OK \]", text, re.M))
    failed = [f"{name}: {test}" for test in re.findall(r"^\[  FAILED  \] (\w+)$", text, re.M)]
    failed = list(dict.fromkeys(failed))
    if code != 0 and not failed:
        failed = [f"{name}: ended with {code}"]
    count.add(name, passed, failed, started, text)


def run_programs(paths, count):
    """Side by side; the last ones first, which wait for servers of their own."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda path: run_program(path, count), reversed(paths)))


def run_pytest(paths, count):
    started = time.monotonic()
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        # A process of pytest's that dies is not replaced, but fails its test and ends the run: pytest-xdist 3.1 stands still instead.
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report.name}", "-n", str(AT_ONCE),
                   "--dist", "loadgroup", "--max-worker-restart=0", "--durations=10", *paths]
        try:
            code = subprocess.run(command, timeout=PYTEST_TIMEOUT_S, check=False).returncode
        except subprocess.TimeoutExpired:
            code = "timeout"
        passed, failed = 0, []
        try:
            for case in xml.etree.ElementTree.parse(report.name).iter("testcase"):
                if case.find("failure") is not None or case.find("error") is not None:
                    failed.append(f"{case.get('classname')}: {case.get('name')}")
                elif case.find("skipped") is None:
                    passed += 1
        except xml.etree.ElementTree.ParseError:
            pass
        # 5: there was nothing to run.
        if code not in (0, 5) and not failed:
            failed = [f"pytest: ended with {code}"]
        count.add(" ".join(paths), passed, failed, started)


def chaos_complaint(code, out):
    """What is wrong with a round's result, or None."""
    try:
        said = json.loads(out)
    except ValueError:
        return f"no result, status {code}"
    if code != 0 or not said["good"]:
        return json.dumps(said["broken"], indent=1)
    for kind, fault in said["faults"].items():
        if fault["injected"] + fault["skipped"] != (CHAOS_KILLS if kind in CHAOS_KILLED else CHAOS_OTHERS):
            return f"{kind}: {fault}"
    if said["commands"] < 5000 or said["states"]["SUCCEEDED"] < 0.7 * said["commands"] or not said["canceled_batches"]:
        return f"no load to speak of: {said['states']}"
    return None


def run_chaos(program, count):
    """A round of every fault; the same schedule each time."""
    started = time.monotonic()
    command = [program, "chaos", "--seed", "1", "--devices", str(CHAOS_DEVICES), "--kills", str(CHAOS_KILLS), "--others",
               str(CHAOS_OTHERS), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            out, told = run.communicate(timeout=CHAOS_TIMEOUT_S)
            wrong = chaos_complaint(run.returncode, out)
        except subprocess.TimeoutExpired:
            run.terminate()  # it takes its children down
            out, told = run.communicate()
            wrong = "timeout"
    if wrong:
        print(told[-20000:], wrong, sep="\n")
    for line in told.splitlines():
        if " skipped: " in line:
            print(line)
    count.add("chaos", 0 if wrong else 1, [f"chaos: {wrong.splitlines()[0]}"] if wrong else [], started)


def fuzz_command(path, seconds, found, kept):
    """A fuzz target that begins with its seed corpus, and what `kept` has of former runs; new inputs go to `kept`."""
    name = os.path.basename(path).removeprefix("fuzz_")
    corpus, words = os.path.join("tests/fuzz/corpus", name), os.path.join("tests/fuzz/dict", f"{name}.dict")
    return [path, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
            *([f"-dict={words}"] if os.path.exists(words) else []), f"-artifact_prefix={found}/", kept,
            *([corpus] if os.path.isdir(corpus) else [])]


def show_findings(text, found):
    print(text[-20000:])
    for artifact in os.listdir(found):
        if artifact.startswith(("crash-", "leak-", "timeout-", "oom-")):
            with open(os.path.join(found, artifact), "rb") as f:
                print(f"{artifact}: {f.read(4096).hex()}")


def run_fuzz(path, seconds, keep, count):
    """A fuzz target for a while. What it finds is shown, and stays in `keep` if that is given."""
    name, started = os.path.basename(path), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        found = os.path.join(keep, "found") if keep else temporary
        kept = os.path.join(keep or temporary, name)
        os.makedirs(found, exist_ok=True)
        os.makedirs(kept, exist_ok=True)
        done = subprocess.run(fuzz_command(path, seconds, found, kept), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              check=False)
        text = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0:
            show_findings(text, found)
        runs = re.search(r"number_of_executed_units: (\d+)", text)
        count.add(f"{name}, {int(runs.group(1)) if runs else 0:,} executions", 0 if done.returncode else 1,
                  [f"{name}: ended with {done.returncode}"] if done.returncode else [], started)
        return int(runs.group(1)) if runs else 0


def run_all_fuzz(options, count):
    at_once = os.cpu_count() or 1
    seconds = options.fuzz_seconds or max(1, options.fuzz_wall * at_once // len(options.fuzz))
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        runs = list(pool.map(lambda path: run_fuzz(path, seconds, options.keep, count), options.fuzz))
    print(f"== fuzz: {sum(runs):,} executions of {len(runs)} targets", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", nargs="*", default=[])
    parser.add_argument("--pytest", nargs="*", default=[])
    parser.add_argument("--chaos")
    parser.add_argument("--fuzz", nargs="*", default=[])
    parser.add_argument("--fuzz-wall", type=int, default=60)
    parser.add_argument("--fuzz-seconds", type=int)
    parser.add_argument("--keep")
    options = parser.parse_args()
    count = Count()
    run_programs(options.programs, count)
    if options.pytest:
        run_pytest(options.pytest, count)
    if options.chaos:
        run_chaos(options.chaos, count)
    if options.fuzz:
        run_all_fuzz(options, count)
    for failure in count.failures:
        print(f"FAILED {failure}")
    print(f"{count.passed} passed, {len(count.failures)} failed")
    return 1 if count.failures or count.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
