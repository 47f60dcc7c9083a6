"""How the providers of AWS call it by boto3, and what is told when that goes wrong.

Rules:
1. Region and credentials are found as AWS's own tools find them: environment, files, the machine's role.
2. A client belongs to one process and is shared by its threads, as boto3 allows it.
3. There is one attempt a call. The cache before the provider tries again.
4. AWS's texts are not quoted; its error codes are, if that is what they look like.
5. boto3 and what is below it log nothing of a call but warnings: at DEBUG they log secrets and session tokens.
"""

import re
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
)
from botocore.exceptions import (
    ConnectionError as AwayError,
)

from apitokenproxy.errors import SecretMissing, SecretUnavailable
from apitokenproxy.quiet import quiet
from apitokenproxy.secrets.per_process import PerProcess

_CODE = re.compile(r"[A-Za-z.]{1,64}")
_BUSY = frozenset(
    {
        *("InternalServiceError", "InternalServerError", "ServiceUnavailable", "ThrottlingException"),
        *("DependencyTimeoutException", "KeyUnavailableException", "KMSInternalException"),
    }
)
_SERVER_AT_FAULT = 500
_TOO_MANY = 429
_TALKATIVE = ("boto3", "botocore", "urllib3")

_CURES = {
    "AccessDeniedException": "the proxy may not read it; grant its role that, and its key in KMS",
    "DisabledException": "its key in KMS is disabled",
    "IncorrectKeyException": "it was encrypted under another key",
    "InvalidCiphertextException": "it is no ciphertext of KMS, or was changed",
    "InvalidRequestException": "it is marked for deletion, or has no such version",
    "KMSInvalidStateException": "its key in KMS is not enabled",
    "NotFoundException": "its key in KMS is not there; see region",
    "ParameterNotFound": "there is no such parameter; see name and region",
    "ParameterVersionNotFound": "it has no such version",
    "ResourceNotFoundException": "there is no such secret or version; see name and region",
    "UnrecognizedClientException": "the credentials are not accepted",
}


_MISSING = frozenset({"ParameterNotFound", "ParameterVersionNotFound", "ResourceNotFoundException"})


class AwsCalls:
    """One service of AWS. `timeout` is in seconds, to connect and between two parts of an answer."""

    def __init__(self, service: str, *, region: str | None, endpoint: str | None, timeout: float) -> None:
        config = Config(connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1})

        def connect() -> Any:
            with quiet(*_TALKATIVE):
                session = boto3.session.Session()
                return session.client(service, region_name=region, endpoint_url=endpoint, config=config)

        self._client = PerProcess(connect)

    def call(self, operation: str, place: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to one operation. Raises SecretUnavailable or SecretMissing, which name `place`."""
        try:
            client = self._client.get()
            with quiet(*_TALKATIVE):
                return getattr(client, operation)(**parameters)  # type: ignore[no-any-return]
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            code = code if _CODE.fullmatch(code) else ""
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            busy = code in _BUSY or status >= _SERVER_AT_FAULT or status == _TOO_MANY
            cure = _CURES.get(code, "AWS refuses it")
            kind = SecretMissing if code in _MISSING else SecretUnavailable
            raise kind(f"{place} cannot be read: {cure} ({code or status})", outage=busy) from None
        except (HTTPClientError, AwayError) as error:
            raise SecretUnavailable(
                f"{place} cannot be read: AWS does not answer ({type(error).__name__})", outage=True
            ) from None
        except NoRegionError:
            raise SecretUnavailable(f"{place} cannot be read: no region is known; set AWS_DEFAULT_REGION") from None
        except NoCredentialsError:
            raise SecretUnavailable(
                f"{place} cannot be read: there are no credentials for AWS; give the machine a role or set them"
            ) from None
        except BotoCoreError as error:
            raise SecretUnavailable(f"{place} cannot be read: {type(error).__name__}") from None
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            raise SecretUnavailable(f"{place} cannot be read: what answers is not AWS") from None
