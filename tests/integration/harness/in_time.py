"""What is to be done before a moment that comes by the clock, on a machine that may stand still for some seconds."""
import queue
import time

import grpc


class Late(Exception):
    """The moment came first: what an attempt says that has seen it."""


class Span:
    """`seconds` from now, or from begin() on."""

    def __init__(self, seconds):
        self.seconds, self.was_kept = seconds, False
        self.begin()

    def begin(self):
        self.began = time.monotonic()

    def over(self):
        return time.monotonic() - self.began >= self.seconds

    def kept(self):
        """What had to be done within it is done: what fails from here on is wrong."""
        if self.over():
            raise Late(f"not done within {self.seconds} s")
        self.was_kept = True


def in_time(attempt, seconds, told=False):
    """Calls attempt(Span(seconds)), which says when it has kept it. One that was late, or failed before that when its time was
    over, has shown nothing: it is made anew, from the beginning, with four times the time, and then with sixteen times. `told`: only
    one that says that it was Late is."""
    for last in (False, False, True):
        span = Span(seconds)
        try:
            return attempt(span)
        except Late:
            if last:
                raise
        except (AssertionError, grpc.RpcError, queue.Empty):
            if last or told or span.was_kept or not span.over():
                raise
        seconds *= 4
