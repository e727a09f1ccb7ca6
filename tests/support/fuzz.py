"""`make test-fuzz`: thousands of requests that schemathesis generates from the API's OpenAPI document.

They go to a real server on a real PostgreSQL, as an administrator and as a guest. No response may be a server error,
and
each must match the document in status, type and shape.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.databases import run_postgres
from tests.support.http_fixtures import AUDIENCE, IdentityProvider
from tests.support.servers import TestServer

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,missing_required_header,unsupported_method"
)
SETTINGS = {
    # All requests come from one network and two callers: raise their limits.
    "RATE_LIMIT_QUESTIONS_PER_MINUTE": "1000000",
    "RATE_LIMIT_READS_PER_MINUTE": "1000000",
    "GUEST_ACCOUNTS_PER_NETWORK_PER_DAY": "1000000",
    "SAMPLE_CATALOGUE": "true",
    "MAX_REGISTERED_CREDITS": "1000",
    "LOG_LEVEL": "warning",
}


def fuzz(server: TestServer, name: str, headers: dict[str, str], seconds: int, examples: int, folder: Path) -> int:
    """Run schemathesis as one caller and return the number of cases. Exits when any failed."""
    command = [
        *(
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"http://127.0.0.1:{server.port}/openapi.json",
        ),
        *("--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", str(examples)),
        *("--continue-on-failure", "--suppress-health-check", "all", "--request-timeout", "60", "--warnings", "off"),
        # Python 3.11 cannot always parse in two threads at once, as hypothesis does with more workers
        # ("AST constructor recursion depth mismatch").
        *("--workers", "1", "--no-color"),
        *(part for header, value in headers.items() for part in ("--header", f"{header}: {value}")),
    ]
    done = subprocess.run(command, check=False, cwd=folder, timeout=seconds, capture_output=True, text=True)
    print(f"== {name}\n{done.stdout}{done.stderr}")
    if done.returncode:
        print(server.log.read_text()[-4000:])
        sys.exit(f"{name}: schemathesis found something, see above")
    generated = re.search(r"([\d,]+) generated", done.stdout)
    return int(generated[1].replace(",", "")) if generated else 0


def main() -> None:
    """Fuzz and print the number of cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="how many there must be at least")
    parser.add_argument("--examples", type=int, default=270, help="of each operation and caller")
    parser.add_argument("--seconds", type=int, default=600, help="that all may take")
    chosen = parser.parse_args()
    began, cases = time.monotonic(), 0
    provider = IdentityProvider()
    callers = {
        "administrator": {"Authorization": f"Bearer {provider.token('auth0|fuzz', scope='shopassist:admin')}"},
        "guest": {"X-Session-ID": "fuzz"},
    }
    with run_postgres() as postgres, tempfile.TemporaryDirectory(prefix="shopassist-fuzz-") as folder:
        identity = {"OIDC_ISSUER": provider.issuer, "OIDC_AUDIENCE": AUDIENCE}
        server = TestServer(Path(folder), postgres.url, **SETTINGS, **identity).wait_until_ready(120)
        try:
            for name, headers in callers.items():
                left = round(chosen.seconds - (time.monotonic() - began))
                cases += fuzz(server, name, headers, left, chosen.examples, Path(folder))
        finally:
            server.stop()
    provider.server.shutdown()
    print(f"{cases:,} cases in {time.monotonic() - began:.0f} s, no server error, every answer as described")
    if cases < chosen.cases:
        sys.exit(f"there should have been {chosen.cases:,}")


if __name__ == "__main__":
    main()
