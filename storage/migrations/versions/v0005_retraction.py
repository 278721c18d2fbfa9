"""An operator's words with a retraction, and in the view `results` when a result was withdrawn."""

from alembic import op
from sqlalchemy import Column, Text, text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

RESULTS = """
create view results as
select r.id as revision_id, s.study_uid, s.series_uid, r.number as revision, s.modality, s.description, s.protocol, s.body_part,
       s.series_number, s.series_date, s.manufacturer, s.manufacturer_model, s.station, s.device_serial, s.calling_ae,
       r.completed_at, r.completed_by, r.ended_at, r.outcome as "end", r.reason, r.region, r.score, r.low, r.high, r.raw_score,
       r.verdict, r.reject_below, r.good_from, r.noise, r.sharpness, r.artefact, r.instances, r.missing,
       r.model_profile, r.model_version, r.model_sha256, r.node_version, r.device,
       r.read_seconds, r.network_seconds, r.total_seconds, r.report_seconds, r.attempt, r.assessment,
       case when r.outcome = 'assessed' then (select min(later.ended_at) from revision later
            where later.series_id = r.series_id and later.number > r.number and later.reason = 'retracted') end as retracted_at
from revision r join series s on s.id = r.series_id
"""


def upgrade() -> None:
    op.add_column("series", Column("operator_text", Text))
    op.execute(text("drop view results"))
    op.execute(text(RESULTS))
