"""First tables and the public views `results`, `deliveries`, `audit` (DESIGN section 4): columns are added, never renamed."""

from alembic import op
from sqlalchemy import Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint, text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# What the tables were at this version: later versions change them by migrations of their own, so nothing is taken from storage.schema.
metadata = MetaData(naming_convention={
    "ix": "ix_%(table_name)s_%(column_0_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s", "pk": "pk_%(table_name)s"})
Table("node_fact", metadata,
    Column("name", String, primary_key=True), Column("value", Text, nullable=False))
Table("association", metadata,
    Column("id", Integer, primary_key=True), Column("start_id", String, nullable=False),
    Column("calling_ae", String, nullable=False), Column("called_ae", String, nullable=False),
    Column("peer", String, nullable=False), Column("opened_at", String, nullable=False),
    Column("closed_at", String), Column("how", String),
    Column("instances", Integer, nullable=False, default=0), Column("bytes", Integer, nullable=False, default=0))
Table("series", metadata,
    Column("id", Integer, primary_key=True),
    Column("study_uid", String, nullable=False), Column("series_uid", String, nullable=False, index=True),
    Column("state", String, nullable=False, default="open", index=True),
    Column("revision", Integer, nullable=False, default=0),
    Column("first_at", String, nullable=False), Column("last_at", String, nullable=False),
    Column("first_mono", Float, nullable=False), Column("last_mono", Float, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("changes", Integer, nullable=False, default=0),
    Column("last_association_id", Integer), Column("calling_ae", String, nullable=False, default=""),
    Column("operator_word", String),
    Column("modality", String, nullable=False, default=""), Column("manufacturer", String, nullable=False, default=""),
    Column("manufacturer_model", String, nullable=False, default=""), Column("station", String, nullable=False, default=""),
    Column("device_serial", String, nullable=False, default=""), Column("protocol", String, nullable=False, default=""),
    Column("description", String, nullable=False, default=""), Column("body_part", String, nullable=False, default=""),
    Column("series_number", Integer), Column("series_date", String, nullable=False, default=""),
    UniqueConstraint("study_uid", "series_uid"))
Table("instance", metadata,
    Column("id", Integer, primary_key=True),
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False, index=True),
    Column("association_id", Integer), Column("sop_uid", String, nullable=False, index=True),
    Column("sop_class_uid", String, nullable=False), Column("transfer_syntax", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("bytes", Integer, nullable=False), Column("path", String, nullable=False, unique=True),
    Column("current", Integer, nullable=False, default=1),
    Column("arrival", String, nullable=False, default="new"),
    Column("calling_ae", String, nullable=False, default=""), Column("received_at", String, nullable=False),
    Column("received_mono", Float, nullable=False), Column("instance_number", Integer),
    Column("number_of_frames", Integer), Column("images_in_acquisition", Integer),
    Column("acquisition_number", Integer), Column("series_instances", Integer),
    Column("position_mm", Float),
    Column("own", Integer, nullable=False, default=0),
    UniqueConstraint("sop_uid", "digest", "series_id", name="uq_instance_version"))
Table("revision", metadata,
    Column("id", Integer, primary_key=True),
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False),
    Column("number", Integer, nullable=False), Column("changes", Integer, nullable=False),
    Column("completed_at", String, nullable=False), Column("completed_by", String, nullable=False),
    Column("purpose", String, nullable=False, default="score"),
    Column("instances", Integer, nullable=False), Column("missing", Integer, nullable=False, default=0),
    Column("content_digest", String, nullable=False),
    Column("attempt", Integer, nullable=False, default=1),
    Column("lease_owner", String), Column("lease_until", Float), Column("lease_boot", String),
    Column("outcome", String), Column("reason", String), Column("ended_at", String),
    Column("modality", String), Column("region", String), Column("score", Float), Column("low", Float), Column("high", Float),
    Column("raw_score", Float), Column("verdict", String), Column("good_from", Float), Column("reject_below", Float),
    Column("noise", Float), Column("sharpness", Float), Column("artefact", Float),
    Column("model_profile", String), Column("model_version", String), Column("model_sha256", String),
    Column("node_version", String), Column("device", String),
    Column("read_seconds", Float), Column("network_seconds", Float), Column("total_seconds", Float), Column("report_seconds", Float),
    Column("assessment", Text),
    UniqueConstraint("series_id", "number"), Index("ix_revision_open", "outcome", "id"))
