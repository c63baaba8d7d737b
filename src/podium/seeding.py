"""Independent streams of randomness, each derived from (seed, purpose).

Everything that draws asks for a stream of its own, so that adding a draw in one place does not move
another. The derivation is a hash, not an offset: neighbouring seeds give unrelated streams.
"""

import hashlib


def stream_seed(seed: int, purpose: str) -> int:
    """The 63-bit seed of the stream that serves `purpose` in a run with `seed`."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
