"""The command line: each command parses, calls one service function, prints.

Commands are named here and imported when they are used: `metalimmu --help` imports click and nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import ClassVar

import click

from metalimmu import __version__

# name -> (module, attribute, short help, group in --help)
COMMANDS: dict[str, tuple[str, str, str, str]] = {
    "plan": ("reimage", "plan", "Print what a reimage of hosts would do.", "Machines"),
    "reimage": ("reimage", "reimage", "Make hosts carry their image, and prove it.", "Machines"),
    "apply": ("saved", "apply", "Carry out a saved plan exactly as it is.", "Machines"),
    "approve": ("saved", "approve", "Sign a saved plan with your SSH key.", "Machines"),
    "rollback": ("reimage", "rollback", "Go back to the image that hosts had before.", "Machines"),
    "prove": ("hosts", "prove", "Ask hosts again which image they run.", "Machines"),
    "power": ("hosts", "power", "Switch hosts on or off, reset them, or ask.", "Machines"),
    "console": ("console", "console", "Open the serial console of a host.", "Machines"),
    "release": ("hosts", "release", "End a quarantine, as unproven.", "Machines"),
    "freeze": ("freeze", "freeze", "Change nothing for a while: on, off, status.", "Machines"),
    "history": ("runs", "history", "Print what happened to a host.", "Machines"),
    "discover": ("discover", "discover", "Find BMCs on networks, writing nothing to them.", "Machines"),
    "enroll": ("enroll", "enroll", "Make a discovered machine a host of the site.", "Machines"),
    "scan": ("scan", "scan", "Read every BMC and say what differs, writing nothing.", "Machines"),
    "drift": ("drift", "drift", "What differs, since when, and who did it; accept, export.", "Machines"),
    "report": ("report", "report", "Write a report on the fleet as one HTML file.", "Machines"),
    "host": ("hosts", "host", "List, show and inspect hosts.", "Nouns"),
    "bmc": ("bmc", "bmc", "What BMCs can do, which rights they need, record one.", "Nouns"),
    "config": ("config", "config", "Show, compare and push run-time config.", "Nouns"),
    "profile": ("profile", "profile", "Lint, capture, compare and list profiles.", "Nouns"),
    "run": ("runs", "run", "List, show, watch, pause, cancel and resume runs.", "Nouns"),
    "image": ("image", "image", "Build, add, compare and revoke images.", "Nouns"),
    "ramdisk": ("ramdisk", "ramdisk", "Build the ramdisk that writes images.", "Nouns"),
    "switch": ("switch", "switch", "What a switch says of itself; its SSH key.", "Nouns"),
    "salvage": ("salvage", "salvage", "Files of old systems, saved before they were overwritten.", "Nouns"),
    "schedule": ("schedule", "schedule", "List, start, pause and resume schedules.", "Nouns"),
    "alert": ("alert", "alert", "List, test and send alerts.", "Nouns"),
    "lab": ("lab", "lab", "A rack of virtual machines behind BMCs.", "Nouns"),
    "serve": ("serve", "serve", "Run schedules, alerts, worker and boot service.", "Site"),
    "metrics": ("report", "metrics", "Print metrics of the last scans for Prometheus.", "Site"),
    "backup": ("backup", "backup", "Back up the controller while runs go on.", "Site"),
    "restore": ("backup", "restore", "Put a controller back from a backup.", "Site"),
    "doctor": ("doctor", "doctor", "Say what is wrong around the controller, and how to mend it.", "Site"),
    "init": ("site", "init", "Write a small commented site.", "Site"),
    "import": ("imports", "import_", "Hosts from NetBox or Ansible, for review.", "Site"),
    "check": ("site", "check", "Check every document of the site.", "Site"),
    "schema": ("site", "schema", "Print the JSON Schema of a document.", "Site"),
}


class LazyGroup(click.Group):
    order: ClassVar[tuple[str, ...]] = ("Machines", "Nouns", "Site")

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _, _ = COMMANDS[name]
        command: click.Command = getattr(import_module(f"metalimmu.cli.{module}"), attribute)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group in self.order:
            with formatter.section(group):
                formatter.write_dl([(n, c[2]) for n, c in COMMANDS.items() if c[3] == group])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "METALIMMU"})
@click.option("--site", metavar="DIR", help="Folder with site.yaml; default: here or above (METALIMMU_SITE).")
@click.option("-v", "--verbose", count=True, help="Say more; twice for debugging.")
@click.version_option(__version__, prog_name="metalimmu")
def cli(site: str | None, verbose: int) -> None:  # noqa: ARG001
    """Reimage machines from immutable images through Redfish, and prove it.

    Exit status: 0 done, 1 failed or declined, 2 usage or documents, 3 drift, 4 more unknown hosts than allowed,
    130 interrupted.
    """
    from metalimmu import log

    log.setup(verbose=verbose)
