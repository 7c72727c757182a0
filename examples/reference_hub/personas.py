"""Who answers in the hub: read from personas.toml, at least one, the last one takes what no other claims."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

DEFAULT_FILE = Path(__file__).with_name("personas.toml")


@dataclass(frozen=True)
class Persona:
    """`interests` are words: they weigh which packages the persona likes to quote."""

    id: str
    name: str
    interests: str
    packages: frozenset[str]


def load(path: Path = DEFAULT_FILE) -> tuple[Persona, ...]:
    """The personas of `path`. Raises ValueError, naming every record that is wrong."""
    try:
        records = tomllib.loads(path.read_text(encoding="utf-8")).get("persona", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"the personas in {path} cannot be read: {error}") from None
    problems = [] if records else ["there is no [[persona]]"]
    personas: list[Persona] = []
    for number, record in enumerate(records, start=1):
        missing = [key for key in ("id", "name", "interests") if not isinstance(record.get(key), str)]
        packages = record.get("packages", [])
        if missing:
            problems.append(f"persona {number}: {', '.join(missing)} must be text")
        elif not isinstance(packages, list) or not all(isinstance(package, str) for package in packages):
            problems.append(f"persona {number} ({record['id']}): packages must be a list of package names")
        elif record["id"] in {persona.id for persona in personas}:
            problems.append(f"persona {number}: the id {record['id']} stands twice")
        else:
            personas.append(Persona(record["id"], record["name"], record["interests"], frozenset(packages)))
    if personas and not problems and personas[-1].packages:
        problems.append(f"the last persona ({personas[-1].id}) takes the rest and must name no packages")
    if problems:
        raise ValueError(f"the personas in {path} are wrong: " + "; ".join(problems))
    return tuple(personas)


def owner(personas: tuple[Persona, ...], package: str) -> Persona:
    """The persona that a memory of `package` belongs to."""
    for persona in personas:
        if package in persona.packages:
            return persona
    return personas[-1]
