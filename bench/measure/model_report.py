"""What `make bench-model` prints, and what `muster plan` foretells for the runs that were made."""
import json
import os
import subprocess

from .installation import ROOT
from .scaling import COMPONENTS, per_command

TITLES = {"accept": "dispatcher, accepts", "leader": "dispatcher, leads", "worker": "worker", "redis": "Redis", "pg": "PostgreSQL"}
PLAN_NAMES = {"pg": "postgres"}


def _plan(reading, workers, answer_s):
    program = os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), "muster")
    devices = str(int(reading["commands"]))
    done = subprocess.run(
        [program, "plan", "--json", "--devices", devices, "--tenant-devices", devices, "--batch-size", devices,
         "--commands-per-day", str(int(reading["rate"] * 86400)), "--peak-factor", "1", "--connected-share", "1", "--workers",
         str(workers), "--answer-time", f"{max(1, round(answer_s * 1000))}ms"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def foretell(path, reading, workers):
    """What `muster plan` says of a run like this one: {component: µs per command}, and WAL bytes per command."""
    plan = _plan(reading, workers, reading["answer_s"])
    us = {name: plan["components"][PLAN_NAMES.get(name, name)]["cpuUsPerCommand"] for name in COMPONENTS}
    if path == "queue":
        # Where workers answer themselves, a block is one worker's, and its answers come together.
        us["redis"] = _plan(reading, 1, 0.001)["components"]["redis"]["cpuUsPerCommand"]
    return {**us, "wal": plan["perSecond"]["walBytes"] / plan["perSecond"]["commands"]}


def check(results):
    """{path: {workers: {component: {measured, to_one_worker, foretold, error}}}}"""
    out = {}
    for path in ("core", "queue"):
        one = per_command(results[path][1])
        for workers, reading in results[path].items():
            foretold, rows = foretell(path, reading, workers), {}
            for name, us in {**per_command(reading), "wal": reading["wal"] / reading["commands"]}.items():
                # The worker that answers itself has no sockets, which the model takes for granted.
                known = not (path == "queue" and name == "worker")
                rows[name] = {"measured": us, "to_one_worker": us / one[name] if one.get(name) else None,
                              "foretold": foretold[name] if known else None,
                              "error": foretold[name] / us - 1 if known and us else None}
            total = sum(per_command(reading).values())
            rows["all"] = {"measured": total, "to_one_worker": total / sum(one.values()), "foretold": None, "error": None}
            if path == "core":
                told = sum(foretold[name] for name in COMPONENTS)
                rows["all"].update(foretold=told, error=told / total - 1)
            out.setdefault(path, {})[workers] = rows
    return out


def _row(title, rows, unit):
    text = f"  {title:<22}"
    for row in rows:
        ratio = f"{row['to_one_worker']:5.2f}x" if row["to_one_worker"] else "      "
        told = f"{row['foretold']:9.3f} {row['error']:+5.0%}" if row["foretold"] is not None else " " * 15
        text += f"{row['measured']:9.3f}{ratio}{told}   "
    return text + unit


def table(results):
    lines = []
    for path, rows in results["check"].items():
        r = results[path]
        what = f"{int(r[1]['commands']):,} devices"
        lines += ["", f"{'Core path over TLS' if path == 'core' else 'Queue path'}, {what}: measured, to one worker, foretold",
                  " " * 24 + "".join(f"{w} workers, {r[w]['rate']:,.0f}/s".ljust(33) for w in r)]
        for name, title in {**TITLES, "all": "together", "wal": "WAL"}.items():
            lines.append(_row(title, [rows[w][name] for w in rows], "bytes" if name == "wal" else "µs"))
    lines += ["", "Figures (cli/plan_figures.h says what each is)"]
    lines += [f"  {name:<44}{value:16,.4g}" for name, value in results["figures"].items()]
    return "\n".join(lines)
