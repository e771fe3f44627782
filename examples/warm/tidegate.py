"""Serves the jobs of a tidegate pool of kind "warm". Copy it beside your worker, and import it first."""
import base64, json, os, sys, traceback


class Retry(Exception):
    """Try again later. Takes a delay in seconds, or none for the pool's backoff."""


class Reject(Exception):
    """The job can never succeed: the message is dead-lettered with this reason."""


def _take(jobs, answers):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # From here on all output, also of child processes, goes to the log.
    sys.stdout = sys.stderr
    return os.fdopen(jobs, encoding="utf-8", newline="\n"), os.fdopen(answers, "w", encoding="utf-8")

# Done at import in a runner, but not in tests of your worker or in child processes that import this too.
_taken = _take(os.dup(0), os.dup(1)) if os.environ.pop("TIDEGATE_PROTOCOL", None) else None


def serve(handle):
    """Calls `handle(job)` for each job (a dict). Its return value is the reply; an exception is a failure."""
    jobs, answers = _taken or _take(os.dup(0), os.dup(1))
    say = lambda **line: print(json.dumps(line, allow_nan=False), file=answers, flush=True)
    say(ready=True, protocol=1)
    for job in map(json.loads, jobs):
        job["bytes"] = base64.b64decode(job["body_base64"]) if "body_base64" in job else job["body"].encode()
        job["progress"] = lambda note=True, id=job["id"]: say(id=id, progress=note)
        try:
            say(id=job["id"], outcome="done", reply=handle(job))
        except Retry as asked:
            say(id=job["id"], outcome="retry", delay=asked.args[0] if asked.args else None)
        except Reject as refused:
            say(id=job["id"], outcome="reject", error=str(refused))
        except Exception as error:
            traceback.print_exc()
            say(id=job["id"], outcome="failed", error=f"{type(error).__name__}: {error}")
