"""MLflow servers that misbehave: a relay before a real one, and sockets that never answer."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen]:
    """A real `mlflow server` over a database in `folder`."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder / 'server.db'}",
            "--artifacts-destination", str(folder / "artifacts"),
        ],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=2).read()
                # Its first real answer takes many seconds on a busy machine.
                search = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1"
                urlopen(search, timeout=60).read()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
        yield process
    finally:
        import os
        import signal

        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Relay:
    """Stands before a server; passes on, hangs, refuses, or passes on and keeps the answer."""

    def __init__(self, target: int) -> None:
        self.target, self.mode, self.seen = target, "pass", 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near: socket.socket) -> None:
        with near:
            while True:
                try:
                    request = _message(near)
                except OSError:
                    return
                if not request:
                    return
                self.seen += 1
                mode = self.mode
                if mode == "hang":
                    time.sleep(3600)
                if mode == "refuse":
                    return
                with socket.create_connection(("127.0.0.1", self.target)) as far:
                    far.sendall(request)
                    answer = _message(far)
                if mode == "lose":  # the server has done it, and nobody is told
                    return
                try:
                    near.sendall(answer)
                except OSError:
                    return

    def close(self) -> None:
        self._listener.close()


def _message(end: socket.socket) -> bytes:
    """One HTTP message with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = end.recv(65536)
        if not part:
            return data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if b"transfer-encoding: chunked" in head.lower():
        while not body.endswith(b"0\r\n\r\n"):
            body += end.recv(65536)
        return head + b"\r\n\r\n" + body
    while len(body) < length:
        body += end.recv(65536)
    return head + b"\r\n\r\n" + body
