class _L: ops=None; reason="not built"
def load(): return _L
