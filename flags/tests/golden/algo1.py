#!/usr/bin/env python3
"""Prints the golden vectors of bucketing algorithm 1, each line a JSON array:

    [salt, id, seed, bucket, bucket in the domain of splits]

Written from the description of the algorithm and of MurmurHash3 (x86, 32 bits), not from our code,
and with nothing but the standard library:

    python3 flags/tests/golden/algo1.py > flags/tests/golden/algo1.jsonl

seed   = murmur3(salt as UTF-8, 0)
bucket = murmur3(id as UTF-8, seed) * 100000 / 2**32, rounded down; below 100,000 in thousandths
         of a percent
A split hashes with the salt followed by a NUL and the word "variant".
"""

import json
import random
import sys
import uuid

MASK = 0xFFFFFFFF


def rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & MASK


def murmur3(data: bytes, seed: int) -> int:
    state = seed
    whole = len(data) // 4
    for block in range(whole):
        word = int.from_bytes(data[4 * block : 4 * block + 4], "little")
        word = rotate(word * 0xCC9E2D51 & MASK, 15) * 0x1B873593 & MASK
        state = (rotate(state ^ word, 13) * 5 + 0xE6546B64) & MASK
    rest = data[4 * whole :]
    if rest:
        word = int.from_bytes(rest, "little")
        state ^= rotate(word * 0xCC9E2D51 & MASK, 15) * 0x1B873593 & MASK
    state ^= len(data)
    state = (state ^ state >> 16) * 0x85EBCA6B & MASK
    state = (state ^ state >> 13) * 0xC2B2AE35 & MASK
    return state ^ state >> 16


def bucket(salt: str, name: str) -> int:
    seed = murmur3(salt.encode(), 0)
    return murmur3(name.encode(), seed) * 100_000 >> 32


def vector(salt: str, name: str) -> list:
    return [
        salt,
        name,
        murmur3(salt.encode(), 0),
        bucket(salt, name),
        bucket(salt + "\0variant", name),
    ]


def check_against_published_hashes() -> None:
    """Vectors that other implementations of MurmurHash3 publish."""
    for data, seed, want in [
        (b"", 0, 0),
        (b"", 1, 0x514E28B7),
        (b"", MASK, 0x81F16F39),
        (b"\0\0\0\0", 0, 0x2362F9DE),
        (b"aaaa", 0x9747B28C, 0x5A97808A),
        (b"aaa", 0x9747B28C, 0x283E0130),
        (b"aa", 0x9747B28C, 0x5D211726),
        (b"a", 0x9747B28C, 0x7FA09EA6),
        (b"Hello, world!", 0x9747B28C, 0x24884CBA),
    ]:
        got = murmur3(data, seed)
        assert got == want, f"murmur3({data!r}, {seed:#x}) = {got:#x}, not {want:#x}"


def names(random_: random.Random) -> list:
    known = ["user-1", "user-2", "", "ü", "u\u0308", "😀", "12345", "-9223372036854775808"]
    known += ["18446744073709551615", "\0", "a\0b", "a b", "A", "a", "日本語", "\ufeffx", "👩‍👩‍👧"]
    known += ["5c3d8535-f81a-4478-a6d3-afaa4d51199e", "someone@example.com"]
    # Every length of the last block, up to more bytes than any id has.
    known += ["x" * length for length in [*range(1, 70), 255, 256, 4096]]
    known += [str(uuid.UUID(int=random_.getrandbits(128))) for _ in range(100)]
    known += [str(number) for number in range(100)]
    return known


def main() -> None:
    check_against_published_hashes()
    random_ = random.Random(1)
    salts = ["dark_mode", "checkout-v2", "", "new/search", "ü", "a", "s" * 256]
    for salt in salts:
        for name in names(random_):
            print(json.dumps(vector(salt, name)))


if __name__ == "__main__":
    sys.exit(main())
