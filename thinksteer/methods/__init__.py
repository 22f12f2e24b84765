"""The methods: each one module that says which tokens it compares, where they are read, and where its edit acts."""

from collections.abc import Callable
from dataclasses import dataclass

from thinksteer.methods import thinkedit
from thinksteer.records import Passage, Site


@dataclass(frozen=True)
class Method:
    """`passages` turns records into spans labelled "long" and "short", read at one site; edits act at the other."""

    name: str
    read_site: Site
    steer_site: Site
    passages: Callable[..., list[Passage]]


METHODS = {
    method.name: method
    for method in (
        Method("thinking_length_attn", "mid", "attn_out", thinkedit.passages),
        Method("thinking_length_mlp", "block_out", "mlp_out", thinkedit.passages),
    )
}
