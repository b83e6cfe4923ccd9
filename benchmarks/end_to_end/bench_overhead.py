"""What a query costs besides its models: GranAlign with a captioner that takes a known time.

The captioner names nothing and sleeps: in this process one picture after the other, or as an
OpenAI-compatible server that answers each request after the same time, several at once. Encoder and
sentence encoder cost next to nothing, so what the captioner does not take is decoding, pictures,
requests, cache, scores and proposals.

    python benchmarks/end_to_end/bench_overhead.py [--out benchmarks/results/overhead.md]
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench_retrieve import make_video
from numpy.typing import NDArray
from timing import cpu_name, publish

import vmr
from vmr.answering import answers
from vmr.backends.captioning import SHORT_SIDE, VlmCaptioner
from vmr.backends.http.endpoint import Endpoint, Options
from vmr.cache import Cache
from vmr.data.records import Query
from vmr.video import Frames, probe

QUERIES = tuple(f"a person does thing number {number}" for number in range(8))


class Vectors:
    """Encoder and sentence encoder that know nothing, at once."""

    name = "vectors"
    short_side = 224

    def encode_frames(self, frames: Frames) -> NDArray[np.float32]:
        return self._rows([f"{time:.3f}" for time in frames.times])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._rows(texts)

    encode = encode_texts

    @staticmethod
    def _rows(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [np.random.default_rng(sum(text.encode())).normal(size=32) for text in texts]
        vectors = np.array(rows, np.float32).reshape(-1, 32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Sleeper:
    """A vision model in this process that takes ``seconds`` a picture."""

    takes_instructions = True

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.name = f"sleeper {seconds}"
        self.pictures = 0

    def describe(self, jpegs: Sequence[bytes], instruction: str) -> list[str]:
        self.pictures += len(jpegs)
        time.sleep(self.seconds * len(jpegs))
        return [f"picture {len(jpeg)}" for jpeg in jpegs]


def serve(seconds: float, address: Connection) -> None:
    """Runs an OpenAI-compatible server that answers each request after ``seconds``."""
    lock = threading.Lock()
    # Requests so far, those under way, and seconds during which they were under way.
    state = {"requests": 0, "busy": 0, "full": 0.0, "since": time.perf_counter()}

    def count(change: int) -> None:
        with lock:
            now = time.perf_counter()
            state["full"] += state["busy"] * (now - state["since"])
            state["since"] = now
            state["busy"] += change
            state["requests"] += change > 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._say(state if self.path == "/state" else {"data": [{"id": "sleeper"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            count(+1)
            time.sleep(seconds)
            count(-1)
            message = {"role": "assistant", "content": "a picture"}
            self._say({"choices": [{"message": message, "finish_reason": "stop"}]})

        def _say(self, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    address.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


class Server:
    """A server in a process of its own, as a model's is."""

    def __init__(self, seconds: float) -> None:
        here, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=serve, args=(seconds, there), daemon=True)
        self._process.start()
        self.url = str(here.recv())

    def state(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}/state") as answer:
            state: dict[str, float] = json.load(answer)
        return state

    def stop(self) -> None:
        self._process.terminate()


def granalign(captioner: VlmCaptioner, cache: Cache | None) -> vmr.GranAlign:
    vectors = Vectors()
    return vmr.load(
        "granalign",
        encoder=vectors,
        sentence_encoder=vectors,
        rewriter="none",
        captioner=captioner,
        cache=cache,
    )


def timed(work: object) -> float:
    begin = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - begin


def overhead(model: list[float], wall: list[float]) -> str:
    ratios = [whole / alone - 1 for whole, alone in zip(wall, model, strict=True)]
    return (
        f"{statistics.median(model):.2f} | {statistics.median(wall):.2f} | "
        f"{100 * statistics.median(ratios):.1f}% | {100 * max(ratios):.1f}%"
    )


def in_process(video: Path, folder: Path, seconds: float, rounds: int) -> list[str]:
    """A video's first query, a further one, and one in another process."""
    first, second, third = [], [], []
    model: dict[str, list[float]] = {"first": [], "second": [], "third": []}
    for number in range(rounds):
        cache = Cache(folder / f"sleeper-{number}")
        eye = Sleeper(seconds)
        system = granalign(VlmCaptioner(eye), cache)
        for query, wall, name in ((0, first, "first"), (1, second, "second")):
            before = eye.pictures
            wall.append(
                timed(lambda query=query, system=system: system.retrieve(video, QUERIES[query]))
            )
            model[name].append((eye.pictures - before) * seconds)
        eye = Sleeper(seconds)
        fresh = granalign(VlmCaptioner(eye), Cache(folder / f"sleeper-{number}"))
        third.append(timed(lambda fresh=fresh: fresh.retrieve(video, QUERIES[2])))
        model["third"].append(eye.pictures * seconds)
    each = f"{seconds * 1e3:g} ms a picture, in process"
    return [
        f"| {each} | first query | {overhead(model['first'], first)} |",
        f"| {each} | further query | {overhead(model['second'], second)} |",
        f"| {each} | query, cache of an earlier run | {overhead(model['third'], third)} |",
    ]


