-- Take the job that goes first among those this worker can run (workers/queue/line.py); what does not wait is dropped.
-- ARGV: worker, lease in seconds, iso, keep, RQ execution ttl, numerics by model it serves (JSON), seconds that it
-- needs for a row (or ""), seconds of waiting that earn a turn, claims to a turn.
-- Returns {id, record, units, seconds to its deadline or ""} with flat lists, or {} when nothing is for it.
local worker, lease, iso, keep, ttl, numerics, pace, aging, turn = unpack(ARGV)
local now, served = clock(), cjson.decode(numerics)
local lines = {} -- those of the jobs that this worker may run, with their models, by priority
for _, priority in ipairs(PRIORITIES) do
  lines[priority] = {}
  for model, mine in pairs(served) do
    lines[priority][priority .. ':' .. model] = model
    lines[priority][priority .. ':' .. model .. '@' .. mine.bundle_hash] = model
  end
end

-- Beats no older than this are believed: seconds.
local function fresh(beaten) return beaten and now - tonumber(beaten) < tonumber(lease) end

local function in_hand(name) return redis.call('SCARD', 'rq:worker:' .. name .. ':executions') end

-- Whether another worker would be done with a job sooner, so that this one leaves it in line. It waits for one that has
-- room, but not for long unless that one asks for jobs (it may not: its store is away, it tries a suspect); and for a
-- full one only while it has something in hand itself. One that does not know its own pace yet takes a single job.
-- Simulated by workers/simulate/sharing.py.
local function better_elsewhere(id, model)
  local mine, begun = in_hand(worker), field(id, 'numerics')
  local idle, late = mine == 0, now - tonumber(field(id, 'queued_at')) > 2
  if idle and (pace == '' or late) then return false end
  for _, key in ipairs(redis.call('SMEMBERS', 'rq:workers')) do
    local name = string.sub(key, 11)
    local r = redis.call('HMGET', 'gridit:worker:' .. name, 'beaten_at', 'phase', 'slots', 'row_seconds', 'hashes')
    if name ~= worker and fresh(r[1]) and r[2] == '"ready"' then
      local hash, held = cjson.decode(r[5])[model], in_hand(name)
      local can = hash and (not begun or cjson.decode(begun).bundle_hash == hash)
      if can and pace == '' then return true end
      local theirs = tonumber(r[4]) or tonumber(pace) -- not measured yet: taken for as fast as this one
      local awaited = not idle
      if held < tonumber(r[3]) then awaited = not late or redis.call('EXISTS', 'gridit:asks:' .. name) == 1 end
      if can and awaited and (held + 1) * theirs < 0.95 * (mine + 1) * tonumber(pace) then return true end
    end
  end
  return false
end

local function waiting(id)
  if field(id, 'status') ~= 'queued' then return false end
  local status = redis.call('HGET', rq_key(id), 'status')
  if status ~= 'queued' then -- cancelled or deleted by RQ's own tools
    finish(id, 'cancelled', {iso = iso, keep = keep})
    return false
  end
  if past_deadline(id, now) then
    finish(id, 'failed', {iso = iso, keep = keep, code = 'deadline_exceeded', message = 'the deadline passed in the queue'})
    return false
  end
  return true
end

-- One suspect at a time: it must prove itself alone before this worker takes another.
local trying = tries_suspect(worker)

-- The first of a line that may be taken, and its tag; nil if there is none.
local function front(line)
  local entries = redis.call('ZRANGE', line_key(line), 0, trying and 255 or 0, 'WITHSCORES')
  for i = 1, #entries, 2 do
    if not (trying and is_suspect(entries[i])) then return entries[i], tonumber(entries[i + 1]) end
  end
end

-- The first of a priority, or nil.
local function head(priority)
  local best
  for line, model in pairs(lines[priority]) do
    local id, tag = front(line)
    if id and (not best or tag < best.tag or (tag == best.tag and id < best.id)) then
      best = {id = id, tag = tag, model = model, line = line, priority = priority}
    end
  end
  return best
