"""Run-time config of a deployment: what the templates are told of the controller, and what is filled in when it is served.

Tokens are kept nowhere: a placeholder stands for them until the machine asks.
"""

from __future__ import annotations

import json
from dataclasses import replace

from metalimmu.desired.render import digest
from metalimmu.wire.messages import PROOF_FILE, ConfigFile, RunTimeConfig

PHONE_HOME = "http://phone-home.invalid/"  # stands for the address with the deployment's token


def controller(machines_url: str, deployment: str) -> dict[str, str]:
    """`controller` in the templates."""
    return {"url": machines_url.rstrip("/"), "deployment": deployment, "phone_home": PHONE_HOME}


def made(files: dict[str, str]) -> RunTimeConfig:
    return RunTimeConfig(files=tuple(ConfigFile(k, v) for k, v in sorted(files.items())), digest=digest(files))


def filled(config: RunTimeConfig, *, phone_home: str) -> RunTimeConfig:
    """With the address that cloud-init's phone_home asks."""
    return made({f.path: f.content.replace(PHONE_HOME, phone_home) for f in config.files})


def with_proof(config: RunTimeConfig, proof: dict[str, str]) -> RunTimeConfig:
    """With the proof unit's file, which is no part of the digest that it carries."""
    text = json.dumps({**proof, "config_digest": config.digest}, indent=1, sort_keys=True)
    return replace(config, files=(*config.files, ConfigFile(PROOF_FILE, text)))
