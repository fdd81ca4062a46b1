-- A worker is known to be dead: queue what it had in hand, and unregister it.
-- ARGV: worker, attempt limit, iso, keep, message, exc (the two for a job lost too often).
-- Returns a flat list of (id, what became of it).
local worker, limit, iso, keep, message, exc = unpack(ARGV)
local o = {limit = limit, iso = iso, keep = keep, message = message, exc = exc}
local reply = {}
for _, execution in ipairs(redis.call('SMEMBERS', 'rq:worker:' .. worker .. ':executions')) do
  local id, attempt = string.match(execution, '^(.*):(%d+)$')
  if id and not not_owned(id, attempt) then
    reply[#reply + 1] = id
    reply[#reply + 1] = lose(id, o)
  end
end
local queues = redis.call('HGET', 'rq:worker:' .. worker, 'queues')
for queue in string.gmatch(queues or '', '[^,]+') do
  redis.call('SREM', 'rq:workers:' .. queue, 'rq:worker:' .. worker)
end
redis.call('SREM', 'rq:workers', 'rq:worker:' .. worker)
redis.call('DEL', 'rq:worker:' .. worker, 'rq:worker:' .. worker .. ':executions', 'gridit:worker:' .. worker)
return reply
