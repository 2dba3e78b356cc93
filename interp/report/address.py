"""Links into the page: to a section, with a token, a layer or a head chosen there. The reader is address.js."""


def address(anchor: str = "", *, token: int | None = None, layer: int | None = None, head: int | None = None) -> str:
    """``#anchor&token=...&layer=...&head=...`` of what is given; ``token`` is a position of the page's first prompt."""
    named = {"token": token, "layer": layer, "head": head}
    chosen = [f"{name}={number}" for name, number in named.items() if number is not None]
    return "#" + "&".join([*([anchor] if anchor else []), *chosen])
