import subprocess

import tidegate

print("stray, of an import", flush=True)


def handle(job):
    print("stray")
    subprocess.run(["echo", "stray, of a child"])
    match job["bytes"]:
        case b"reply":
            return f"caf\u00e9 {job['id']} {job['attempt']} {job['headers']['n']}"
        case b"json":
            return {"n": [1, None, "caf\u00e9", True]}
        case b"no json":
            return {"n": [object()]}
        case b"later":
            raise tidegate.Retry(2.5)
        case b"never":
            raise tidegate.Reject("no such image")
        case b"fail":
            raise ValueError("why \udcff")
        case b"\xff\n":
            return "bytes"
        case b"lines\n\xe2\x80\xa8of\xc2\x85text":
            job["progress"]("half")
            return "lines"


tidegate.serve(handle)
