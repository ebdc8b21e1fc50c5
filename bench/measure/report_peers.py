"""The table of `make bench-peers` and its plots."""
import os

from . import chart, peers_core, peers_queue

OURS = ("Muster", "muster TLS", "muster TLS lean", "muster plain")

# (part, key of the rate, heading, [(file, title, key, unit)])
PARTS = {
    "core": ("cmd_s", "Core path, {devices:,} devices: one command to each, and its acknowledgement back", [
        ("peers-core-rate.svg", "Core path: commands a second", "cmd_s", "commands/s, more is better"),
        ("peers-core-cpu.svg", "Core path: what 100,000 commands cost", "cpu_s_per_100k",
         "CPU seconds per 100,000 of server and sender, less is better"),
    ]),
    "queue": ("jobs_s", "Queue path: jobs enqueued, each taken by a worker, each completed", [
        ("peers-queue-rate.svg", "Queue path: jobs a second", "jobs_s", "jobs/s enqueued and completed, more is better"),
        ("peers-queue-cpu.svg", "Queue path: what 100,000 jobs cost", "cpu_s_per_100k",
         "CPU seconds per 100,000 of server and clients, less is better"),
    ]),
}
GOALS = {"core": peers_core.goals, "queue": peers_queue.goals}


def _cell(value, form):
    return "" if value is None else form.format(value)


def _line(name, row, rate, extra):
    if "missing" in row:
        return f"  {name:<30}{row['missing']}"
    cells = [_cell(row[rate], "{:,.0f}"), _cell(row["to_muster"], "{:.3f}"), _cell(row["cpu_s_per_100k"], "{:.3f}"),
             *(_cell(row.get(key), form) for _, key, form in extra)]
    return f"  {name:<30}" + "".join(f"{c:>13}" for c in cells) + f"  {row['durable']}"


EXTRA = {
    "core": [("p50 ms", "p50_ms", "{:,.1f}"), ("p99 ms", "p99_ms", "{:,.1f}")],
    "queue": [("enqueue/s", "enqueue_s", "{:,.0f}"), ("process/s", "process_s", "{:,.0f}")],
}


def goals(results):
    """[{"part", "what", "measured", "wanted": at least}] of the parts that were measured."""
    return [{"part": part, "what": what, "measured": found, "wanted": least}
            for part in PARTS if part in results for what, found, least in GOALS[part](results[part])]


def _part(part, results, rows):
    rate, title, _ = PARTS[part]
    extra = EXTRA[part]
    heads = ["a second", "to Muster's", "CPU s/100k", *(head for head, _, _ in extra)]
    lines = ["", title.format(**results), "  " + " " * 30 + "".join(f"{h:>13}" for h in heads) + "  durable"]
    lines += [_line(name, row, rate, extra) for name, row in rows.items()]
    for goal in goals({part: rows}):
        said = "met" if goal["measured"] >= goal["wanted"] else "MISSED"
        lines.append(f"  {goal['what']}: {goal['measured']:.2f}   wanted ≥ {goal['wanted']:g}: {said}")
    return lines


def table(results):
    """The whole table as text, of what was measured: {"core": …, "queue": …, "devices": …}."""
    lines = []
    for part in PARTS:
        if part in results:
            lines += _part(part, results, results[part])
    return "\n".join(lines)


def plots(results, folder):
    """Writes the SVG files; their paths."""
    os.makedirs(folder, exist_ok=True)
    paths = []
    for part, (_, _, files) in PARTS.items():
        for file, title, key, unit in files if part in results else ():
            rows = [(name, row[key]) for name, row in results[part].items() if row.get(key)]
            rows.sort(key=lambda r: -r[1] if "rate" in file else r[1])
            paths.append(os.path.join(folder, file))
            with open(paths[-1], "w", encoding="utf-8") as f:
                f.write(chart.bars(title, unit, rows, OURS))
    return paths
