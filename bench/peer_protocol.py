"""The Python end of `deixis bench`: requests are lines of JSON on stdin, answers lines of JSON on stdout.

    {"do": "hello"}                             -> names and versions
    {"do": "prepare", "id": 0, "task": {...}}   -> {}; builds the work that the task describes; or
                                                   {"twin": false}: this peer has none, and is left out
    {"do": "run", "id": 0, "calls": 10, "warm": true}  -> {"seconds": of one call}; warm: after one untimed call
    {"do": "facts", "id": 0}                    -> whatever else is known of that work
    {"do": "drop", "id": 0}                     -> {}

What cannot be done answers {"error": one line}; the end of the input ends the program.
"""
import gc
import json
import os
import sys
import time
import traceback


class Work:
    """A thing to be timed: `call` does it once, `wait` returns when the device has done it."""

    def __init__(self, call, wait=lambda: None, facts=dict):
        self.call, self.wait, self.facts = call, wait, facts

    def seconds(self, calls, warm):
        if warm:
            self.call()
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            self.call()
        self.wait()
        return (time.perf_counter() - start) / calls


def serve(hello, prepare, dropped=lambda: None):
    """Answers until the input ends. `hello` is a dict, `prepare` makes a Work of a task, `dropped` is called when one has
    been forgotten."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print must not get between the lines
    works = {}

    def answer(request):
        what, number = request["do"], request.get("id")
        if what == "hello":
            return hello
        if what == "prepare":
            works[number] = prepare(request["task"])
            return {}
        if what == "run":
            return {"seconds": works[number].seconds(request["calls"], request["warm"])}
        if what == "facts":
            return works[number].facts()
        if what == "drop":
            del works[number]
            gc.collect()
            dropped()
            return {}
        raise ValueError(f"unknown request {what!r}")

    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as e:  # reported to whoever asked, with the trace on stderr
            traceback.print_exc()
            reply = {"error": " ".join(f"{type(e).__name__}: {e}".split())[:500]}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def seconds(call, rounds, warm=3, wait=lambda: None):
    """Median seconds of a call."""
    for _ in range(warm):
        call()
    wait()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def peak_resident_mib():
    """Of this program alone: getrusage's maximum would include the parent's memory at the fork."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
