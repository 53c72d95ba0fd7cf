#!/usr/bin/env python3
"""Prints golden vectors of flagd's `fractional`, each line a JSON object:

    {"how": 2 or 3, "flag": ..., "user": targeting key, "key": first argument, "weights": [...],
     "place": place of the variant}

`key` is absent where `fractional` has no key of its own. Written from the descriptions of the two
ways of bucketing, of RFC 8949 and of MurmurHash3 (which is algo1.py's), not from our code, and with
nothing but the standard library:

    python3 flags/tests/golden/flagd.py > flags/tests/golden/flagd.jsonl

way 2: the bytes of the key; without one, those of the flag's key and then of the targeting key
way 3: the key as deterministic CBOR; without one, the list of the flag's key and the targeting key
bucket = murmur3(bytes, 0) * sum of weights / 2**32, rounded down; it falls into the first variant
         whose weight, added to those before it, is more
"""

import json
import random
import struct
import sys

from algo1 import check_against_published_hashes, murmur3, names


def head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for extra, size in [(24, 1), (25, 2), (26, 4), (27, 8)]:
        if argument < 1 << 8 * size:
            return bytes([major << 5 | extra]) + argument.to_bytes(size, "big")
    raise ValueError(argument)


def real(number: float) -> bytes:
    """The shortest of the three forms that keeps the number."""
    for first, form in [(0xF9, ">e"), (0xFA, ">f")]:
        try:
            short = struct.pack(form, number)
        except OverflowError:
            continue
        if struct.unpack(form, short)[0] == number:
            return bytes([first]) + short
    return b"\xfb" + struct.pack(">d", number)


def cbor(value) -> bytes:
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, float) and value.is_integer() and -(2**63) <= value < 2**64:
        value = int(value)
    if isinstance(value, float):
        return real(value)
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, str):
        text = value.encode()
        return head(3, len(text)) + text
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    pairs = sorted((cbor(name), cbor(item)) for name, item in value.items())
    return head(5, len(pairs)) + b"".join(name + item for name, item in pairs)


def check_against_the_standard() -> None:
    """From RFC 8949, appendix A."""
    for value, want in [
        (1000000, "1a000f4240"),
        (-1000, "3903e7"),
        (1.1, "fb3ff199999999999a"),
        (1.5, "f93e00"),
        (5.960464477539063e-8, "f90001"),
        (3.4028234663852886e38, "fa7f7fffff"),
        ([1, [2, 3]], "8201820203"),
        ({"a": "A", "b": "B"}, "a26161614161626142"),
        ("\u6c34", "63e6b0b4"),
    ]:
        got = cbor(value).hex()
        assert got == want, f"cbor({value!r}) = {got}, not {want}"


def place(data: bytes, weights: list) -> int:
    bucket = murmur3(data, 0) * sum(weights) >> 32
    end = 0
    for at, weight in enumerate(weights):
        end += weight
        if bucket < end:
            return at
    raise AssertionError("a bucket is below the sum of the weights")


def vector(how: int, flag: str, user: str, weights: list, **key) -> dict:
    if how == 2:
        data = key["key"].encode() if key else (flag + user).encode()
    else:
        data = cbor(key["key"] if key else [flag, user])
    return {"how": how, "flag": flag, "user": user, **key, "weights": weights, "place": place(data, weights)}


def values(random_: random.Random) -> list:
    """Keys that are no texts, for the third way."""
    known = [True, False, 0, 1, 1.0, -0.0, -1, -1.0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32]
    known += [2**53, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), -24, -25, 1e18, 1e19, 2.0**64, 1e300]
    known += [0.5, 1.5, 1.1, 65504.5, 100000.5, 5.960464477539063e-8, 2.0**-14, 2.0**-15, 2.0**-25]
    known += [{}, {"a": 1}, {"b": 1, "aa": [2, None], "a": {"c": "ü"}}, {"id": 7, "org": "x" * 300}]
    known += [random_.randrange(-(2**63), 2**64) for _ in range(50)]
    known += [random_.uniform(-1e6, 1e6) for _ in range(50)]
    return known


def main() -> None:
    check_against_published_hashes()
    check_against_the_standard()
    random_ = random.Random(2)
    splits = [[50, 50], [25, 25, 25, 25], [1, 0, 999, 99000], [2147483646, 1], [1]]
    for number, name in enumerate(names(random_)):
        flag = ["checkout", "ü/β", "a" * 60][number % 3]
        weights = splits[number % len(splits)]
        for how in (2, 3):
            print(json.dumps(vector(how, flag, "user-1", weights, key=name)))
            # Nobody is bucketed by an empty targeting key.
            if name:
                print(json.dumps(vector(how, flag, name, weights)))
    for number, value in enumerate(values(random_)):
        print(json.dumps(vector(3, "checkout", "user-1", splits[number % len(splits)], key=value)))


if __name__ == "__main__":
    sys.exit(main())
