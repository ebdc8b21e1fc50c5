"""Batches of three shapes through everything but the sockets, to tell apart what a command, a block and a batch cost:
whole (one batch to all), scattered (one device in each block) and single (one device)."""
import time

from . import processes
from .gauge import Gauge, without_base

BLOCK = 1024
SCATTERED = 24      # batches
SINGLES = 1500      # batches
SINGLES_AT_ONCE = 64


def _submit_many(stack, client, targets, at_once=SINGLES_AT_ONCE):
    """One batch to each target, `at_once` calls under way; their ids."""
    from concurrent.futures import ThreadPoolExecutor
    pb = stack.pb

    def one(ids):
        return stack.submit(client, target=pb.Target(devices=pb.DeviceIds(ids=ids))).batch.id
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, targets))


class Shapes:
    """`ids` are the registered devices in the order of their seq; `client` calls a dispatcher that does not lead."""

    def __init__(self, installation, client, ids):
        self.i, self.client, self.ids = installation, client, ids
        self.blocks = (len(ids) + BLOCK - 1) // BLOCK

    def _targets(self, shape):
        if shape == "scattered":
            return [self.ids[n * 7 % BLOCK::BLOCK] for n in range(SCATTERED)]
        return [[self.ids[n * 191 % len(self.ids)]] for n in range(SINGLES)]

    def submit(self, shape, count=1):
        """Submits the batches of a shape; {ids, commands, blocks, batches}."""
        if shape == "whole":
            ids = [self.i.stack.submit(self.client).batch.id for _ in range(count)]
            return {"ids": ids, "commands": count * len(self.ids), "blocks": count * self.blocks, "batches": count}
        targets = self._targets(shape)
        ids = _submit_many(self.i.stack, self.client, targets, 8 if shape == "scattered" else SINGLES_AT_ONCE)
        commands = sum(map(len, targets))
        return {"ids": ids, "commands": commands, "blocks": commands, "batches": len(targets)}

    def run(self, shape, base, count=1):
        """From submission until all are closed: the work, what it took, and the bytes PostgreSQL keeps of it."""
        disk, gauge = self.i.batch_bytes(), Gauge(self.i)
        work = self.submit(shape, count)
        self.i.wait_batches("closed_ms", work["ids"])
        read = without_base(gauge.read(), base)
        del work["ids"]
        return {**work, **read, "disk": self.i.batch_bytes() - disk}

    def open_bytes(self, shape, count=1):
        """What the open batches of a shape weigh in Redis and in the leader; cancels them again."""
        leader = [self.i.stack.dispatchers[0].pid]
        redis, rss = self.i.redis_bytes(), processes.rss_bytes(leader)
        work = self.submit(shape, count)
        ids = work.pop("ids")
        self.i.wait_batches("routed_ms", ids)
        time.sleep(0.3)  # the client buffers of what was just written are freed
        work.update(redis_bytes=self.i.redis_bytes() - redis, leader_bytes=processes.rss_bytes(leader) - rss)
        pb = self.i.stack.pb
        for one in ids:
            self.client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=one))
        self.i.wait_batches("closed_ms", ids)
        return work
