-- Queue a job, or find that it was queued before: all or nothing.
-- ARGV: id, body digest, idempotency key or "", its seconds, bound, deadline in seconds or "", priority, tenant, cost,
-- number of values of the record, those of the record, those of RQ's hash. KEYS: queue lists by priority, its own last.
-- Returns {"created", position} | {"exists", id} | {"mismatch"} | {"full", waiting}.
local id, digest, idempotency, remember, bound, deadline, priority, tenant, cost, n = unpack(ARGV, 1, 10)

local function same(other, known)
  if known == digest then return {'exists', other} end
  return {'mismatch'}
end

if idempotency ~= '' then
  local known = redis.call('GET', idempotency)
  if known then
    known = cjson.decode(known)
    if redis.call('EXISTS', job_key(known.job)) == 1 then return same(known.job, known.digest) end
  end
end
local recorded = field(id, 'body_digest')
if recorded then return same(id, cjson.decode(recorded)) end

-- The later of the virtual time and the end of the tenant's previous job.
local function next_tag()
  local virtual = tonumber(redis.call('HGET', 'gridit:virtual', priority) or 0)
  local before = tonumber(redis.call('ZSCORE', 'gridit:tenants:' .. priority, tenant) or 0)
  local tag = math.max(virtual, before)
  redis.call('ZADD', 'gridit:tenants:' .. priority, string.format('%.17g', tag + cost), tenant)
  return tag
end

local own, waiting = KEYS[#KEYS], 0
for i = 1, #KEYS - 1 do waiting = waiting + redis.call('LLEN', KEYS[i]) end
if waiting >= tonumber(bound) then return {'full', waiting} end

n = tonumber(n)
local now = clock()
redis.call('DEL', job_key(id) .. ':events') -- of a deleted job that had this id
redis.call('HSET', job_key(id), unpack(ARGV, 11, 10 + n))
redis.call('HSET', job_key(id), 'created_at', stamp(now), 'body_digest', cjson.encode(digest))
hold(id, reference_bytes(id))
-- A deleted job had this id, and its worker may not know yet: attempts go on, so that its writes are not taken for ours.
local before = redis.call('GETDEL', job_key(id) .. ':attempt')
if before then redis.call('HSET', job_key(id), 'attempt', before) end
redis.call('ZADD', 'gridit:jobs', now, id)
redis.call('HSET', rq_key(id), unpack(ARGV, 11 + n))
redis.call('SADD', 'rq:queues', own)
redis.call('RPUSH', own, id)
enter_line(id, next_tag())
local position = jobs_ahead(id) + 1
if deadline ~= '' then redis.call('ZADD', 'gridit:deadlines', now + deadline, id) end
if idempotency ~= '' then
  redis.call('SET', idempotency, cjson.encode({job = id, digest = digest}), 'EX', remember)
end
emit(id, 'video.queued', cjson.encode({position = position}), stamp(now))
redis.call('PUBLISH', 'gridit:wake', id)
return {'created', position}
