"""Which operation a request asks for, and that nothing unknown becomes a plain operation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4raw.s3.errors import S3Error
from s4raw.s3.routes import BUCKET, OBJECT, PLAIN, ROUTES, SERVICE, route

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")


@given(st.sampled_from(METHODS), st.sampled_from([SERVICE, BUCKET, OBJECT]), st.text(max_size=12))
def test_a_parameter_without_a_value_is_never_ignored(method: str, level: str, name: str) -> None:
    plain = ROUTES.get((method, level, ""))
    if name in PLAIN or name[:2] in ("x-", "X-") or name in {sub for _, _, sub in ROUTES}:
        return
    with pytest.raises(S3Error):
        route(method, level, {name: ""}, False)
        assert plain is None


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("level", [BUCKET, OBJECT])
def test_what_changes_something_takes_no_strangers(method: str, level: str) -> None:
    with pytest.raises(S3Error, match="NotImplemented"):
        route(method, level, {"annotations": "name"}, False)


def test_known_subresources_of_other_methods_are_refused() -> None:
    for _, level, sub in ROUTES:
        for method in METHODS:
            if sub and not sub.endswith("copy") and (method, level, sub) not in ROUTES:
                with pytest.raises(S3Error, match="NotImplemented"):
                    route(method, level, {sub: "1"}, False)


def test_copies() -> None:
    assert route("PUT", OBJECT, {}, True).__name__ == "copy_object"
    assert route("PUT", OBJECT, {"uploadId": "1", "partNumber": "1"}, True).__name__ == "upload_part_copy"
    assert route("PUT", OBJECT, {"tagging": ""}, True).__name__ == "put_object_tagging"
