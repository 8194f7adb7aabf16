"""layer_columns: where the layers that a head reads stand in features that were recorded with more of them."""

from ..head.base_model import FINGERPRINT_TOLERANCE, fingerprint_distance
from ..head.configuration_elhsr import ElhsrConfig


def layer_columns(recorded: ElhsrConfig, wanted: ElhsrConfig) -> list[slice]:
    """The columns of recorded features that make up h_t of a head, as few slices as possible, in the head's order.

    Args:
        recorded: What the features were recorded for.
        wanted: Of the head; its layers are all or some of those recorded.

    Raises:
        ValueError: The head reads another signal, another width, a layer that was not recorded, or another model, or
            one with another adapter.
    """
    kinds = [(c.signal, c.hidden_size if c.layers else c.num_features) for c in (recorded, wanted)]
    missing = sorted(set(wanted.layers) - set(recorded.layers))
    if kinds[0] != kinds[1] or missing:
        raise ValueError(
            f"A head that reads {_described(wanted)} cannot be applied to features recorded of {_described(recorded)}: "
            "choose among the layers recorded, or sample again."
        )
    for what in ("fingerprint", "adapter"):
        own, there = getattr(wanted, what), getattr(recorded, what)
        # A head without an adapter may be used where there is one; `check_fits` has warned of it in sampling
        if own is None or (what == "fingerprint" and there is None):
            continue
        distance = float("inf") if there is None else fingerprint_distance(own, there)
        if not distance <= FINGERPRINT_TOLERANCE:
            raise ValueError(
                f"A head made for {wanted.base_model or 'one model'} cannot be applied to features recorded of "
                f"{recorded.base_model or 'another'}: their {what}s differ. Sample rollouts with the head's own model."
            )
    if wanted.layers == recorded.layers:
        return [slice(0, recorded.num_features)]
    width = recorded.hidden_size
    columns: list[slice] = []
    for layer in wanted.layers:
        start = recorded.layers.index(layer) * width
        if columns and columns[-1].stop == start:
            columns[-1] = slice(columns[-1].start, start + width)
        else:
            columns.append(slice(start, start + width))
    return columns


def _described(config: ElhsrConfig) -> str:
    if config.signal != "hidden_states":
        return f"{config.signal} ({config.num_features} numbers)"
    return f"hidden states {config.layers} of width {config.hidden_size}"
