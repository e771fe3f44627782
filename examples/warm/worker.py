"""A worker for examples/warm.toml. Slow imports and loading are done once, here at the top."""
import tidegate


def handle(job: tidegate.Job) -> str:
    if not job.body:
        raise tidegate.Reject("an empty message")
    print("resizing", len(job.body), "bytes")  # goes to the log
    return "resized"


tidegate.serve(handle)
