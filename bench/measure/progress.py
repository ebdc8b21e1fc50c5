"""What a long measurement is at."""
import sys
import time


class Progress:
    """Lines with the time since the start, on standard error."""

    def __init__(self):
        self.began = time.monotonic()

    def __call__(self, text):
        print(f"[{time.monotonic() - self.began:6.1f} s] {text}", file=sys.stderr, flush=True)
