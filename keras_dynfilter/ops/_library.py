class _L: ops=None; reason="not built"
def load(): return _L


def supports_jit():
    """Whether what the ops resolve to now runs under XLA: the composite always does."""
    return load().ops is None
