"""How a client says to a token endpoint who it is (RFC 6749, section 2.3.1)."""

import base64
from typing import Literal, TypeAlias
from urllib.parse import quote

from apitokenproxy.messages import HiddenText, Secret

Auth: TypeAlias = Literal["basic", "post"]
"""Where the client's secret goes: into the header Authorization, or into the form."""


def as_client(auth: Auth, client_id: str, secret: Secret | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the fields of the form and the headers that say it. A public client has no secret, and just a name."""
    if secret is None:
        return {"client_id": client_id}, {}
    material = HiddenText(secret.reveal().decode(errors="surrogateescape"))
    if auth == "post":
        return {"client_id": client_id, "client_secret": material}, {}
    pair = f"{quote(client_id, safe='')}:{quote(material, safe='', errors='surrogateescape')}".encode()
    return {}, {"authorization": HiddenText(f"Basic {base64.b64encode(pair).decode()}")}
