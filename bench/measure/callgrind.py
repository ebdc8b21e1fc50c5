"""Instructions and system calls of a process, counted by valgrind's callgrind: the same on a busy machine as on a quiet one."""
import glob
import os
import shutil
import subprocess


def available():
    return all(shutil.which(name) for name in ("valgrind", "callgrind_control"))


class Count:
    """Start a process by `under`, tell its pid with attach(), then zero() and read() around the work."""

    def __init__(self, folder, name):
        self.prefix = os.path.join(folder, f"callgrind-{name}")
        self.under = ["valgrind", "--quiet", "--tool=callgrind", "--collect-systime=usec",
                      f"--callgrind-out-file={self.prefix}"]
        self.pid = None

    def attach(self, pid):
        self.pid = pid
        return self

    def _control(self, what):
        subprocess.run(["callgrind_control", what, str(self.pid)], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def zero(self):
        self._control("-z")

    def read(self):
        """{"instructions", "syscalls"} since zero(); begins anew."""
        self._control("-d")
        newest = max(glob.glob(self.prefix + ".*"), key=lambda path: int(path.rpartition(".")[2]))
        with open(newest, encoding="utf-8") as f:
            lines = f.read().splitlines()
        os.unlink(newest)
        events = next(line.split()[1:] for line in lines if line.startswith("events:"))
        totals = next(line.split()[1:] for line in lines if line.startswith(("totals:", "summary:")))
        counted = dict(zip(events, map(int, totals)))
        return {"instructions": counted["Ir"], "syscalls": counted["sysCount"]}
