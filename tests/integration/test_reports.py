"""What sanitizers find fails the test in which they find it, though the test itself looks at nothing."""
import os
import subprocess
import sys

import pytest
from harness import patience
from harness.patience import patient
from harness.process import Process
from harness.reports import Reports, wrapped
from harness.stubs import ROOT

FAULTY = r"""
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv)
{
    volatile int large = 0x7fffffff;
    char *volatile block = malloc(8);
    if (strcmp(argv[1], "undefined") == 0)
        large += argc;
    if (strcmp(argv[1], "overflow") == 0)
        block[8] = 1;
    if (strcmp(argv[1], "leak") != 0)
        free(block);
    block = NULL;
    return 0;
}
"""
FAULTS = {"undefined": "signed integer overflow", "overflow": "heap-buffer-overflow", "leak": "8 byte(s) leaked"}
TESTS = """
import subprocess, pytest

@pytest.fixture(scope="module")
def of_the_module():
    yield
    subprocess.run(["./faulty", "leak"])

def test_first(of_the_module):
    subprocess.run(["./faulty", "overflow"])

def test_second(of_the_module):
    subprocess.run(["./faulty", "nothing"])

def test_third(of_the_module):
    pass
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "faulty.c").write_text(FAULTY)
    subprocess.run(["gcc", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-static-libasan", "-static-libubsan",
                    "faulty.c", "-o", "faulty"], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_each_kind_of_fault_is_reported_once(faulty, tmp_path, fault):
    reports = Reports(tmp_path)
    run = subprocess.run([faulty / "faulty", fault], env={**os.environ, **reports.environment({})}, capture_output=True, check=False)
    assert run.returncode == 99 and not run.stderr
    assert FAULTS[fault] in reports.take()
    assert reports.take() == ""


def test_what_is_given_prevails_but_not_where_reports_go(tmp_path):
    options = Reports(tmp_path).environment({"ASAN_OPTIONS": "log_path=/elsewhere:quarantine_size_mb=7"})["ASAN_OPTIONS"]
    values = dict(option.split("=") for option in options.split(":"))
    assert values["quarantine_size_mb"] == "7" and values["log_path"].startswith(str(tmp_path))


def test_a_report_fails_its_test_and_no_other(faulty):
    (faulty / "test_inner.py").write_text(TESTS)
    here = os.path.dirname(os.path.abspath(__file__))
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", faulty, "-p",
                          "conftest", "test_inner.py"], cwd=faulty, env={**os.environ, "PYTHONPATH": here}, capture_output=True,
                         text=True, check=False)
    wrong = [line.split(" - ")[0] for line in run.stdout.splitlines() if line.startswith("ERROR ")]
    assert wrong == ["ERROR test_inner.py::test_first", "ERROR test_inner.py::test_third"], run.stdout
    assert FAULTS["overflow"] in run.stdout and FAULTS["leak"] in run.stdout


def test_a_wrapper_runs_the_programs_and_its_reports_are_found(tmp_path, monkeypatch):
    monkeypatch.delenv("MUSTER_TEST_WRAPPER", raising=False)
    assert wrapped("/bin/echo") == "/bin/echo"
    reports = Reports(tmp_path)
    monkeypatch.setenv("MUSTER_TEST_REPORTS", reports.folder)
    monkeypatch.setenv("MUSTER_TEST_WRAPPER", """sh -c 'echo "$@" >{reports}/ran; exec "$@"' sh""")
    assert subprocess.run([wrapped("/bin/echo"), "a  b"], capture_output=True, check=True).stdout == b"a  b\n"
    assert reports.take() == "--- ran\n/bin/echo a  b\n"


def test_what_slow_programs_are_asked_for(monkeypatch):
    monkeypatch.setattr(patience, "FACTOR", 1.0)
    assert (patience.patient(20), patience.fewer(300), patience.lasting(2)) == (20, 300, "2000ms")
    monkeypatch.setattr(patience, "FACTOR", 8.0)
    assert (patience.patient(20), patience.patient(None), patience.fewer(300), patience.fewer(3), patience.lasting(2)) == (
        160, None, 37, 1, "16000ms")


@pytest.mark.parametrize("wrapper", ["", "valgrind -q"])
def test_what_is_not_there_under_valgrind_is_skipped_with_the_reason(monkeypatch, wrapper):
    monkeypatch.setenv("MUSTER_TEST_WRAPPER", wrapper)
    mark = patience.not_under_valgrind("nobody is fast").mark
    assert mark.args == (bool(wrapper),) and mark.kwargs == {"reason": "not under valgrind: nobody is fast"}


def test_a_pytest_process_that_dies_ends_the_run_with_a_failure(tmp_path):
    (tmp_path / "test_dies.py").write_text("import os\ndef test_first():\n    os.abort()\ndef test_second():\n    pass\n")
    run = subprocess.run([sys.executable, os.path.join(ROOT, "tests/run.py"), "--pytest", "test_dies.py"], cwd=tmp_path, timeout=patient(60),
                         env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and "FAILED test_dies: test_first" in run.stdout, run.stdout


def test_a_process_that_ends_badly_by_itself_is_noticed(tmp_path):
    process = Process(["sh", "-c", "echo said; exit 3"], tmp_path / "log")
    process.popen.wait(patient(20))
    assert "sh ended by itself with 3:\nsaid" in process.fault()
    with pytest.raises(AssertionError, match="ended by itself"):
        process.kill()
    waited_for = Process(["false"], tmp_path / "log")
    assert waited_for.wait() == 1 and waited_for.fault() is None
