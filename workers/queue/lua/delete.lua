-- Forget a job, ending it first; a worker that has it in hand finds it gone. ARGV: id, iso, keep. Returns 1 if it was.
local id, iso, keep = unpack(ARGV)
local status = field(id, 'status')
if not status then return 0 end
if status == 'queued' or status == 'in_progress' then
  local worker = redis.call('HGET', rq_key(id), 'worker_name')
  finish(id, 'cancelled', {iso = iso, keep = keep})
  if worker and worker ~= '' then
    redis.call('PUBLISH', 'rq:pubsub:' .. worker, cjson.encode({command = 'stop-job', job_id = id}))
  end
end
purge(id)
return 1
