"""The gRPC server with stock clients: the interop cases of grpc/grpc doc/interop-test-descriptions.md over plain HTTP/2 and
TLS, health, reflection, drain, memory."""
import os
import signal
import threading
import time

import grpc
import pytest
from harness.grpc_server import GrpcServer
from harness.patience import patient
from harness.stubs import ROOT

BIG = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def build_folder():
    return os.path.join(ROOT, os.environ.get("MUSTER_BUILD", "build"))


pytestmark = pytest.mark.skipif(not os.path.exists(os.path.join(build_folder(), "grpc-test-server")),
                                reason="grpc-test-server is not built")


@pytest.fixture(scope="module", params=["plain", "tls"])
def server(request, session_folder, certificates):
    s = GrpcServer(session_folder, certificates if request.param == "tls" else None)
    yield s
    s.stop()


@pytest.fixture(scope="module")
def plain_server(session_folder):
    s = GrpcServer(session_folder)
    yield s
    s.stop()


def channel_to(server, options=(), compression=None):
    options = [*BIG, *options]
    if server.ca:
        return grpc.secure_channel(server.address, grpc.ssl_channel_credentials(root_certificates=server.ca),
                                   options=options, compression=compression)
    return grpc.insecure_channel(server.address, options=options, compression=compression)


@pytest.fixture(scope="module")
def pb(stubs):
    return stubs.module("grpc.testing.messages_pb2")


@pytest.fixture(scope="module")
def empty(stubs):
    return stubs.module("grpc.testing.empty_pb2").Empty()


@pytest.fixture(scope="module")
def services(stubs):
    return stubs.module("grpc.testing.test_pb2_grpc")


@pytest.fixture
def stub(server, services):
    with channel_to(server) as channel:
        yield services.TestServiceStub(channel)


