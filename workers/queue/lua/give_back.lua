-- A stopping worker returns a job: to the front of its queue, at no cost to it. ARGV: id, attempt, iso, keep.
-- Returns "queued" | "cancelled" | "lost" | "gone".
local id, attempt, iso, keep = unpack(ARGV)
local why = not_owned(id, attempt)
if why then return why end
if unwanted(id) then
  finish(id, 'cancelled', {iso = iso, keep = keep})
  return 'cancelled'
end
forgive(id)
requeue(id)
return 'queued'
