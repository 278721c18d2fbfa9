"""config.yaml as frozen models (DESIGN section 7): every key, its default and its range; `load` is the one door.

The defaults here and in config.yaml are the same; a test holds them equal. A wrong file is a `ConfigError` with one line per mistake.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from node.config_text import ConfigError, Source, read_source
from node.config_types import (
    AeTitle,
    Flag,
    Host,
    ListenPort,
    Name,
    Network,
    Port,
    Score,
    Size,
    Text,
    parse_size,
    seconds,
    whole,
)
from node.quiet import auto_or_seconds
from qa_engine.policy import THRESHOLDS, Policy

DEFAULT_FILE = "config.yaml"


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys are errors, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Node(Section):
    data: Annotated[str, Field(min_length=1, max_length=1024, description="a folder")] = "mediqa-data"
    name: Name = "mediqa"
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"],
                         Field(description="DEBUG, INFO, WARNING or ERROR")] = "INFO"


class Caller(Section):
    """One line of the allow-list: a calling AE title and the networks that it may come from."""

    ae_title: AeTitle
    networks: Annotated[tuple[Network, ...], Field(min_length=1, description="a list of networks such as [10.0.0.0/8]")]


class Tls(Section):
    """Files of the DICOM listener's TLS; without a certificate it is plain TCP, with `trust` a peer must show one too."""

    certificate: Text = ""
    key: Text = ""
    trust: Text = ""


