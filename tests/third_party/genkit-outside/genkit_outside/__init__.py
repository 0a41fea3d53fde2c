"""Stages, a guidance, a tracker, an importer and a command of a third party."""

from __future__ import annotations

from genkit.plugin import Registration, hookimpl


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add the components."""
    registry.add("stage", "copy-samples", "genkit_outside.sampling:CopySamples")
    registry.add("stage", "euler-samples", "genkit_outside.sampling:EulerSamples")
    registry.add("stage", "distill", "genkit_outside.distill:Distill")
    registry.add("guidance", "auto", "genkit_outside.guidance:AutoGuidance")
    registry.add("tracker", "lines", "genkit_outside.tracker:Lines")
    registry.add("importer", "raw", "genkit_outside.importer:RawImporter")


@hookimpl
def genkit_commands(app) -> None:  # type: ignore[no-untyped-def]
    """Add the command ``spread``."""
    from genkit_outside.command import spread

    app.command()(spread)
