"""`dcft env`."""

from dcft_cli.commands.options import Json


def env(json: Json = False) -> None:
    """Show versions, devices and caches, for a bug report.

    Prints no tokens, and no variables except those that change what dcft does.
    """
    from dcft_cli.commands.imports import gc_paused
    from dcft_cli.console.environment import show_environment
    from dcft_cli.console.output import print_json

    with gc_paused():
        from dcft_cli.runs.environment import describe_environment

        found = describe_environment()
    if json:
        print_json(found.to_json())
    else:
        show_environment(found)
