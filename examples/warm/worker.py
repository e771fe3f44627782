"""A worker for examples/warm.toml. What is slow to load is loaded once, up here."""
import tidegate


def handle(job):
    if not job["bytes"]:
        raise tidegate.Reject("an empty message")
    print("resizing", len(job["bytes"]), "bytes")  # goes to the log
    return "resized"


tidegate.serve(handle)
