-- Stop a job: at once while it waits, at the worker's next step while it runs. ARGV: id, iso, keep.
-- Returns "gone" | "ended" | "cancelled" | "requested".
local id, iso, keep = unpack(ARGV)
local status = field(id, 'status')
if not status then return 'gone' end
if status == 'queued' then
  redis.call('HSET', job_key(id), 'cancel_requested_at', stamp(clock()))
  finish(id, 'cancelled', {iso = iso, keep = keep})
  return 'cancelled'
end
if status ~= 'in_progress' then return 'ended' end
redis.call('HSETNX', job_key(id), 'cancel_requested_at', stamp(clock()))
local worker = redis.call('HGET', rq_key(id), 'worker_name')
if worker then redis.call('PUBLISH', 'rq:pubsub:' .. worker, cjson.encode({command = 'stop-job', job_id = id})) end
return 'requested'
