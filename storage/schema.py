"""Tables of node.db (DESIGN section 4). Times are UTC ISO 8601 text with Z; waiting uses the monotonic columns with `boot_id`.

Names avoid those of the workflow engine, whose tables live in the same file (docs/decisions/0001).
"""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData(naming_convention={
    "ix": "ix_%(table_name)s_%(column_0_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s", "pk": "pk_%(table_name)s"})

# Node identity and small persistent facts: node_id, and so on.
node_fact = Table("node_fact", metadata,
    Column("name", String, primary_key=True), Column("value", Text, nullable=False))

# One row per association; start_id is the receiver's, so that those of a killed receiver count as closed.
association = Table("association", metadata,
    Column("id", Integer, primary_key=True), Column("start_id", String, nullable=False),
    Column("calling_ae", String, nullable=False), Column("called_ae", String, nullable=False),
    Column("peer", String, nullable=False), Column("opened_at", String, nullable=False),
    Column("closed_at", String), Column("how", String),  # released | aborted | lost
    Column("instances", Integer, nullable=False, default=0), Column("bytes", Integer, nullable=False, default=0))

series = Table("series", metadata,
    Column("id", Integer, primary_key=True),
    Column("study_uid", String, nullable=False), Column("series_uid", String, nullable=False, index=True),
    Column("state", String, nullable=False, default="open", index=True),  # open | complete | parked
    Column("revision", Integer, nullable=False, default=0),  # newest revision number, 0 before the first
    Column("first_at", String, nullable=False), Column("last_at", String, nullable=False),
    Column("first_mono", Float, nullable=False), Column("last_mono", Float, nullable=False),
    Column("boot_id", String, nullable=False),  # of first_mono (the first instance since the series opened) and last_mono
    Column("changes", Integer, nullable=False, default=0),  # raised by each new or changed instance
    Column("last_association_id", Integer), Column("calling_ae", String, nullable=False, default=""),
    Column("operator_word", String),  # complete | rescore | retract, set by the CLI, cleared by the worker
    Column("modality", String, nullable=False, default=""), Column("manufacturer", String, nullable=False, default=""),
    Column("manufacturer_model", String, nullable=False, default=""), Column("station", String, nullable=False, default=""),
    Column("device_serial", String, nullable=False, default=""), Column("protocol", String, nullable=False, default=""),
    Column("description", String, nullable=False, default=""), Column("body_part", String, nullable=False, default=""),
    Column("series_number", Integer), Column("series_date", String, nullable=False, default=""),
    Column("emptied_at", String), Column("operator_text", Text),  # when retention deleted its files, NULL while there are some; words with `operator_word`
    UniqueConstraint("study_uid", "series_uid"))

# One row per stored version of a SOP instance; `current` marks the one that an assessment sees.
instance = Table("instance", metadata,
    Column("id", Integer, primary_key=True),
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False, index=True),
    Column("association_id", Integer), Column("sop_uid", String, nullable=False),
    Column("sop_class_uid", String, nullable=False), Column("transfer_syntax", String, nullable=False),
    Column("digest", String, nullable=False),  # BLAKE3 hex of the data set as received
    Column("bytes", Integer, nullable=False), Column("path", String, nullable=False, unique=True),  # below the object root
    Column("current", Integer, nullable=False, default=1),
    Column("arrival", String, nullable=False, default="new"),  # new | unclassified | transcoded | update | conflict
    Column("calling_ae", String, nullable=False, default=""), Column("received_at", String, nullable=False),
    Column("received_mono", Float, nullable=False), Column("instance_number", Integer),
    Column("number_of_frames", Integer), Column("images_in_acquisition", Integer),
    Column("acquisition_number", Integer), Column("series_instances", Integer),  # (0020,1209)
    Column("position_mm", Float),  # along the slice normal, for even spacing
    Column("own", Integer, nullable=False, default=0),  # made by this node, sent back
    Column("deleted_at", String),  # when retention let the file go; NULL while it is here
    UniqueConstraint("sop_uid", "digest", "series_id", name="uq_instance_version"))

