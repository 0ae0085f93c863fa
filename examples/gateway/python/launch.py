"""Launches flows through a headgate gateway with the official SDK, all at once.

    headgate gateway --emulator                    # in another terminal
    pip install PureCloudPlatformClientV2
    python3 launch.py [HOW MANY]

HEADGATE_URL is where the gateway is. For an org of several, add its path:
http://127.0.0.1:8080/acme. HEADGATE_CALLER and HEADGATE_KEY are a caller's name and
key; with --emulator any will do.
"""
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlparse

import PureCloudPlatformClientV2 as sdk

url = urlparse(os.environ.get("HEADGATE_URL", "http://127.0.0.1:8080"))
many = int(sys.argv[1]) if len(sys.argv) > 1 else 300

client = sdk.api_client.ApiClient()
client.set_gateway(url.hostname, url.scheme, url.port, url.path, url.path)
client.get_client_credentials_token(
    os.environ.get("HEADGATE_CALLER", "example"), os.environ.get("HEADGATE_KEY", "any"))
architect = sdk.ArchitectApi(client)


def launch(n):
    request = sdk.FlowExecutionLaunchRequest()
    request.flow_id = "my-flow"
    request.input_data = {"Flow.n": n}
    try:
        return architect.post_flows_executions(request).id
    except Exception as problem:  # an ApiException, or a broken connection
        print("not launched:", problem, file=sys.stderr)
        return None


start = time.monotonic()
with ThreadPoolExecutor(many) as pool:
    launched = [i for i in pool.map(launch, range(many)) if i]
print(f"{len(launched)} of {many} launched in {time.monotonic() - start:.2f} s, {len(set(launched))} different")
sys.exit(0 if len(launched) == many else 1)
