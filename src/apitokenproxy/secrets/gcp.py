"""`gcp:PROJECT/NAME`, with `#KEY` and `#KEY@VERSION`: a secret in Google Cloud Secret Manager.

Rules:
1. Credentials are found as Google's own tools find them (Application Default Credentials).
2. It is asked over HTTP and not gRPC, whose threads do not survive a fork.
3. There is one attempt a call. The cache before the provider tries again.
4. Google's texts are not quoted.
5. Google's packages log nothing of a call but warnings: at DEBUG they log what a service account signs to log in.
"""

import re
from collections.abc import Callable
from typing import Any

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.protobuf.json_format import ParseError
from requests.exceptions import RequestException

from apitokenproxy.errors import SecretMissing, SecretUnavailable
from apitokenproxy.messages import Secret
from apitokenproxy.quiet import quiet
from apitokenproxy.secrets.per_process import PerProcess
from apitokenproxy.secrets.value import secret_in

_REFERENCE = re.compile(
    r"(?P<project>[a-z0-9:.-]{1,63})/(?P<name>[\w-]{1,255})(?:#(?P<key>[^#@\x00-\x1f]*)(?:@(?P<version>[\w-]{1,63}))?)?",
    re.ASCII,
)
_CURES = {
    400: "that version is disabled or destroyed",
    401: "the proxy's credentials are not accepted",
    403: "the proxy may not read it; grant it secretmanager.versions.access",
    404: "there is no such secret or version",
}
_SERVER_AT_FAULT = 500
_TOO_MANY = 429


class GcpSecretsProvider:
    """Reads secrets by project and name; KEY is one of a JSON object, VERSION a number or alias (latest if left out).

    `connect` returns another client than that of the environment. `timeout` is in seconds.
    """

    ttl = 60.0

    def __init__(self, *, connect: Callable[[], Any] | None = None, timeout: float = 5.0) -> None:
        self._client = PerProcess(connect or _connected)
        self._timeout = timeout

    def fetch(self, reference: str) -> Secret:
        """Return the secret; its version is Google's number. Raises SecretUnavailable."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise SecretUnavailable("gcp: a reference is PROJECT/NAME, PROJECT/NAME#KEY or PROJECT/NAME#KEY@VERSION")
        place = f"gcp: {found['project']}/{found['name']}"
        answer = self._answer(
            place, f"projects/{found['project']}/secrets/{found['name']}/versions/{found['version'] or 'latest'}"
        )
        version = f"gcp/{answer.name.rpartition('/')[2]}"
        return secret_in(answer.payload.data, found["key"] or "", place=place, version=version)

    def _answer(self, place: str, name: str) -> Any:
        try:
            with quiet("google"):
                client = self._client.get()
            with quiet("google"):
                return client.access_secret_version(name=name, timeout=self._timeout, retry=None)
        except GoogleAPICallError as error:
            status = error.code or 0
            cure = _CURES.get(status, "Google refuses it")
            raise (SecretMissing if _says_missing(error) else SecretUnavailable)(
                f"{place} cannot be read: {cure} ({int(status)})",
                outage=status >= _SERVER_AT_FAULT or status == _TOO_MANY,
            ) from None
        except (RequestException, TransportError) as error:
            raise SecretUnavailable(
                f"{place} cannot be read: Google does not answer ({type(error).__name__})", outage=True
            ) from None
        except GoogleAuthError as error:
            raise SecretUnavailable(
                f"{place} cannot be read: there are no good credentials for Google ({type(error).__name__}); give the "
                "machine a service account or set GOOGLE_APPLICATION_CREDENTIALS"
            ) from None
        except (ParseError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            raise SecretUnavailable(f"{place} cannot be read: what answers is not Google") from None


def _says_missing(error: GoogleAPICallError) -> bool:
    """Tell whether Google said that there is none: a 404 from anything on the way there is in another form."""
    try:
        return error.response.json()["error"]["status"] == "NOT_FOUND"  # type: ignore[no-any-return]
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return False


def _connected() -> SecretManagerServiceClient:
    return SecretManagerServiceClient(transport="rest")
