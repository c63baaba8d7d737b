"""Independent random streams, each derived from (seed, purpose).

Each consumer of random numbers has its own stream, so that an added draw in one place does not change another.
Seeds are hashed, so that neighbouring seeds give unrelated streams.
"""

import hashlib


def stream_seed(seed: int, purpose: str) -> int:
    """The 63-bit seed of the stream for `purpose` in a run with `seed`."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
