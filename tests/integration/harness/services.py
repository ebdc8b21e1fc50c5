"""PostgreSQL and Redis of our own: in a folder, on unix sockets, gone with the tests."""
import glob
import os
import pwd
import shutil
import signal
import subprocess
import time

import psycopg2
import redis

from .patience import patient
from .process import Process, bound


def unprivileged():
    """The user to run PostgreSQL as when we are root (it refuses root), else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            pass
    raise RuntimeError("no unprivileged user to run PostgreSQL as")


def postgres_program(name):
    for folder in sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True):
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    return shutil.which(name) or name


def until(attempt, errors, timeout, what):
    """Repeats `attempt` until it raises none of `errors`: a server that starts has no event to wait for."""
    deadline = time.monotonic() + patient(timeout)
    while True:
        try:
            return attempt()
        except errors as e:
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} is not up within {timeout} s: {e}") from e
            time.sleep(0.02)


class Postgres:
    SETTINGS = {
        "listen_addresses": "",
        "max_connections": "300",
        "shared_buffers": "64MB",
        "fsync": "on",
        "max_wal_size": "1GB",
        "log_min_messages": "warning",
    }

    """A new cluster in `folder`; or a copy of that of `template`, a Postgres that does not run. `stacks_from` is the database
    that those of stacks are copied from."""

    def __init__(self, folder, settings=None, template=None):
        self.folder = str(folder)
        self.user = unprivileged()
        self.settings = dict(self.SETTINGS, **(settings or {}))
        self.process = None
        self.count = 0
        self.stacks_from = template.stacks_from if template else "template1"
        os.makedirs(self.folder, exist_ok=True)
        if self.user:
            shutil.chown(self.folder, self.user)
        self.data = os.path.join(self.folder, "data")
        if template:
            subprocess.run(["cp", "-a", template.data, self.data], check=True)
            return
        subprocess.run(bound([postgres_program("initdb"), "-D", self.data, "-U", "muster", "-A", "trust", "-E", "UTF8", "--locale=C",
                              "--no-sync"], self.user), check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self):
        args = [postgres_program("postgres"), "-D", self.data, "-k", self.folder]
        for name, value in self.settings.items():
            args += ["-c", f"{name}={value}"]

        def attempt():
            # After kill -9 a new server refuses to start until the last process of the old one has noticed and left.
            if not self.process or not self.process.alive():
                self.process = Process(args, os.path.join(self.folder, "postgres.log"), user=self.user, cwd="/")
            psycopg2.connect(self.conninfo("postgres")).close()
        until(attempt, psycopg2.OperationalError, 60, "PostgreSQL")
        return self

    def conninfo(self, database):
        return f"host={self.folder} user=muster dbname={database}"

    def connect(self, database):
        """A psycopg2 connection in autocommit."""
        c = psycopg2.connect(self.conninfo(database))
        c.autocommit = True
        return c

    def create_database(self, prefix="muster", template="template1"):
        """Makes a copy of `template`, mostly an empty database; its name."""
        self.count += 1
        name = f"{prefix}_{self.count}"
        c = self.connect("postgres")
        c.cursor().execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        c.close()
        return name

    def drop_database(self, name):
        c = self.connect("postgres")
        c.cursor().execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        c.close()

    def kill(self):
        """kill -9 of the server and, with it, of all its processes."""
        self.process.kill()

    def restart(self):
        self.start()

    def stop(self, how=signal.SIGQUIT):
        """Without the last checkpoint: what starts from this folder again recovers. With SIGINT it has nothing to recover."""
        if self.process and self.process.alive():
            self.process.signal(how)
            self.process.wait(60)


class Redis:
    """`under` is a command it is run by, such as valgrind."""

    def __init__(self, folder, args=(), under=()):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        self.socket = os.path.join(self.folder, "redis.sock")
        self.url = f"unix://{self.socket}"
        self.args, self.under = args, under
        self.process = None

    def start(self):
        self.process = Process(
            [*self.under, "redis-server", "--port", "0", "--unixsocket", self.socket, "--dir", self.folder, "--save", "",
             "--appendonly", "yes", "--appendfsync", "everysec", *self.args],
            os.path.join(self.folder, "redis.log"))
        until(lambda: self.client().ping(), redis.exceptions.ConnectionError, 30, "Redis")
        return self

    def client(self):
        return redis.Redis(unix_socket_path=self.socket)

    def kill(self):
        self.process.kill()

    def restart(self):
        self.start()

    def stop(self):
        if self.process and self.process.alive():
            self.process.stop()
