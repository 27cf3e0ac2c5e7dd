"""The image's HEALTHCHECK: 0 if the proxy answers.

``REGPROXY_HEALTH`` has another URL, for a proxy that listens elsewhere.
"""

import os
import sys
import urllib.request

URL = os.environ.get("REGPROXY_HEALTH", "http://127.0.0.1:3128/healthz")

# The container may have a proxy for its way out, which is not the way to itself.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(URL, timeout=4) as answer:
        answer.read()
except OSError as error:
    sys.exit(f"{URL}: {error}")
