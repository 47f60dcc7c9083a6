"""`ssm:NAME`: a parameter in the AWS Systems Manager Parameter Store, decrypted."""

import re

from apitokenproxy.errors import SecretUnavailable
from apitokenproxy.messages import Secret
from apitokenproxy.secrets.aws_calls import AwsCalls
from apitokenproxy.secrets.value import secret_in

_REFERENCE = re.compile(r"(?P<name>[\w/.:-]{1,2048})(?:#(?P<key>[^#\x00-\x1f]+))?", re.ASCII)


class AwsParametersProvider:
    """Reads parameters by name, `NAME:VERSION`, `NAME:LABEL` or ARN; `#KEY` is one of a JSON object.

    `timeout` is in seconds; region and credentials are those of AWS's own tools.
    """

    ttl = 60.0

    def __init__(self, *, region: str | None = None, endpoint: str | None = None, timeout: float = 5.0) -> None:
        self._calls = AwsCalls("ssm", region=region, endpoint=endpoint, timeout=timeout)

    def fetch(self, reference: str) -> Secret:
        """Return the parameter; its version is the store's number. Raises SecretUnavailable."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise SecretUnavailable("ssm: a reference is the name of a parameter, as /app/key, or NAME#KEY")
        place = f"ssm: {found['name']}"
        answer = self._calls.call("get_parameter", place, Name=found["name"], WithDecryption=True)
        parameter = answer.get("Parameter") or {}
        held = parameter.get("Value")
        if not isinstance(held, str):
            raise SecretUnavailable(f"{place} holds no secret")
        return secret_in(held, found["key"] or "", place=place, version=f"ssm/{parameter.get('Version', '')}")
