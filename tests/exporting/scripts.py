"""The script in an export's README, run with other texts."""

import re
from pathlib import Path
from typing import Any


def script_with(folder: Path, /, **values: Any) -> str:
    """Return the script, with other values for its variables of these names."""
    (script,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.S)
    for name, value in values.items():
        script, found = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", script, flags=re.M)
        assert found == 1, name
    return str(script)
