"""litellm, imported so that it reaches nothing but the API that it is told to call, and prints nothing."""

from __future__ import annotations

import os
from typing import Any

# Without these it fetches price lists and news from GitHub, and reads every `.env` on the way up from here.
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_MODE": "PRODUCTION",
}


def load() -> Any:
    """The module; the first import takes seconds."""
    os.environ.update(OFFLINE)
    import litellm

    litellm.suppress_debug_info = True  # it prints advice at every failure
    litellm.disable_aiohttp_transport = True  # httpx ends the connection when the caller leaves
    return litellm
