"""What browsers may load and run on a page (Content Security Policy, level 3)."""

import base64
import hashlib
import re

NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""For answers that are no page: nothing may be loaded, run, submitted or framed."""

DATA_IMAGES = "img-src 'self' data:"
OWN_SERVER = "connect-src 'self'"


def policy_of(page: str, *more: str) -> str:
    """The policy under which the scripts and styles that stand in `page` work and no others do; and `more`."""
    return "; ".join([NOTHING, f"script-src {hashes(page, 'script')}", *more])


def hashes(page: str, element: str) -> str:
    """The contents of all elements of that name, as a policy names them."""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'" for c in contents)
