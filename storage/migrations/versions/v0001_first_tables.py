"""First tables and the public views `results`, `deliveries`, `audit` (DESIGN section 4): columns are added, never renamed."""

import sqlalchemy as sa
from alembic import op

from storage.schema import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

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
        connection.execute(sa.text(view))
