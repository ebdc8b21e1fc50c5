"""What sanitizers and valgrind find in any program that a test starts, directly or not: each writes its reports into a folder,
which is looked at when the test and its fixtures have ended. So a report fails its test whatever became of the process and
whoever waited for it.

MUSTER_TEST_WRAPPER is a command that programs under test are run by; {reports} in it stands for the folder (see `make
test-valgrind`):
    MUSTER_TEST_WRAPPER='valgrind -q --leak-check=full --log-file={reports}/valgrind.%p'
Whoever starts a program gets a script instead, which does that; so it makes no difference how he starts it."""
import os
import shlex

# Beside the defaults: locals used after their function returned, strings that functions read to the end, a memory of
# freed blocks that several daemons at a time can afford.
ASAN = {"detect_stack_use_after_return": "1", "strict_string_checks": "1", "detect_leaks": "1", "quarantine_size_mb": "16"}
UBSAN = {"print_stacktrace": "1"}
# Not a status of any program of ours.
STATUS = 99


def _join(*parts):
    """Of several values of an option the last prevails."""
    texts = [":".join(f"{k}={v}" for k, v in part.items()) if isinstance(part, dict) else part for part in parts]
    return ":".join(text for text in texts if text)


class Reports:
    def __init__(self, folder):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        os.chmod(self.folder, 0o777)  # programs of other users write here too
        self.seen = set()

    def environment(self, given=os.environ):
        """What the programs need in their environment; of `given` all prevails but where reports go: pytest may run in pytest."""
        def options(known, name):
            where = {"log_path": os.path.join(self.folder, name.lower()), "exitcode": STATUS}
            return _join(known, given.get(name), where)
        return {"ASAN_OPTIONS": options(ASAN, "ASAN_OPTIONS"), "UBSAN_OPTIONS": options(UBSAN, "UBSAN_OPTIONS"),
                "MUSTER_TEST_REPORTS": self.folder}

    def take(self):
        """The text of what was reported since last asked; "" when nothing was."""
        out = []
        files = {entry.name for entry in os.scandir(self.folder) if entry.is_file()}
        for name in sorted(files - self.seen):
            with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as f:
                text = f.read()
            if text:  # valgrind makes its file before it has anything to say
                self.seen.add(name)
                out.append(f"--- {name}\n{text}")
        return "\n".join(out)


def without_quarantine():
    """Environment of a program whose memory is measured: what it freed must not be kept for the sanitizer."""
    small = {"quarantine_size_mb": "1", "thread_local_quarantine_size_kb": "64"}
    return {**os.environ, "ASAN_OPTIONS": _join(os.environ.get("ASAN_OPTIONS"), small)}


def memory_factor():
    """How much more memory programs may take than they do without sanitizers or a wrapper: walls around every allocation."""
    slow = os.path.basename(os.environ.get("MUSTER_BUILD", "build")) == "san" or os.environ.get("MUSTER_TEST_WRAPPER")
    return 4 if slow else 1


def wrapped(program):
    """What runs this program under MUSTER_TEST_WRAPPER: a script of the same name. Mostly the program itself."""
    wrapper, reports = os.environ.get("MUSTER_TEST_WRAPPER"), os.environ.get("MUSTER_TEST_REPORTS")
    if not wrapper or not reports:
        return program
    script = os.path.join(reports, "programs", os.path.basename(program))
    if not os.path.exists(script) and os.path.exists(program):
        os.makedirs(os.path.dirname(script), exist_ok=True)
        words = [word.replace("{reports}", reports) for word in shlex.split(wrapper)]
        with open(script, "w", encoding="utf-8") as f:
            f.write(f'#!/bin/sh\nexec {shlex.join([*words, program])} "$@"\n')
        os.chmod(script, 0o755)
    return script
