"""Names of everything of ours in Redis. RQ's own keys (`rq:*`) are named by RQ.

| key | type | what |
|---|---|---|
| gridit:job:<id> | hash | `Job.to_hash` |
| gridit:job:<id>:events | stream | explicit ids "<seq>-0" |
| gridit:job:<id>:frames | hash | "<stage>:<index>" -> `StoredObject` JSON, published frames |
| gridit:job:<id>:units | hash | unit key -> `UnitRecord` JSON: persisted results; gone with the job's end |
| gridit:job:<id>:attempt | string with TTL | the last attempt of a deleted job: one of the same id goes on from there |
| gridit:jobs | zset | job id by created_at |
| gridit:line:<priority>:<model> | zset | waiting job's id by its place in line (workers/queue/line.py) |
| gridit:line:<priority>:<model>@<hash> | zset | the same for jobs that were begun: they need the very bundle |
| gridit:lines | set | names of the lines in which a job waits |
| gridit:virtual | hash | virtual time of each priority at which jobs wait |
| gridit:turns | hash | by priority: claims since its last one, while a job of it has waited long |
| gridit:tenants:<priority> | zset | tenant by the end of its last job, in virtual time |
| gridit:leases | zset | claimed job's id by the time its worker's lease ends |
| gridit:deadlines | zset | unfinished job's id by its deadline, for jobs that have one |
| gridit:expiry | zset | finished job's id by expires_at |
| gridit:litter | zset | finished job's id by its end, until the files it does not name are deleted |
| gridit:stored | string | bytes that all jobs hold in the store: the sum of their `stored_bytes` |
| gridit:owner | string | name of these data, which the store is claimed for |
| gridit:orphans | string with TTL | files without a record were looked for |
| gridit:live | channel | every stored event as JSON {job, seq, type, at, data}: a doorbell, the stream is the truth |
| gridit:wake | channel | a job was queued |
| gridit:idempotency:<tenant>:<key> | string | JSON {job, digest} with a TTL |
| gridit:catalogue | hash | bundle name -> `CatalogueEntry` JSON; survives workers |
| gridit:worker:<name> | hash with TTL | `WorkerState` |
| gridit:asks:<name> | string with TTL | the worker has lately asked for jobs |
| gridit:file:<id>, gridit:batch:<id> | hash | uploads and batches |
| gridit:files, gridit:batches | zset | ids by created_at |
"""

from __future__ import annotations

PREFIX = "gridit:"
JOBS = f"{PREFIX}jobs"
LEASES = f"{PREFIX}leases"
DEADLINES = f"{PREFIX}deadlines"
EXPIRY = f"{PREFIX}expiry"
LITTER = f"{PREFIX}litter"
STORED = f"{PREFIX}stored"
OWNER = f"{PREFIX}owner"
ORPHANS = f"{PREFIX}orphans"
LIVE = f"{PREFIX}live"
WAKE = f"{PREFIX}wake"
CATALOGUE = f"{PREFIX}catalogue"
FILES = f"{PREFIX}files"
BATCHES = f"{PREFIX}batches"


def job(job_id: str) -> str:
    """Hash of the job's record."""
    return f"{PREFIX}job:{job_id}"


def events(job_id: str) -> str:
    """Stream of the job's events."""
    return f"{PREFIX}job:{job_id}:events"


def frames(job_id: str) -> str:
    """Hash of the job's published frames."""
    return f"{PREFIX}job:{job_id}:frames"


def units(job_id: str) -> str:
    """Hash of the job's persisted unit results."""
    return f"{PREFIX}job:{job_id}:units"


def idempotency(tenant: str, key: str) -> str:
    """Which job an idempotency key stands for."""
    return f"{PREFIX}idempotency:{tenant}:{key}"


def worker(name: str) -> str:
    """Hash of a live worker's state."""
    return f"{PREFIX}worker:{name}"


def file(file_id: str) -> str:
    """Hash of an uploaded or produced file."""
    return f"{PREFIX}file:{file_id}"


def batch(batch_id: str) -> str:
    """Hash of a batch."""
    return f"{PREFIX}batch:{batch_id}"
