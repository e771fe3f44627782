"""The handlers of the protocol's vectors, one job at a time. A job's header `do` selects what it does."""

import base64
import hashlib
import subprocess

import tidegate

print("output of an import", flush=True)

KEYS = """id attempt pool queue redelivered exchange routing_key type app_id message_id correlation_id reply_to priority timestamp
content_type content_encoding traceparent tracestate headers truncated""".split()


def handle(job):
    match job.headers.get("do"):
        case "describe":
            return {key: getattr(job, key) for key in KEYS} | {"body": base64.b64encode(job.body).decode()}
        case "digest":
            return {"length": len(job.body), "sha256": hashlib.sha256(job.body).hexdigest()}
        case "attempt":
            return job.attempt
        case "text":
            return job.text
        case "bytes":
            return job.body
        case "json":
            return {"n": [1, None, "café", True, 0.5], "empty": {}}
        case "not json":
            return {"n": [object()]}
        case "retry in 2.5":
            raise tidegate.Retry(2.5)
        case "retry":
            raise tidegate.Retry
        case "reject":
            raise tidegate.Reject("no such image")
        case "fail":
            print("stray")
            raise ValueError("why")
        case "fail with bytes":
            raise ValueError("why \udcff")
        case "progress":
            job.progress("40 %")
            job.progress()
            job.progress({"left": [1]})
        case "print":
            print("stray")
            subprocess.run(["echo", "stray, of a child"], check=True)
        case "retire":
            job.retire()


if __name__ == "__main__":
    tidegate.serve(handle)
