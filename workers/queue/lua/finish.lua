-- End a job that this attempt owns. Repeating it is success.
-- ARGV: id, attempt, status, iso, keep, error code or "", message, exc, artifacts or "", seconds of encoding or "".
-- Returns {"ok", flat record} | {"lost"} | {"gone"}.
local id, attempt, status, iso, keep, code, message, exc, artifacts, encode = unpack(ARGV)
local why = not_owned(id, attempt)
if why then
  local r = redis.call('HMGET', job_key(id), 'status', 'attempt')
  if r[1] ~= status or r[2] ~= attempt then return {why} end
else
  local o = {iso = iso, keep = keep, exc = exc}
  if code ~= '' then o.code, o.message = code, message end
  if artifacts ~= '' then o.artifacts = artifacts end
  if encode ~= '' then o.encode = encode end
  finish(id, status, o)
end
return {'ok', redis.call('HGETALL', job_key(id))}
