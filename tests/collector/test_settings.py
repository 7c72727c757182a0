"""Settings: flags over file over defaults, every problem at once with its path, variables put in."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hubscope.collector.configuration import destinations, values
from hubscope.collector.configuration import settings as collector_settings
from hubscope.collector.configuration.addresses import Address
from hubscope.collector.configuration.settings import CollectorSettings, Limits, Logs, Security, from_json, load
from hubscope.errors import ConfigError, status_of
from hubscope.exporters.base import Bound
from hubscope.exporters.clickhouse import ClickHouseConfig
from hubscope.exporters.forward import ForwardConfig
from hubscope.exporters.lake_policy import LakePolicy
from hubscope.exporters.tls import Tls
from hubscope.processors.options import EnrichmentOptions, ProcessorOptions, RedactionOptions


def problems_of(tmp_path: Path, name: str, content: str, **more: Any) -> tuple[str, ...]:
    """The problems that a configuration file has."""
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(config_path=str(tmp_path / name), default_lake=str(tmp_path / "lake"), **more)
    assert status_of(caught.value).exit_code == 2
    return caught.value.problems


def test_defaults_are_loopback_and_beside_the_lake(tmp_path: Path) -> None:
    """With nothing said, the usual ports on loopback and the state folder in the lake."""
    settings = load(default_lake=str(tmp_path))
    assert (settings.grpc, settings.http, settings.telemetry) == (
        Address("127.0.0.1", 4317),
        Address("127.0.0.1", 4318),
        Address("127.0.0.1", 8888),
    )
    assert settings.state_dir == str(tmp_path / ".state")
    assert settings.wal_dir == tmp_path / ".state" / "wal"
    assert settings.limits.request_size_bytes == 64 * 1024 * 1024


def test_yaml_and_toml_say_the_same(tmp_path: Path) -> None:
    """One configuration in both languages gives equal settings."""
    (tmp_path / "c.yaml").write_text(
        "lake: /data/lake\n"
        "receivers:\n  grpc: {endpoint: '127.0.0.1:5317'}\n  max_request_size: 8 MiB\n"
        "exporters:\n  lake: {flush_interval: 250ms}\n"
        "  forward:\n    - http://127.0.0.1:14317\n"
        "    - {name: far, url: 'https://far.example/otlp', headers: {X-Key: abc}}\n"
    )
    (tmp_path / "c.toml").write_text(
        'lake = "/data/lake"\n[receivers]\nmax_request_size = 8388608\ngrpc.endpoint = "127.0.0.1:5317"\n'
        "[exporters.lake]\nflush_interval = 0.25\n"
        '[[exporters.forward]]\nurl = "http://127.0.0.1:14317"\n'
        '[[exporters.forward]]\nname = "far"\nurl = "https://far.example/otlp"\nheaders = {x-key = "abc"}\n'
    )
    from_yaml, from_toml = (load(config_path=str(tmp_path / name)) for name in ("c.yaml", "c.toml"))
    assert from_yaml == from_toml
    assert from_yaml.flush_interval_s == 0.25
    assert from_yaml.forward == (
        ForwardConfig("otlp-127.0.0.1-14317", "http://127.0.0.1:14317"),
        ForwardConfig("far", "https://far.example/otlp", (("x-key", "abc"),)),
    )


def test_a_destination_says_how_it_is_reached(tmp_path: Path) -> None:
    """Headers from variables, compression, TLS and bounds of a destination are read, and survive the hand-over."""
    (tmp_path / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
    (tmp_path / "c.yaml").write_text(
        "exporters:\n  forward:\n    url: https://far.example/otlp\n"
        "    headers: {Authorization: 'Bearer ${env:TOKEN}', x: '${env:TOKEN}'}\n    compression: zstd\n"
        "    timeout: 3s\n    max_backlog: 5 MiB\n    max_age: 2h\n"
        f"    tls:\n      ca_file: {tmp_path}/ca.pem\n      insecure_skip_verify: false\n"
    )
    settings = load(config_path=str(tmp_path / "c.yaml"), default_lake="/lake", environment={"TOKEN": "t"})
    (found,) = settings.forward
    assert found.headers == (("authorization", "Bearer t"), ("x", "t"))
    assert (found.compression, found.timeout_s) == ("zstd", 3.0)
    assert found.bound == Bound(age_s=7200.0, size_bytes=5 * 1024 * 1024)
    assert found.tls == Tls(ca_file=f"{tmp_path}/ca.pem")
    assert from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (
            "{url: 'http://a:4318', headers: {x: \"a\\nb\"}}",
            "headers: x: must be a text of printable ASCII on one line",
        ),
        ("{url: 'http://a:4318', headers: {'x y': a}}", "headers: 'x y' must be a header's name"),
        ("{url: 'http://a:4317', compression: zstd}", "compression: gRPC has gzip and none"),
        ("{url: 'http://a:4318', compression: lz4}", "compression: must be one of gzip, zstd, none, got 'lz4'"),
        ("{url: 'http://a:4318', tls: {insecure_skip_verify: true}}", "tls: http://a:4318 asks for no encryption"),
        ("{url: 'https://a', tls: {ca_file: /nowhere}}", "tls.ca_file: there is no file /nowhere"),
        ("{url: 'https://a', tls: {cert_file: HERE}}", "tls.key_file: must be given too"),
        ("{url: 'https://a', tls: {cert_file: HERE, key_file: HERE}}", "tls: the files hold no PEM certificate"),
        ("{url: 'https://a', tls: {ca_file: HERE}}", "tls: the files hold no PEM certificate"),
        ("{url: 'https://a', tls: {cafile: HERE}}", "tls.cafile: there is no such key; did you mean tls.ca_file?"),
        ("{url: 'https://a', max_age: 0}", "max_age: must be > 0 s, got 0"),
        ("{url: 'https://a', max_backlog: 100 GiB}", "max_backlog of otlp-a-default must be at most log.max_size"),
        ("{url: 'https://a', name: lake}", "the name 'lake' stands 2 times"),
    ],
)
def test_what_is_wrong_with_a_destination_is_said(tmp_path: Path, entry: str, problem: str) -> None:
    """Each mistake is one line that names the destination, the key and what is wanted."""
    entry = entry.replace("HERE", str(tmp_path / "c.yaml"))
    (found,) = problems_of(tmp_path, "c.yaml", f"exporters: {{forward: [{entry}]}}")
    assert found.startswith("exporters.forward")
    assert problem in found


def test_a_clickhouse_says_how_it_is_reached(tmp_path: Path) -> None:
    """All of its keys are read, the flag's URL stands beside the file's, and both survive the hand-over."""
    (tmp_path / "c.yaml").write_text(
        "exporters:\n  clickhouse:\n    url: https://ch.example:8443\n    database: otel\n    username: u\n"
        "    password: ${env:SECRET}\n    create_schema: false\n    ttl: 720h\n    engine: ReplicatedMergeTree\n"
    )
    settings = load(
        config_path=str(tmp_path / "c.yaml"),
        default_lake="/lake",
        clickhouse=("http://127.0.0.1:8123",),
        environment={"SECRET": "p"},
    )
    assert settings.clickhouse == (
        ClickHouseConfig(
            "clickhouse-ch.example-8443",
            "https://ch.example:8443",
            database="otel",
            username="u",
            password="p",
            create_schema=False,
            engine="ReplicatedMergeTree",
            ttl_s=720 * 3600.0,
        ),
        ClickHouseConfig("clickhouse-127.0.0.1-8123", "http://127.0.0.1:8123"),
    )
    assert from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{url: 'clickhouse://a'}", "url: must be a URL such as http://127.0.0.1:8123, got 'clickhouse://a'"),
        ("{url: 'http://u:p@a'}", "url: must not hold a user, a password or settings"),
        ("{url: 'http://a', engine: 'MergeTree; DROP TABLE x'}", "engine: must be an engine such as MergeTree"),
        ("{url: 'http://a', password: [s3cr3t]}", "password: must be a text"),
        ("{url: 'http://a', databse: x}", "databse: there is no such key; did you mean database?"),
        ("{database: x}", "url: must be given"),
    ],
)
def test_what_is_wrong_with_a_clickhouse_is_said(tmp_path: Path, entry: str, problem: str) -> None:
    """Each mistake is one line with its path; a password is never quoted."""
    (found,) = problems_of(tmp_path, "c.yaml", f"exporters: {{clickhouse: {entry}}}")
    assert found.startswith(f"exporters.clickhouse.{problem}")
    assert "s3cr3t" not in found


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    """A flag replaces the file's value; what it does not name stays."""
    (tmp_path / "c.yaml").write_text("receivers: {grpc: {endpoint: ':5317'}, http: {endpoint: ':5318'}}")
    settings = load({"--grpc": "127.0.0.1:6317"}, config_path=str(tmp_path / "c.yaml"), default_lake="/lake")
    assert (settings.grpc.port, settings.http.port) == (6317, 5318)