class Receive(Section):
    ae_title: AeTitle = "MEDIQA"
    host: Host = "0.0.0.0"
    port: ListenPort = 11112
    check_called_ae: Flag = True
    allow_any: Flag = False
    allow: Annotated[tuple[Caller, ...], Field(description="a list of {ae_title: ..., networks: [...]}")] = (
        Caller(ae_title="ORTHANC", networks=("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),)
    path: Annotated[Literal["fast", "stock"], Field(description="fast or stock")] = "fast"
    max_associations: Annotated[int, whole(1, 1000)] = 20
    max_per_address: Annotated[int, whole(1, 1000)] = 16
    max_pdu: Annotated[int, whole(4096, 16777216, " of bytes")] = 131072
    max_object_mb: Annotated[int, whole(1, 1048576, " of MiB")] = 4096
    acse_timeout: Annotated[float, seconds(1, 600)] = 30
    dimse_timeout: Annotated[float, seconds(1, 3600)] = 60
    network_timeout: Annotated[float, seconds(1, 86400)] = 120
    tls: Tls = Tls()


class Storage(Section):
    durability: Annotated[Literal["default", "full", "os"], Field(description="default, full or os")] = "default"
    reserve: Size = "2 GiB"
    keep_days: Annotated[float, Field(ge=0, le=36500, description="days, a number from 0 (for ever) to 36500")] = 0
    keep_free: Size = "0 B"
    backup: Text = ""
    backup_keep: Annotated[int, whole(1, 10000)] = 7
    audit_key: Text = ""
    audit_anchor: Text = ""


class Completion(Section):
    """Waits of DESIGN section 5, seconds; `quiet` also bounds the two shorter ones. `auto` is learned (`node/quiet.py`)."""

    quiet: Annotated[float | Literal["auto"], BeforeValidator(auto_or_seconds),
                     Field(description="auto, or seconds, a number from 0.1 to 86400")] = 60.0
    contiguous: Annotated[float, seconds(0.1, 86400)] = 30
    announced: Annotated[float, seconds(0.1, 86400)] = 5
    forced: Annotated[float, seconds(1, 604800)] = 7200
    revisions_per_day: Annotated[int, whole(1, 1000)] = 3


class Threshold(Section):
    """`Good` when the lower end is at or above good_from, `Reject` when the upper end is below reject_below."""

    good_from: Score
    reject_below: Score


class Thresholds(Section):
    CT: Threshold = Threshold(good_from=THRESHOLDS["CT"][1], reject_below=THRESHOLDS["CT"][0])
    MR: Threshold = Threshold(good_from=THRESHOLDS["MR"][1], reject_below=THRESHOLDS["MR"][0])


class Engine(Section):
    profile: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$", description="a name that mediqa model list shows")] = Policy.profile
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda:\d{1,2})$", description="auto, cpu or cuda:N")] = "auto"
    slices: Annotated[Literal["salient", "full"], Field(description="salient or full")] = "salient"
    thresholds: Thresholds = Thresholds()
    max_interval: Score = 60
    decode_seconds: Annotated[float, seconds(1, 3600)] = 60
    max_megapixels: Annotated[float, Field(gt=0, le=1048576, description="megapixels, a number above 0")] = 2048


class SeriesNumbers(Section):
    sr: Annotated[int, whole(1, 2147483647)] = 9901
    sc: Annotated[int, whole(1, 2147483647)] = 9902


EndWord = Literal["assessed", "abstained", "skipped", "undecodable", "failed"]
SrClass = Literal["comprehensive-3d", "comprehensive", "enhanced", "basic-text"]


class Report(Section):
    on: Annotated[tuple[EndWord, ...],
                  Field(description="a list of assessed, abstained, skipped, undecodable, failed")] = ("assessed",)
    sr_classes: Annotated[tuple[SrClass, ...], Field(
        min_length=1, description="a list of comprehensive-3d, comprehensive, enhanced, basic-text")] = (
        "comprehensive-3d", "comprehensive", "enhanced", "basic-text")
    secondary_capture: Flag = True
    charset: Annotated[Literal["source", "utf-8"], Field(description="source or utf-8")] = "source"
    assumed_charset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$", description="a character set such as iso8859-1")] = "iso8859-1"
    on_bad_identity: Annotated[Literal["send", "hold"], Field(description="send or hold")] = "send"
    standard_verdict: Flag = False
    series_number: SeriesNumbers = SeriesNumbers()


class Deliver(Section):
    mode: Annotated[Literal["live", "shadow"], Field(description="live or shadow")] = "live"
    give_up_after: Annotated[float, Field(ge=0, le=3650, description="days, a number from 0 (never) to 3650")] = 7
    first_retry: Annotated[float, seconds(0.1, 86400)] = 30
    last_retry: Annotated[float, seconds(0.1, 604800)] = 3600
    timeout: Annotated[float, seconds(1, 3600)] = 30


class DestinationTls(Section):
    """Files of the TLS towards a destination; without `trust` it is plain TCP, `certificate` is shown to a PACS that asks for one."""

    trust: Text = ""
    certificate: Text = ""
    key: Text = ""
    check_host: Flag = True


class Destination(Section):
    """Where results go; `serves` names the calling AE titles whose results go there, () = all (single destination only)."""

    name: Name
    ae_title: AeTitle
    host: Host
    port: Port
    serves: Annotated[tuple[AeTitle, ...], Field(description="a list of calling AE titles")] = ()
    tls: DestinationTls = DestinationTls()


class Config(Section):
    """The whole configuration. `folder` is what relative paths start from: that of the file, else the working directory."""

    node: Node = Node()
    database: Text = ""
    receive: Receive = Receive()
    storage: Storage = Storage()
    completion: Completion = Completion()
    engine: Engine = Engine()
    report: Report = Report()
    deliver: Deliver = Deliver()
    destinations: Annotated[tuple[Destination, ...], Field(description="a list of {name, ae_title, host, port, serves, tls}")] = (
        Destination(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=4242),)

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _file: Path | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path:
        """What relative paths of the configuration start from."""
        return self._folder

    @property
    def file(self) -> Path | None:
        """The file that was read, None when the defaults stand alone."""
        return self._file

    @property
    def data_folder(self) -> Path:
        """Folder of objects, database, audit key."""
        return self._folder / Path(self.node.data).expanduser()

    @property
    def database_target(self) -> Path | str:
        """A database URL as configured (str), else the absolute path of the SQLite file."""
        if "://" in self.database:
            return self.database
        return self._folder / Path(self.database).expanduser() if self.database else self.data_folder / "node.db"

    @property
    def audit_key_path(self) -> Path:
        return self._folder / Path(self.storage.audit_key).expanduser() if self.storage.audit_key else self.data_folder / "audit.key"

    @property
    def audit_anchor_path(self) -> Path:
        if self.storage.audit_anchor:
            return self._folder / Path(self.storage.audit_anchor).expanduser()
        return self.data_folder / "audit.anchor"

    @property
    def reserve_bytes(self) -> int:
        """`storage.reserve` in bytes."""
        return parse_size(self.storage.reserve)

    @property
    def keep_free_bytes(self) -> int:
        """`storage.keep_free` in bytes."""
        return parse_size(self.storage.keep_free)

    @property
    def backup_folder(self) -> Path | None:
        """Folder of the daily copies of the database, None where none are made."""
        return self._folder / Path(self.storage.backup).expanduser() if self.storage.backup else None

    @property
    def digest(self) -> str:
        """sha256 hex of all values, so that the audit log can tell a changed configuration."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def thresholds(self, modality: str) -> Threshold | None:
        """Thresholds in force for `modality`, None where it is not scored."""
        return getattr(self.engine.thresholds, modality, None) if modality in Thresholds.model_fields else None


def load(path: Path | None = None) -> Config:
    """Configuration of `path` (None: config.yaml here if there is one, else the defaults) and the environment; `ConfigError`."""
    source = read_source(path, Path(DEFAULT_FILE), Config)
    try:
        config = Config.model_validate(source.values)
    except ValidationError as error:
        raise ConfigError(source.lines(error, Config)) from None
    problems = _cross_check(config, source)
    if problems:
        raise ConfigError(problems)
    config._folder, config._file = source.folder, source.file
    return config


def _cross_check(config: Config, source: Source) -> list[str]:
    """What only several keys together tell, as located lines."""
    lines = []
    for modality in Thresholds.model_fields:
        threshold = getattr(config.engine.thresholds, modality)
        if threshold.reject_below > threshold.good_from:
            lines.append(source.at(("engine", "thresholds", modality), "reject_below is above good_from, write a smaller one"))
    if config.deliver.last_retry < config.deliver.first_retry:
        lines.append(source.at(("deliver", "last_retry"), "is below first_retry, write a larger number"))
    if 0 < config.keep_free_bytes <= config.reserve_bytes:
        lines.append(source.at(("storage", "keep_free"), "is not above reserve, write a larger size, or C-STORE is refused before anything is deleted"))
    if config.storage.backup and not isinstance(config.database_target, Path):
        lines.append(source.at(("storage", "backup"), "is for SQLite, leave it empty and use the tools of the database server"))
    tls = config.receive.tls
    if (tls.key or tls.trust) and not tls.certificate:
        lines.append(source.at(("receive", "tls"), "has no certificate, write one or leave key and trust empty"))
    callers = {caller.ae_title for caller in config.receive.allow}
    if len(callers) < len(config.receive.allow):
        lines.append(source.at(("receive", "allow"), "names an AE title twice, write one entry with all its networks"))
    names, peers = set(), set()
    for k, destination in enumerate(config.destinations):
        here, peer = ("destinations", k), (destination.ae_title, destination.host, destination.port)
        if destination.name in names:
            lines.append(source.at((*here, "name"), f"{destination.name!r} is there twice, write another name"))
        elif peer in peers:
            lines.append(source.at(here, "is the same AE title, host and port as another destination, remove one"))
        if destination.tls != DestinationTls() and not destination.tls.trust:
            lines.append(source.at((*here, "tls"), "has no trust, write the PEM file of the PACS's certificate or of its authority, or remove tls"))
        if destination.tls.key and not destination.tls.certificate:
            lines.append(source.at((*here, "tls"), "has a key without a certificate, write both or none"))
        if len(config.destinations) > 1 and not destination.serves:
            lines.append(source.at((*here, "serves"), "is empty, with several destinations each lists the calling AE titles it serves"))
        for i, title in enumerate(destination.serves):
            if not config.receive.allow_any and title not in callers:
                lines.append(source.at((*here, "serves", i), f"{title!r} may not send here, add it to receive.allow or remove it"))
        names.add(destination.name)
        peers.add(peer)
    return lines
