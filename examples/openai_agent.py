"""python openai_agent.py: an agent with the OpenAI SDK that holds a client token, never the key.

Its environment has OPENAI_BASE_URL=http://127.0.0.1:8000/proxy/openai and OPENAI_API_KEY=atp_...
The proxy's configuration has, besides a store:

    [upstreams.openai]
    url = "https://api.openai.com/v1"
    credential = { type = "bearer", secret = "env:OPENAI_API_KEY" }

    [[rules]]
    id = "chat-only"
    effect = "allow"
    upstream = "openai"
    methods = ["POST"]
    path = "/chat/completions"
"""

import openai

client = openai.OpenAI(max_retries=0)
answer = client.chat.completions.create(
    model="gpt-5", messages=[{"role": "user", "content": "What does a proxy do, in five words?"}]
)
print(answer.choices[0].message.content)
try:
    client.files.list()
except openai.PermissionDeniedError as refusal:
    print(refusal.response.headers["x-proxy-error"])