def test_all_problems_come_at_once_each_with_its_path(tmp_path: Path) -> None:
    """Six things wrong in one file and two flags are eight lines, none hidden by another."""
    found = problems_of(
        tmp_path,
        "c.yaml",
        "exporters:\n  lake: {flush_interval: -1}\n  forward:\n    - {name: x, urll: 'http://a:1'}\n"
        "receivers:\n  max_request_size: 12 bananas\n  grcp: {endpoint: ':1'}\n  insecure: perhaps\n",
        flags={"--http": "nowhere"},
        forward=("ftp://x",),
    )
    assert found == (
        "exporters.lake.flush_interval: must be > 0 s, got -1",
        "receivers.max_request_size: must be a size such as 64 MiB, got the unit 'bananas'; "
        "known are B, KB, MB, GB, KiB, MiB, GiB",
        "receivers.grcp.endpoint: there is no such key; did you mean receivers.grpc.endpoint?",
        "receivers.insecure: must be true or false, got 'perhaps'",
        "--http: must be HOST:PORT, such as 127.0.0.1:4317, got 'nowhere'",
        "exporters.forward[0].urll: there is no such key; did you mean url?",
        "exporters.forward[0].url: must be given",
        "--forward: must be a URL such as http://127.0.0.1:4317 (gRPC) or http://host:4318 (HTTP), got 'ftp://x'",
    )
    assert len(found) == 8


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("receivers: {grpc: {endpoint: '${env:ADDRESS}'}}", "10.0.0.1:1"),
        ("receivers: {grpc: {endpoint: '${ADDRESS}'}}", "10.0.0.1:1"),
        ("receivers: {grpc: {endpoint: '${env:NOT_SET:-127.0.0.1:9}'}}", "127.0.0.1:9"),
        ("receivers: {grpc: {endpoint: '127.0.0.1:${PORT}'}}", "127.0.0.1:7"),
    ],
)
def test_variables_are_put_in(tmp_path: Path, content: str, wanted: str) -> None:
    """The stock Collector's forms of environment variables work, with and without a default."""
    (tmp_path / "c.yaml").write_text(content)
    environment = {"ADDRESS": "10.0.0.1:1", "PORT": "7"}
    settings = load(
        {"--insecure": True}, config_path=str(tmp_path / "c.yaml"), default_lake="/lake", environment=environment
    )
    assert str(settings.grpc) == wanted


