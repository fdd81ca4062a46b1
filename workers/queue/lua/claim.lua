-- Take the next job, by priority. Whatever in the lists is not waiting is dropped: duplicates, jobs that ended.
-- ARGV: worker, lease in seconds, iso, keep, RQ execution ttl, numerics by model (JSON). KEYS: queue lists.
-- Returns {id, record, units} as flat lists, or {} when nothing waits.
local worker, lease, iso, keep, ttl, numerics = unpack(ARGV)
local now = clock()

local function waiting(id)
  if field(id, 'status') ~= 'queued' then return false end
  local status = redis.call('HGET', rq_key(id), 'status')
  if status == 'canceled' then finish(id, 'cancelled', {iso = iso, keep = keep}) end -- by RQ's own cancel
  if status ~= 'queued' then return false end
  if past_deadline(id, now) then
    finish(id, 'failed', {iso = iso, keep = keep, code = 'deadline_exceeded', message = 'the deadline passed in the queue'})
    return false
  end
  return true
end

local function take(id, queue)
  local key = job_key(id)
  local attempt = redis.call('HINCRBY', key, 'attempt', 1)
  redis.call('HINCRBY', key, 'stalled_attempts', 1)
  redis.call('HSET', key, 'status', 'in_progress', 'claimed_at', stamp(now))
  redis.call('HSETNX', key, 'started_at', stamp(now))
  local noted = cjson.decode(numerics)[cjson.decode(field(id, 'spec')).model]
  if noted then redis.call('HSETNX', key, 'numerics', cjson.encode(noted)) end
  redis.call('ZADD', 'gridit:leases', now + lease, id)

  local execution = id .. ':' .. attempt
  redis.call('HSET', rq_key(id), 'status', 'started', 'started_at', iso, 'last_heartbeat', iso, 'worker_name', worker)
  redis.call('PERSIST', rq_key(id))
  redis.call('HSET', 'rq:execution:' .. execution, 'id', attempt, 'job_id', id, 'created_at', stamp(now),
    'last_heartbeat', stamp(now), 'worker_name', worker)
  redis.call('EXPIRE', 'rq:execution:' .. execution, ttl)
  redis.call('ZADD', 'rq:executions:' .. id, now + ttl, attempt)
  redis.call('EXPIRE', 'rq:executions:' .. id, ttl)
  -- Without an expiry: RQ's own clean-up, which any `rq info` runs, is not atomic and must never see one as abandoned.
  redis.call('ZADD', 'rq:wip:' .. string.sub(queue, 10), '+inf', execution)
  redis.call('SADD', 'rq:worker:' .. worker .. ':executions', execution)
  redis.call('EXPIRE', 'rq:worker:' .. worker .. ':executions', ttl)
  if redis.call('EXISTS', 'rq:worker:' .. worker) == 1 then
    redis.call('HSET', 'rq:worker:' .. worker, 'state', 'busy')
  end
  emit(id, 'video.started', cjson.encode({attempt = attempt}), stamp(now))
  return {id, redis.call('HGETALL', key), redis.call('HGETALL', key .. ':units')}
end

if redis.call('EXISTS', 'rq:suspended') == 1 then return {} end -- by `rq suspend`
for _, queue in ipairs(KEYS) do
  local id = redis.call('LPOP', queue)
  while id do
    if waiting(id) then return take(id, queue) end
    id = redis.call('LPOP', queue)
  end
end
return {}
