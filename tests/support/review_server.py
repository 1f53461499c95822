"""A review page of a store, served in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from ift_training.data.generation.store import RecordStore
from ift_training.data.quality.findings import FindingStore
from ift_training.data.quality.review.queue import ReviewQueue
from ift_training.data.quality.review.server import HOST, application, bound_socket, tokens_of


@contextmanager
def review_server(path: Path, reviewers: Sequence[str], overlap: float = 0.0) -> Iterator[dict[str, str]]:
    """Links of the reviewers, by name."""
    with RecordStore(path) as store, FindingStore(path) as findings:
        queue, tokens, listening = ReviewQueue(store, overlap=overlap), tokens_of(reviewers), bound_socket(0)
        made = application(queue, tokens, findings)
        server = uvicorn.Server(uvicorn.Config(made, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            port = listening.getsockname()[1]
            yield {name: f"http://{HOST}:{port}/#{token}" for token, name in tokens.items()}
        finally:
            server.should_exit = True
            thread.join()
            queue.close()