def test_two_dollars_are_one(tmp_path: Path) -> None:
    """`$$` is how a dollar stands in a value."""
    (tmp_path / "c.yaml").write_text("receivers: {auth: {bearer_tokens: 'a$${b}'}}")
    assert load(config_path=str(tmp_path / "c.yaml"), default_lake="/lake").security.bearer_tokens == ("a${b}",)


def test_an_unset_variable_is_named(tmp_path: Path) -> None:
    """A variable that is not set is a problem at its path, not an empty text."""
    (found,) = problems_of(tmp_path, "c.yaml", "lake: '${env:NO_SUCH}'", environment={})
    assert found == "lake: the variable NO_SUCH is not set; set it, or write ${env:NO_SUCH:-default}"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.yaml", "a: [1", "is not YAML: line"),
        ("c.toml", "a = ", "is not TOML"),
        ("c.yaml", "- 1", "must hold keys and values"),
        ("c.ini", "a", "must be named"),
        ("c.yaml", " \n", "is empty"),  # as an editor leaves it for a moment: without its tokens anybody could send
        ("c.toml", "", "is empty"),
    ],
)
def test_a_file_that_cannot_be_parsed_says_where(tmp_path: Path, name: str, content: str, said: str) -> None:
    """Syntax errors name the file and the place."""
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=said):
        load(config_path=str(tmp_path / name), default_lake="/lake")


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    """--config with a path that does not exist."""
    with pytest.raises(ConfigError, match=r"gone\.yaml: No such file"):
        load(config_path=str(tmp_path / "gone.yaml"), default_lake="/lake")


