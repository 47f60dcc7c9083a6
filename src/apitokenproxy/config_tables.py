"""The tables of a configuration file: which keys there are, and what is made of them."""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import fields

from apitokenproxy.credentials.basic import Basic
from apitokenproxy.credentials.bearer import Bearer
from apitokenproxy.credentials.body_field import BodyField
from apitokenproxy.credentials.cookie import Cookie
from apitokenproxy.credentials.github_app import GitHubApp
from apitokenproxy.credentials.google import GoogleServiceAccount
from apitokenproxy.credentials.header import Header
from apitokenproxy.credentials.hmac_signature import HmacSignature
from apitokenproxy.credentials.jwt_bearer import JwtBearer
from apitokenproxy.credentials.oauth2 import OAuth2ClientCredentials
from apitokenproxy.credentials.query import Query
from apitokenproxy.credentials.refresh import OAuth2RefreshToken
from apitokenproxy.credentials.token_exchange import OAuth2TokenExchange
from apitokenproxy.durations import parse_duration
from apitokenproxy.messages import Timeouts
from apitokenproxy.rotation.terms import Rotation


def jwt_identity(issuer: str, *, outage: str | None = None, **values: Any) -> Any:
    """Return the authenticator for the JWTs of an issuer. Raises ConfigurationError."""
    from apitokenproxy.identity.jwt import JwtIdentity  # noqa: PLC0415 - needs the extra `jwt`

    if outage is not None:
        values["outage"] = parse_duration(outage)
    return JwtIdentity(issuer, **values)


def rotation(**values: Any) -> Rotation:
    """Return the terms of a rotation. Raises ConfigurationError."""
    for key in ("soak", "previous_for"):
        if key in values:
            values[key] = parse_duration(values[key])
    return Rotation(**values)


def _sigv4(**values: Any) -> Any:
    from apitokenproxy.credentials.sigv4 import SigV4  # noqa: PLC0415 - needs the extra `aws`

    return SigV4(**values)


Keys = Mapping[str, str]
"""The keys of a table, each with the kind of value it takes; a `!` marks what must be there."""

TOP: Keys = {"proxy": "table", "upstreams": "!table", "rules": "tables", "limits": "tables", "jwt": "tables"}
PROXY: Keys = {
    "store": "string",
    "audit": "string",
    "prefix": "string",
    "token_header": "string",
    "revocation_bound": "string",
    "store_outage": "string",
    "trusted_proxies": "strings",
    "signing_keys": "strings",
    "exchange_lifetime": "string",
}
UPSTREAM: Keys = {
    "url": "!string",
    "credential": "!table or tables",
    "previous": "table or tables",
    "candidate": "table or tables",
    "rotation": "table",
    "allow_private": "boolean",
    "ca": "string",
    "client_certificate": "string",
    "timeouts": "table",
    "max_connections": "count",
    "max_connections_per_tenant": "count",
    "warm_connections": "count",
    "max_body": "count",
    "replay_body": "count or zero",
    "allow_encoded_slash": "boolean",
    "allow_empty_segments": "boolean",
    "allow_path_parameters": "boolean",
    "allow_encoded_percent": "boolean",
    "allow_foreign_redirects": "boolean",
}
ROTATION: Keys = {
    "probe": "string",
    "share": "fraction",
    "successes": "count",
    "soak": "string",
    "automatic": "boolean",
    "failures": "count",
    "previous_for": "string",
}
TIMEOUTS: Keys = {field.name: "seconds" for field in fields(Timeouts)}
RULE: Keys = {
    "id": "!string",
    "effect": "!string",
    "upstream": "string",
    "methods": "strings",
    "path": "string",
    "tenants": "strings",
    "subjects": "strings",
    "scopes": "strings",
    "where": "texts",
}
LIMIT: Keys = {
    "name": "!string",
    "per": "!strings",
    "rate": "string",
    "burst": "count",
    "quota": "string",
    "concurrency": "count",
}
JWT: Keys = {
    "issuer": "!string",
    "audience": "!strings",
    "tenant": "string",
    "tenant_claim": "string",
    "subject_claim": "string",
    "scopes_claim": "string",
    "attributes": "texts",
    "required": "texts",
    "algorithms": "strings",
    "jwks": "string",
    "outage": "string",
    "allow_private": "boolean",
}
CREDENTIALS: Mapping[str, tuple[Callable[..., Any], Keys]] = {
    "bearer": (Bearer, {"type": "!string", "secret": "!string"}),
    "basic": (Basic, {"type": "!string", "secret": "!string", "username": "string"}),
    "header": (Header, {"type": "!string", "name": "!string", "secret": "!string", "template": "string"}),
    "query": (Query, {"type": "!string", "name": "!string", "secret": "!string"}),
    "cookie": (Cookie, {"type": "!string", "name": "!string", "secret": "!string"}),
    "body-field": (BodyField, {"type": "!string", "name": "!string", "secret": "!string", "max_body": "count"}),
    "hmac-signature": (
        HmacSignature,
        {
            "type": "!string",
            "name": "!string",
            "secret": "!string",
            "message": "string",
            "template": "string",
            "algorithm": "string",
            "encoding": "string",
            "secret_encoding": "string",
            "timestamp_header": "string",
            "unit": "string",
            "max_body": "count",
        },
    ),
    "oauth2-client-credentials": (
        OAuth2ClientCredentials,
        {
            "type": "!string",
            "token_url": "!string",
            "client_id": "!string",
            "secret": "!string",
            "scope": "string",
            "audience": "string",
            "resource": "string",
            "auth": "string",
            "algorithm": "string",
            "key_id": "string",
            "allow_private": "boolean",
        },
    ),
    "oauth2-token-exchange": (
        OAuth2TokenExchange,
        {
            "type": "!string",
            "token_url": "!string",
            "subject_token": "!string",
            "subject_token_type": "string",
            "requested_token_type": "string",
            "audience": "string",
            "resource": "string",
            "scope": "string",
            "client_id": "string",
            "secret": "string",
            "auth": "string",
            "algorithm": "string",
            "key_id": "string",
            "allow_private": "boolean",
        },
    ),
    "jwt-bearer": (
        JwtBearer,
        {
            "type": "!string",
            "token_url": "!string",
            "issuer": "!string",
            "key": "!string",
            "subject": "string",
            "audience": "string",
            "scope": "string",
            "key_id": "string",
            "algorithm": "string",
            "claims": "table",
            "allow_private": "boolean",
        },
    ),
    "github-app": (
        GitHubApp,
        {
            "type": "!string",
            "app_id": "!number or string",
            "installation": "!number or string",
            "key": "!string",
            "repositories": "strings",
            "permissions": "texts",
            "url": "string",
            "allow_private": "boolean",
        },
    ),
    "google-service-account": (
        GoogleServiceAccount,
        {
            "type": "!string",
            "key": "!string",
            "scopes": "strings",
            "subject": "string",
            "audience": "string",
            "allow_private": "boolean",
        },
    ),
    "oauth2-refresh-token": (
        OAuth2RefreshToken,
        {
            "type": "!string",
            "token_url": "!string",
            "client_id": "!string",
            "refresh_token": "!string",
            "key": "!string",
            "secret": "string",
            "scope": "string",
            "auth": "string",
            "algorithm": "string",
            "key_id": "string",
            "allow_private": "boolean",
        },
    ),
    "sigv4": (
        _sigv4,
        {
            "type": "!string",
            "service": "!string",
            "region": "!string",
            "access_key": "!string",
            "secret": "!string",
            "session_token": "string",
            "max_body": "count",
            "allow_headers": "strings",
            "targets": "strings",
        },
    ),
}
