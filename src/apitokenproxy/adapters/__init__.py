"""Ways in: ASGI, WSGI and httpx transports. They translate and stream; they decide nothing."""
