"""What cameras may be called; launch files ask too, and load nothing for it."""

import re
from collections.abc import Sequence

#: What ``fits`` wants.
EXPECTED = 'the name of each camera once, of letters, digits and single underscores'

_NAME = re.compile(r'[A-Za-z_]\w*(/[A-Za-z_]\w*)*', re.ASCII)


def fits(names: Sequence[str]) -> bool:
    """Tell whether names, at least one, are different ones that namespaces can have."""
    return bool(names) and len(set(names)) == len(names) and all(
        _NAME.fullmatch(name) and '__' not in name for name in names)
