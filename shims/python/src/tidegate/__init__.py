"""Serves the jobs of a tidegate pool of kind "warm".

    import tidegate

    def handle(job: tidegate.Job) -> str:
        return f"resized {len(job.body)} bytes"

    tidegate.serve(handle)

Import it first: from then on all output of the program goes to the log, and not into the protocol. With an
`async def handle`, up to `concurrency` jobs run at a time, as tasks of one event loop.
"""

from __future__ import annotations

import base64
import inspect
import json
import os
import sys
import traceback
from typing import IO, TYPE_CHECKING, Any, Awaitable, Callable, Mapping, Optional, Union

if TYPE_CHECKING:
    import asyncio

__all__ = ["Handler", "Job", "Reject", "Retry", "serve"]


class Retry(Exception):
    """Try again later, after `delay` seconds. Without a delay, after the pool's backoff."""

    def __init__(self, delay: Optional[float] = None) -> None:
        super().__init__("asked for a later attempt")
        self.delay = delay


class Reject(Exception):
    """The job can never succeed: its message is dead-lettered with this reason."""


class Job:
    """A job. `job["key"]` is any key of its line, also one that this version of the package does not know."""

    id: str
    """The message's id, or an id that tidegate made."""
    attempt: int
    """1 for the first attempt."""
    body: bytes
    """The body, unchanged."""
    headers: Mapping[str, Any]
    """The headers. Bytes are `{"base64": "..."}`."""
    truncated: bool
    """Whether `headers` is not complete."""
    pool: str
    queue: str
    redelivered: bool
    exchange: str
    """The exchange of the first publish. `""` is the default exchange."""
    routing_key: str
    type: Optional[str]
    app_id: Optional[str]
    message_id: Optional[str]
    correlation_id: Optional[str]
    reply_to: Optional[str]
    priority: Optional[int]
    timestamp: Optional[int]
    """In seconds since 1970."""
    content_type: Optional[str]
    content_encoding: Optional[str]
    traceparent: Optional[str]
    tracestate: Optional[str]

    def __init__(self, line: Mapping[str, Any], tell: Callable[..., None]) -> None:
        self._line, self._tell, self._last = line, tell, False
        encoded = line.get("body_base64")
        self.body = line.get("body", "").encode() if encoded is None else base64.b64decode(encoded)

    def __getattr__(self, key: str) -> Any:
        # Called for what is not an attribute: the keys of the line.
        line = self.__dict__.get("_line", {})
        if key in line:
            return line[key]
        if key in Job.__annotations__:
            return None
        raise AttributeError(f"a job has no {key!r}")

    def __getitem__(self, key: str) -> Any:
        return self._line[key]

    def __repr__(self) -> str:
        return f"<Job {self.id!r}, attempt {self.attempt}>"

    @property
    def text(self) -> str:
        """The body as text. Raises `UnicodeDecodeError` if it is not UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON. A body that is not JSON rejects the job: another attempt would fail too."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Reject(f"the body is not JSON: {error}") from error

    def progress(self, note: Any = True) -> None:
        """The job's `timeout` starts again. `note` is any JSON value but `None`."""
        self._tell(progress=note)

    def retire(self) -> None:
        """Asks for a new process in the place of this one after the job."""
        self._last = True


Handler = Callable[[Job], Union[Any, Awaitable[Any]]]


def _take() -> tuple[IO[bytes], IO[str]]:
    """Takes the pipes of the protocol. From then on all output, also of child processes, goes to the log."""
    jobs = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return jobs, answers


# At the import in a runner, but not in tests of a worker and not in child processes that import this too.
_pipes = _take() if os.environ.pop("TIDEGATE_PROTOCOL", None) else None


def serve(handle: Handler, *, concurrency: Optional[int] = None) -> None:
    """Calls `handle(job)` for each job, and returns when there are no more.

    The return value of `handle` is the reply: `None` for no reply, text, bytes, or any value that `json` can write.
    `Retry` and `Reject` are outcomes, and any other exception fails the job. If `handle` is an `async def`, it has as
    many jobs at a time as the pool's `concurrency` says, or fewer with `concurrency` here. A job that must stop is
    cancelled, as tasks of asyncio are.
    """
    jobs, answers = _pipes or _take()

    def say(line: dict[str, Any]) -> None:
        # One write for each line, so that lines of two threads do not mix.
        answers.write(json.dumps(line, allow_nan=False) + "\n")
        answers.flush()

    if not _is_async(handle):
        say({"ready": True, "protocol": 1})
        for line in jobs:
            job = _job(json.loads(line), say)
            try:
                reply = handle(job)
                if inspect.isawaitable(reply):
                    raise TypeError("the handler is not an `async def`, but returned something to await")
                _done(job, reply)
            except Exception as error:
                _failed(job, error)
        return
    most = int(os.environ.get("TIDEGATE_CONCURRENCY", 1))
    slots = most if concurrency is None else max(1, min(most, concurrency))
    import asyncio  # Only here: it takes 7 MiB, which a plain function does not need.

    asyncio.run(_serve(handle, jobs, say, slots))


def _is_async(handle: Handler) -> bool:
    return inspect.iscoroutinefunction(handle) or inspect.iscoroutinefunction(getattr(handle, "__call__", None))


async def _serve(handle: Any, jobs: IO[bytes], say: Callable[[dict[str, Any]], None], slots: int) -> None:
    import asyncio

    # The supervisor writes no longer line than a message and its headers. A limit here could only break a pool.
    reader = asyncio.StreamReader(limit=2**40)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), jobs)
    tasks: dict[Any, asyncio.Task[None]] = {}

    async def run(job: Job) -> None:
        try:
            _done(job, await handle(job))
        except asyncio.CancelledError:
            job._tell(outcome="failed", error="stopped")
        except Exception as error:
            _failed(job, error)

    say({"ready": True, "protocol": 2, "concurrency": slots} if slots > 1 else {"ready": True, "protocol": 1})
    while line := await reader.readline():
        job = _job(json.loads(line), say)
        slot = job._line.get("slot")  # Absent in version 1.
        if not job._line.get("stop"):
            tasks[slot] = asyncio.create_task(run(job))
        elif slot in tasks:
            # All tasks begin now. One that is cancelled before it begins would never answer.
            await asyncio.sleep(0)
            tasks[slot].cancel()  # Has no effect on a task that is done.
    # Finish what has begun.
    await asyncio.gather(*tasks.values())


def _job(line: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> Job:
    place: dict[str, Any] = {key: line[key] for key in ("id", "slot") if key in line}
    return Job(line, lambda **told: say({**place, **told}))


def _done(job: Job, reply: Any) -> None:
    told: dict[str, Any] = {"outcome": "done"}
    if isinstance(reply, (bytes, bytearray, memoryview)):
        told["reply_base64"] = base64.b64encode(reply).decode()
    elif reply is not None:
        told["reply"] = reply
    if job._last:
        told["last"] = True
    job._tell(**told)


def _failed(job: Job, error: Exception) -> None:
    told: dict[str, Any] = {"last": True} if job._last else {}
    if isinstance(error, Retry):
        told["outcome"] = "retry"
        if error.delay is not None:
            told["delay"] = error.delay
    elif isinstance(error, Reject):
        told |= {"outcome": "reject", "error": str(error)}
    else:
        traceback.print_exception(type(error), error, error.__traceback__)
        told |= {"outcome": "failed", "error": f"{type(error).__name__}: {error}"}
    job._tell(**told)
