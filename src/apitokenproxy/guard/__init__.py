"""What may come in and go out. Pure functions over bytes: nothing here connects, waits or logs."""

from apitokenproxy.guard.outbound import inject
from apitokenproxy.guard.reply import clean_reply
from apitokenproxy.guard.request import Guard

__all__ = ["Guard", "clean_reply", "inject"]
