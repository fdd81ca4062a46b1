-- A worker is known to be dead: queue what it had in hand, and unregister it.
-- ARGV: worker, attempt limit, iso, keep, message, exc (the two for a job lost too often), "crash" | "outage".
-- Returns a flat list of (id, what became of it).
local worker, limit, iso, keep, message, exc, cause = unpack(ARGV)
local o = {limit = limit, iso = iso, keep = keep, message = message, exc = exc}
local reply = {}
local held = {}
local tried = tries_suspect(worker)
for _, execution in ipairs(redis.call('SMEMBERS', 'rq:worker:' .. worker .. ':executions')) do
  local id, attempt = string.match(execution, '^(.*):(%d+)$')
  if id and not not_owned(id, attempt) then held[#held + 1] = {id, tonumber(field(id, 'claimed_at'))} end
end
table.sort(held, function(a, b) return a[2] > b[2] end) -- each goes to the front: the first claimed last
for _, job in ipairs(held) do
  o.innocent = cause == 'outage' or (tried and not is_suspect(job[1]))
  reply[#reply + 1] = job[1]
  reply[#reply + 1] = lose(job[1], o)
end
local queues = redis.call('HGET', 'rq:worker:' .. worker, 'queues')
for queue in string.gmatch(queues or '', '[^,]+') do
  redis.call('SREM', 'rq:workers:' .. queue, 'rq:worker:' .. worker)
end
redis.call('SREM', 'rq:workers', 'rq:worker:' .. worker)
redis.call('DEL', 'rq:worker:' .. worker, 'rq:worker:' .. worker .. ':executions', 'gridit:worker:' .. worker)
return reply
