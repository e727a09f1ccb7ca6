#!/usr/bin/env python3
"""Check what the README promises: `make serve` answers a question and leaves no process behind.

Linux only: it adopts the orphans of what it starts, so every process that outlives the server is its own child.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

QUESTION = "best 5G phone under ₹12,000 with 8GB RAM"
START_SECONDS = 120
STOP_SECONDS = 15
PR_SET_CHILD_SUBREAPER = 36
NOT_OURS = {"DATABASE_URL", "STORAGE", "API_HOST", "ENVIRONMENT", "ALLOWED_HOSTS"}


def main() -> None:
    """Start the server, ask a question, stop it, look for remaining processes."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    server = subprocess.Popen(
        ["make", "serve"],  # noqa: S607 - any make will do
        cwd=Path(__file__).resolve().parents[1],
        env={**environment, "API_PORT": str(port)},
        stdin=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            wait_until_healthy(client, server)
            ask(client)
    finally:
        server.send_signal(signal.SIGTERM)
        left = remains()
    if left:
        sys.exit(f"these outlived `make serve` by {STOP_SECONDS} s: {left}")
    say("stopped, and nothing is left")


def wait_until_healthy(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    """Return once /health answers. Raises SystemExit when it does not in time."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            client.get("/health").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            say("/health answers 200")
            return
    sys.exit(f"`make serve` did not answer within {START_SECONDS} s, or ended by itself")


def ask(client: httpx.Client) -> None:
    """Look at the page and ask one question. Raises when the answer is not one."""
    page = client.get("/", headers={"Accept": "text/html"}).raise_for_status()
    if "<form" not in page.text:
        sys.exit("GET / is not the page")
    answer = client.post("/api/query", json={"query": QUESTION}, headers={"X-Session-ID": f"smoke-{os.getpid()}"})
    titles = [product["title"] for product in answer.raise_for_status().json()["products"]]
    if not titles:
        sys.exit(f"no products for: {QUESTION}")
    say(f"{QUESTION}: {', '.join(titles)}")


def remains() -> list[str]:
    """Return the processes that still run after STOP_SECONDS; reap the others."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if not pid:
            time.sleep(0.05)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    return [f"{pid} {Path(f'/proc/{pid}/comm').read_text(encoding='utf-8').strip()}" for pid in children]


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def say(text: str) -> None:
    """Print a line of the log."""
    print(f"   {text}", flush=True)  # noqa: T201 - a command talks to its caller


if __name__ == "__main__":
    main()
