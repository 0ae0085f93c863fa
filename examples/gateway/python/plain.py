"""Uses a headgate gateway with nothing but Requests (pip install requests).

    headgate gateway --emulator                    # in another terminal
    python3 plain.py
"""
import os
import uuid

import requests

gateway = os.environ.get("HEADGATE_URL", "http://127.0.0.1:8080")
session = requests.Session()
# A caller's key, or a token from /oauth/token. With --emulator none is needed.
if "HEADGATE_KEY" in os.environ:
    session.headers["Authorization"] = "Bearer " + os.environ["HEADGATE_KEY"]
launch = gateway + "/api/v2/flows/executions"

# Wait: the call is held until the limit lets it go, for a minute at most. The
# client waits longer, or it would leave before it is answered.
answer = session.post(
    launch, json={"flowId": "my-flow", "inputData": {"Flow.n": 1}},
    headers={"Prefer": "wait=60", "Priority": "u=1"}, timeout=90)
answer.raise_for_status()
print("launched", answer.json()["id"], "after", answer.headers["Headgate-Wait"])

# Leave: it is on disk once it is answered with 202, and whatever happens then it
# ends in one outcome. The key makes a repeated request the same execution.
answer = session.post(
    launch, json={"flowId": "my-flow", "inputData": {"Flow.n": 2}},
    headers={"Prefer": "respond-async", "Idempotency-Key": str(uuid.uuid4())}, timeout=30)
if answer.headers["Content-Type"] == "application/problem+json":
    problem = answer.json()
    raise SystemExit(f"{problem['title']}: {problem.get('detail')}")
execution = answer.json()
print("accepted as", execution["id"], "about", execution.get("estimate", 0), "s until it goes")

# Come back for the end of it.
while execution["state"] in ("queued", "sending"):
    answer = session.get(gateway + execution["self"], headers={"Prefer": "wait=30"}, timeout=60)
    answer.raise_for_status()
    execution = answer.json()
print(execution["state"], execution["status"], execution["answer"])
