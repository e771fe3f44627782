"""The handlers of the protocol's vectors, as tasks of asyncio."""

import asyncio

import tidegate
import worker

meeting = asyncio.Event()
waiting = 0


async def handle(job):
    global waiting
    match job.headers.get("do"):
        case "meet":
            waiting += 1
            if waiting == 2:
                meeting.set()
            await meeting.wait()
            return "met"
        case "wait":
            await asyncio.Event().wait()
        case "finish":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "finished"
        case "sleep":
            await asyncio.sleep(0.1)
            return "slept"
    return worker.handle(job)


tidegate.serve(handle)