def test_binding_beyond_loopback_must_be_meant(tmp_path: Path) -> None:
    """Without TLS or tokens another machine's reach is refused, unless --insecure says so."""
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        load({"--grpc": "0.0.0.0:4317"}, default_lake="/lake")
    assert load({"--grpc": "0.0.0.0:4317", "--insecure": True}, default_lake="/lake").grpc.host == "0.0.0.0"
    (tmp_path / "c.yaml").write_text("receivers: {grpc: {endpoint: '0.0.0.0:4317'}, auth: {bearer_tokens: [secret]}}")
    assert load(config_path=str(tmp_path / "c.yaml"), default_lake="/lake").grpc.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("listening", "destination"),
    [
        ("127.0.0.1:4318", "http://localhost:4318"),
        ("127.0.0.1:4318", "http://0.0.0.0:4318/v1/traces"),
        ("localhost:4318", "http://localhost:4318"),
        ("[::1]:4318", "http://LOCALHOST.:4318"),
        ("0.0.0.0:4318", "http://127.0.0.1:4318"),
        ("0.0.0.0:4318", "http://127.0.0.9:4318"),
        ("0.0.0.0:4318", "http://localhost:4318"),
        ("0.0.0.0:4318", "http://[::]:4318"),
        ("[::]:4318", "http://[::1]:4318"),
        ("[::]:4318", "http://[::ffff:127.0.0.1]:4318"),
        ("0.0.0.0:4318", f"http://{socket.gethostname()}:4318"),
        ("0.0.0.0:80", "http://127.0.0.1"),
    ],
)
def test_sending_to_oneself_is_refused(listening: str, destination: str) -> None:
    """A destination that is the collector's own receiver would go round for ever, however either is written."""
    with pytest.raises(ConfigError, match="in a circle"):
        load({"--http": listening, "--insecure": True}, default_lake="/lake", forward=(destination,))


@pytest.mark.parametrize(
    ("listening", "destination"),
    [
        ("127.0.0.2:4318", "http://127.0.0.1:4318"),
        ("127.0.0.1:4318", "http://[::1]:4318"),
        ("0.0.0.0:4318", "http://127.0.0.1:14318"),
        ("0.0.0.0:4318", "http://192.0.2.7:4318"),
        ("[::]:4318", "http://jaeger:4318"),
    ],
)
def test_sending_to_another_receiver_is_not_a_circle(listening: str, destination: str) -> None:
    """Another port, another machine, or another address of this one is a destination like any."""
    made = load({"--http": listening, "--insecure": True}, default_lake="/lake", forward=(destination,))
    assert [d.url for d in made.forward] == [destination]


def test_two_receivers_on_one_port_are_refused() -> None:
    """Each needs its own, and the error names both."""
    with pytest.raises(ConfigError, match=r"taken by receivers\.grpc\.endpoint"):
        load({"--grpc": ":5000", "--http": ":5000"}, default_lake="/lake")


def test_a_lake_by_url_needs_a_local_state() -> None:
    """The log is local even if the lake is not."""
    with pytest.raises(ConfigError, match="state: must be given"):
        load({"--lake": "s3://bucket/lake"})
    assert load({"--lake": "s3://bucket/lake", "--state": "/var/x"}).state_dir == "/var/x"


def test_settings_survive_the_way_to_another_process(tmp_path: Path) -> None:
    """What is written for front and worker is read back equal, from text and from a file."""
    settings = CollectorSettings(
        lake="/l",
        state_dir="/s",
        grpc=Address("::1", 1),
        forward=(ForwardConfig("a", "http://b:1", (("k", "v"),)),),
        limits=Limits(log_size_bytes=1),
        keep=LakePolicy(cold_after_s=1.0, cold_url="s3://b/c"),
        security=Security(bearer_tokens=("t",), insecure=True),
        processors=ProcessorOptions(
            RedactionOptions(keys=("a",)), enrichment=EnrichmentOptions(attributes=(("k", "v"),))
        ),
    )
    assert from_json(settings.to_json()) == settings
    (tmp_path / "s.json").write_text(settings.to_json())
    assert from_json(f"@{tmp_path / 's.json'}") == settings


