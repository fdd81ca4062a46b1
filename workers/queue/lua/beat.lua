-- A worker's heartbeat: its state, its lease on each job in hand, and what it must know of them.
-- ARGV: worker, lease in seconds, iso, RQ ttl, number of values of its state, those, then (id, attempt) of each job.
-- Returns {1 while RQ knows the worker else 0, verdict of each job}: ok | cancel | deadline | lost | gone.
local worker, lease, iso, ttl, n = unpack(ARGV, 1, 5)
local now = clock()
n = tonumber(n)
redis.call('HSET', 'gridit:worker:' .. worker, unpack(ARGV, 6, 5 + n))
redis.call('HSET', 'gridit:worker:' .. worker, 'beaten_at', stamp(now))
redis.call('EXPIRE', 'gridit:worker:' .. worker, math.ceil(lease * 2))
local known = redis.call('EXISTS', 'rq:worker:' .. worker)
if known == 1 then
  redis.call('HSET', 'rq:worker:' .. worker, 'last_heartbeat', iso,
    'state', #ARGV > 5 + n and 'busy' or 'idle')
  redis.call('EXPIRE', 'rq:worker:' .. worker, ttl)
end
redis.call('EXPIRE', 'rq:worker:' .. worker .. ':executions', ttl)

local function beat(id, attempt)
  local why = not_owned(id, attempt)
  if why then return why end
  redis.call('ZADD', 'gridit:leases', now + lease, id)
  local execution = 'rq:execution:' .. id .. ':' .. attempt
  redis.call('HSET', execution, 'id', attempt, 'job_id', id, 'last_heartbeat', stamp(now), 'worker_name', worker)
  redis.call('HSETNX', execution, 'created_at', stamp(now))
  redis.call('EXPIRE', execution, ttl)
  redis.call('ZADD', 'rq:executions:' .. id, now + ttl, attempt)
  redis.call('EXPIRE', 'rq:executions:' .. id, ttl)
  local status = redis.call('HGET', rq_key(id), 'status')
  redis.call('HSET', rq_key(id), 'last_heartbeat', iso)
  if status ~= 'started' or field(id, 'cancel_requested_at') then return 'cancel' end
  if past_deadline(id, now) then return 'deadline' end
  return 'ok'
end

local reply = {known}
for i = 6 + n, #ARGV, 2 do reply[#reply + 1] = beat(ARGV[i], ARGV[i + 1]) end
return reply
