-- Shared by every script: it is put in front of each. All of a job's changes of state are here.
-- Times come from this server's clock, so no two machines' clocks are ever compared. Keys are named in
-- workers/contracts/keys.py and, those that begin with "rq:", by RQ; a job's RQ execution id is its attempt.

local PRIORITIES = {'high', 'normal', 'low'}

local function job_key(id) return 'gridit:job:' .. id end
local function rq_key(id) return 'rq:job:' .. id end

local function clock()
  local t = redis.call('TIME')
  return t[1] + t[2] / 1000000
end

local function stamp(seconds) return string.format('%.6f', seconds) end

local function field(id, name) return redis.call('HGET', job_key(id), name) end

-- Append an event under the next number and ring the doorbell. Numbers are dense from 1.
local function emit(id, kind, data, at)
  local seq = redis.call('HINCRBY', job_key(id), 'seq', 1)
  redis.call('XADD', job_key(id) .. ':events', seq .. '-0', 'type', kind, 'at', at, 'data', data)
  redis.call('PUBLISH', 'gridit:live', cjson.encode({job = id, seq = seq, type = kind, at = at, data = data}))
end

-- Where a job waits: a sorted set for each priority and model; a job that was begun waits only for its own bundle.
-- Scores are tags of start-time fair queueing (workers/queue/line.py); those of begun jobs come before all others.
local function line_of(id)
  local r = redis.call('HMGET', job_key(id), 'spec', 'numerics')
  local spec = cjson.decode(r[1])
  local line = spec.priority .. ':' .. spec.model
  if r[2] then line = line .. '@' .. cjson.decode(r[2]).bundle_hash end
  return line
end

local function line_key(line) return 'gridit:line:' .. line end

local function enter_line(id, tag)
  local line = line_of(id)
  redis.call('ZADD', line_key(line), string.format('%.17g', tag), id)
  redis.call('SADD', 'gridit:lines', line)
  redis.call('HSET', job_key(id), 'line', cjson.encode(line), 'queued_at', stamp(clock()))
end

-- When nothing waits any more at a priority, its accounts begin anew.
local function forget_line(line)
  redis.call('SREM', 'gridit:lines', line)
  local priority = string.match(line, '^[^:]+')
  for _, other in ipairs(redis.call('SMEMBERS', 'gridit:lines')) do
    if string.match(other, '^[^:]+') == priority then return end
  end
  redis.call('HDEL', 'gridit:virtual', priority)
  redis.call('HDEL', 'gridit:turns', priority)
  redis.call('DEL', 'gridit:tenants:' .. priority)
end

local function leave_line(id)
  local line = field(id, 'line')
  if not line then return end
  line = cjson.decode(line)
  redis.call('HDEL', job_key(id), 'line', 'queued_at')
  if redis.call('ZREM', line_key(line), id) == 1 and redis.call('EXISTS', line_key(line)) == 0 then forget_line(line) end
end

-- Jobs that are claimed before this one, if all workers served all models; nil if it does not wait.
local function jobs_ahead(id)
  local line = field(id, 'line')
  if not line then return nil end
  line = cjson.decode(line)
  local own = string.match(line, '^[^:]+')
  local tag = redis.call('ZSCORE', line_key(line), id)
  local ahead = redis.call('ZRANK', line_key(line), id)
  for _, priority in ipairs(PRIORITIES) do
    if priority == own then break end
    ahead = ahead + redis.call('LLEN', 'rq:queue:gridit-' .. priority)
  end
  for _, other in ipairs(redis.call('SMEMBERS', 'gridit:lines')) do
    if other ~= line and string.match(other, '^[^:]+') == own then
      ahead = ahead + redis.call('ZCOUNT', line_key(other), '-inf', '(' .. tag)
    end
  end
  return ahead
end

-- Note what a job's files hold, in bytes; the sum over all jobs changes with it.
local function hold(id, bytes)
  local change = bytes - tonumber(field(id, 'stored_bytes') or 0)
  redis.call('HSET', job_key(id), 'stored_bytes', string.format('%d', bytes))
  if redis.call('INCRBY', 'gridit:stored', string.format('%d', change)) == 0 then redis.call('DEL', 'gridit:stored') end
end

local function reference_bytes(id)
  local reference = cjson.decode(field(id, 'spec')).input_reference
  return reference and reference ~= cjson.null and reference.bytes or 0
