"""This proxy with everything on: stored token, rules, two limits, audit file, https upstream."""

import os

from apitokenproxy import Bearer, Limit, Proxy, Rule, Upstream
from apitokenproxy.testing import FixedSecrets

proxy = Proxy(
    upstreams=[
        Upstream(
            "api",
            os.environ["UPSTREAM"],
            credential=Bearer("fixed:key"),
            allow_private=True,
            ca=os.environ.get("CA"),
            max_connections=1000,
        )
    ],
    rules=[
        Rule("no-admin", effect="deny", path="/admin/**"),
        Rule("read", effect="allow", upstream="api", methods=["GET", "POST"], tenants=["acme"]),
    ],
    limits=[
        Limit("per-token", per=["token"], rate="1000000/second"),
        Limit("at-once", per=["tenant"], concurrency=5000),
    ],
    store="sqlite:///" + os.environ["STORE"],
    audit=os.environ["STORE"] + ".audit.jsonl",
    secret_providers={"fixed": FixedSecrets(key="real-key")},
)
asgi = proxy.asgi
wsgi = proxy.wsgi
