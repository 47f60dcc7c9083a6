"""Putting the credential on: an operation becomes the request that is sent.

Rules:
1. Host, port and base path are the upstream's own; only path, query and the headers that the guard
   passed come from the client, as they are.
2. An injected header replaces the client's of that name. An injected query parameter cannot stand
   beside the client's own: which of the two counts, backends do not agree on.
"""

from apitokenproxy.errors import BadTarget
from apitokenproxy.guard.headers import READ
from apitokenproxy.messages import Credential, Grant, Headers, Hidden, Outbound
from apitokenproxy.upstream import Upstream
from apitokenproxy.wire import with_parameters


def inject(grant: Grant, upstream: Upstream, credential: Credential) -> Outbound:
    """Return the clean request with its credential.

    Raises BadTarget when the client sent a query parameter that the credential puts on.
    """
    operation = grant.operation
    query = operation.query
    if credential.query:
        parameters = with_parameters(query, credential.query)
        if parameters is None:
            raise BadTarget("the query holds a parameter that the credential puts on")
        query = parameters
    headers: Headers = [(b"Host", upstream.origin.authority), *operation.headers]
    for name in credential.names:
        if name not in READ:  # those that are read are never forwarded
            headers = [header for header in headers if header[0].lower() != name]
    headers += credential.headers
    length = operation.length
    return Outbound(
        upstream.origin,
        operation.method,
        Hidden(upstream.base + operation.path + query if upstream.base or operation.path else b"/" + query),
        headers,
        None if length == 0 else operation.request.body,
        length,
        grant.caller.tenant,
    )
