"""A worker alone, with stock MQTT clients; the dispatcher's part is done by hand."""
import pytest
from harness.hand_router import SUCCEEDED, HandRouter
from harness.stack import have
from harness.until import until

pytestmark = pytest.mark.skipif(not have("muster-worker"), reason="muster-worker is not built")


@pytest.fixture
def router(stack):
    return HandRouter(stack, devices=16)


def test_a_command_comes_and_its_outcome_is_durable_before_the_puback(stack, router):
    worker = stack.start_worker()
    with router.device(3).connect(worker.address) as device:
        until(lambda: router.presence(3))
        batch = router.open([3])
        router.route(batch, [3])
        delivery = device.next()
        assert delivery.command.lock.message == "locked"
        assert delivery.attempt == 1
        device.wait_published(device.ack(delivery))
        assert router.log() == {(batch, 3): SUCCEEDED | 1 << 4}
        assert router.state(batch, 3) == (SUCCEEDED, 1)
