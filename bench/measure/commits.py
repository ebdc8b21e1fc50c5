"""How many small durable transactions a second PostgreSQL commits here: pgbench with one row a transaction."""
import os
import re
import subprocess

from .installation import postgres_program

CLIENTS, RUNS, RUN_S = 32, 4, 2


def measure(installation):
    """Rows of the size of a flush of a few acknowledgements. The most of several runs: what else this machine does meanwhile
    only takes from it."""
    script = os.path.join(installation.folder, "commit.sql")
    with open(script, "w", encoding="ascii") as f:
        f.write("INSERT INTO bench_commit (entries) VALUES (repeat('x', 200)::bytea);\n")
    installation.query("CREATE TABLE bench_commit (n bigint GENERATED ALWAYS AS IDENTITY, entries bytea)")
    most = max(_run(installation, script) for _ in range(RUNS))
    installation.query("DROP TABLE bench_commit")
    return most


def _run(installation, script):
    """Transactions a second."""
    done = subprocess.run([postgres_program("pgbench"), "-n", "-M", "prepared", "-f", script, "-c", str(CLIENTS), "-j", "1", "-T",
                           str(RUN_S), "-h", installation.postgres.folder, "-U", "muster", installation.stack.database],
                          capture_output=True, text=True, check=True)
    return float(re.search(r"tps = ([\d.]+)", done.stdout)[1])