def test_every_key_leads_to_a_setting() -> None:
    """Each key's field exists, so that none is read and then forgotten."""
    known = set(CollectorSettings.__dataclass_fields__)
    known |= {f"limits.{n}" for n in Limits.__dataclass_fields__}
    known |= {f"security.{n}" for n in Security.__dataclass_fields__} | {"security.file_tokens"}  # become bearer_tokens
    known |= {f"keep.{n}" for n in LakePolicy.__dataclass_fields__}
    known |= {f"logs.{n}" for n in Logs.__dataclass_fields__}
    for group in ("redaction", "attribute_limits", "enrichment", "sampling"):
        known |= {f"{group}.{n}" for n in getattr(CollectorSettings("", "").processors, group).__dataclass_fields__}
    assert {key.field for key in collector_settings.KEYS} <= known
    assert set(collector_settings.FLAGS.values()) <= {key.path for key in collector_settings.KEYS}


def test_the_example_holds_every_key_with_its_default() -> None:
    """deploy/collector.yaml names each key, commented out or not; what is not commented out is the default."""
    path = Path(__file__).parents[2] / "deploy" / "collector.yaml"
    assert load(config_path=str(path)) == load(default_lake="lake")
    shown = re.sub(r"^( *)# (?=( *)(- |[a-z_]+:( |$)))", r"\1", path.read_text("utf-8"), flags=re.MULTILINE)
    raw = yaml.safe_load(re.sub(r"\[\] # for example:", "", shown))
    for kind in destinations.KINDS:
        whole = raw["exporters"].pop(kind.name)[-1]
        leaves = {leaf for leaf, _ in collector_settings._flatten(whole)}
        assert {"headers" if leaf.startswith("headers.") else leaf for leaf in leaves} == {
            key.path for key in kind.keys
        }
    found = {leaf for leaf, _ in collector_settings._flatten(raw)}
    assert found == {key.path for key in collector_settings.KEYS}


@given(st.text(max_size=30) | st.integers() | st.none() | st.lists(st.integers()) | st.booleans() | st.floats())
@settings(deadline=None)  # the first pattern loads Arrow
def test_no_value_brings_a_reader_down(value: Any) -> None:
    """Whatever stands in the file, a reader answers with a value or with what it must be."""
    for key in collector_settings.KEYS:
        try:
            key.read(value)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either outcome is right, another exception is not
    for read in (values.otlp_url, values.headers):
        try:
            read(value)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - as above


def test_an_age_that_no_calendar_has_is_refused(tmp_path: Path) -> None:
    """A retention before the year 1 is refused with the most there may be: it ended the lake's upkeep."""
    (problem,) = problems_of(tmp_path, "c.yaml", "exporters: {lake: {retention: 800000d}}")
    assert problem.startswith("exporters.lake.retention: must be at most 36500d")


def test_colons_make_no_number(tmp_path: Path) -> None:
    """YAML 1.1 takes 12:30:00 for 45,000 and 1:30 for 90: they are refused, with what to write."""
    content = "exporters: {lake: {retention: 12:30:00, max_size: 1:30, reader_grace: 1:30.5}}"
    problems = problems_of(tmp_path, "c.yaml", content)
    assert len(problems) == 3
    assert all(problem.endswith("; write it as one number with a unit") for problem in problems)


def test_tiers_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    """A cold place without an age, one that is the lake itself, and a retention before the cold tier are refused."""
    lake = f"exporters: {{lake: {{cold_url: {tmp_path}/lake}}}}"
    found = problems_of(tmp_path, "c.yaml", lake, flags={"--lake": str(tmp_path / "lake")})
    assert [problem.partition(":")[0] for problem in found] == ["exporters.lake.cold_after", "exporters.lake.cold_url"]
    both = "exporters: {lake: {cold_after: 30d, retention: 720h}}"
    (problem,) = problems_of(tmp_path, "d.yaml", both)
    assert problem.startswith("exporters.lake.retention: must be longer than exporters.lake.cold_after")


