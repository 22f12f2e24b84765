"""How a direction is applied: as in its method's paper, or as the flags say."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinksteer import store
from thinksteer.flags import natural_int
from thinksteer.methods.method import Method, everywhere, own_vector
from thinksteer.records import Condition, Edit, InputError
from thinksteer.thinking import Reader

if TYPE_CHECKING:
    from torch import Tensor

SITES = ("block_in", "attn_out", "mlp_out", "block_out")
STRONG = 10  # times the norm of the mean activation: no model computes sensibly with so much added


def responding(reader: Reader) -> Condition:
    return Condition(responding=True)


WHERE = {"all": everywhere, "response": responding}


def add_flags(parser: ArgumentParser) -> None:
    flags = parser.add_argument_group("how the direction is applied (default: as in the control's paper)")
    flags.add_argument(
        "--operation",
        choices=["add", "amplify"],
        help="add it, or scale what the state has along it: amplify by -1 is ablation",
    )
    flags.add_argument("--site", nargs="+", choices=SITES, help="where in each layer")
    flags.add_argument(
        "--tokens", choices=WHERE, help="at all, or at those that predict the response: from the prompt's last one on"
    )
    flags.add_argument(
        "--from_layer", type=_layer, metavar="LAYER", help="this layer's vector in all of them, or `own`: each its own"
    )
    flags.add_argument(
        "--scale",
        choices=["raw", "unit", "overall"],
        default="raw",
        help="length of each layer's vector: as it is, 1, or the norm of the layer's mean state (default: %(default)s)",
    )
    flags.add_argument("--control_direction", choices=["random"], help="control: a random direction of the same norms")
    flags.add_argument("--control_seed", type=natural_int, default=0, help="of it (default: %(default)s)")


def chosen(method: Method, args: Namespace) -> Method:
    """The method as the flags have it applied. InputError: a seed without the random direction it is for."""
    if args.control_seed and not args.control_direction:
        raise InputError(f"--control_seed {args.control_seed} goes with --control_direction random")
    if args.operation:
        method = replace(method, operation=args.operation)
    if args.site:
        method = replace(method, sites=_sites(args))
    if args.tokens:
        method = replace(method, where=WHERE[args.tokens])
    if args.from_layer is not None:
        method = replace(
            method, vector_of=own_vector if args.from_layer == "own" else lambda num_layers: args.from_layer
        )
    return method


def named(name: str, args: Namespace) -> str:
    """A direction's name and what the flags say of how it is applied: `seal.amplify.block_in+mlp_out.unit.random0`."""
    said = [args.operation, args.site and "+".join(_sites(args)), args.tokens]
    said += [None if args.from_layer is None else f"from-{args.from_layer}"]
    said += [args.scale if args.scale != "raw" else None]
    said += [f"random{args.control_seed}" if args.control_direction else None]
    return ".".join([name, *filter(None, said)])


def settings(method: Method, num_layers: int, args: Namespace) -> dict[str, Any]:
    """How the chosen method is applied to a model with so many layers, for the run manifest."""
    source = method.vector_of(num_layers)
    return {
        "operation": method.operation,
        "sites": method.sites,
        "tokens": args.tokens,
        "from_layer": "own" if source is None else source,
        "scale": args.scale,
        "control_seed": args.control_seed if args.control_direction else None,
    }


def flags_of(settings: Mapping[str, Any]) -> Namespace:
    """The flags that have a method applied as `settings` says."""
    seed = settings["control_seed"]
    return Namespace(
        operation=settings["operation"],
        site=list(settings["sites"]),
        tokens=settings["tokens"],
        from_layer=settings["from_layer"],
        scale=settings["scale"],
        control_direction=None if seed is None else "random",
        control_seed=seed or 0,
    )


def read_vectors(file: Path, method: Method, args: Namespace) -> Tensor:
    """The vectors `[L, D]` to apply, made of the direction in a file.

    InputError: the file has no norms to scale by, or no such layer.
    """
    from thinksteer.directions import random_like, stretched

    vectors = store.read_direction(file)
    if args.scale == "unit":
        vectors = stretched(vectors, vectors.new_ones(len(vectors)))
    if args.scale == "overall":
        norms = _overall_norms(file, len(vectors))
        if norms is None:
            raise InputError(f"{file} holds no tensor `overall_norm`: make it with stage 2, or give another --scale")
        vectors = stretched(vectors, norms)
    if args.control_direction:
        vectors = random_like(vectors, args.control_seed)
    source = method.vector_of(len(vectors))
    if source is not None and source >= len(vectors):
        raise InputError(f"--from_layer {source}: {file} has layers 0 to {len(vectors) - 1}")
    if source is not None and not vectors[source].any():
        raise InputError(f"{file} has no vector for layer {source}: choose another --from_layer")
    return method.spread(vectors)


def warning(file: Path, edits: Sequence[Edit]) -> str | None:
    """One line for the user if an edit adds many times as much as the activations that the direction in a file was read
    from. None: no edit does, or the file has no norms of them."""
    shares = {}
    for edit in edits:
        norms = _overall_norms(file, len(edit.vectors)) if edit.operation == "add" else None
        if norms is not None:
            added = abs(edit.coef) * edit.vectors.norm(dim=-1)
            shares |= {layer: float(added[layer] / norms[layer].clamp(min=1e-30)) for layer in edit.layers}
    layer = max(shares, key=shares.__getitem__, default=None)
    if layer is None or shares[layer] <= STRONG:
        return None
    return (
        f"warning: the vector added in layer {layer} is {shares[layer]:.0f} times as long as the mean activation that "
        "its direction was read from, so the responses may be no text: lower --direction_weight"
    )


def _overall_norms(file: Path, num_layers: int) -> Tensor | None:
    """The norms `[L]` of the mean activations that a file states, if it does. InputError if they are broken."""
    norms = store.read_safetensors(file)[0].get("overall_norm")
    if norms is not None and (norms.shape != (num_layers,) or not norms.isfinite().all()):
        raise InputError(f"{file}: `overall_norm` is no finite [num_layers]: make it with stage 2")
    return norms


def _sites(args: Namespace) -> tuple[str, ...]:
    """Those of --site, in the order of a forward pass, each once: another order would be the same steering."""
    return tuple(site for site in SITES if site in args.site)


def _layer(text: str) -> int | str:
    return text if text == "own" else natural_int(text)
