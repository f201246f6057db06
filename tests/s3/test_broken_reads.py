"""Objects whose bytes cannot be read: told when nothing was sent yet, cut off when something was."""

import http.client
from collections.abc import Iterator
from typing import Any

import pytest

from s4raw.errors import Corrupt
from s4raw.objects.memory import MemoryBackend, MemoryReading

from .service import fails

BODY = b"0" * (3 << 20)


class Damaged(MemoryBackend):
    """Objects that are damaged after their first ``good`` pieces."""

    good = 0

    def get(self, *arguments: Any, **named: Any) -> Any:
        reading = super().get(*arguments, **named)
        reading.pieces = self._pieces(reading)  # type: ignore[method-assign]
        return reading

    def _pieces(self, reading: MemoryReading) -> Any:
        whole = MemoryReading.pieces

        def pieces() -> Iterator[memoryview]:
            for number, piece in enumerate(whole(reading)):
                if number == self.good:
                    raise Corrupt("block 7 does not match its digest")
                yield piece

        return pieces


@pytest.fixture
def backend() -> Damaged:
    return Damaged()


@pytest.fixture
def damaged(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="key", Body=BODY)
    return bucket


def test_damage_that_is_found_at_once_is_an_error(s3: Any, damaged: str, complaints: list[str]) -> None:
    fails("InternalError", 500, s3.get_object, Bucket=damaged, Key="key")
    assert "block 7" in complaints[0]
    complaints.clear()


def test_damage_that_is_found_later_cuts_the_answer_off(
    s3: Any, damaged: str, backend: Damaged, service: Any, complaints: list[str]
) -> None:
    backend.good = 1
    url = s3.generate_presigned_url("get_object", Params={"Bucket": damaged, "Key": "key"})
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.request("GET", url.removeprefix(service.endpoint))
    answer = connection.getresponse()
    assert answer.status == 200
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    answer.close()
    connection.close()
    complaints.clear()