@pytest.mark.parametrize("spelling", ["file://{0}/lake", "{0}/link", "{0}/lake/otel_traces", "file://{0}/x/..", "{0}"])
def test_a_cold_place_is_beside_the_lake(tmp_path: Path, spelling: str) -> None:
    """The lake itself, what is inside it and what it stands in are refused as `cold_url`, however they are spelled; a
    folder beside it whose name begins like it is taken."""
    (tmp_path / "lake").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    content = "exporters: {lake: {cold_after: 1d, cold_url: '%s'}}"
    (problem,) = problems_of(tmp_path, "c.yaml", content % spelling.format(tmp_path))
    assert problem.startswith("exporters.lake.cold_url: ")
    (tmp_path / "d.yaml").write_text(content % f"{tmp_path}/lake-cold")
    assert load(config_path=str(tmp_path / "d.yaml"), default_lake=str(tmp_path / "lake")).keep.cold_url


def refusal_of(tmp_path: Path, name: str, content: str) -> str:
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(config_path=str(tmp_path / name), default_lake=str(tmp_path / "lake"))
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "c.yaml",
            "log: {max_size: 1GiB}\nlimits:\n  memory: 1GiB\n  memory: 2GiB\n",
            "line 4.*limits.memory: stands twice",
        ),
        ("c.yaml", "lake: a\nlake: a\n", "line 2.*lake: stands twice, first in line 1"),
        (
            "c.json",
            '{"exporters": {"forward": [{"url": "a", "url": "b"}]}}',
            r"exporters.forward\[0\].url: stands twice",
        ),
        ("c.toml", '[limits]\nmemory = "1GiB"\n[limits]\n', "limits stands twice.*line 3"),
        ("c.toml", '[limits]\nmemory = "1GiB"\nmemory = "2GiB"\n', "limits.memory stands twice.*line 3"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    """One of two values would be ignored without a word: the key and its line are named instead."""
    assert re.search(said, refusal_of(tmp_path, name, content))


def test_aliases_that_stand_for_a_billion_values_are_refused(tmp_path: Path) -> None:
    """300 bytes of aliases to aliases are told at once; so is one of what it stands in, and depth without end."""
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
    )
    assert "values, its aliases written out" in refusal_of(tmp_path, "c.yaml", bomb)
    assert "which has no end" in refusal_of(tmp_path, "c.yaml", "lake: &a [*a]\n")
    assert "levels deep" in refusal_of(tmp_path, "c.yaml", "lake: " + "[" * 200 + "]" * 200)
    assert "too deep" in refusal_of(tmp_path, "c.yaml", "lake: " + "[" * 5000 + "]" * 5000)
    assert "too deep" in refusal_of(tmp_path, "c.toml", "lake = " + "[" * 5000 + "]" * 5000)


def test_aliases_and_merges_of_ordinary_size_are_taken(tmp_path: Path) -> None:
    """An anchor that is used again, and a merged table whose key is set anew, are YAML as people write it."""
    (tmp_path / "c.yaml").write_text(
        "exporters:\n  forward:\n    - &one {url: 'http://a:1', name: a}\n    - {<<: *one, name: b}\n", "utf-8"
    )
    loaded = load(config_path=str(tmp_path / "c.yaml"), default_lake=str(tmp_path / "lake"))
    assert [config.name for config in loaded.forward] == ["a", "b"]


@pytest.mark.parametrize("text", ["foo: {}", "foo:", "receivers: {htp: {}}", "exporters: {kafka: {}}"])
def test_an_empty_table_that_there_is_not_is_named(tmp_path: Path, text: str) -> None:
    """A misspelled table is told also while nothing stands in it; one that there is may be empty."""
    path = tmp_path / "collector.yaml"
    path.write_text(f"lake: {tmp_path / 'lake'}\n{text}\n")
    with pytest.raises(ConfigError, match="there is no such key"):
        load(config_path=str(path))
    path.write_text(f"lake: {tmp_path / 'lake'}\nreceivers:\nlog: {{}}\nexporters: {{lake: {{}}}}\n")
    load(config_path=str(path))
