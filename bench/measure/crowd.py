"""A large tenant, for measure.lanes, as a process of its own, so that its Python does not keep that of those waiting who are
measured: `crowd.py STUBS ADDRESS CA KEY flow CONNECTED` or `… heavy CONNECTED COMMANDS EVERY_S`. Prints "ready"; works from each line
"go" that it reads to the next "rest", and says behind each how many commands it has sent so far; ends with its input."""
import os
import sys
import threading
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "integration"))

from harness.stubs import Stubs  # noqa: E402


class Crowd:
    def __init__(self, stubs, address, ca, key):
        self.pb = stubs.pb
        with open(ca, "rb") as f:
            self.client = stubs.client(address, f.read(), key)
        self.busy, self.ending, self.commands, self.failed = threading.Event(), False, 0, None

    def submit(self, target, priority):
        pb = self.pb
        command = pb.Command(lock=pb.LockCommand(message="locked"))
        request = pb.SubmitBatchRequest(request_id=uuid.uuid4().hex, command=command, target=target, priority=priority)
        return self.client.commands.SubmitBatch(request).batch.id

    def may_go_on(self):
        """False at the end; waits while there is a rest."""
        self.busy.wait()
        return not self.ending

    def flow(self, connected):
        """Bulk batches to all devices, one after another: the next when nearly all that are connected have answered."""
        pb = self.pb
        while self.may_go_on():
            batch = self.submit(pb.Target(all=True), pb.PRIORITY_BULK)
            call = self.client.commands.WatchBatch(pb.WatchBatchRequest(batch_id=batch, interval_ms=100), timeout=120)
            for message in call:
                succeeded = message.batch.progress.succeeded
                if succeeded >= connected * 0.99 or not self.busy.is_set():
                    call.cancel()
                    break
            self.commands += succeeded
            self.client.commands.CancelBatch(pb.CancelBatchRequest(batch_id=batch))

    def heavy(self, connected, count, every_s):
        """Batches to slices of the connected devices, by the clock."""
        pb, due, at = self.pb, 0, 0
        while self.may_go_on():
            now = time.monotonic()
            due = due if now - due < every_s else now  # what a rest has passed over is not caught up with
            time.sleep(max(due - now, 0))
            due += every_s
            ids = [f"device-{(at + k) % connected:06d}" for k in range(min(count, connected))]
            at += len(ids)
            self.submit(pb.Target(devices=pb.DeviceIds(ids=ids)), pb.PRIORITY_NORMAL)
            self.commands += len(ids)

    def run(self, work, *args):
        try:
            work(*args)
        except Exception as e:
            self.failed = e


def main():
    stubs, address, ca, key, kind, connected, *more = sys.argv[1:]
    crowd = Crowd(Stubs(stubs), address, ca, key)
    jobs = {"flow": [(crowd.flow, int(connected))] * 2,
            "heavy": [(crowd.heavy, int(connected), *(f(x) for f, x in zip((int, float), more)))]}[kind]
    threads = [threading.Thread(target=crowd.run, args=job) for job in jobs]
    for t in threads:
        t.start()
    print("ready", flush=True)
    for line in sys.stdin:
        (crowd.busy.set if line == "go\n" else crowd.busy.clear)()
        print(crowd.commands, flush=True)
    crowd.ending = True
    crowd.busy.set()
    for t in threads:
        t.join()
    if crowd.failed:
        raise crowd.failed


if __name__ == "__main__":
    main()
