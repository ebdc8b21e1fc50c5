"""A child process whose output can be waited for line by line."""
import os
import re
import shlex
import signal
import subprocess
import threading
import time

from .patience import patient

PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


def fields(line):
    """The key=value pairs of a log line."""
    return {k: v[1:-1] if v.startswith('"') else v for k, v in PAIR.findall(line)}


def bound(args, user=None):
    """The command that runs `args` as `user` and dies with its parent. Popen could do both by itself (user=, preexec_fn=), but
    only by a fork, with gRPC's threads in the middle of what they do; without them it is a vfork."""
    who = ["--reuid", user, "--regid", str(user_group(user)), "--clear-groups"] if user else []
    return ["setpriv", "--pdeathsig", "KILL", *who, "--", *args]


class Process:
    """Runs `args`; keeps every line of stdout and stderr in `lines` and in the file `log`."""

    def __init__(self, args, log, name=None, env=None, stdin=None, user=None, cwd=None):
        self.args = [str(a) for a in args]
        self.name = name or os.path.basename(self.args[0])
        self.log_path = str(log)
        self.lines = []
        self.changed = threading.Condition()
        self.popen = subprocess.Popen(
            bound(self.args, user), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=stdin or subprocess.DEVNULL,
            env=env, cwd=cwd)
        self.ended = False
        self.end_expected = False
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @property
    def pid(self):
        return self.popen.pid

    def _read(self):
        with open(self.log_path, "a", encoding="utf-8") as log:
            log.write("$ " + shlex.join(self.args) + "\n")
            for raw in self.popen.stdout:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                log.write(line + "\n")
                log.flush()
                with self.changed:
                    self.lines.append(line)
                    self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def wait_line(self, match, timeout=30, start=0):
        """The first line from number `start` on for which match(line) is true; raises when the process ends."""
        deadline = time.monotonic() + patient(timeout)
        at = start
        with self.changed:
            while True:
                while at < len(self.lines):
                    if match(self.lines[at]):
                        return self.lines[at]
                    at += 1
                left = deadline - time.monotonic()
                if self.ended or left <= 0:
                    why = "ended" if self.ended else f"said nothing such within {timeout} s"
                    raise AssertionError(f"{self.name} {why}:\n" + "\n".join(self.lines[-40:]))
                self.changed.wait(left)

    def wait_event(self, event, timeout=30, start=0):
        """Fields of the first log line with event=`event`."""
        return fields(self.wait_line(lambda l: f" event={event} " in l + " ", timeout, start))

    def events(self, event):
        with self.changed:
            return [fields(l) for l in self.lines if f" event={event} " in l + " "]

    def alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.alive():
            self.popen.send_signal(number)

    def fault(self):
        """What is to be said of an end that nobody has asked for or waited for; None when there is nothing."""
        status = self.popen.poll()
        if not status or self.end_expected:
            return None
        self.reader.join(patient(5))
        return f"{self.name} ended by itself with {status}:\n" + "\n".join(self.lines[-40:])

    def kill(self):
        """kill -9, and waits for the end; complains about one that has ended badly before."""
        fault = self.fault()
        self.end_expected = True
        self.signal(signal.SIGKILL)
        self.popen.wait(patient(30))
        assert not fault, fault

    def wait(self, timeout=30):
        """Waits for the end; the exit status."""
        status = self.popen.wait(patient(timeout))
        self.end_expected = True
        self.reader.join(patient(timeout))
        return status

    def stop(self, timeout=30):
        """SIGTERM, and kill -9 for who does not listen; the exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {timeout} s of SIGTERM") from None


def user_group(user):
    import pwd
    return pwd.getpwnam(user).pw_gid
