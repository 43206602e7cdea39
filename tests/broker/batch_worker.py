"""A worker in a process of its own, for tests that end processes: BOOTSTRAP GROUP TOPIC LOG BEHAVIOUR [STALL_AFTER_S].

Writes a line to LOG when it is given a list and when it finished it. BEHAVIOUR: ok, slow (1.5 s a list), bug (an exception),
outage (the store never answers, given up after 1 s), long-outage, hang.
"""

import asyncio
import sys

from features.errors import StoreUnavailableError
from features.retries import RetryPolicy
from infra.terminal import show_logs
from stream.kafka.app import make_app, run
from stream.kafka.connection import Connection
from stream.workers.agents import batch_agent


def main():
    show_logs("WARNING")
    bootstrap, group, topic, log, behaviour, *stall_after_s = sys.argv[1:]
    app = make_app(
        "test",
        Connection(bootstrap=bootstrap),
        group=group,
        stall_after_s=float((stall_after_s or ["60"])[0]),
        check_every_s=0.5,
        broker_commit_interval=0.3,
    )

    def note(what, records):
        with open(log, "a") as file:
            file.write(f"{what} {records[0].partition} {records[0].offset} {records[-1].offset}\n")

    async def handle(batch):
        records = batch.records
        note("given", records)
        if behaviour == "slow":
            await asyncio.sleep(1.5)
        elif behaviour == "bug":
            raise RuntimeError("a bug")
        elif behaviour in ("outage", "long-outage"):
            raise StoreUnavailableError("a test")
        elif behaviour == "hang":
            await asyncio.Event().wait()
        note("done", records)
        await batch.acknowledge()

    batch_agent(app, [topic], handle, in_step=False, policy=RetryPolicy(give_up_after_s=1.0 if behaviour == "outage" else 300.0))
    sys.exit(run(app, stop_deadline_s=4.0))


if __name__ == "__main__":
    main()
