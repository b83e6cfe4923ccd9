def build_config() -> dict[str, str]:
    """What this build was made of (empty where a part is absent) and the CPU instruction set in use."""
