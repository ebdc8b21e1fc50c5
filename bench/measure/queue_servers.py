"""The servers behind the job queues Muster is measured beside: private, durable, on loopback, gone with the run."""
import json
import os
import re
import shutil
import subprocess
import time

from . import brokers
from .installation import POSTGRES_SETTINGS

import harness.services as services  # noqa: E402
from harness.process import Process  # noqa: E402

RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class JetStream(brokers.Nats):
    """Streams in files, as it comes: nats-server 2.9 writes at once and calls fsync every two minutes."""

    def lines(self):
        return [*super().lines(), f'jetstream {{ store_dir: "{self.folder}/jetstream" }}']


class Beanstalkd(brokers.Broker):
    """Its binlog on, fsync at most every 50 ms, as its manual advises."""

    PROGRAM, VERSION_FLAG = "beanstalkd", "-v"

    def lines(self):
        return []

    def command(self):
        return [shutil.which(self.PROGRAM, path=brokers.PATH), "-l", "127.0.0.1", "-p", str(self.port), "-b", self.folder, "-f", "50"]


class RabbitMq(brokers.Broker):
    """One node, its Erlang distribution and a port mapper of its own on loopback; not as root."""

    PROGRAM = RABBITMQ

    def lines(self):
        return ["loopback_users.guest = true"]

    def command(self):
        user, name = services.unprivileged(), f"bench{os.getpid()}@localhost"
        path = {k: os.path.join(self.folder, k) for k in ("mnesia", "logs", "plugins", "env.conf", "generated")}
        mapper = brokers.free_port()
        self.env = {
            "PATH": "/usr/lib/rabbitmq/bin:/usr/bin:/bin", "HOME": self.folder, "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(mapper), "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_NODENAME": name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(brokers.free_port()), "RABBITMQ_CONFIG_FILE": self.config,
            "RABBITMQ_MNESIA_BASE": path["mnesia"], "RABBITMQ_LOG_BASE": path["logs"], "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": path["plugins"], "RABBITMQ_CONF_ENV_FILE": path["env.conf"],
            "RABBITMQ_GENERATED_CONFIG_DIR": path["generated"],
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Replaces its shell by the server itself, so that signals and the end of this process reach it.
            "RABBITMQ_ALLOW_INPUT": "1"}
        for file, content in (("plugins", "[].\n"), ("env.conf", "")):
            with open(path[file], "w", encoding="ascii") as f:
                f.write(content)
        if user:
            for name in (self.folder, self.config, *path.values()):
                if os.path.exists(name):
                    shutil.chown(name, user)
        self.mapper = Process(["epmd", "-address", "127.0.0.1", "-port", mapper], os.path.join(self.folder, "epmd.log"),
                              user=user, env=self.env, cwd=self.folder)
        self.user = user
        return [RABBITMQ, "-noinput"]

    def start(self, command, log):
        return Process(command, log, user=self.user, env=self.env, cwd=self.folder)

    def _wait(self, timeout=60):
        self.process.wait_line(lambda line: "Server startup complete" in line or "completed with" in line, timeout)

    @classmethod
    def version(cls):
        folder = next((f for f in os.listdir("/usr/lib/rabbitmq/lib") if f.startswith("rabbitmq_server-")), "rabbitmq")
        return folder.replace("_server-", " ")

    def stop(self):
        super().stop()
        self.mapper.stop()


class Redis:
    """`sync`: everysec or always. It never rewrites its log by itself: that would fall into somebody's round."""

    def __init__(self, folder, sync):
        self.server = services.Redis(folder, ["--appendfsync", sync, "--auto-aof-rewrite-percentage", "0"]).start()
        self.socket, self.pid = self.server.socket, self.server.process.pid
        self.address = "unix:" + self.socket
        self.client = self.server.client()

    @classmethod
    def version(cls):
        said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
        return "redis " + re.search(r"v=([0-9.]+)", said)[1]

    def reset(self):
        """Empty, its log too."""
        self.client.flushall()
        self.client.bgrewriteaof()
        services.until(self._rewritten, AssertionError, 30, "an empty log of Redis")

    def _rewritten(self):
        about = self.client.info("persistence")
        assert not about["aof_rewrite_in_progress"] and not about["aof_rewrite_scheduled"]

    def stop(self):
        self.server.stop()


class Postgres:
    """The settings of Muster's own PostgreSQL in the same run."""

    def __init__(self, folder):
        self.server = services.Postgres(folder, POSTGRES_SETTINGS).start()
        self.pid = self.server.process.pid
        self.address = self.server.conninfo(self.server.create_database())

    @classmethod
    def version(cls):
        said = subprocess.run([services.postgres_program("postgres"), "--version"], capture_output=True, text=True, check=True).stdout
        return "PostgreSQL " + re.search(r"[0-9.]+", said)[0]

    def stop(self):
        self.server.stop()
