"""A worker for examples/warm.toml. Slow imports and loading are done once, here at the top."""
import tidegate


def handle(job):
    if not job["bytes"]:
        raise tidegate.Reject("an empty message")
    print("resizing", len(job["bytes"]), "bytes")  # goes to the log
    return "resized"


tidegate.serve(handle)
