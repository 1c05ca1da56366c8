"""The installation and the machine, for a bug report."""

from typing import TYPE_CHECKING

from rich.filesize import decimal

from dcft_cli.console.output import out
from dcft_cli.console.tables import facts

if TYPE_CHECKING:
    from dcft_cli.runs.environment import Environment


def show_environment(found: "Environment") -> None:
    """Print everything in lines that can be pasted."""
    folders = [
        (name, f"{folder.path} ({decimal(folder.free_bytes or 0)} free)" if folder.path else "off")
        for name, folder in found.folders.items()
    ]
    out.print(
        facts(
            *((name, text or "not installed") for name, text in found.versions.items()),
            ("system", found.system),
            ("devices", "\n".join(found.devices)),
            ("cores", f"{found.cores} (threads of torch: {found.threads})"),
            *folders,
            ("variables", "\n".join(f"{n}={v}" for n, v in found.variables.items()) or "none set"),
        )
    )
