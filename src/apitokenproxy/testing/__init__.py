"""Fakes and conformance suites, public because your tests need them too.

    sink = MemoryAudit()
    proxy = Proxy(upstreams=[Upstream(..., credential=FixedCredential("x-key", "1"))], audit=sink, ...)

The fakes hold what they saw in plain attributes and need no network. A conformance suite is a class to
inherit from in a file of tests; a forwarder's talks to a scripted upstream on loopback.
"""

from apitokenproxy.testing.fakes import FixedCredential, FixedSecrets, MemoryAudit, RecordingForwarder
from apitokenproxy.testing.forwarders import ForwarderConformance
from apitokenproxy.testing.secrets import SecretProviderConformance
from apitokenproxy.testing.states import StateStoreConformance
from apitokenproxy.testing.stores import TokenStoreConformance

__all__ = [
    "FixedCredential",
    "FixedSecrets",
    "ForwarderConformance",
    "MemoryAudit",
    "RecordingForwarder",
    "SecretProviderConformance",
    "StateStoreConformance",
    "TokenStoreConformance",
]
