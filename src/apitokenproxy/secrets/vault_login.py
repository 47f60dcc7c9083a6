"""How the `vault` provider says who it is: with a token, by AppRole, or as a Kubernetes service account."""

import os
from collections.abc import Mapping
from typing import Any, Protocol

from attrs import field, frozen
from hvac.exceptions import Forbidden

from apitokenproxy.errors import ConfigurationError, SecretUnavailable
from apitokenproxy.messages import Hidden
from apitokenproxy.secrets.reading import read_file, why_not

_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_MOST = 65536  # bytes


def _hidden(value: str | bytes) -> Hidden:
    return Hidden(value.encode() if isinstance(value, str) else value)


class VaultLogin(Protocol):
    """One way to get a Vault token."""

    def log_in(self, client: Any) -> Mapping[str, Any]:
        """Return `client_token`, `lease_duration` (seconds, 0: it does not end) and `renewable`.

        `client` is an hvac.Client without a token; what it raises is left to the caller.
        """


@frozen
class VaultToken:
    """A token that somebody else obtained; `file` is one that an agent keeps up to date."""

    token: Hidden = field(default=Hidden(b""), converter=_hidden, repr=False)
    file: str | None = None

    def log_in(self, client: Any) -> Mapping[str, Any]:
        """Ask Vault how long the token lives; one that may not even ask that is taken to live on."""
        token = (_read(self.file) if self.file is not None else self.token).decode()
        client.token = token
        try:
            data = client.auth.token.lookup_self()["data"]
        except Forbidden:
            data = {"ttl": 0}
        return {"client_token": token, "lease_duration": data["ttl"], "renewable": data.get("renewable", False)}


@frozen
class VaultAppRole:
    """The AppRole auth method, mounted at `mount`; `secret_id_file` is read at each login."""

    role_id: str
    secret_id: Hidden = field(default=Hidden(b""), converter=_hidden, repr=False)
    secret_id_file: str | None = None
    mount: str = "approle"

    def log_in(self, client: Any) -> Mapping[str, Any]:
        """Exchange the role and its secret id for a token."""
        secret_id = _read(self.secret_id_file) if self.secret_id_file is not None else self.secret_id
        answer = client.auth.approle.login(
            role_id=self.role_id, secret_id=secret_id.decode(), use_token=False, mount_point=self.mount
        )
        return answer["auth"]  # type: ignore[no-any-return]


@frozen
class VaultKubernetes:
    """The Kubernetes auth method, mounted at `mount`; the service account's token is read from `jwt_file`."""

    role: str
    jwt_file: str = _SERVICE_ACCOUNT
    mount: str = "kubernetes"

    def log_in(self, client: Any) -> Mapping[str, Any]:
        """Exchange the service account's token, read anew each time, for one of Vault."""
        answer = client.auth.kubernetes.login(
            role=self.role, jwt=_read(self.jwt_file).decode(), use_token=False, mount_point=self.mount
        )
        return answer["auth"]  # type: ignore[no-any-return]


def login_from_environment() -> VaultLogin:
    """Return the login that the environment describes.

    VAULT_TOKEN or VAULT_TOKEN_FILE; VAULT_ROLE_ID with VAULT_SECRET_ID or VAULT_SECRET_ID_FILE; VAULT_K8S_ROLE.
    Raises ConfigurationError.
    """
    environ = os.environ
    if "VAULT_TOKEN" in environ or "VAULT_TOKEN_FILE" in environ:
        return VaultToken(environ.get("VAULT_TOKEN", ""), environ.get("VAULT_TOKEN_FILE"))
    if "VAULT_ROLE_ID" in environ:
        return VaultAppRole(
            environ["VAULT_ROLE_ID"], environ.get("VAULT_SECRET_ID", ""), environ.get("VAULT_SECRET_ID_FILE")
        )
    if "VAULT_K8S_ROLE" in environ:
        return VaultKubernetes(environ["VAULT_K8S_ROLE"])
    raise ConfigurationError(
        "vault: nothing says who the proxy is; set VAULT_TOKEN, VAULT_TOKEN_FILE, VAULT_ROLE_ID with VAULT_SECRET_ID, "
        "or VAULT_K8S_ROLE"
    )


def _read(path: str) -> bytes:
    try:
        return read_file(path, _MOST).strip()
    except (OSError, ValueError) as error:
        raise SecretUnavailable(f"vault: {path}, which is needed to log in, cannot be read: {why_not(error)}") from None
