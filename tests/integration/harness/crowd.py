"""Devices that are there all the time, note when they were told, and answer as a test wants."""
import time


class Crowd:
    """`count` connected devices, iOS and Android in turns; outcome(index): what each answers, else that it is done."""

    def __init__(self, api, client, count, outcome=None):
        self.pb, self.outcome = api.pb, outcome or (lambda i: api.pb.OUTCOME_SUCCEEDED)
        self.ids, self.at = [f"d{i:04}" for i in range(count)], {}
        tokens = api.register(client, *self.ids, platforms=(1, 5))
        self.devices = [api.device(d, tokens[d], answer=lambda m, i=i: self._answer(m, i)) for i, d in enumerate(self.ids)]
        for d in self.devices:
            d.connect(api.workers[0].address)

    def _answer(self, message, i):
        self.at.setdefault(i, time.monotonic())
        return self.pb.Acknowledgement(command_id=message.command_id, outcome=self.outcome(i))

    def got(self):
        """The indices of those that were told something and have it still in their queues."""
        return [i for i, d in enumerate(self.devices) if not d.deliveries.empty()]

    def in_order(self):
        """When each was first told, by index."""
        return [self.at[i] for i in sorted(self.at)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for d in self.devices:
            d.close()
