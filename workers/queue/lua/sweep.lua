-- What any live worker does for all: queue jobs whose lease has ended, fail waiting ones whose deadline has passed.
-- ARGV: attempt limit, iso, keep, message, exc, 1 if leases may be judged. Returns {flat list of (id, what became of it),
-- ids whose files have expired, ids whose raw results were left when they ended}.
local limit, iso, keep, message, exc, judge = unpack(ARGV)
local o = {limit = limit, iso = iso, keep = keep, message = message, exc = exc}
local now, swept = clock(), {}
if judge == '1' then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'gridit:leases', '-inf', stamp(now), 'LIMIT', 0, 100)) do
    if field(id, 'status') == 'in_progress' then
      swept[#swept + 1] = id
      swept[#swept + 1] = lose(id, o)
    else
      redis.call('ZREM', 'gridit:leases', id)
    end
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'gridit:deadlines', '-inf', stamp(now), 'LIMIT', 0, 100)) do
  if field(id, 'status') == 'queued' then
    finish(id, 'failed', {iso = iso, keep = keep, code = 'deadline_exceeded', message = 'the deadline passed in the queue'})
    swept[#swept + 1] = id
    swept[#swept + 1] = 'failed'
  end
end
return {swept, redis.call('ZRANGEBYSCORE', 'gridit:expiry', '-inf', stamp(now), 'LIMIT', 0, 20),
  redis.call('ZRANGEBYSCORE', 'gridit:litter', '-inf', stamp(now - 5), 'LIMIT', 0, 20)}
