"""Runs the vectors of the protocol against the package, and recorded messages against an example, each with a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import unittest

HERE = pathlib.Path(__file__).parent
VECTORS = HERE.parents[1] / "vectors"
EXAMPLES = HERE.parents[2] / "examples/messages"
TIME_LIMIT = 30


def cases(file):
    with open(VECTORS / file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def matches(expected, found):
    """`{"contains": TEXT}` as an error is any text that contains TEXT. A key with null is the same as no key."""
    expected, found = ({k: v for k, v in side.items() if v is not None} for side in (expected, found))
    error = expected.get("error")
    if isinstance(error, dict):
        if error["contains"] not in found.get("error", ""):
            return False
        expected["error"] = found["error"]
    return expected == found


def place(line):
    return line.get("slot", 0), line.get("id", "")


class Vectors(unittest.TestCase):
    def check(self, case, *command):
        env = {
            **os.environ,
            "TIDEGATE_PROTOCOL": str(case["protocol"]),
            "TIDEGATE_CONCURRENCY": str(case["concurrency"]),
            "PYTHONPATH": str(HERE.parent / "src"),
        }
        worker = subprocess.Popen(
            [sys.executable, *command], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        log = []
        reader = threading.Thread(target=lambda: log.append(worker.stderr.read()))
        reader.start()
        timer = threading.Timer(TIME_LIMIT, worker.kill)
        timer.start()
        try:
            for step in case["steps"]:
                if "send" in step:
                    text, times = step.get("fill", ["", 0])
                    worker.stdin.write(step["send"].replace("{fill}", text * times).encode() + b"\n")
                    worker.stdin.flush()
                elif "end" in step:
                    worker.stdin.close()
                else:
                    found = [json.loads(worker.stdout.readline() or "{}") for _ in step["expect"]]
                    # Lines of one job have an order. Jobs have none among each other.
                    for one, other in zip(sorted(step["expect"], key=place), sorted(found, key=place)):
                        self.assertTrue(matches(one, other), f"{one} is expected, not {other}")
            worker.stdin.close()
            self.assertEqual(worker.stdout.read(), b"", "there is output after the last answer")
            self.assertEqual(worker.wait(), 0)
        finally:
            timer.cancel()
            worker.kill()
            worker.wait()
            reader.join()
            worker.stdout.close()
            worker.stderr.close()
        return log[0].decode()


def add(name, case, *command):
    def test(self):
        self.check(case, *command)

    setattr(Vectors, f"test_{name}: {case['case']}", test)


for vector in cases("version-1.jsonl"):
    add("one at a time", vector, HERE / "worker.py")
    add("asyncio, version 1", vector, HERE / "async_worker.py")
for vector in cases("version-2.jsonl"):
    add("asyncio, version 2", vector, HERE / "async_worker.py")
for vector in cases(EXAMPLES / "celery.jsonl"):
    add("messages of Celery", vector, EXAMPLES / "from_celery.py")


class Package(unittest.TestCase):
    def test_output_is_in_the_log(self):
        case = next(case for case in cases("version-1.jsonl") if "child processes" in case["case"])
        log = Vectors().check(case, HERE / "worker.py")
        for line in ("output of an import\n", "stray\n", "stray, of a child\n"):
            self.assertIn(line, log)

    def test_a_function_that_is_not_async_has_one_job_at_a_time(self):
        case = {"protocol": 2, "concurrency": 4, "steps": [{"expect": [{"ready": True, "protocol": 1}]}]}
        Vectors().check(case, HERE / "worker.py")

    def test_a_worker_may_take_fewer_jobs_than_the_pool_allows(self):
        case = {"protocol": 2, "concurrency": 4, "steps": [{"expect": [{"ready": True, "protocol": 2, "concurrency": 3}]}]}
        program = "import tidegate\nasync def handle(job): pass\ntidegate.serve(handle, concurrency=3)"
        Vectors().check(case, "-c", program)

    def test_a_body_that_is_not_json_is_rejected(self):
        case = {
            "protocol": 1,
            "concurrency": 1,
            "steps": [
                {"expect": [{"ready": True, "protocol": 1}]},
                {"send": '{"id":"1","body":"{"}'},
                {"expect": [{"id": "1", "outcome": "reject", "error": {"contains": "the body is not JSON"}}]},
            ],
        }
        Vectors().check(case, "-c", "import tidegate\ntidegate.serve(lambda job: job.json())")

    def test_the_import_changes_nothing_outside_of_a_runner(self):
        env = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
        env.pop("TIDEGATE_PROTOCOL", None)
        said = subprocess.check_output([sys.executable, "-c", "import tidegate; print('hello')"], env=env)
        self.assertEqual(said, b"hello\n")


if __name__ == "__main__":
    unittest.main()