def code_of(call):
    """Status code and message of a call that fails."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), error.value.details()


# --- interop cases --------------------------------------------------------------------------------------------------

def test_empty_unary(stub, empty):
    assert stub.EmptyCall(empty, timeout=patient(10)) == empty


def test_large_unary(stub, pb):
    request = pb.SimpleRequest(response_size=314159, payload=pb.Payload(body=b"\0" * 271828))
    response = stub.UnaryCall(request, timeout=patient(10))
    assert response.payload.body == b"\0" * 314159


def test_client_streaming(stub, pb):
    sizes = [27182, 8, 1828, 45904]
    requests = (pb.StreamingInputCallRequest(payload=pb.Payload(body=b"\0" * n)) for n in sizes)
    assert stub.StreamingInputCall(requests, timeout=patient(10)).aggregated_payload_size == 74922


def test_server_streaming(stub, pb):
    sizes = [31415, 9, 2653, 58979]
    request = pb.StreamingOutputCallRequest(response_parameters=[pb.ResponseParameters(size=n) for n in sizes])
    assert [len(r.payload.body) for r in stub.StreamingOutputCall(request, timeout=patient(10))] == sizes


class Requests:
    """An iterator that is fed by hand."""

    def __init__(self):
        self.items, self.changed, self.done = [], threading.Condition(), False

    def put(self, item):
        with self.changed:
            self.items.append(item)
            self.changed.notify_all()

    def end(self):
        with self.changed:
            self.done = True
            self.changed.notify_all()

    def __iter__(self):
        return self

    def __next__(self):
        with self.changed:
            while not self.items and not self.done:
                self.changed.wait()
            if self.items:
                return self.items.pop(0)
            raise StopIteration


def ping(pb, size, payload=0):
    return pb.StreamingOutputCallRequest(response_parameters=[pb.ResponseParameters(size=size)],
                                         payload=pb.Payload(body=b"\0" * payload))


def test_ping_pong(stub, pb):
    requests = Requests()
    responses = stub.FullDuplexCall(requests, timeout=patient(10))
    for want, sent in ((31415, 27182), (9, 8), (2653, 1828), (58979, 45904)):
        requests.put(ping(pb, want, sent))
        assert len(next(responses).payload.body) == want
    requests.end()
    assert list(responses) == []
    assert responses.code() == grpc.StatusCode.OK


def test_empty_stream(stub):
    responses = stub.FullDuplexCall(iter(()), timeout=patient(10))
    assert list(responses) == []
    assert responses.code() == grpc.StatusCode.OK


def test_half_duplex(stub, pb):
    assert [len(r.payload.body) for r in stub.HalfDuplexCall(iter([ping(pb, 7), ping(pb, 11)]), timeout=patient(10))] == [7, 11]


def test_cancel_after_begin(stub):
    requests = Requests()
    call = stub.StreamingInputCall.future(requests, timeout=patient(10))
    call.cancel()
    requests.end()
    assert call.code() == grpc.StatusCode.CANCELLED


def test_cancel_after_first_response(stub, pb):
    requests = Requests()
    responses = stub.FullDuplexCall(requests, timeout=patient(10))
    requests.put(ping(pb, 31415, 27182))
    assert len(next(responses).payload.body) == 31415
    responses.cancel()
    requests.end()
    assert code_of(lambda: next(responses))[0] == grpc.StatusCode.CANCELLED


def test_timeout_on_sleeping_server(stub, pb):
    requests = Requests()
    responses = stub.FullDuplexCall(requests, timeout=0.1)
    requests.put(pb.StreamingOutputCallRequest(payload=pb.Payload(body=b"\0" * 27182)))
    assert code_of(lambda: list(responses))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    requests.end()


def test_status_code_and_message(stub, pb):
    status = pb.EchoStatus(code=2, message="test status message")
    call = lambda: stub.UnaryCall(pb.SimpleRequest(response_status=status), timeout=patient(10))
    assert code_of(call) == (grpc.StatusCode.UNKNOWN, "test status message")
    request = pb.StreamingOutputCallRequest(response_status=status)
    assert code_of(lambda: list(stub.FullDuplexCall(iter([request]), timeout=patient(10)))) == (
        grpc.StatusCode.UNKNOWN, "test status message")


def test_special_status_message(stub, pb):
    words = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
    request = pb.SimpleRequest(response_status=pb.EchoStatus(code=2, message=words))
    assert code_of(lambda: stub.UnaryCall(request, timeout=patient(10))) == (grpc.StatusCode.UNKNOWN, words)


def test_unimplemented_method(stub, empty):
    assert code_of(lambda: stub.UnimplementedCall(empty, timeout=patient(10)))[0] == grpc.StatusCode.UNIMPLEMENTED


def test_unimplemented_service(server, services, empty):
    with channel_to(server) as channel:
        stub = services.UnimplementedServiceStub(channel)
        assert code_of(lambda: stub.UnimplementedCall(empty, timeout=patient(10)))[0] == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("binary", [b"", b"\xab", b"\xab\xab", b"\xab\xab\xab", bytes(range(256))])
def test_custom_metadata(stub, pb, binary):
    metadata = (("x-grpc-test-echo-initial", "test_initial_metadata_value"), ("x-grpc-test-echo-trailing-bin", binary))
    _, call = stub.UnaryCall.with_call(pb.SimpleRequest(), metadata=metadata, timeout=patient(10))
    assert ("x-grpc-test-echo-initial", "test_initial_metadata_value") in call.initial_metadata()
    assert ("x-grpc-test-echo-trailing-bin", binary) in call.trailing_metadata()
    responses = stub.FullDuplexCall(iter([ping(pb, 5)]), metadata=metadata, timeout=patient(10))
    assert len(list(responses)) == 1
    assert ("x-grpc-test-echo-initial", "test_initial_metadata_value") in responses.initial_metadata()
    assert ("x-grpc-test-echo-trailing-bin", binary) in responses.trailing_metadata()


def test_initial_metadata_comes_with_an_error_too(stub, pb):
    request = pb.SimpleRequest(response_status=pb.EchoStatus(code=5, message="gone"))
    with pytest.raises(grpc.RpcError) as error:
        stub.UnaryCall(request, metadata=[("x-grpc-test-echo-initial", "yes")], timeout=patient(10))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    assert ("x-grpc-test-echo-initial", "yes") in error.value.initial_metadata()


def test_client_compressed(server, services, pb):
    with channel_to(server, compression=grpc.Compression.Gzip) as channel:
        stub = services.TestServiceStub(channel)
        request = pb.SimpleRequest(response_size=10, payload=pb.Payload(body=b"\0" * 271828))
        code, _ = code_of(lambda: stub.UnaryCall(request, timeout=patient(10)))
        assert code == grpc.StatusCode.UNIMPLEMENTED
        requests = iter([pb.StreamingInputCallRequest(payload=pb.Payload(body=b"\0" * 27182))])
        assert code_of(lambda: stub.StreamingInputCall(requests, timeout=patient(10)))[0] == grpc.StatusCode.UNIMPLEMENTED


def test_rich_errors(stub, stubs, pb):
    request = pb.SimpleRequest(response_status=pb.EchoStatus(code=3, message="x"))
    with pytest.raises(grpc.RpcError) as error:
        stub.UnaryCall(request, metadata=[("x-test-details", "yes")], timeout=patient(10))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert stubs.details(error.value) == ("INVALID_FIELD", {"payload.body": "is not to our taste"})


# --- limits and many at once ------------------------------------------------------------------------------------------

def test_a_message_of_64_mib_passes_and_a_larger_one_does_not(stub, pb):
    overhead = 16
    fits = pb.SimpleRequest(payload=pb.Payload(body=b"x" * (64 * 1024 * 1024 - overhead)))
    assert stub.UnaryCall(fits, timeout=patient(60)).payload.body == b""
    over = pb.SimpleRequest(payload=pb.Payload(body=b"x" * (64 * 1024 * 1024)))
    assert code_of(lambda: stub.UnaryCall(over, timeout=patient(60)))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_100_concurrent_streams(stub, pb):
    requests = [Requests() for _ in range(100)]
    calls = [stub.FullDuplexCall(r, timeout=patient(60)) for r in requests]
    for n in range(3):
        for r in requests:
            r.put(ping(pb, 1000 + n, 100))
        for c in calls:
            assert len(next(c).payload.body) == 1000 + n
    for r in requests:
        r.end()
    for c in calls:
        assert list(c) == []
        assert c.code() == grpc.StatusCode.OK


def test_admission(stub, pb, empty):
    later = [("x-test-admit", "later")]
    request = pb.SimpleRequest(response_size=7, payload=pb.Payload(body=b"\0" * 3000000))
    assert len(stub.UnaryCall(request, metadata=later, timeout=patient(20)).payload.body) == 7
    sizes = [2000000, 1, 700000]
    requests = (pb.StreamingInputCallRequest(payload=pb.Payload(body=b"\0" * n)) for n in sizes)
    assert stub.StreamingInputCall(requests, metadata=later, timeout=patient(20)).aggregated_payload_size == sum(sizes)
    assert code_of(lambda: stub.EmptyCall(empty, metadata=later, timeout=0.01))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    never = [("x-test-admit", "never")]
    assert code_of(lambda: stub.EmptyCall(empty, metadata=never, timeout=patient(10))) == (
        grpc.StatusCode.UNAUTHENTICATED, "not admitted")
    assert stub.EmptyCall(empty, timeout=patient(10)) == empty


def test_a_handler_that_pauses_stops_the_peer(server, stub, pb):
    before = server.rss()
    body = b"\0" * 1000000
    sent = []

    def requests():
        for n in range(60):
            sent.append(n)
            yield pb.StreamingInputCallRequest(payload=pb.Payload(body=body))

    response = stub.StreamingInputCall(requests(), metadata=[("x-test-slow", "yes")], timeout=patient(60))
    assert response.aggregated_payload_size == 60 * len(body)
    assert server.rss() - before < 40e6


def test_a_slow_reader_holds_bounded_memory(server, services, pb):
    with channel_to(server) as channel:
        stub = services.TestServiceStub(channel)
        parts = [pb.ResponseParameters(size=200000)] * 500
        before = server.rss()
        responses = stub.StreamingOutputCall(pb.StreamingOutputCallRequest(response_parameters=parts), timeout=patient(120))
        received, most = 0, 0
        for r in responses:
            received += len(r.payload.body)
            if received < 20 * 200000:
                time.sleep(0.02)
            most = max(most, server.rss() - before)
        assert received == 500 * 200000
        assert most < 30e6


# --- health -----------------------------------------------------------------------------------------------------------

def test_health(plain_server, stubs, services, pb):
    health_pb, health = stubs.module("grpc.health.v1.health_pb2"), stubs.module("grpc.health.v1.health_pb2_grpc")
    status = health_pb.HealthCheckResponse
    with channel_to(plain_server) as channel:
        stub = health.HealthStub(channel)
        check = lambda name: stub.Check(health_pb.HealthCheckRequest(service=name), timeout=patient(10)).status
        assert check("") == status.SERVING
        assert check("grpc.testing.TestService") == status.SERVING
        assert code_of(lambda: check("no.such.Service"))[0] == grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb.HealthCheckRequest(service="grpc.testing.TestService"), timeout=patient(30))
        unknown = stub.Watch(health_pb.HealthCheckRequest(service="no.such.Service"), timeout=patient(30))
        assert next(watch).status == status.SERVING
        assert next(unknown).status == status.SERVICE_UNKNOWN
        plain_server.process.signal(signal.SIGUSR1)
        assert next(watch).status == status.NOT_SERVING
        assert check("grpc.testing.TestService") == status.NOT_SERVING
        plain_server.process.signal(signal.SIGUSR2)
        assert next(watch).status == status.SERVING
        watch.cancel()
        unknown.cancel()


# --- reflection -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection(plain_server, stubs, version):
    from google.protobuf import descriptor_pb2
    pb = stubs.module(f"grpc.reflection.{version}.reflection_pb2")
    rpc = stubs.module(f"grpc.reflection.{version}.reflection_pb2_grpc")
    ask = pb.ServerReflectionRequest
    with channel_to(plain_server) as channel:
        answers = rpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([
            ask(list_services=""),
            ask(file_containing_symbol="grpc.testing.TestService"),
            ask(file_containing_symbol="grpc.testing.TestService.UnaryCall"),
            ask(file_by_filename="muster/v1/command_service.proto"),
            ask(file_containing_symbol="no.such.Symbol"),
            ask(file_by_filename="no/such/file.proto"),
            ask(file_containing_extension=pb.ExtensionRequest(containing_type="grpc.testing.Empty", extension_number=1)),
            ask(all_extension_numbers_of_type="grpc.testing.Empty"),
            ask(),
        ]), timeout=patient(10))
        listed, by_symbol, by_method, by_file, *errors, no_extension, numbers, nothing = list(answers)
    names = {s.name for s in listed.list_services_response.service}
    assert names == {"grpc.testing.TestService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                     "grpc.reflection.v1alpha.ServerReflection"}
    files = [descriptor_pb2.FileDescriptorProto.FromString(f)
             for f in by_symbol.file_descriptor_response.file_descriptor_proto]
    assert files[0].name == "grpc/testing/test.proto"
    assert {f.name for f in files} == {"grpc/testing/test.proto", "grpc/testing/empty.proto", "grpc/testing/messages.proto"}
    assert by_method.file_descriptor_response == by_symbol.file_descriptor_response
    files = [descriptor_pb2.FileDescriptorProto.FromString(f)
             for f in by_file.file_descriptor_response.file_descriptor_proto]
    assert files[0].name == "muster/v1/command_service.proto"
    assert set(files[0].dependency) <= {f.name for f in files}
    assert [e.error_response.error_code for e in errors] == [5, 5]
    assert no_extension.error_response.error_code == 5
    assert list(numbers.all_extension_numbers_response.extension_number) == []
    assert nothing.error_response.error_code == 3
    assert by_file.original_request.file_by_filename == "muster/v1/command_service.proto"


# --- drain and death --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tls", [False, True])
def test_drain_lets_calls_end(session_folder, certificates, services, stubs, pb, empty, tls):
    server = GrpcServer(session_folder, certificates if tls else None)
    health_pb, health = stubs.module("grpc.health.v1.health_pb2"), stubs.module("grpc.health.v1.health_pb2_grpc")
    with channel_to(server) as channel:
        stub = services.TestServiceStub(channel)
        requests = Requests()
        responses = stub.FullDuplexCall(requests, timeout=patient(30))
        requests.put(ping(pb, 1000))
        assert len(next(responses).payload.body) == 1000
        watch = health.HealthStub(channel).Watch(health_pb.HealthCheckRequest(), timeout=patient(30))
        assert next(watch).status == health_pb.HealthCheckResponse.SERVING
        server.process.signal(signal.SIGTERM)
        assert next(watch).status == health_pb.HealthCheckResponse.NOT_SERVING
        assert code_of(lambda: next(watch))[0] == grpc.StatusCode.UNAVAILABLE
        requests.put(ping(pb, 2000))
        assert len(next(responses).payload.body) == 2000
        assert server.process.alive()
        # The channel has heard GOAWAY, and nobody listens any more.
        with channel_to(server) as other:
            assert code_of(lambda: services.TestServiceStub(other).EmptyCall(empty, timeout=5))[0] == \
                grpc.StatusCode.UNAVAILABLE
        requests.put(ping(pb, 3000))
        assert len(next(responses).payload.body) == 3000
        requests.end()
        assert list(responses) == []
        assert responses.code() == grpc.StatusCode.OK
        assert server.process.wait(10) == 0


def test_an_idle_connection_is_told_to_go(session_folder, services, empty):
    server = GrpcServer(session_folder, args=["--idle", "1s"])
    with channel_to(server) as channel:
        stub = services.TestServiceStub(channel)
        states, gone = [], threading.Event()

        def watch(state):
            states.append(state)
            if state == grpc.ChannelConnectivity.IDLE and grpc.ChannelConnectivity.READY in states:
                gone.set()

        channel.subscribe(watch)
        assert stub.EmptyCall(empty, timeout=patient(10)) == empty
        assert gone.wait(patient(15)), states
        # And a new call makes a new connection.
        assert stub.EmptyCall(empty, timeout=patient(10)) == empty
    server.stop()
