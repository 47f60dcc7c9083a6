"""Give out tokens, keep the API keys.

A program calls this proxy with a client token; the proxy finds out who calls, decides whether they
may, counts it, puts the real credential on a clean request, forwards it, cleans the answer and
writes down what happened. Start with `Proxy`.
"""

from apitokenproxy._colour import nonblocking
from apitokenproxy.credentials.basic import Basic
from apitokenproxy.credentials.bearer import Bearer
from apitokenproxy.credentials.body_field import BodyField
from apitokenproxy.credentials.cookie import Cookie
from apitokenproxy.credentials.github_app import GitHubApp
from apitokenproxy.credentials.google import GoogleServiceAccount
from apitokenproxy.credentials.header import Header
from apitokenproxy.credentials.hmac_signature import HmacSignature
from apitokenproxy.credentials.httpx_auth import HttpxAuth
from apitokenproxy.credentials.jwt_bearer import JwtBearer
from apitokenproxy.credentials.oauth2 import OAuth2ClientCredentials
from apitokenproxy.credentials.query import Query
from apitokenproxy.credentials.refresh import OAuth2RefreshToken
from apitokenproxy.credentials.token_exchange import OAuth2TokenExchange
from apitokenproxy.errors import (
    ApitokenproxyError,
    ConfigurationError,
    Denied,
    ProxyError,
    SecretMissing,
    SecretUnavailable,
    StoreUnavailable,
    TokenConflict,
    TokenNotFound,
    Unauthenticated,
)
from apitokenproxy.identity.narrowing import narrow
from apitokenproxy.limits.limit import Limit
from apitokenproxy.messages import Caller, Credential, Denial, Grant, Operation, Secret, Timeouts
from apitokenproxy.policy.rule import Rule
from apitokenproxy.proxy import Proxy
from apitokenproxy.rotation.terms import Rotation
from apitokenproxy.upstream import Upstream

__all__ = [
    "ApitokenproxyError",
    "Basic",
    "Bearer",
    "BodyField",
    "Caller",
    "ConfigurationError",
    "Cookie",
    "Credential",
    "Denial",
    "Denied",
    "GitHubApp",
    "GoogleServiceAccount",
    "Grant",
    "Header",
    "HmacSignature",
    "HttpxAuth",
    "JwtBearer",
    "Limit",
    "OAuth2ClientCredentials",
    "OAuth2RefreshToken",
    "OAuth2TokenExchange",
    "Operation",
    "Proxy",
    "ProxyError",
    "Query",
    "Rotation",
    "Rule",
    "Secret",
    "SecretMissing",
    "SecretUnavailable",
    "StoreUnavailable",
    "Timeouts",
    "TokenConflict",
    "TokenNotFound",
    "Unauthenticated",
    "Upstream",
    "narrow",
    "nonblocking",
]