Table("revision_instance", metadata,
    Column("revision_id", Integer, ForeignKey("revision.id"), primary_key=True),
    Column("instance_id", Integer, ForeignKey("instance.id"), primary_key=True))
Table("result_series", metadata,
    Column("series_uid", String, primary_key=True), Column("study_uid", String, nullable=False),
    Column("kind", String, nullable=False), Column("attributes", Text, nullable=False),
    Column("next_instance_number", Integer, nullable=False, default=1))
Table("result_object", metadata,
    Column("id", Integer, primary_key=True),
    Column("revision_id", Integer, ForeignKey("revision.id"), nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("sop_class_uid", String, nullable=False), Column("sop_uid", String, nullable=False, unique=True),
    Column("series_uid", String, nullable=False), Column("study_uid", String, nullable=False),
    Column("path", String, nullable=False), Column("digest", String, nullable=False), Column("bytes", Integer, nullable=False),
    Column("made_at", String, nullable=False),
    UniqueConstraint("revision_id", "sop_class_uid"))
Table("delivery", metadata,
    Column("id", Integer, primary_key=True),
    Column("revision_id", Integer, ForeignKey("revision.id"), nullable=False),
    Column("kind", String, nullable=False), Column("destination", String, nullable=False, index=True),
    Column("object_id", Integer, ForeignKey("result_object.id")),
    Column("state", String, nullable=False, default="pending", index=True),
    Column("tries", Integer, nullable=False, default=0), Column("final_answers", Integer, nullable=False, default=0),
    Column("last_status", Integer), Column("last_answer", String), Column("warning", Integer, nullable=False, default=0),
    Column("made_at", String, nullable=False), Column("next_try_at", String), Column("ended_at", String),
    UniqueConstraint("revision_id", "kind", "destination"))
Table("destination", metadata,
    Column("name", String, primary_key=True), Column("held_until", String), Column("failures", Integer, nullable=False, default=0),
    Column("sr_class_uid", String), Column("last_answer", String))
Table("audit_record", metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False), Column("at", String, nullable=False),
    Column("event", String, nullable=False), Column("actor", String, nullable=False),
    Column("study_uid", String), Column("series_uid", String, index=True), Column("sop_uid", String),
    Column("details", Text, nullable=False), Column("mac", String, nullable=False))

RESULTS = """
create view results as
select r.id as revision_id, s.study_uid, s.series_uid, r.number as revision, s.modality, s.description, s.protocol, s.body_part,
       s.series_number, s.series_date, s.manufacturer, s.manufacturer_model, s.station, s.device_serial, s.calling_ae,
       r.completed_at, r.completed_by, r.ended_at, r.outcome as "end", r.reason, r.region, r.score, r.low, r.high, r.raw_score,
       r.verdict, r.reject_below, r.good_from, r.noise, r.sharpness, r.artefact, r.instances, r.missing,
       r.model_profile, r.model_version, r.model_sha256, r.node_version, r.device,
       r.read_seconds, r.network_seconds, r.total_seconds, r.report_seconds, r.attempt, r.assessment
from revision r join series s on s.id = r.series_id
"""
DELIVERIES = """
create view deliveries as
select d.id as delivery_id, d.destination, d.kind, d.state, d.tries, d.warning, d.last_status, d.last_answer, d.made_at, d.next_try_at,
       d.ended_at, o.sop_class_uid, o.sop_uid, o.series_uid as result_series_uid, s.study_uid, s.series_uid, r.number as revision
from delivery d join revision r on r.id = d.revision_id join series s on s.id = r.series_id
left join result_object o on o.id = d.object_id
"""
AUDIT = """
create view audit as
select seq, at, event, actor, study_uid, series_uid, sop_uid, details, mac from audit_record
"""


def upgrade() -> None:
    connection = op.get_bind()
    metadata.create_all(connection, checkfirst=False)
    for view in (RESULTS, DELIVERIES, AUDIT):
        connection.execute(text(view))
