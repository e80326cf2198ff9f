"""The errors of the core room; every message says where, what was found and what to do."""


class ModelError(ValueError):
    """A model or its contract cannot be used; raised while loading, never per frame."""


class SettingsError(ValueError):
    """A setting is out of its range or names something unknown."""


class DeviceError(RuntimeError):
    """A device or runtime is missing, or failed while it worked."""


class DeviceLostError(DeviceError):
    """A frame met a device that is away; its supervisor reports that itself and restarts it."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
