"""The programs under test, with any flags, on free ports."""
import json
import os
import subprocess
import urllib.request

from .patience import patient
from .process import Process
from .reports import wrapped
from .stubs import ROOT


def program(name):
    """Path of a program of the build under test (MUSTER_BUILD, default build), or of what runs it under MUSTER_TEST_WRAPPER."""
    build = os.environ.get("MUSTER_BUILD", "build")
    return wrapped(os.path.join(ROOT, build, name))


class Daemon(Process):
    """A dispatcher or worker; `ready` has what it said when it was: listen, admin and so on. `under` is a command it is run
    by, such as valgrind."""

    def __init__(self, name, flags, log, env=None, wait=True, under=()):
        super().__init__([*under, program(name), *flags], log, name=name, env=env)
        self.flags = flags
        self.ready = None
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=60):
        self.ready = self.wait_event("ready", timeout)
        return self

    @property
    def address(self):
        return self.ready["listen"] or self.ready["plain"]

    @property
    def port(self):
        return int(self.address.rsplit(":", 1)[1])

    @property
    def admin(self):
        return self.ready["admin"]

    def figures(self):
        """Its metrics: {name with labels: value}."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=patient(10)) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (l.rsplit(" ", 1) for l in lines if not l.startswith("#"))}

    def rss(self):
        """Resident memory in bytes."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Fleet(Process):
    """muster-fleet under control: dump() gives its record."""

    def __init__(self, flags, record, log):
        self.record_path = str(record)
        super().__init__([program("muster-fleet"), *flags, "--record", self.record_path, "--control", "--json"], log,
                         stdin=subprocess.PIPE)

    def _say(self, word, event, timeout):
        start = len(self.lines)
        self.popen.stdin.write((word + "\n").encode())
        self.popen.stdin.flush()
        return json.loads(self.wait_line(lambda l: f'"event":"{event}"' in l, timeout, start))

    def wait_ready(self, timeout=120):
        """Until every device has subscribed."""
        self.wait_line(lambda l: '"event":"ready"' in l, timeout)
        return self

    def stats(self, timeout=30):
        return self._say("stats", "stats", timeout)

    def dump(self, timeout=60):
        """{(device id, command id): (received, executed, outcome, acked)}"""
        self._say("dump", "recorded", timeout)
        return read_record(self.record_path)

    def go(self):
        """What it was to --hold is answered."""
        self.popen.stdin.write(b"go\n")
        self.popen.stdin.flush()

    def quit(self, timeout=60):
        """Ends it; its last counters."""
        self.popen.stdin.write(b"quit\n")
        self.popen.stdin.flush()
        done = json.loads(self.wait_line(lambda l: '"event":"done"' in l, timeout))
        self.wait(timeout)
        return done


def read_record(path):
    record = {}
    with open(path, encoding="ascii") as f:
        for line in f:
            device, command, received, executed, outcome, acked = line.split()[:6]
            record[device, command] = (int(received), int(executed), outcome, acked == "1")
    return record


def cli(*args, env=None, stdin=None, check=None, timeout=120):
    """Runs the command line to its end; a CompletedProcess with text. `check`: the exit status that must come."""
    done = subprocess.run([program("muster"), *[str(a) for a in args]], input=stdin, capture_output=True, text=True,
                          env=dict(os.environ, **(env or {})), timeout=patient(timeout), check=False)
    if check is not None:
        assert done.returncode == check, f"muster {' '.join(map(str, args))}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