end

-- Whether the first of those in RQ's list that this worker may run has waited so long that its priority gets turns.
local function aged(priority)
  for _, id in ipairs(redis.call('LRANGE', 'rq:queue:gridit-' .. priority, 0, 63)) do
    local line = field(id, 'line')
    if line and lines[priority][cjson.decode(line)] then
      return now - tonumber(field(id, 'created_at')) >= tonumber(aging)
    end
  end
  return false
end

-- Between priorities: the highest, unless it is a lower one's turn.
local function first()
  local best
  for i = #PRIORITIES, 1, -1 do
    local priority = PRIORITIES[i]
    best = head(priority) or best
    local passed = tonumber(redis.call('HGET', 'gridit:turns', priority) or 0)
    if best and best.priority == priority and passed >= turn - 1 and aged(priority) then break end
  end
  return best
end

-- The claim is this priority's; lower ones that have grown old are a claim nearer to their turn.
local function count_turns(priority)
  redis.call('HDEL', 'gridit:turns', priority)
  for i = #PRIORITIES, 1, -1 do
    if PRIORITIES[i] == priority then return end
    if aged(PRIORITIES[i]) then redis.call('HINCRBY', 'gridit:turns', PRIORITIES[i], 1) end
  end
end

local function take(entry)
  local id = entry.id
  local key, queue = job_key(id), 'gridit-' .. entry.priority
  count_turns(entry.priority)
  leave_line(id)
  redis.call('LREM', 'rq:queue:' .. queue, 0, id)
  if redis.call('EXISTS', 'gridit:tenants:' .. entry.priority) == 1 then
    local virtual = math.max(entry.tag, tonumber(redis.call('HGET', 'gridit:virtual', entry.priority) or 0))
    redis.call('HSET', 'gridit:virtual', entry.priority, string.format('%.17g', virtual))
    redis.call('ZREMRANGEBYSCORE', 'gridit:tenants:' .. entry.priority, '-inf', string.format('%.17g', virtual))
  end
  local attempt = redis.call('HINCRBY', key, 'attempt', 1)
  redis.call('HINCRBY', key, 'stalled_attempts', 1)
  redis.call('HSET', key, 'status', 'in_progress', 'claimed_at', stamp(now))
  redis.call('HSETNX', key, 'started_at', stamp(now))
  redis.call('HSETNX', key, 'numerics', cjson.encode(served[entry.model]))
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
  redis.call('ZADD', 'rq:wip:' .. queue, '+inf', execution)
  redis.call('SADD', 'rq:worker:' .. worker .. ':executions', execution)
  redis.call('EXPIRE', 'rq:worker:' .. worker .. ':executions', ttl)
  if redis.call('EXISTS', 'rq:worker:' .. worker) == 1 then
    redis.call('HSET', 'rq:worker:' .. worker, 'state', 'busy')
  end
  emit(id, 'video.started', cjson.encode({attempt = attempt}), stamp(now))
  local deadline = redis.call('ZSCORE', 'gridit:deadlines', id)
  local left = deadline and stamp(math.max(0, deadline - now)) or ''
  return {id, redis.call('HGETALL', key), redis.call('HGETALL', key .. ':units'), left}
end

-- Told with each claim, not only with each beat: others share by it at once.
if pace ~= '' and redis.call('EXISTS', 'gridit:worker:' .. worker) == 1 then
  redis.call('HSET', 'gridit:worker:' .. worker, 'row_seconds', pace)
end
if not trying then redis.call('SET', 'gridit:asks:' .. worker, 1, 'PX', 2000) end
if redis.call('EXISTS', 'rq:suspended') == 1 then return {} end -- by `rq suspend`
local entry = first()
while entry do
  if waiting(entry.id) then
    if better_elsewhere(entry.id, entry.model) then return {} end
    return take(entry)
  end
  redis.call('ZREM', line_key(entry.line), entry.id)
  if redis.call('EXISTS', line_key(entry.line)) == 0 then forget_line(entry.line) end
  entry = first()
end
return {}
