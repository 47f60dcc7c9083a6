"""The proxy that every application in this folder mounts at /proxy."""

import os

from apitokenproxy import Bearer, Proxy, Rule, Upstream


def make(prefix: str = "") -> Proxy:
    return Proxy(
        upstreams=[Upstream("api", os.environ["UPSTREAM_URL"], credential=Bearer("env:DEMO_KEY"), allow_private=True)],
        rules=[Rule("all", effect="allow"), Rule("no-admin", effect="deny", path="/admin/**")],
        store=os.environ["STORE"],
        audit=os.environ["AUDIT"],
        prefix=prefix,
    )
