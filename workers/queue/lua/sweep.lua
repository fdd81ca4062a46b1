-- What any live worker does for all: queue jobs whose lease has ended, fail waiting ones whose deadline has passed or
-- whose bundle was replaced, and take out of RQ's lists what does not wait (its tools may have put it there).
-- ARGV: attempt limit, iso, keep, message, exc, 1 if leases may be judged, bound on the bytes that jobs hold or "".
-- Returns {flat list of (id, what became of it), ids whose files must go, ids whose raw results were left when they
-- ended}.
local limit, iso, keep, message, exc, judge, bound = unpack(ARGV)
local o = {limit = limit, iso = iso, keep = keep, message = message, exc = exc}
local now, swept = clock(), {}
if judge == '1' then
  local ended, tried = redis.call('ZRANGEBYSCORE', 'gridit:leases', '-inf', stamp(now), 'LIMIT', 0, 100), {}
  for _, id in ipairs(ended) do
    local worker = redis.call('HGET', rq_key(id), 'worker_name')
    if worker and tried[worker] == nil then tried[worker] = tries_suspect(worker) end
  end
  for _, id in ipairs(ended) do
    o.innocent = tried[redis.call('HGET', rq_key(id), 'worker_name') or ''] and not is_suspect(id)
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
for _, priority in ipairs(PRIORITIES) do
  local queue = 'rq:queue:gridit-' .. priority
  for _, id in ipairs(redis.call('LRANGE', queue, 0, 199)) do
    if field(id, 'status') ~= 'queued' then redis.call('LREM', queue, 0, id) end
  end
end

-- A begun job waits for its very bundle. When workers have offered only another one of that name for this long, it ends.
local PATIENCE = 300
local offered = {}
for _, key in ipairs(redis.call('SMEMBERS', 'rq:workers')) do
  local hashes = redis.call('HGET', 'gridit:worker:' .. string.sub(key, 11), 'hashes')
  for model, hash in pairs(hashes and cjson.decode(hashes) or {}) do
    offered[model] = offered[model] or {}
    offered[model][hash] = true
  end
end
for _, line in ipairs(redis.call('SMEMBERS', 'gridit:lines')) do
  local model, hash = string.match(line, '^[^:]+:(.*)@([^@]*)$')
  if model and offered[model] and not offered[model][hash] then
    for _, id in ipairs(redis.call('ZRANGE', line_key(line), 0, 99)) do
      if now - tonumber(field(id, 'queued_at')) > PATIENCE then
        finish(id, 'failed', {iso = iso, keep = keep, code = 'bundle_unavailable',
          message = 'the bundle it was begun with is served no more, only another one of the same name'})
        swept[#swept + 1] = id
        swept[#swept + 1] = 'failed'
      end
    end
  end
end

-- Files go when their time is up and, above the bound, before it: those of the jobs that ended first.
local excess = bound ~= '' and tonumber(redis.call('GET', 'gridit:stored') or 0) - bound or 0
local expired, oldest = {}, redis.call('ZRANGE', 'gridit:expiry', 0, 19, 'WITHSCORES')
for i = 1, #oldest, 2 do
  if tonumber(oldest[i + 1]) > now and excess <= 0 then break end
  expired[#expired + 1] = oldest[i]
  excess = excess - tonumber(field(oldest[i], 'stored_bytes') or 0)
end
return {swept, expired,
  redis.call('ZRANGEBYSCORE', 'gridit:litter', '-inf', stamp(now - 5), 'LIMIT', 0, 20)}