end

-- Of a unit's record as JSON, or of none.
local function unit_bytes(record)
  if not record then return 0 end
  record = cjson.decode(record)
  local sum = record.result and record.result ~= cjson.null and record.result.bytes or 0
  for _, frame in ipairs(record.frames) do sum = sum + frame.bytes end
  return sum
end

-- nil when this attempt owns the running job; else "gone" or "lost". Fences every write of a worker.
local function not_owned(id, attempt)
  local r = redis.call('HMGET', job_key(id), 'status', 'attempt')
  if not r[1] then return 'gone' end
  if r[1] ~= 'in_progress' or r[2] ~= attempt then return 'lost' end
  return nil
end

-- Take the job off its worker: lease, execution, started registry.
local function leave(id)
  local r = redis.call('HMGET', rq_key(id), 'origin', 'worker_name')
  local execution = id .. ':' .. (field(id, 'attempt') or '0')
  redis.call('ZREM', 'gridit:leases', id)
  redis.call('DEL', 'rq:execution:' .. execution, 'rq:executions:' .. id)
  if r[1] then redis.call('ZREM', 'rq:wip:' .. r[1], execution) end
  if r[2] and r[2] ~= '' then redis.call('SREM', 'rq:worker:' .. r[2] .. ':executions', execution) end
end

-- Back to the front of its queue: before all that were never begun, the oldest first.
local function requeue(id)
  leave(id)
  enter_line(id, tonumber(field(id, 'created_at')) - 1e12)
  redis.call('HSET', job_key(id), 'status', 'queued')
  redis.call('HSET', rq_key(id), 'status', 'queued', 'started_at', '', 'worker_name', '')
  redis.call('LPUSH', 'rq:queue:' .. redis.call('HGET', rq_key(id), 'origin'), id)
  redis.call('PUBLISH', 'gridit:wake', id)
end

-- Seconds of each stage, from the times that claim and publish noted.
local function durations(id, encode)
  local r = redis.call('HMGET', job_key(id), 'created_at', 'started_at', 'coarse_ready_at', 'refine_started_at',
    'refined_at')
  local d = {}
  if r[2] then d.queue = r[2] - r[1] end
  if r[2] and r[3] then d.coarse = r[3] - r[2] end
  if r[4] and r[5] then d.refine = r[5] - r[4] end
  if encode then d.encode = tonumber(encode) end
  return next(d) and cjson.encode(d) or '{}'
end

