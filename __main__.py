"""The program of every nestlab stack: settings in, lab out."""

from pathlib import Path

import pulumi

from components import settings
from components.lab import deploy

root = Path(__file__).resolve().parent
config = pulumi.Config()
given = settings.load(
    config.require_object("lab"),
    root,
    pulumi.get_stack(),
    preview=pulumi.runtime.is_dry_run(),
    password=settings.host_password(config),
)
for name, value in deploy(given.spec, **given.facts).items():
    pulumi.export(name, value)
