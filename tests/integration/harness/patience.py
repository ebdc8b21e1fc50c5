"""How long tests wait for what they expect. MUSTER_TEST_PATIENCE is a factor for programs that run slowly (under valgrind)."""
import os

FACTOR = float(os.environ.get("MUSTER_TEST_PATIENCE", "1"))


def patient(seconds):
    """What becomes of a limit of so many seconds; of none (None) nothing."""
    return seconds and seconds * FACTOR


def lasting(seconds):
    """The same for a setting of a program, such as a lease: what it can keep when it runs slowly."""
    return f"{int(seconds * 1000 * FACTOR)}ms"