-- RQ's side of the end: status, registry, result, and the worker's counters while it is known.
local function settle(id, status, was_running, o, now)
  local key = rq_key(id)
  local origin, worker = unpack(redis.call('HMGET', key, 'origin', 'worker_name'))
  if not origin then return end -- deleted by RQ's own tools
  leave(id)
  redis.call('LREM', 'rq:queue:' .. origin, 0, id)
  local outcome = ({completed = {'finished', 'finished', 1}, failed = {'failed', 'failed', 2}})[status]
    or (was_running and {'stopped', 'failed', 3} or {'canceled', 'canceled'})
  redis.call('HSET', key, 'status', outcome[1], 'ended_at', o.iso)
  redis.call('EXPIRE', key, o.keep)
  redis.call('ZADD', 'rq:' .. outcome[2] .. ':' .. origin, now + o.keep, id)
  if outcome[3] then
    local result = {'type', outcome[3], 'worker_name', worker or ''}
    if was_running then
      for _, v in ipairs({'execution_id', field(id, 'attempt'), 'execution_ended_at', stamp(now)}) do
        result[#result + 1] = v
      end
    end
    if o.exc and o.exc ~= '' then
      result[#result + 1] = 'exc_string'
      result[#result + 1] = o.exc
    end
    redis.call('XADD', 'rq:results:' .. id, 'MAXLEN', 10, '*', unpack(result))
    redis.call('EXPIRE', 'rq:results:' .. id, o.keep)
  end
  if was_running and worker and redis.call('EXISTS', 'rq:worker:' .. worker) == 1 then
    local counter = status == 'completed' and 'successful_job_count' or 'failed_job_count'
    redis.call('HINCRBY', 'rq:worker:' .. worker, counter, 1)
    local started = field(id, 'claimed_at')
    if started then redis.call('HINCRBYFLOAT', 'rq:worker:' .. worker, 'total_working_time', stamp(now - started)) end
  end
end

-- The only way into a terminal state, and the only writer of terminal events.
-- o: iso, keep (whole seconds); optional code, message, exc, artifacts, encode.
local function finish(id, status, o)
  local now = clock()
  local was_running = field(id, 'status') == 'in_progress'
  leave_line(id)
  settle(id, status, was_running, o, now)
  redis.call('HSET', job_key(id), 'status', status, 'completed_at', stamp(now), 'expires_at', stamp(now + o.keep),
    'stage_durations', durations(id, o.encode))
  if o.code then
    redis.call('HSET', job_key(id), 'error', cjson.encode({code = o.code, message = o.message}))
  end
  local kept = reference_bytes(id) + tonumber(field(id, 'published_bytes') or 0)
  if o.artifacts then
    redis.call('HSET', job_key(id), 'artifacts', o.artifacts)
    for _, artifact in pairs(cjson.decode(o.artifacts)) do kept = kept + artifact.bytes end
  end
  hold(id, kept) -- raw results and unpublished frames are litter
  redis.call('DEL', job_key(id) .. ':units')
  redis.call('ZREM', 'gridit:leases', id)
  redis.call('ZREM', 'gridit:deadlines', id)
  redis.call('ZADD', 'gridit:expiry', now + o.keep, id)
  redis.call('ZADD', 'gridit:litter', now, id)
  emit(id, 'video.' .. status, '{}', stamp(now))
end

local function is_suspect(id) return field(id, 'suspect') == 'true' end

-- Whether a worker has a suspect in hand: that one runs alone, and whatever happens is not the others' doing.
local function tries_suspect(worker)
  for _, execution in ipairs(redis.call('SMEMBERS', 'rq:worker:' .. worker .. ':executions')) do
    local id, attempt = string.match(execution, '^(.*):(%d+)$')
    if id and is_suspect(id) and not not_owned(id, attempt) then return true end
  end
  return false
end

-- Somebody asked for its end, or deleted it by RQ's own tools.
local function unwanted(id) return field(id, 'cancel_requested_at') or redis.call('EXISTS', rq_key(id)) == 0 end

-- A claim that was not the job's own failure.
local function forgive(id)
  if tonumber(field(id, 'stalled_attempts')) > 0 then redis.call('HINCRBY', job_key(id), 'stalled_attempts', -1) end
end

-- Its worker is lost: queue it again, unless it was to be cancelled or has been lost too often. o.innocent: it waited
-- while a suspect ran alone.
local function lose(id, o)
  if unwanted(id) then
    finish(id, 'cancelled', {iso = o.iso, keep = o.keep})
    return 'cancelled'
  end
  if o.innocent then
    forgive(id)
    requeue(id)
    return 'queued'
  end
  redis.call('HSET', job_key(id), 'suspect', 'true')
  if tonumber(field(id, 'stalled_attempts')) >= tonumber(o.limit) then
    finish(id, 'failed', {iso = o.iso, keep = o.keep, code = 'worker_lost', message = o.message, exc = o.exc})
    return 'failed'
  end
  requeue(id)
  return 'queued'
end

local function past_deadline(id, now)
  local deadline = redis.call('ZSCORE', 'gridit:deadlines', id)
  return deadline and tonumber(deadline) <= now
end

-- Every trace of a finished job but its events, which readers may be at the end of.
local function purge(id)
  local origin = redis.call('HGET', rq_key(id), 'origin')
  if origin then
    for _, registry in ipairs({'finished', 'failed', 'canceled'}) do
      redis.call('ZREM', 'rq:' .. registry .. ':' .. origin, id)
    end
  end
  if field(id, 'stored_bytes') then hold(id, 0) end
  local attempt = tonumber(field(id, 'attempt') or 0)
  if attempt > 0 then redis.call('SET', job_key(id) .. ':attempt', attempt, 'EX', 3600) end
  redis.call('DEL', rq_key(id), 'rq:results:' .. id)
  redis.call('DEL', job_key(id), job_key(id) .. ':frames', job_key(id) .. ':units')
  redis.call('EXPIRE', job_key(id) .. ':events', 60)
  for _, index in ipairs({'jobs', 'leases', 'deadlines', 'expiry', 'litter'}) do redis.call('ZREM', 'gridit:' .. index, id) end
end