# A series revision: the set of instances that an assessment sees. `outcome` and `reason` are set exactly once.
revision = Table("revision", metadata,
    Column("id", Integer, primary_key=True),
    Column("series_id", Integer, ForeignKey("series.id"), nullable=False),
    Column("number", Integer, nullable=False), Column("changes", Integer, nullable=False),  # series.changes when frozen
    Column("completed_at", String, nullable=False), Column("completed_by", String, nullable=False),  # quiet | contiguous | ...
    Column("purpose", String, nullable=False, default="score"),  # score | identity (render anew, no scoring) | retract
    Column("instances", Integer, nullable=False), Column("missing", Integer, nullable=False, default=0),
    Column("content_digest", String, nullable=False),  # sha256 over sorted (SOP UID, data set digest)
    Column("attempt", Integer, nullable=False, default=1),
    Column("lease_owner", String), Column("lease_until", Float), Column("lease_boot", String),
    Column("outcome", String), Column("reason", String), Column("ended_at", String),
    Column("modality", String), Column("region", String), Column("score", Float), Column("low", Float), Column("high", Float),
    Column("raw_score", Float), Column("verdict", String), Column("good_from", Float), Column("reject_below", Float),
    Column("noise", Float), Column("sharpness", Float), Column("artefact", Float),
    Column("model_profile", String), Column("model_version", String), Column("model_sha256", String),
    Column("node_version", String), Column("device", String),
    Column("read_seconds", Float), Column("network_seconds", Float), Column("total_seconds", Float), Column("report_seconds", Float),
    Column("assessment", Text),  # JSON of the whole Assessment, pictures aside
    UniqueConstraint("series_id", "number"))

revision_instance = Table("revision_instance", metadata,
    Column("revision_id", Integer, ForeignKey("revision.id"), primary_key=True),
    Column("instance_id", Integer, ForeignKey("instance.id"), primary_key=True))

# Series-level attributes of a result series are fixed at its first instance.
result_series = Table("result_series", metadata,
    Column("series_uid", String, primary_key=True), Column("study_uid", String, nullable=False),
    Column("kind", String, nullable=False), Column("attributes", Text, nullable=False),
    Column("next_instance_number", Integer, nullable=False, default=1))

# A rendered SR or SC, kept as the bytes that are sent.
result_object = Table("result_object", metadata,
    Column("id", Integer, primary_key=True),
    Column("revision_id", Integer, ForeignKey("revision.id"), nullable=False, index=True),
    Column("kind", String, nullable=False),  # sr | sc
    Column("sop_class_uid", String, nullable=False), Column("sop_uid", String, nullable=False, unique=True),
    Column("series_uid", String, nullable=False), Column("study_uid", String, nullable=False),
    Column("path", String, nullable=False), Column("digest", String, nullable=False), Column("bytes", Integer, nullable=False),
    Column("made_at", String, nullable=False), Column("deleted_at", String),  # when retention let the file go
    UniqueConstraint("revision_id", "sop_class_uid"))

# One row per result (kind) of a revision and destination; `object_id` names the class that the destination took.
delivery = Table("delivery", metadata,
    Column("id", Integer, primary_key=True),
    Column("revision_id", Integer, ForeignKey("revision.id"), nullable=False),
    Column("kind", String, nullable=False), Column("destination", String, nullable=False, index=True),
    Column("object_id", Integer, ForeignKey("result_object.id")),
    Column("state", String, nullable=False, default="pending", index=True),
    Column("tries", Integer, nullable=False, default=0), Column("final_answers", Integer, nullable=False, default=0),
    Column("last_status", Integer), Column("last_answer", String), Column("warning", Integer, nullable=False, default=0),
    Column("made_at", String, nullable=False), Column("next_try_at", String), Column("ended_at", String),
    UniqueConstraint("revision_id", "kind", "destination"))

# What the node knows about a destination: hold after a failure, SR class that it took.
destination = Table("destination", metadata,
    Column("name", String, primary_key=True), Column("held_until", String), Column("failures", Integer, nullable=False, default=0),
    Column("sr_class_uid", String), Column("last_answer", String))

# What was seen of the pauses inside the series of a sender, for the learned wait (node/quiet.py); `history` is opaque text here.
sender_habit = Table("sender_habit", metadata,
    Column("calling_ae", String, primary_key=True), Column("modality", String, primary_key=True),
    Column("wait_seconds", Float), Column("contiguous_seconds", Float),  # NULL until enough was seen
    Column("longest_gap_seconds", Float, nullable=False), Column("longest_between_seconds", Float, nullable=False),
    Column("series_seen", Integer, nullable=False), Column("series_split", Integer, nullable=False),
    Column("history", Text, nullable=False), Column("learned_at", String, nullable=False))

audit_record = Table("audit_record", metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False), Column("at", String, nullable=False),
    Column("event", String, nullable=False), Column("actor", String, nullable=False),
    Column("study_uid", String), Column("series_uid", String, index=True), Column("sop_uid", String),
    Column("details", Text, nullable=False), Column("mac", String, nullable=False))

Index("ix_revision_open", revision.c.outcome, revision.c.id)
Index("ix_series_kept", series.c.emptied_at, series.c.last_at)
