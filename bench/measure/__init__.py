"""What `make bench` is made of.

processes.py     CPU time and memory of processes, from /proc
prometheus.py    counters and histograms of a daemon's admin port
installation.py  PostgreSQL, Redis, dispatcher and workers of the bench's own
accept.py        accepting, validating and cancelling a fleet-wide batch; bytes of a queued command
sockets.py       the core path and the floor, in turns, with the same simulator
queue_path.py    everything but the sockets
submits.py       commands to one device each, from many callers
flat.py          cost per command over the size of the batch
trickle.py       acknowledgements that come one per block and batch
report.py        the table and the file of results

Of `make bench-peers`:

brokers.py       mosquitto and NATS, each on a port of its own
queue_servers.py the servers of the job queues
peers_core.py    the core path beside brokers and the floor, in turns
peers_queue.py   the queue path beside job queues, in turns; their clients are in bench/peers
report_peers.py  the tables and plots
chart.py         bars as SVG

Of `make bench-scale`:

memory.py        bytes by owner: processes, kernel
scale.py         a whole fleet on one machine, connected and commanded
scale_open.py    many open batches: what they weigh, devices that return, the sweep
report_scale.py  their tables

Of `make bench-model`:

gauge.py         what a piece of work took: CPU by component, PostgreSQL's writes and WAL, flushes, scripts
shapes.py        batches of three shapes, to tell apart what a command, a block and a batch cost
connected.py     a fleet on given workers: connecting, idling, commands
scaling.py       the core and the queue path with 1, 2 and 4 workers pinned to the cores
commits.py       how many durable transactions PostgreSQL commits here
figures.py       from these to the figures of the capacity model
model_report.py  the table, and what `muster plan` foretells for the runs that were made
model_readme.py  the tables of README's section on scaling

Of `make bench-overload`:

overload.py      half-open connections, a fleet that comes all at once, a tenant that floods

Of `make soak`:

soak_load.py     callers of several tenants and a fleet that comes and goes, for hours
soak.py          the daemons' memory sampled, and the verdict
slope.py         how fast a figure grows, whatever odd samples say

Of `make bench-check`:

callgrind.py     instructions and system calls of a process under valgrind
check_counts.py  the core and the queue path, counted
check_ratios.py  the same at full speed, beside the floor
"""
