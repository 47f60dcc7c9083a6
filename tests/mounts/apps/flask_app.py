from flask import Flask
from mounted import make
from werkzeug.middleware.dispatcher import DispatcherMiddleware

proxy = make()
site = Flask(__name__)
app = DispatcherMiddleware(site.wsgi_app, {"/proxy": proxy.wsgi})
