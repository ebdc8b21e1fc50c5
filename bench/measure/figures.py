"""From readings to the figures of the capacity model (cli/plan_figures.h says what each is).

What a piece of work takes is modelled as a sum: so much a command, a block row, a batch and a flush (for Redis: a script
call instead of block rows and flushes). Each factor comes from the run it dominates, with the others' shares taken off."""
import statistics

def peel(totals, terms, runs):
    """`totals[run]` is what each run took, `terms[run]` how often each term occurred in it; `runs` is [(term,
    the run that tells it)]. {term: factor}, none negative."""
    factor = {term: 0.0 for term, _ in runs}
    for _ in range(100):
        for term, run in runs:
            rest = totals[run] - sum(factor[t] * terms[run][t] for t in factor if t != term)
            factor[term] = max(0.0, rest / terms[run][term])
    return factor


def median_of(readings):
    """The readings of several equal runs as one."""
    return {name: statistics.median(r[name] for r in readings) for name in readings[0]}


def scripts_per_block(whole):
    """Scripts a block row needs whatever comes from the devices, when its acknowledgements come together."""
    return whole["scripts"] / whole["blocks"]


# Which run tells a term, and the figure's name for it.
RUNS = (("commands", "whole", "command"), ("blocks", "scattered", "block"), ("batches", "single", "batch"),
        ("flushes", "trickle", "flush"))


def _factors(readings, name, figure, terms):
    """Of what is called `name` in the readings, by the first `terms` of RUNS."""
    runs = RUNS[:terms]
    factor = peel({run: readings[run][name] for _, run, _ in runs}, readings, [(term, run) for term, run, _ in runs])
    return {f"{figure}_per_{called}": factor[term] for term, _, called in runs}


def _redis(shapes):
    runs = [("commands", "whole"), ("scripts", "scattered"), ("batches", "single"), ("flushes", "trickle")]
    factor = peel({run: shapes[run]["redis"] for _, run in runs}, shapes, runs)
    return {"redis_us_per_command": factor["commands"], "redis_us_per_script": factor["scripts"],
            "redis_us_per_batch": factor["batches"], "redis_us_per_flush": factor["flushes"],
            "redis_scripts_per_block": scripts_per_block(shapes["whole"])}


def of_worker(crowd, trickle):
    """(µs a command over OpenSSL's records, µs a flush) from a round of a crowd and one whose answers come one by one."""
    factor = peel({"crowd": crowd["worker"], "trickle": trickle["worker"]}, {"crowd": crowd, "trickle": trickle},
                  [("commands", "crowd"), ("flushes", "trickle")])
    return factor["commands"], factor["flushes"]


def of_work(shapes, opened):
    """`shapes` and `opened`: {"whole", "scattered", "single"} readings; `shapes` has "trickle" too, with sockets."""
    out = _factors(shapes, "accept", "accept_us", 3)
    for name, figure in (("leader", "leader_us"), ("pg", "pg_us"), ("wal", "wal_bytes"), ("writes", "pg_writes")):
        out.update(_factors(shapes, name, figure, 4))
    out.update(_redis(shapes))
    out.update(_factors(shapes, "disk", "disk_bytes", 3))
    out.update(_factors(opened, "redis_bytes", "redis_bytes", 3))
    out["leader_bytes_per_command"] = max(0.0, opened["whole"]["leader_bytes"] / opened["whole"]["commands"])
    return out
