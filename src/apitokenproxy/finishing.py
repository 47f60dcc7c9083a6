"""What is done to a request last: the body is read whole where it must be seen, a field put in, a signature made.

Signatures are made when nothing changes any more, over exactly what is sent.
"""

from apitokenproxy._colour import within
from apitokenproxy.errors import BodyTooLarge, TotalTimeout
from apitokenproxy.messages import Body, Finish, Outbound


async def finish(outbound: Outbound, last: tuple[Finish, ...]) -> None:
    """Do to a request what is done last. A body that must be seen is read whole.

    Raises BodyTooLarge, TotalTimeout, and what is raised by what is done.
    """
    most = min((one.max_body for one in last if one.max_body is not None), default=None)
    body = None if most is None else await whole(outbound.body, most, outbound.origin.timeouts.total)
    for one in last:
        done = one.apply(outbound, None if one.max_body is None else body)
        if done is not None and not isinstance(done, bytes):
            done = await done
        if one.max_body is not None:
            body = done
    if body is not None:
        outbound.body, outbound.length = body or None, len(body)


async def whole(body: Body | bytes | None, most: int, total: float | None = None) -> bytes:
    """Return all of a body, of `most` bytes at the most, read within `total` seconds where the client can be left.

    Raises BodyTooLarge, TotalTimeout, and what the body raises.
    """
    if body is None or isinstance(body, bytes):
        _left(most, body or b"", most)
        return body or b""
    if total is None:
        return await _read(body, most)
    try:
        return await within(_read(body, most), total)
    except TimeoutError:
        raise TotalTimeout("the client was still sending when the total timeout was over") from None


async def _read(body: Body, most: int) -> bytes:
    read: list[bytes] = []
    left = most
    if hasattr(body, "__aiter__"):
        async for chunk in body:
            left = _left(left, chunk, most)
            read.append(chunk)
    else:
        for chunk in body:
            left = _left(left, chunk, most)
            read.append(chunk)
    return b"".join(read)


def _left(left: int, chunk: bytes, most: int) -> int:
    if len(chunk) > left:
        raise BodyTooLarge(f"the body must be known whole and passed {most} bytes")
    return left - len(chunk)
