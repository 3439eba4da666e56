"""What MLX's allocator may hold on to, and what the system may not take from it."""

import mlx.core as mx


def bound(cache: int) -> None:
    """Bound the freed buffers that are kept, and keep what is in use resident.

    Without a wired limit macOS (15 and later) may page the base's weights out between steps. The
    limit is the most that the system recommends; more is an error. To be confirmed on Apple
    Silicon.

    Args:
        cache: bytes of freed buffers.
    """
    mx.set_cache_limit(cache)
    if mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
