"""Fixtures of all integration tests. What they are made of is in harness/.

MUSTER_BUILD names the build folder whose programs are tested (default build). What sanitizers find in these programs fails the
test: see harness/reports.py."""
import os
import shutil
import signal
import tempfile

import pytest
from harness.certificates import Certificates
from harness.daemons import cli as run_cli
from harness.hand_router import HandRouter
from harness.patience import FACTOR
from harness.reports import Reports
from harness.services import Postgres, Redis
from harness.stack import Stack, make_schema
from harness.stubs import ROOT, Stubs

REPORTS = pytest.StashKey()


def pytest_configure(config):
    """Before the first program is started."""
    config.stash[REPORTS] = Reports(tempfile.mkdtemp(prefix="muster-reports-"))
    os.environ.update(config.stash[REPORTS].environment())
    if FACTOR != 1:  # slow programs are not late ones; tests of leases give their own
        os.environ.setdefault("MUSTER_LEASE", f"{int(10 * FACTOR)}s")
        os.environ.setdefault("MUSTER_LEADER_LEASE", f"{int(4 * FACTOR)}s")


def pytest_unconfigure(config):
    if REPORTS in config.stash:
        shutil.rmtree(config.stash[REPORTS].folder, ignore_errors=True)


def limit(item):
    """Seconds that a test may take, of pytest.ini or its own."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker else item.config.getini("timeout") or 0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of several pytest processes (-n 2 --dist loadgroup) one gets all tests of a module that share a fixture; the others go
    wherever there is room."""
    for item in items:
        if FACTOR != 1:
            item.add_marker(pytest.mark.timeout(FACTOR * limit(item)), append=False)
        if any(f[-1].scope == "module" for f in item._fixtureinfo.name2fixturedefs.values()):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Looks for reports last of all: after a test's fixtures and, when it was the last of its module, the module's."""
    outcome = yield
    if call.when == "teardown":
        found, report = item.config.stash[REPORTS].take(), outcome.get_result()
        if found:
            report.longrepr = f"{report.longrepr or ''}\nreported while this test or its fixtures ran:\n{found}"
            report.outcome = "failed"


@pytest.fixture(scope="session")
def session_folder():
    """Short, because the paths of unix sockets are; kept when MUSTER_TEST_KEEP is set."""
    folder = tempfile.mkdtemp(prefix="mt-")
    os.chmod(folder, 0o711)
    yield folder
    if not os.environ.get("MUSTER_TEST_KEEP"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stubs(session_folder):
    built = os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"), "py")
    return Stubs(built if os.path.isdir(built) else os.path.join(session_folder, "py"))


@pytest.fixture(scope="session")
def certificates(session_folder):
    return Certificates(os.path.join(session_folder, "tls"))


@pytest.fixture(scope="session")
def new_cluster(session_folder):
    """A cluster that does not run: copied quicker than made, with a database of the schema in it."""
    cluster = Postgres(os.path.join(session_folder, "new"))
    make_schema(cluster.start())
    cluster.stop(signal.SIGINT)
    return cluster


@pytest.fixture(scope="session")
def postgres(session_folder, new_cluster):
    """One server for the session; every stack has a database of its own in it."""
    server = Postgres(os.path.join(session_folder, "pg"), template=new_cluster)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_number():
    """Counts the Redis servers of the session, for their folders."""
    return iter(range(1, 1 << 30))


def _redis(session_folder, redis_number):
    return Redis(os.path.join(session_folder, f"redis{next(redis_number)}")).start()


@pytest.fixture
def redis_server(session_folder, redis_number):
    """A Redis of the test's own."""
    server = _redis(session_folder, redis_number)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def module_redis(session_folder, redis_number):
    """A Redis of the module's own."""
    server = _redis(session_folder, redis_number)
    yield server
    server.stop()


@pytest.fixture
def private_servers(session_folder, redis_number, new_cluster):
    """Makes (PostgreSQL, Redis) that a test may kill."""
    made = []

    def make():
        number = next(redis_number)
        pg = Postgres(os.path.join(session_folder, f"pg{number}"), template=new_cluster)
        made.append(pg.start())
        made.append(Redis(os.path.join(session_folder, f"redis{number}")).start())
        return made[-2], made[-1]
    yield make
    for server in made:
        server.stop()


@pytest.fixture
def stack(tmp_path, postgres, redis_server, certificates, stubs):
    """An installation of the test's own, nothing started: call stack.start()."""
    s = Stack(tmp_path, postgres, redis_server, certificates, stubs)
    yield s
    s.stop()


@pytest.fixture
def router(stack):
    """Plays the dispatcher for workers of the stack."""
    return HandRouter(stack, devices=16)


@pytest.fixture
def worker(stack, router):
    return stack.start_worker()


@pytest.fixture(scope="module")
def module_stack(tmp_path_factory, postgres, module_redis, certificates, stubs):
    """An installation for all tests of a module, one dispatcher and one worker."""
    s = Stack(tmp_path_factory.mktemp("stack"), postgres, module_redis, certificates, stubs)
    s.start()
    yield s
    s.stop()


@pytest.fixture(scope="module")
def api(module_stack):
    """The same, for modules that speak to the API and need no other."""
    return module_stack


@pytest.fixture(scope="module")
def module_stack_without_worker(tmp_path_factory, postgres, module_redis, certificates, stubs):
    """The same with a dispatcher only."""
    s = Stack(tmp_path_factory.mktemp("stack"), postgres, module_redis, certificates, stubs)
    s.start(workers=0)
    yield s
    s.stop()


@pytest.fixture
def make_stack(tmp_path, certificates, stubs, private_servers):
    """Makes an installation on PostgreSQL and Redis of its own, which the test may kill."""
    made = []

    def make(**flags):
        pg, redis = private_servers()
        made.append(Stack(tmp_path, pg, redis, certificates, stubs, **flags))
        return made[-1]
    yield make
    for s in made:
        s.stop(drop=False)


@pytest.fixture
def cli():
    """Runs the command line: cli("batch", "list", env=stack.cli_env(tenant), check=0)."""
    return run_cli
