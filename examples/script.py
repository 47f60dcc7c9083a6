"""python script.py: rules, limits and audit for calls inside one program, with no server."""

import httpx

from apitokenproxy import Bearer, Limit, Proxy, Rule, Upstream

proxy = Proxy(
    upstreams=[Upstream("github", "https://api.github.com", credential=Bearer("env:GITHUB_TOKEN"))],
    rules=[Rule("read", effect="allow", methods=["GET"])],
    limits=[Limit("calls", per=["token"], rate="60/minute")],
    audit="audit.jsonl",
)
token = proxy.tokens.issue(tenant="agent").token
with httpx.Client(transport=proxy.transport(token), base_url="http://proxy/github") as client:
    print(client.get("/zen").text)
    print(client.delete("/repos/acme/site").json()["code"])
proxy.close()
