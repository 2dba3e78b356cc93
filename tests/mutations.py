"""Ways to damage a file: flipped bits, cuts, repeats, wrong lengths, and JSON with other values, keys and depths than it should have."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

_HERE, _KEY = "@here@", "@key@"
RAW = (
    *("null", "true", "-1", "0", "3", "1e999", "NaN", "-Infinity", "0.5", '""', "[]", "{}", "[[[]]]", '[""]', '{"a": 1}'),
    *('"../../x"', '"/etc/hostname"', '"\\ud800"', '"a\\nb\\u001b[2J\\u0000"', '"</script><script>alert(1)</script>"'),
    *(str(1 << 31), str(1 << 63), str(1 << 70), "9" * 5000, f'"{"x" * 4000}"'),
    *("[" * 30_000 + "]" * 30_000, '{"a":' * 30_000 + "1" + "}" * 30_000, "[" * 30_000),
)  # fmt: skip
"""Values as JSON text, valid and not, that a reader may not expect."""


def bytes_of(data: bytes, draw: random.Random) -> bytes:
    """The file with one damage to its bytes."""
    at, kind = draw.randrange(max(1, len(data))), draw.randrange(7)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at : at + draw.randrange(1, 40)] + data[at:]
    if kind == 2:
        return data[:at] + draw.randbytes(draw.randrange(1, 12)) + data[at:]
    if kind == 3:
        return data + draw.randbytes(draw.randrange(1, 40))
    damaged = bytearray(data)
    if kind == 4:
        size = min(8, len(data))
        damaged[:size] = draw.choice((0, 1, 7, len(data), 1 << 24, 1 << 31, 1 << 62, (1 << 64) - 1)).to_bytes(
            8, "little"
        )[:size]
    else:
        for _ in range(1 if kind == 5 else 6):
            place = draw.randrange(len(damaged)) if kind == 6 else draw.randrange(min(len(damaged), 600))
            damaged[place] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def json_of(value: Any, draw: random.Random) -> str:
    """JSON text of the value with one place changed: its value, its key, gone, or there twice."""
    copy = json.loads(json.dumps(value))
    places = list(_places(copy))
    if not places:
        return draw.choice(RAW)
    inside, key = draw.choice(places)
    kind = draw.randrange(5)
    if kind == 0 or isinstance(inside, list):
        if draw.random() < 0.3:
            del inside[key]
            return json.dumps(copy)
        inside[key] = _HERE
    elif kind == 1:
        del inside[key]
    elif kind == 2:
        inside[f"{key}x"] = inside.pop(key)
    elif kind == 3:
        inside[_KEY] = draw.choice((inside[key], None, 1, ""))
        return json.dumps(copy).replace(json.dumps(_KEY), json.dumps(key))
    else:
        inside[key] = _HERE
    return json.dumps(copy).replace(json.dumps(_HERE), draw.choice(RAW))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of nested lists and objects."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from _places(inner)


def safetensors_of(data: bytes, draw: random.Random, inner: str | None = None) -> bytes:
    """A safetensors file with another header, its length put right; ``inner`` names metadata that is itself JSON, to change instead."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if inner is None or draw.random() < 0.4:
        text = json_of(header, draw)
    else:
        changed = json_of(json.loads(header["__metadata__"][inner]), draw)
        text = json.dumps({**header, "__metadata__": {**header["__metadata__"], inner: changed}})
    encoded = text.encode("utf-8", "surrogatepass")
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + data[8 + size :]


def sealed(data: bytes, draw: random.Random, seal: Callable[[Any], str], name: str) -> bytes:
    """A JSON object that carries its own digest, changed and sealed again where that is possible."""
    whole = json.loads(data)
    whole.pop(name)
    try:
        changed = json.loads(json_of(whole, draw))
        return json.dumps({**changed, name: seal(changed)}).encode()
    except (ValueError, TypeError, RecursionError):
        return json_of(whole, draw).encode("utf-8", "surrogatepass")
