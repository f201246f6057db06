"""The write queue keeps the promises of all backends: with nothing delivered yet, and while it is being delivered."""

import pytest
from objects_conformance import Buckets, Conditional, Conformance, Copies, Objects, Races
from queued_support import Dated, Front, quick_directory


@pytest.fixture
def front():
    with quick_directory() as directory:
        front = Front(directory, Dated())
        yield front
        front.close()


class TestPending(Conformance):
    """Nothing reaches the remote: all is answered from the overlay."""

    @pytest.fixture
    def backend(self, front):
        yield front.backend
        assert not front.queue.gauges().delivered


class TestDelivering(Buckets, Objects, Copies, Conditional, Races):
    """Everything reaches the remote, at any moment. (Ranges, pages and parts are the remote's, or have no moments.)"""

    bucket = Conformance.bucket

    @pytest.fixture
    def backend(self, front):
        with front.pushing():
            yield front.backend
            assert front.queue.flush(30)
        assert not front.left_over()
