"""`vault:MOUNT/PATH#KEY`: a secret in HashiCorp Vault or OpenBao, by hvac.

Rules:
1. Vault itself says where the mount ends and of which kind it is, as its own command line asks it; so KV 1,
   KV 2 and engines that make credentials (`database/creds/ROLE`) are written alike.
2. What is leased is kept by path, renewed while Vault allows it, and never handed out past its end: every key
   of one path is of one lease, and asking each minute does not make a user in a database each minute.
3. A token is renewed before it ends, since its leases end with it; when that cannot be, it is obtained anew.
4. A path that is forbidden does not end the token, which all tenants share: it is forgotten, and its leases with
   it, when Vault does not let it ask about itself either.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen
from hvac.exceptions import Forbidden, InvalidPath, VaultError

from apitokenproxy.errors import ConfigurationError, SecretMissing, SecretUnavailable
from apitokenproxy.messages import Secret
from apitokenproxy.secrets.vault_calls import Unlike, VaultServer, part
from apitokenproxy.secrets.vault_login import VaultLogin, login_from_environment

_MOST_LEASES = 1000

_REFERENCE = re.compile(r"(?P<path>[\w.@+=:,-]+(?:/[\w.@+=:,-]+)+)#(?P<key>[^#\x00-\x1f]+)", re.ASCII)
_RENEW = 2 / 3
"""The part of a token's or lease's time after which it is renewed."""
_LATELY = 5.0
"""Seconds in which a token that was refused is not obtained anew."""


@define
class _Token:
    value: str = field(repr=False)
    since: float
    renew: float
    until: float
    seconds: float
    renewable: bool


@frozen
class _Mount:
    path: str
    is_kv2: bool


@define
class _Lease:
    data: Mapping[str, Any] = field(repr=False)
    id: str
    seconds: float
    until: float
    renewable: bool


class VaultProvider:
    """Reads secrets at `url`. Left out, address, namespace, CA file and login are those of the environment.

    That is VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT and what `login_from_environment` names. `timeout` is
    in seconds, for each call. Nothing is asked before the first secret is. Raises ConfigurationError.
    """

    ttl = 60.0

    def __init__(
        self,
        url: str | None = None,
        *,
        login: VaultLogin | None = None,
        namespace: str | None = None,
        ca: str | None = None,
        timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        url = url or os.environ.get("VAULT_ADDR", "")
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError("vault: set VAULT_ADDR to the server's address, as https://vault.example.com:8200")
        self._server = VaultServer(
            url, namespace or os.environ.get("VAULT_NAMESPACE"), ca or os.environ.get("VAULT_CACERT"), timeout
        )
        self._login = login or login_from_environment()
        self._timeout = timeout
        self._clock = clock
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Share nothing with a process that this one was forked from: neither locks nor leases."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._mounts: dict[str, _Mount] = {}
        self._taking = threading.Lock()
        self._leases: dict[str, _Lease] = {}

    def fetch(self, reference: str) -> Secret:
        """Return the value of one key. Raises SecretUnavailable, with `outage` when Vault does not answer.

        Raises SecretMissing for a path at which there is nothing, and for a key that is not there.
        """
        found = _REFERENCE.fullmatch(reference)
        if found is None or {"", ".", ".."} & set(found["path"].split("/")):
            raise SecretUnavailable("vault: a reference is MOUNT/PATH#KEY, of letters, digits and . _ @ + = : , -")
        path, key = found["path"], found["key"]
        if self._pid != os.getpid():
            self._begin_anew()
        with self._server.client(path) as client:
            self._show_token(client)
            try:
                data, version, good_for = self._read(client, path)
            except Forbidden:
                if not self._forget_token(client):
                    raise
                self._show_token(client)
                data, version, good_for = self._read(client, path)
        if key not in data:
            raise SecretMissing(f"vault: {path} has no key {key}")
        if not isinstance(data[key], str):
            raise SecretUnavailable(f"vault: {path} holds something that is not text under the key {key}")
        try:
            return Secret(data[key], version=version, good_for=good_for)
        except ValueError:
            told = f"vault: {path}#{key} is empty, or text that UTF-8 cannot write; write it again"
            raise SecretUnavailable(told) from None

    # --- reading ----------------------------------------------------------------------------

    def _read(self, client: Any, path: str) -> tuple[Mapping[str, Any], str, float | None]:
        mount = self._mount(client, path)
        try:
            if not mount.is_kv2:
                return self._leased(client, path)
            data = part(client.read(f"{mount.path}data/{path.removeprefix(mount.path)}"), "data")
        except InvalidPath:
            self._mounts.pop(mount.path, None)  # it may have been made anew, of another kind
            if not client.session.says_missing:
                raise Unlike from None
            raise SecretMissing(f"vault: there is nothing at {path}; mend the reference or write it") from None
        return part(data, "data"), f"vault/{part(data, 'metadata').get('version')}", None

    def _mount(self, client: Any, path: str) -> _Mount:
        for known in list(self._mounts.values()):
            if path.startswith(known.path):
                return known
        data = part(client.read(f"sys/internal/ui/mounts/{path}"), "data")
        name, options = data.get("path"), data.get("options") or {}
        if not isinstance(name, str) or not path.startswith(name) or not isinstance(options, Mapping):
            raise Unlike
        mount = _Mount(name, data.get("type") == "kv" and options.get("version") == "2")
        self._mounts[name] = mount
        return mount

    def _leased(self, client: Any, path: str) -> tuple[Mapping[str, Any], str, float | None]:
        now = self._clock()
        lease = before = self._leases.get(path)
        if lease is not None and now >= lease.until - lease.seconds * (1 - _RENEW):
            lease = self._renewed(client, lease, now) if lease.renewable else None
        if lease is None:
            answer = client.read(path)
            if answer is None:
                raise InvalidPath
            data, seconds = part(answer, "data"), float(answer.get("lease_duration") or 0)
            if not answer.get("lease_id"):
                return data, "", None  # KV 1; what it calls a lease is advice
            lease = _Lease(data, answer["lease_id"], seconds, now + seconds, answer.get("renewable") is True)
            lease = self._taken(client, path, before, lease)
        return lease.data, f"vault/{lease.id.rpartition('/')[2][:8]}", lease.until - now

    def _taken(self, client: Any, path: str, before: _Lease | None, lease: _Lease) -> _Lease:
        """Return the lease that all keys of a path are of: this one, unless another fetch was quicker."""
        with self._taking:
            now_held = self._leases.get(path)
            if now_held is before or now_held is None:
                self._leases.pop(path, None)
                while len(self._leases) >= _MOST_LEASES:
                    del self._leases[next(iter(self._leases))]
                self._leases[path] = lease
                return lease
        with contextlib.suppress(VaultError):  # a policy need not allow it; then it ends by itself
            client.sys.revoke_lease(lease.id)
        return now_held

    def _renewed(self, client: Any, lease: _Lease, now: float) -> _Lease | None:
        """Return the lease with more time; None when Vault gives it little or nothing more."""
        with contextlib.suppress(VaultError):
            answer = client.sys.renew_lease(lease_id=lease.id, increment=int(lease.seconds))
            until = now + float(answer["lease_duration"])
            if until >= lease.until and until - now > lease.seconds * (1 - _RENEW):
                lease.until = until
                return lease
        return None

    # --- the token --------------------------------------------------------------------------

    def _show_token(self, client: Any) -> None:
        if not self._lock.acquire(timeout=self._timeout):
            raise SecretUnavailable("vault: another request waits for a token that long already", outage=True)
        try:
            now = self._clock()
            token = self._token
            if token is not None and now >= token.renew:
                token = self._renewed_token(client, token, now)
            if token is None:
                token = self._token_of(self._login.log_in(client), now)
                if self._token is None or token.value != self._token.value:
                    with self._taking:
                        self._leases.clear()  # they end with the token that they were obtained with
            self._token = token
            client.token = token.value
        finally:
            self._lock.release()

    def _renewed_token(self, client: Any, token: _Token, now: float) -> _Token | None:
        if token.renewable and now < token.until:
            client.token = token.value
            with contextlib.suppress(VaultError):
                renewed = self._token_of(client.auth.token.renew_self()["auth"], now)
                if renewed.seconds > token.seconds * (1 - _RENEW):
                    renewed.seconds = token.seconds
                    return renewed
            client.token = None
        return None

    def _token_of(self, auth: Mapping[str, Any], now: float) -> _Token:
        seconds = float(auth["lease_duration"]) or float("inf")
        return _Token(
            auth["client_token"], now, now + seconds * _RENEW, now + seconds, seconds, auth.get("renewable") is True
        )

    def _forget_token(self, client: Any) -> bool:
        """Forget the token that `client` shows if Vault takes it no more; False when it does.

        False also, unasked, when the one at hand is so new that another would be refused too.
        """
        token = self._token
        if token is None or self._clock() - token.since < _LATELY:
            return False
        try:
            client.auth.token.lookup_self()
        except Forbidden:
            if self._token is token and token.value == client.token:  # else another fetch has obtained one
                self._token = None
            return True
        return False
