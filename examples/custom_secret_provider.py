"""A secret provider of your own: secrets from a JSON file, `jsonfile:NAME`."""

import json
from pathlib import Path

import httpx

from apitokenproxy import Bearer, Proxy, Rule, Secret, SecretMissing, SecretUnavailable, Upstream


class JsonFile:
    """Knows the secrets in one JSON object of names and values."""

    ttl = 30.0  # seconds

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def fetch(self, reference: str) -> Secret:
        try:
            return Secret(json.loads(self._path.read_text())[reference])
        except KeyError:
            raise SecretMissing(f"{self._path} has no secret {reference}") from None
        except (OSError, ValueError, TypeError):
            raise SecretUnavailable(f"{self._path} cannot be read, or {reference} in it is no secret") from None


proxy = Proxy(
    upstreams=[Upstream("github", "https://api.github.com", credential=Bearer("jsonfile:github"))],
    rules=[Rule("read", effect="allow", methods=["GET"])],
    secret_providers={"jsonfile": JsonFile("secrets.json")},
)

if __name__ == "__main__":
    token = proxy.tokens.issue(tenant="acme").token
    with httpx.Client(transport=proxy.transport(token), base_url="http://proxy/github") as client:
        print(client.get("/zen").text)
    proxy.close()
