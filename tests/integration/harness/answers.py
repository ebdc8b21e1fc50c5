"""What the API answers: refusals, and the progress of a batch."""
import grpc
import pytest


def refusal(api, code, reason, call):
    """The error of a call that must fail so."""
    with pytest.raises(grpc.RpcError) as e:
        call()
    assert e.value.code() == code, e.value
    assert api.stubs.details(e.value)[0] == reason, e.value
    return e.value


def refused(api, code, reason, call):
    """The field violations of a call that must fail so."""
    return api.stubs.details(refusal(api, code, reason, call))[1]


def progress(batch):
    """How many commands are in each state, without those in which there are none."""
    return {f.name: v for f, v in batch.progress.ListFields()}
