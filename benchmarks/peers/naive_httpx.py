"""What everybody writes first: one httpx.AsyncClient, the whole body in memory, one key swapped for another."""

import os

import httpx
from fastapi import FastAPI, Request, Response

client = httpx.AsyncClient(base_url=os.environ["UPSTREAM"], verify=os.environ.get("CA") or True)
app = FastAPI()


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def forward(path: str, request: Request) -> Response:
    if request.headers.get("authorization") != "Bearer client-token":
        return Response(status_code=401)
    headers = dict(request.headers)
    headers.pop("host")
    headers["authorization"] = "Bearer real-key"
    answer = await client.request(
        request.method, f"/{path}", params=request.query_params, headers=headers, content=await request.body()
    )
    kept = {key: value for key, value in answer.headers.items() if key not in {"content-encoding", "connection"}}
    return Response(answer.content, answer.status_code, kept)
