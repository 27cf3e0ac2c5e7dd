"""Where bodies of upstream answers go: into the store, or straight to a client."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from regproxy.store.fill import Fill
from regproxy.upstream.body import BodyReader
from regproxy.web.sender import Consumer


def receive(response: IResponse, fill: Fill, clock: IReactorTime, idle: float) -> None:
    """Have the body of *response* written to *fill*, which tells how it ended.

    Args:
        idle: seconds for which the upstream may send nothing.
    """
    reader = BodyReader(fill.write, clock, idle)
    fill.produced_by(reader)
    # Whatever ends the fill early (a wrong size, the disk) ends the transfer. The
    # store has logged it then.
    fill.when_ended().addErrback(lambda _: reader.done.cancel())

    reader.done.addCallbacks(lambda _: fill.finish(), fill.fail)
    response.deliverBody(reader)


async def relay(response: IResponse, consumer: Consumer, clock: IReactorTime, idle: float) -> None:
    """Send the body of *response* to *consumer* as it arrives, at the consumer's pace.

    Args:
        idle: seconds for which the upstream may send nothing.

    Raises:
        UpstreamError: the body broke off; the answer must be cut short.
        CancelledError: the consumer is gone.
    """
    reader = BodyReader(consumer.write, clock, idle)
    response.deliverBody(reader)
    consumer.registerProducer(reader, True)
    try:
        await reader.done
    finally:
        consumer.unregisterProducer()
