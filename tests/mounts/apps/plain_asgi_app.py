from mounted import make

app = make(prefix="/proxy").asgi
