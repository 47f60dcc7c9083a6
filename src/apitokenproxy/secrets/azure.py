"""`azure:VAULT/NAME`, with `#KEY` and `#KEY@VERSION`: a secret in Azure Key Vault.

Rules:
1. Credentials are found as Azure's own tools find them (DefaultAzureCredential).
2. There is one attempt a call. The cache before the provider tries again.
3. Azure's texts are not quoted.
4. azure.core logs nothing of a call but warnings: with `logging_enable` it logs secrets and tokens at DEBUG.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import Factory, frozen
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.identity import DefaultAzureCredential
from azure.keyvault.secrets import SecretClient

from apitokenproxy.errors import SecretMissing, SecretUnavailable
from apitokenproxy.messages import Secret
from apitokenproxy.quiet import quiet
from apitokenproxy.secrets.per_process import PerProcess
from apitokenproxy.secrets.value import secret_in

_REFERENCE = re.compile(
    r"(?P<vault>[A-Za-z0-9-]{3,24})/(?P<name>[A-Za-z0-9-]{1,127})"
    r"(?:#(?P<key>[^#@\x00-\x1f]*)(?:@(?P<version>[0-9a-f]{1,64}))?)?"
)
_CURES = {
    403: "the proxy may not read it, or it is disabled; grant it the role Key Vault Secrets User",
    404: "there is no such secret or version",
}
_MISSING = "SecretNotFound"  # Azure's code for a secret and for a version; whatever else says 404 is not Azure
_OK = 200
_SERVER_AT_FAULT = 500
_TOO_MANY = 429
_MOST_VAULTS = 100


def _must_hold_text(answer: Any) -> None:
    """Raise ValueError for a secret that is no text or no UTF-8, of which Azure's client makes some text."""
    if answer.http_response.status_code == _OK and not isinstance(_value(answer.http_response.body()), str):
        raise ValueError


def _value(body: bytes) -> Any:
    said = json.loads(body.decode())
    return said.get("value") if isinstance(said, dict) else None


@frozen
class AzureClients:
    """Makes a client for a vault. `url` is that of vaults in a cloud, `options` are those of every azure client."""

    url: str = "https://{vault}.vault.azure.net"
    credential: Callable[[], Any] = DefaultAzureCredential
    options: Mapping[str, Any] = Factory(dict)

    def connect(self, vault: str, timeout: float) -> SecretClient:
        """Return a client for the vault of that name."""
        return SecretClient(
            self.url.replace("{vault}", vault),
            self.credential(),
            connection_timeout=timeout,
            read_timeout=timeout,
            retry_total=0,
            **self.options,
        )


class AzureSecretsProvider:
    """Reads secrets by vault and name; KEY is one of a JSON object, VERSION an id (the newest when left out).

    `clients` is for another cloud or credential than that of the environment. `timeout` is in seconds.
    """

    ttl = 60.0

    def __init__(self, *, clients: AzureClients | None = None, timeout: float = 5.0) -> None:
        self._clients = clients or AzureClients()
        self._timeout = timeout
        self._made: dict[str, PerProcess[SecretClient]] = {}

    def fetch(self, reference: str) -> Secret:
        """Return the secret; its version is Azure's id. Raises SecretUnavailable."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise SecretUnavailable("azure: a reference is VAULT/NAME, VAULT/NAME#KEY or VAULT/NAME#KEY@VERSION")
        place = f"azure: {found['vault']}/{found['name']}"
        answer = self._answer(place, found["vault"], found["name"], found["version"])
        if not isinstance(answer.value, str):
            raise SecretUnavailable(f"{place} holds no secret")
        version = f"azure/{answer.properties.version or ''}"
        return secret_in(answer.value, found["key"] or "", place=place, version=version)

    def _answer(self, place: str, vault: str, name: str, version: str | None) -> Any:
        try:
            with quiet("azure.core", "msal"):
                client = self._client(vault)
            with quiet("azure.core", "msal"):
                return client.get_secret(name, version, raw_response_hook=_must_hold_text)
        except ClientAuthenticationError as error:
            raise SecretUnavailable(
                f"{place} cannot be read: there are no good credentials for Azure ({type(error).__name__}); give the "
                "machine a managed identity or set AZURE_CLIENT_ID and its like"
            ) from None
        except (ServiceRequestError, ServiceResponseError) as error:
            raise SecretUnavailable(
                f"{place} cannot be read: Azure does not answer ({type(error).__name__})", outage=True
            ) from None
        except HttpResponseError as error:
            status = error.status_code or 0
            missing = error.error is not None and error.error.code == _MISSING
            raise (SecretMissing if missing else SecretUnavailable)(
                f"{place} cannot be read: {_CURES.get(status, 'Azure refuses it')} ({status})",
                outage=status >= _SERVER_AT_FAULT or status == _TOO_MANY,
            ) from None
        except (AzureError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            raise SecretUnavailable(f"{place} cannot be read: what answers is not Azure") from None

    def _client(self, vault: str) -> SecretClient:
        made = self._made.get(vault)
        if made is None:
            if len(self._made) >= _MOST_VAULTS:
                self._made.clear()
            made = self._made[vault] = PerProcess(lambda: self._clients.connect(vault, self._timeout))
        return made.get()
