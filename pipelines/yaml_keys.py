"""Keys that a YAML file says twice, of which every reader takes the last without a word."""

from __future__ import annotations

from typing import Any


def repeated_key(text: str) -> str | None:
    """Which key a mapping of a YAML file says twice, at any depth, and in which lines; None for none.

    Raises:
        yaml.YAMLError: It is not YAML.
    """
    import yaml

    ahead: list[Any] = [yaml.compose(text, Loader=yaml.SafeLoader)]
    seen: set[int] = set()
    while ahead:
        node = ahead.pop()
        if id(node) in seen or not isinstance(getattr(node, "value", None), list):
            continue
        seen.add(id(node))
        pairs = [one for one in node.value if isinstance(one, tuple)]
        lines: dict[str, int] = {}
        for key, _ in pairs:
            line = key.start_mark.line + 1
            if isinstance(key.value, str) and key.value in lines:
                before = lines[key.value]
                if before == line:
                    return f"line {line} says {key.value!r} twice"
                return f"lines {before} and {line} both say {key.value!r}"
            if isinstance(key.value, str):
                lines[key.value] = line
        ahead += [value for _, value in pairs] or node.value
    return None
