-- Forget a finished job whose files are gone. ARGV: id.
local status = field(ARGV[1], 'status')
if status ~= 'queued' and status ~= 'in_progress' then purge(ARGV[1]) end
