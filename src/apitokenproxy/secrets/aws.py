"""`aws:NAME`, `aws:NAME#KEY` and `aws:NAME#KEY@STAGE`: a secret in AWS Secrets Manager."""

import re

from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.messages import Secret
from apitokenproxy.secrets.aws_calls import AwsCalls
from apitokenproxy.secrets.value import secret_in

_REFERENCE = re.compile(
    r"(?P<name>[\w/+=.@:-]{1,2048})(?:#(?P<key>[^#@\x00-\x1f]*)(?:@(?P<stage>[\w-]{1,256}))?)?", re.ASCII
)


class AwsSecretsProvider:
    """Reads secrets by name or ARN; KEY is one of a JSON object, STAGE (AWSCURRENT when left out) picks the version.

    So that two versions can be in use while one is rotated, `aws:app#key` and `aws:app#key@AWSPREVIOUS`
    are two references. `timeout` is in seconds; region and credentials are those of AWS's own tools.
    """

    ttl = 60.0

    def __init__(self, *, region: str | None = None, endpoint: str | None = None, timeout: float = 5.0) -> None:
        self._calls = AwsCalls("secretsmanager", region=region, endpoint=endpoint, timeout=timeout)

    def fetch(self, reference: str) -> Secret:
        """Return the secret; its version is the VersionId. Raises SecretUnavailable."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise SecretUnavailable("aws: a reference is NAME, NAME#KEY or NAME#KEY@STAGE")
        place = f"aws: {found['name']}"
        stage = found["stage"] or "AWSCURRENT"
        answer = self._calls.call("get_secret_value", place, SecretId=found["name"], VersionStage=stage)
        held = answer.get("SecretString", answer.get("SecretBinary"))
        if not isinstance(held, str | bytes):
            raise SecretUnavailable(f"{place} holds no secret")
        return secret_in(held, found["key"] or "", place=place, version=f"aws/{answer.get('VersionId', '')}")
