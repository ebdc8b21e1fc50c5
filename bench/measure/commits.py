"""How many small durable transactions a second PostgreSQL commits here: pgbench with one row a transaction."""
import os
import re
import subprocess

from .installation import postgres_program

CLIENTS = 32


def measure(installation, seconds):
    """Rows of the size of a flush of a few acknowledgements."""
    script = os.path.join(installation.folder, "commit.sql")
    with open(script, "w", encoding="ascii") as f:
        f.write("INSERT INTO bench_commit (entries) VALUES (repeat('x', 200)::bytea);\n")
    installation.query("CREATE TABLE bench_commit (n bigint GENERATED ALWAYS AS IDENTITY, entries bytea)")
    done = subprocess.run([postgres_program("pgbench"), "-n", "-M", "prepared", "-f", script, "-c", str(CLIENTS), "-j", "1", "-T",
                           str(seconds), "-h", installation.postgres.folder, "-U", "muster", installation.stack.database],
                          capture_output=True, text=True, check=True)
    installation.query("DROP TABLE bench_commit")
    return float(re.search(r"tps = ([\d.]+)", done.stdout)[1])
