"""What the integration tests stand on: private PostgreSQL and Redis, the daemons under test, stock clients.

services.py      PostgreSQL and Redis in a folder of their own, on unix sockets
process.py       a child process whose lines can be waited for
patience.py      how long tests wait, and what they ask of slow programs
in_time.py       what must be done before a moment that comes by the clock
reports.py       what sanitizers and valgrind find in any of the programs fails the test
daemons.py       muster-dispatcher, muster-worker, muster-fleet and the command line
stubs.py         Python stubs of the contract, and clients with a key
stack.py         all of it together, with tenants, devices and credentials
device.py        a device made with paho-mqtt
oracle.py        what became of every command: fleet's record, gRPC and SQL compared
certificates.py  an authority and a server certificate
"""
import os

# grpcio would stop all its threads before each fork, and wait for some of them for ever: https://github.com/grpc/grpc/blob/master/doc/fork_support.md
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
