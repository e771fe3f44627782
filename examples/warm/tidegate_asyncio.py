"""Serves the jobs of a tidegate pool of kind "warm" as tasks of asyncio, up to `concurrency` at a time. Copy it beside your
worker, and import it first."""
import asyncio, base64, inspect, json, os, sys, traceback


class Retry(Exception):
    """Try again later. Takes a delay in seconds, or none for the pool's backoff."""


class Reject(Exception):
    """The job can never succeed: the message is dead-lettered with this reason."""


_slots = int(os.environ.get("TIDEGATE_CONCURRENCY", 1)) if "TIDEGATE_PROTOCOL" in os.environ else 0
if _slots:  # Not in tests of your worker.
    _jobs, _answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # From here on all output, also of child processes, goes to the log.
    sys.stdout = sys.stderr
    del os.environ["TIDEGATE_PROTOCOL"]  # Child processes are no runners.
_say = lambda **line: print(json.dumps(line, allow_nan=False), file=_answers, flush=True)


async def _run(handle, job, place):
    job["bytes"] = base64.b64decode(job["body_base64"]) if "body_base64" in job else job["body"].encode()
    job["progress"] = lambda note=True: _say(**place, progress=note)
    try:
        _say(**place, outcome="done", reply=await handle(job))
    except Retry as asked:
        _say(**place, outcome="retry", delay=asked.args[0] if asked.args else None)
    except Reject as refused:
        _say(**place, outcome="reject", error=str(refused))
    except asyncio.CancelledError:  # tidegate asked the job to stop.
        _say(**place, outcome="failed", error="stopped")
    except Exception as error:
        traceback.print_exc()
        _say(**place, outcome="failed", error=f"{type(error).__name__}: {error}")


async def _serve(handle):
    reader, tasks = asyncio.StreamReader(limit=2**30), {}
    protocol = lambda: asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(protocol, _jobs)
    _say(ready=True, **({"protocol": 2, "concurrency": _slots} if _slots > 1 else {"protocol": 1}))
    while line := await reader.readline():
        job = json.loads(line)
        place = {key: job[key] for key in ("id", "slot") if key in job}
        slot = job.get("slot")  # None in a pool without `concurrency`.
        if job.get("stop"):
            tasks[slot].cancel()
        else:
            tasks[slot] = asyncio.create_task(_run(handle, job, place))


def serve(handle):
    """Awaits `handle(job)` for each job (a dict). Its return value is the reply; an exception is a failure."""
    if not _slots or not inspect.iscoroutinefunction(handle):
        raise TypeError("serve() takes an async function, in a pool of kind \"warm\"")
    asyncio.run(_serve(handle))
