"""The figures of README's section on scaling, from bench/model.json and `muster plan`."""
import json
import os
import subprocess
import textwrap

from .installation import ROOT

README = os.path.join(ROOT, "README.md")
BEGIN, END = "<!-- make bench-model RECORD=1 writes from here -->\n", "<!-- to here -->\n"
SIZES = ((10**6, "10⁶ devices"), (10**7, "10⁷"), (10**8, "10⁸"))
A_DAY = 10  # commands to each device
LIMITS = {"leader": "the leading dispatcher's CPU", "redis_cpu": "the one Redis' CPU", "redis_memory": "the one Redis' memory",
          "postgres_cpu": "PostgreSQL's CPU", "postgres_commits": "PostgreSQL's commits", "postgres_wal": "PostgreSQL's WAL",
          "worker_numbers": "workers' numbers"}


def plan(devices, *flags):
    program = os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), "muster")
    load = ["--devices", str(devices), "--commands-per-day", str(A_DAY * devices)]
    done = subprocess.run([program, "plan", "--json", *load, *flags], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _number(value):
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _bytes(value):
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
        value /= 1024


def _row(title, cells):
    return f"| {title} | " + " | ".join(cells) + " |"


def _costs(f):
    """What work costs each component."""
    lines = ["| µs of CPU (bytes) | a command | a block row | a batch | a flush |", "|---|---|---|---|---|"]
    for title, figure, terms in (("dispatcher that accepts", "accept_us", 3), ("dispatcher that leads", "leader_us", 4),
                                 ("PostgreSQL", "pg_us", 4), ("PostgreSQL, WAL bytes", "wal_bytes", 4),
                                 ("PostgreSQL, bytes kept", "disk_bytes", 3), ("Redis, bytes while open", "redis_bytes", 3)):
        cells = [f"{f[f'{figure}_per_{term}']:.3g}" for term in ("command", "block", "batch", "flush")[:terms]]
        lines.append(_row(title, cells + [""] * (4 - terms)))
    lines.insert(4, _row("Redis", [f"{f['redis_us_per_command']:.3g}", f"{f['redis_us_per_script']:.3g} a script",
                                   f"{f['redis_us_per_batch']:.3g}", f"{f['redis_us_per_flush']:.3g}"]))
    lines.insert(5, _row("worker", [f"{f['worker_us_per_command_openssl']:.3g}", "", "", f"{f['worker_us_per_flush']:.3g}"]))
    return lines


def _connections(f):
    kinds = [("openssl", "OpenSSL's records"), ("lean", "lean records"), ("plain", "no TLS")]
    kinds = [k for k in kinds if f"worker_us_per_command_{k[0]}" in f]
    lines = [_row("a device on a worker", [title for _, title in kinds]), "|---" * (len(kinds) + 1) + "|"]
    kernel = f["kernel_bytes_per_connection"]
    sizes = [f[f"worker_bytes_per_connection_{k}"] for k, _ in kinds]
    lines.append(_row("bytes, and the kernel's", [f"{size:,.0f} + {kernel:,.0f}" for size in sizes]))
    lines.append(_row("µs a command", [f"{f[f'worker_us_per_command_{k}']:.3g}" for k, _ in kinds]))
    text = (f"A connection costs a worker {f['connect_us_full']:.0f} µs ({f['connect_us_plain']:.0f} without TLS) when a crowd "
            f"comes; a device whose worker has gone {f['reconnect_us_full']:.0f} µs, {f['reconnect_us_resumed']:.0f} with a "
            f"session ticket; a keepalive {f['worker_us_per_ping']:.1f} µs; Redis {f['redis_us_per_attach']:.0f} µs an attach. "
            f"PostgreSQL committed {f['pg_commits_per_s']:,.0f} small transactions a second here.")
    return [*lines, "", *textwrap.wrap(text, 125)]


def _fleets():
    plans = [plan(devices) for devices, _ in SIZES]
    wide = [plan(devices, "--descriptors", "200000") for devices, _ in SIZES]
    lean = [plan(devices, "--tls-records", "lean") for devices, _ in SIZES]
    slow = [plan(devices, "--descriptors", "200000", "--flush-interval", "50ms") for devices, _ in SIZES]

    def each(cell, of=None):
        return [cell(p) for p in of or plans]

    def bottleneck(p):
        used, name = p["limits"][p["firstBottleneck"]], LIMITS[p["firstBottleneck"]]
        return f"{name}, **{used:.3g}×**" if used > 1 else f"{name}, {used:.0%}; room for {p['room']:.2g}×"

    def both(cell, other):
        return [f"{cell(p)}; {cell(q)}" for p, q in zip(plans, other)]

    def workers(p):
        return f"{p[parts]['worker']['processes']:,.0f}"

    def writes(p):
        return f"{_number(p['perSecond']['postgresWrites'])}, {_bytes(p['perSecond']['walBytes'])}"
    lines = [_row("", [title for _, title in SIZES]), "|---|---|---|---|"]
    parts, stores = "components", ("leader", "redis", "postgres")
    lines += [
        _row("commands a second, at the peak", each(lambda p: _number(p["perSecond"]["commands"]))),
        _row("workers (20,000 descriptors), on hosts", each(lambda p: f"{workers(p)} on {p['workerHosts']:.0f}")),
        _row("dispatchers, one of them leads", each(lambda p: f"{p[parts]['accept']['processes'] + 1:.0f}")),
        _row("busy cores: workers", each(lambda p: _number(p[parts]["worker"]["cores"]))),
        _row("busy cores: leader, Redis, PostgreSQL", each(lambda p: ", ".join(_number(p[parts][c]["cores"]) for c in stores))),
        _row("Redis masters (one can be used)", each(lambda p: f"{p[parts]['redis']['processes']:.0f}")),
        _row("PostgreSQL: transactions, WAL a second", each(writes)),
        _row("PostgreSQL keeps of 30 days", each(lambda p: _bytes(p["diskBytes"]))),
        _row("memory in all; with lean records", both(lambda p: _bytes(p["memoryBytes"]), lean)),
        _row("first bottleneck, used", each(bottleneck)),
        _row("with 200,000 descriptors a worker", each(lambda p: f"{workers(p)} workers; {bottleneck(p)}", wide)),
        _row("and `--flush-interval 50ms`", each(bottleneck, slow)),
    ]
    return lines


def _checks(check):
    lines = ["| µs a command, to one worker (foretold) | 1 worker | 2 | 4 |", "|---|---|---|---|"]
    for path, title in (("core", "core path"), ("queue", "queue path")):
        for name, called in (("worker", "worker"), ("redis", "Redis"), ("pg", "PostgreSQL"), ("leader", "leader"), ("all", "all")):
            cells = []
            for workers in ("1", "2", "4"):
                row = check[path][workers][name]
                told = f" ({row['error']:+.0%})" if row["error"] is not None else ""
                cells.append(f"{row['measured']:.3g}, {row['to_one_worker']:.2f}×{told}")
            lines.append(_row(f"{title}: {called}", cells))
    return lines


def text(recorded):
    """`recorded` is bench/model.json."""
    f = recorded["figures"]
    on = (f"{recorded['processor']}, {recorded['cpus']} cores shared with the simulated fleet, Linux {recorded['kernel']}, "
          f"{recorded['at'][:10]}")
    return "\n".join([*textwrap.wrap(f"Measured on {on}:", 125), "", *_costs(f), "", *_connections(f), "",
                      f"What follows for {A_DAY} commands a device and day, with the assumptions `muster plan` prints:", "",
                      *_fleets(), "", "The model against runs with workers pinned to the cores:", "",
                      *_checks(recorded["check"])]) + "\n"


def write(recorded):
    """Puts the text between the marks in README.md."""
    with open(README, encoding="utf-8") as f:
        whole = f.read()
    head, begin, rest = whole.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise AssertionError(f"{README} has not the marks {BEGIN.strip()} … {END.strip()}")
    with open(README, "w", encoding="utf-8") as f:
        f.write(head + begin + "\n" + text(recorded) + "\n" + end + tail)
