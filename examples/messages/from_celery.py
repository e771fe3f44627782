"""Runs tasks that Celery clients send, as a warm program: docs/other-workers.md.

    command = ["python3", "examples/messages/from_celery.py"]
    env = { PYTHONPATH = "shims/python/src" }
"""

import datetime

import tidegate


def resize(image: str, width: int = 128) -> str:
    """A task. It is an ordinary function."""
    if width <= 0:
        raise ValueError(f"a width of {width}")
    return f"{image} is {width} wide"


# All tasks, by the names that clients send. A name in a message must never choose what is imported.
TASKS = {"shop.tasks.resize": resize}


def seconds_until(time: str) -> float:
    return (datetime.datetime.fromisoformat(time) - datetime.datetime.now(datetime.timezone.utc)).total_seconds()


def handle(job: tidegate.Job):
    name = job.headers.get("task")
    if name is None or job.content_type != "application/json":
        raise tidegate.Reject("not a message of Celery's protocol 2 in JSON")
    if name not in TASKS:
        raise tidegate.Reject(f"there is no task {name}")
    args, kwargs, embed = job.json()
    if any(embed.get(key) for key in ("callbacks", "errbacks", "chain", "chord")):
        raise tidegate.Reject("chains, chords and callbacks need a worker of Celery")
    if job.headers.get("expires") and seconds_until(job.headers["expires"]) < 0:
        print("expired:", name)
        return None
    if job.headers.get("eta") and (delay := seconds_until(job.headers["eta"])) > 0:
        raise tidegate.Retry(delay)  # Spends an attempt.
    result = TASKS[name](*args, **kwargs)
    if job.headers.get("ignore_result") or not job.reply_to:
        return None
    # As a client with the result backend `rpc://` reads it. The pool's `reply_allow` must allow its address.
    return {"task_id": job.headers["id"], "status": "SUCCESS", "result": result, "traceback": None, "children": []}


if __name__ == "__main__":
    tidegate.serve(handle)
