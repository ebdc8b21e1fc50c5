#!/usr/bin/python3
"""Runs the rings of tests one after another, goes on after a failure, and ends with one line: "N passed, N failed".

Usage: run.py [--programs FILE...] [--pytest FOLDER] [--fuzz FILE...] [--fuzz-seconds N]"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

PROGRAM_TIMEOUT_S = 300
PYTEST_TIMEOUT_S = 780


class Count:
    """Tests passed and failed, and the names of what failed."""

    def __init__(self):
        self.passed, self.failures = 0, []

    def add(self, name, passed, failed, started):
        self.passed += passed
        self.failures += failed
        print(f"== {name}: {passed} passed, {len(failed)} failed, {time.monotonic() - started:.1f} s", flush=True)


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
    if failed:
        print(text)
    count.add(name, passed, failed, started)


def run_pytest(folder, count):
    started = time.monotonic()
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report.name}", folder]
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
        count.add(folder, passed, failed, started)


def run_fuzz(path, seconds, count):
    """A fuzz target for a short while, from its corpus; what it finds goes to a temporary folder."""
    name, started = os.path.basename(path), time.monotonic()
    corpus = os.path.join("tests/fuzz/corpus", name.removeprefix("fuzz_"))
    with tempfile.TemporaryDirectory() as found:
        command = [path, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={found}/",
                   found, *([corpus] if os.path.isdir(corpus) else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        failed = []
        if done.returncode != 0:
            print(done.stdout.decode("utf-8", "replace")[-20000:])
            for artifact in os.listdir(found):
                if artifact.startswith(("crash-", "leak-", "timeout-", "oom-")):
                    with open(os.path.join(found, artifact), "rb") as f:
                        print(f"{artifact}: {f.read(4096).hex()}")
            failed = [f"{name}: ended with {done.returncode}"]
        count.add(name, 0 if failed else 1, failed, started)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", nargs="*", default=[])
    parser.add_argument("--pytest")
    parser.add_argument("--fuzz", nargs="*", default=[])
    parser.add_argument("--fuzz-seconds", type=int, default=5)
    options = parser.parse_args()
    count = Count()
    for path in options.programs:
        run_program(path, count)
    if options.pytest and os.path.isdir(options.pytest):
        run_pytest(options.pytest, count)
    for path in options.fuzz:
        run_fuzz(path, options.fuzz_seconds, count)
    for failure in count.failures:
        print(f"FAILED {failure}")
    print(f"{count.passed} passed, {len(count.failures)} failed")
    return 1 if count.failures or count.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
