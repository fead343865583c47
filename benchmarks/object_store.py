"""Reading a blend from an object store beside what its server gives in one stream.

    python benchmarks/object_store.py            # both servers, and a training
    python benchmarks/object_store.py --server s3 --rounds 5

Two servers, each in a process of its own on this machine:

- `s3`: moto, which the tests use. It answers a range by reading the whole object, so its objects
  are as small as a range here (16 MiB, one block each); larger ones would measure moto.
- `http`: sends ranges of files as they are (os.sendfile): objects of 64 MiB, blocks of 2 MiB.

A round reads all objects once in a single stream of one plain client (boto3's get_object, or
http.client), and once as samples of a blend, in order "stable", four groups at a time (phases), of
one object each, through `read_in_order`; rounds alternate, and the medians are compared. Both
clients share the processor with the server. The training reads its blend from the s3 server and
prints the share of its time in which it waited for data.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import http.server
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

GROUPS = 4
"""Groups that a blend draws from at the same time."""
SEQUENCE_LENGTH = 4096
BUCKET = "benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=["s3", "http", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=256, help="of all objects together")
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    print(f"{'server':6} {'objects':>14} {'stream MB/s':>12} {'blend MB/s':>11} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.server in ("s3", "both"):
            measure_s3(Path(folder), arguments)
        if arguments.server in ("http", "both"):
            measure_http(Path(folder) / "http", arguments)


def measure_s3(folder: Path, arguments: argparse.Namespace) -> None:
    import boto3

    count = max(arguments.megabytes // (16 * GROUPS), 1) * GROUPS
    names = write_data(folder / "s3", count, 8 << 20)
    with running_moto() as address:
        os.environ["AWS_ENDPOINT_URL"] = address
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        for path in sorted((folder / "s3").iterdir()):
            client.upload_file(str(path), BUCKET, f"data/train/{path.name}")

        def stream() -> int:
            num_bytes = 0
            for path in sorted((folder / "s3").glob("*.bin")):
                body = client.get_object(Bucket=BUCKET, Key=f"data/train/{path.name}")["Body"]
                while chunk := body.read(1 << 20):
                    num_bytes += len(chunk)
            return num_bytes

        blend = open_blend([f"s3://{BUCKET}/data/train/{name}" for name in names], 8 << 20)
        compare("s3", f"{count} x 16 MiB", stream, blend, arguments)
        if not arguments.no_training:
            train(folder / "run", f"s3://{BUCKET}/data")


def measure_http(folder: Path, arguments: argparse.Namespace) -> None:
    count = max(arguments.megabytes // (64 * GROUPS), 1) * GROUPS
    names = write_data(folder, count, 32 << 20)
    with running([sys.executable, __file__, "--serve", str(folder)]) as address:

        def stream() -> int:
            num_bytes = 0
            connection = http.client.HTTPConnection(address.removeprefix("http://"))
            for path in sorted(folder.glob("*.bin")):
                connection.request("GET", f"/{path.name}")
                answer = connection.getresponse()
                while chunk := answer.read(1 << 20):
                    num_bytes += len(chunk)
            return num_bytes

        blend = open_blend([f"{address}/{name}" for name in names], 1 << 20)
        compare("http", f"{count} x 64 MiB", stream, blend, arguments)


def write_data(folder: Path, count: int, tokens: int) -> list[str]:
    """Write prefixes of whole blocks, and one token for the last label; return their names."""
    from gristmill.indexed_dataset import IndexedDatasetBuilder

    random = np.random.default_rng(0)
    names = [f"group{number:03d}" for number in range(count)]
    for name in names:
        with IndexedDatasetBuilder(folder / name, vocab_size=32_000) as builder:
            for _ in range(tokens >> 20):
                ids = random.integers(0, 32_000, 1 << 20, dtype=np.uint16)
                builder.add_documents(ids, np.full(1024, 1024))
            builder.add_document([0])
            builder.finalize(document_order="shuffled", split="train", group=name)
    return names


def open_blend(prefixes: list[str], block_length: int) -> Any:
    """Return one epoch of all prefixes, `GROUPS` of them at a time."""
    from gristmill.indexed_dataset import IndexedDataset, Phase, PhasedBlend

    datasets = [IndexedDataset(prefix) for prefix in prefixes]
    phases, tokens = [], 0
    for first in range(0, len(datasets), GROUPS):
        tokens += sum(one.num_tokens - 1 for one in datasets[first : first + GROUPS])
        weights = [int(first <= number < first + GROUPS) for number in range(len(datasets))]
        phases.append(Phase(sequence_length=SEQUENCE_LENGTH, weights=weights, until_tokens=tokens))
    return PhasedBlend([[one] for one in datasets], phases, block_length=block_length)


def compare(
    server: str,
    objects: str,
    stream: Callable[[], int],
    blend: Any,
    arguments: argparse.Namespace,
) -> None:
    """Print the medians of rounds that take turns."""
    from gristmill.indexed_dataset import read_in_order

    def samples() -> int:
        count = sum(1 for _ in read_in_order(blend, range(len(blend))))
        return 2 * SEQUENCE_LENGTH * count

    rates: dict[str, list[float]] = {"stream": [], "blend": []}
    for _ in range(arguments.rounds):
        for name, work in (("stream", stream), ("blend", samples)):
            begun = time.perf_counter()
            num_bytes = work()
            rates[name].append(num_bytes / 1e6 / (time.perf_counter() - begun))
    one, other = (statistics.median(rates[name]) for name in ("stream", "blend"))
    ratio = statistics.median(b / a for a, b in zip(rates["stream"], rates["blend"], strict=True))
    print(f"{server:6} {objects:>14} {one:12.0f} {other:11.0f} {ratio:6.2f}", flush=True)


def train(output: Path, data: str) -> None:
    """Train a small model on a blend in the store; print how long it waited for data."""
    output.mkdir(parents=True)
    (output / "pretrain.toml").write_text(
        f"""
