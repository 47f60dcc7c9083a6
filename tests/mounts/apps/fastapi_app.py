from fastapi import FastAPI
from mounted import make

proxy = make()
app = FastAPI(lifespan=proxy.lifespan)
app.mount("/proxy", proxy.asgi)
