"""flask --app flask_app run"""

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from apitokenproxy import Bearer, Proxy, Rule, Upstream

proxy = Proxy(
    upstreams=[Upstream("github", "https://api.github.com", credential=Bearer("env:GITHUB_TOKEN"))],
    rules=[Rule("read", effect="allow", upstream="github", methods=["GET"])],
    store="sqlite:///tokens.db",
)
app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/proxy": proxy.wsgi})  # type: ignore[method-assign]
