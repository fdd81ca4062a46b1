-- Place in line, 1 is next; false if the job does not wait. ARGV: id.
local ahead = jobs_ahead(ARGV[1])
return ahead and ahead + 1
