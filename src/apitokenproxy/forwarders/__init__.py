"""Sending a request upstream and streaming the answer. The only place that knows h11 and httpx's transports."""
