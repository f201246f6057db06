"""Where a remote S3 is, and who asks: credentials, region and endpoint, found as every SDK finds them.

botocore's chain is asked (environment, shared config, profiles, single sign-on, roles of instances and containers), and
imported only when the environment alone does not say all three.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from s4raw.errors import ConfError

ENDPOINT_VARIABLE = "S3_ENDPOINT_URL"
DEFAULT_REGION = "us-east-1"

Keys = tuple[str, str, str]


class Account(NamedTuple):
    """A place to send requests to, and what signs them: ``keys`` gives access key, secret and session token.

    The token is empty where there is none. ``keys`` gives fresh ones when the old ones have run out, which may take a
    request of its own; it raises ConfError, and may be called from any thread. ``amazon`` says that nobody named an
    endpoint: it is Amazon's own, and other regions have others.
    """

    endpoint: str
    region: str
    keys: Callable[[], Keys]
    amazon: bool = False


def find(profile: str | None = None, region: str | None = None, endpoint: str | None = None) -> Account:
    """The account that the environment describes; what is given here counts more.

    The endpoint is ``endpoint``, else that of $S3_ENDPOINT_URL, else what botocore finds ($AWS_ENDPOINT_URL_S3,
    $AWS_ENDPOINT_URL, the profile's), else Amazon's of the region. Raises ConfError.
    """
    return settle(profile, region, endpoint, None)


def settle(profile: str | None, region: str | None, endpoint: str | None, pair: tuple[str, str] | None) -> Account:
    """As ``find``, with a key pair in place of the chain, unless it is None. Raises ConfError."""
    endpoint = endpoint or os.environ.get(ENDPOINT_VARIABLE) or None
    keys = (*pair, "") if pair else None if profile else _of_environment()
    region = region or (None if profile else os.environ.get("AWS_DEFAULT_REGION")) or None
    if keys and region and endpoint:
        return Account(endpoint, region, lambda: keys)
    try:
        return _of_botocore(profile, region, endpoint, keys)
    except ImportError:
        if keys and endpoint:
            return Account(endpoint, region or DEFAULT_REGION, lambda: keys)
        raise ConfError(
            "finding credentials, region and endpoint needs botocore: pip install 's4raw[s3]' (or set "
            f"AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and {ENDPOINT_VARIABLE})"
        ) from None


def _of_environment() -> Keys | None:
    """The first step of botocore's chain."""
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    token = os.environ.get("AWS_SESSION_TOKEN") or os.environ.get("AWS_SECURITY_TOKEN") or ""
    return (access, secret, token) if access and secret else None


def _of_botocore(profile: str | None, region: str | None, endpoint: str | None, keys: Keys | None) -> Account:
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped, import-not-found, unused-ignore]
    from botocore.session import Session  # type: ignore[import-untyped, import-not-found, unused-ignore]

    try:
        session = Session(profile=profile)
        region = region or session.get_config_variable("region") or DEFAULT_REGION
        provider = _provider(session) if keys is None else lambda: keys
        if endpoint:
            return Account(endpoint, region, provider)
        found = session.create_client("s3", region_name=region, aws_access_key_id="-", aws_secret_access_key="-")
        named, region = found.meta.endpoint_url.rstrip("/"), found.meta.region_name or region
        found.close()
    except BotoCoreError as error:
        raise ConfError(f"no credentials, region or endpoint of the remote: {error}") from None
    return Account(named, region, provider, amazon=_is_amazon(named))


def _is_amazon(endpoint: str) -> bool:
    return endpoint.partition("//")[2].endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _provider(session: Any) -> Callable[[], Keys]:
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped, import-not-found, unused-ignore]

    chain = session.get_credentials()
    if chain is None:
        raise ConfError(
            "no credentials for the remote: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with "
            "them (aws configure)"
        )

    def keys() -> Keys:
        try:
            frozen = chain.get_frozen_credentials()
        except BotoCoreError as error:
            raise ConfError(f"the credentials of the remote cannot be renewed: {error}") from None
        return frozen.access_key, frozen.secret_key, frozen.token or ""

    return keys