def endpoint(
    videos: list[Path], folder: Path, seconds: float, at_once: int, rounds: int
) -> list[str]:
    """The same over HTTP: a query, eight queries, and a benchmark of several videos."""
    rows: dict[str, tuple[list[float], list[float], list[float]]] = {}

    def run(name: str, server: Server, work: object) -> None:
        model, wall, full = rows.setdefault(name, ([], [], []))
        before = server.state()
        wall.append(timed(work))
        after = server.state()
        made = after["requests"] - before["requests"]
        model.append(math.ceil(made / at_once) * seconds)
        full.append((after["full"] - before["full"]) / wall[-1])

    for number in range(rounds):
        server = Server(seconds)
        options = Options(model="sleeper", in_flight=at_once)

        def system(name: str, server: Server = server, options: Options = options) -> vmr.GranAlign:
            captioner = VlmCaptioner(Endpoint(f"{server.url}/v1", options))
            return granalign(captioner, Cache(folder / f"{name}-{seconds}-{at_once}"))

        one = system(f"http-{number}")
        run("first query", server, lambda one=one: one.retrieve(videos[0], QUERIES[0]))
        run("further query", server, lambda one=one: one.retrieve(videos[0], QUERIES[1]))
        run("six further queries", server, lambda one=one: one.retrieve(videos[0], QUERIES[2:]))
        asked = [
            Query(qid=place, video=video.stem, text=QUERIES[0], duration=probe(video).duration)
            for place, video in enumerate(videos)
        ]
        named = {video.stem: video for video in videos}
        many = system(f"many-{number}")
        run(
            f"{len(videos)} videos (vmr predict)",
            server,
            lambda many=many, asked=asked, named=named: list(answers(many, asked, named)),
        )
        server.stop()
    each = f"{seconds * 1e3:g} ms a request, {at_once} in flight"
    return [
        f"| {each} | {name} | {overhead(model, wall)} | {statistics.median(full):.2f} |"
        for name, (model, wall, full) in rows.items()
    ]


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        video = make_video(folder, 2.5)
        videos = [video]
        for number in range(5):
            copy = folder / f"video-{number}.mp4"
            cut = ["-ss", str(20 * number), "-i", str(video), "-t", "60", "-c", "copy", str(copy)]
            subprocess.run(["ffmpeg", "-v", "error", "-y", *cut], check=True)
            videos.append(copy)
        # Libraries are imported and warm when the clock runs.
        granalign(VlmCaptioner(Sleeper(0.0)), None).retrieve(videos[1], QUERIES[0])
        alone = [
            row
            for seconds in (0.05, 0.1)
            for row in in_process(video, folder, seconds, arguments.rounds)
        ]
        served = [
            row
            for seconds, at_once in ((0.2, 4), (1.0, 8), (1.0, 32))
            for row in endpoint(videos, folder, seconds, at_once, arguments.rounds)
        ]
    publish(
        [
            "# Time that is not model time",
            "",
            f"{cpu_name()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
            f"torch {torch.__version__}; {time.strftime('%Y-%m-%d')}.",
            "`python benchmarks/end_to_end/bench_overhead.py --out benchmarks/results/overhead.md`",
            "",
            f"GranAlign on a video of 150 s at 640 x 272 (150 frames, {SHORT_SIDE} px at most, K = 20%: "
            "30 query-aware captions a query), with a captioner that takes a known time, other models "
            f"that take none, and the cache on. Medians of {arguments.rounds} rounds, and the worst. "
            '"Models" is the time that the captioner needs at the least: pictures x time, over HTTP '
            "the rounds of requests x time. The videos of `vmr predict` are this one and five of 60 s.",
            "",
            "| captioner | work | models, s | all, s | over | worst |",
            "|---|---|---|---|---|---|",
            *alone,
            "",
            "| endpoint | work | models, s | all, s | over | worst | requests under way, mean |",
            "|---|---|---|---|---|---|---|",
            *served,
            "",
            "Requests that take equally long end together, and this process makes the next ones one "
            "after the other, some 2 ms each: that is what is over where requests are short or many "
            "at once. A first query waits for its first 16 frames as well.",
        ],
        arguments.out,
    )


if __name__ == "__main__":
    main()
