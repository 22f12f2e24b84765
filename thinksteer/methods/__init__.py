"""The methods: each one module that says which tokens it compares, where they are read, and where its edit acts."""

from thinksteer.methods import behaviours, control_vectors, reasoning_memory, seal, thinkedit
from thinksteer.methods.method import Method

METHODS = {
    method.name: method
    for method in (
        *thinkedit.METHODS,
        *seal.METHODS,
        *behaviours.METHODS,
        *reasoning_memory.METHODS,
        *control_vectors.METHODS,
    )
}
PENALTIES = {penalty.name: penalty for penalty in (*seal.PENALTIES,)}


def family(method: Method) -> str:
    """The first method that labels the same spans: what is known of these is filed under its name."""
    return next(one.name for one in METHODS.values() if one.passages is method.passages)