[run]
output = "{output}"
[pretrain.model]
num_layers = 4
hidden_size = 256
num_heads = 4
[pretrain.data]
path = "{data}"
sequence_length = 512
block_length = {1 << 20}
[pretrain.training]
num_steps = 40
global_batch_size = 8
micro_batch_size = 8
[pretrain.evaluate]
enabled = false
[pretrain.log]
every_steps = 5
"""
    )
    subprocess.run(
        [sys.executable, "-m", "gristmill.cli", "pretrain", str(output / "pretrain.toml")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    shares = [line["data_wait_share"] for line in lines if "data_wait_share" in line]
    whole, after = statistics.mean(shares), statistics.mean(shares[1:])
    print(f"training from s3: {whole:.2%} of its time waited for data, {after:.2%} after the start")


@contextlib.contextmanager
def running_moto() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    with running([sys.executable, "-c", program], f"http://127.0.0.1:{port}") as address:
        yield address


@contextlib.contextmanager
def running(command: list[str], address: str = "") -> Iterator[str]:
    """Run a server until the block ends; one without an address prints its own."""
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL if address else subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        if not address:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
        host, port = address.removeprefix("http://").split(":")
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
                break
            time.sleep(0.1)
        yield address
    finally:
        server.kill()
        server.wait()


def serve(folder: Path) -> None:
    """Serve the files of a folder, ranges of them too; print the address."""

    class Files(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            path = folder / Path(self.path).name
            if not path.is_file():
                self.send_error(404)
                return
            size = path.stat().st_size
            start, stop = 0, size
            wanted = self.headers.get("Range", "")
            if wanted:
                first, last = wanted.removeprefix("bytes=").split("-")
                start, stop = int(first), min(int(last) + 1, size) if last else size
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{size}"')
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.end_headers()
            self.wfile.flush()
            with open(path, "rb") as file:
                while with_body and start < stop:
                    start += os.sendfile(
                        self.connection.fileno(), file.fileno(), start, stop - start
                    )

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    main()
