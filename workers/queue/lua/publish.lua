-- Note a persisted unit and publish frames in order; only for the attempt that owns the job.
-- ARGV: id, attempt, total frames, unit key or "", unit record, its start, then (stage, index, object, event) of each frame.
-- A frame already published is success. Returns {"ok", coarse done, refined done, now} | {"lost"} | {"gone"}.
local id, attempt, total, unit, record, started = unpack(ARGV, 1, 6)
local why = not_owned(id, attempt)
if why then return {why} end
local key, now = job_key(id), clock()
if unit ~= '' then
  local before = unit_bytes(redis.call('HGET', key .. ':units', unit))
  hold(id, tonumber(field(id, 'stored_bytes') or 0) + unit_bytes(record) - before)
  redis.call('HSET', key .. ':units', unit, record)
  redis.call('HSET', key, 'stalled_attempts', 0, 'suspect', 'false')
end
local done = {coarse = tonumber(field(id, 'coarse_done')), refined = tonumber(field(id, 'refined_done'))}

local function publish(stage, index, object, event)
  if index < done[stage] then return end
  if index > done[stage] then return 'frame out of order' end
  if stage == 'refined' and index >= done.coarse then return 'refined before coarse' end
  if stage == 'refined' and index == 0 then redis.call('HSETNX', key, 'refine_started_at', started) end
  redis.call('HSET', key .. ':frames', stage .. ':' .. index, object)
  redis.call('HINCRBY', key, 'published_bytes', cjson.decode(object).bytes)
  done[stage] = redis.call('HINCRBY', key, stage .. '_done', 1)
  emit(id, 'video.frame', event, stamp(now))
  if done[stage] == tonumber(total) then
    if stage == 'refined' then
      redis.call('HSET', key, 'refined_at', stamp(now))
    else
      redis.call('HSET', key, 'coarse_ready', 'true', 'coarse_ready_at', stamp(now))
      emit(id, 'video.coarse.ready', '{}', stamp(now))
    end
  end
end

for i = 7, #ARGV, 4 do
  local wrong = publish(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3])
  if wrong then return redis.error_reply('GRIDIT ' .. wrong .. ': ' .. ARGV[i] .. ' ' .. ARGV[i + 1]) end
end
return {'ok', done.coarse, done.refined, stamp(now)}
