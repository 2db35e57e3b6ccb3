-- Append one batch of a supervisor: events, tasks and its place in the log move together or not at all.
-- KEYS: run events tasks
-- ARGV: run_id fence batch place progress ('' when unchanged) max_cost max_bytes max_tasks
--       event_count (cost body)... (task_index task_json)...
-- Returns one of: ok again (this batch is kept already) moved (another batch was expected) fenced missing.
local run_key, events_key, tasks_key = KEYS[1], KEYS[2], KEYS[3]
local run_id, batch, max_tasks, count = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[8]), tonumber(ARGV[9])

local have = redis.call('HMGET', run_key, 'fence', 'batch', 'status')
if not have[1] then return 'missing' end
if have[1] ~= ARGV[2] then return 'fenced' end
if tonumber(have[2]) == batch then return 'again' end
-- Nothing comes after the end of a run, whoever took the lease just then.
if have[3] == 'succeeded' or have[3] == 'failed' or have[3] == 'cancelled' then return 'fenced' end
if tonumber(have[2]) ~= batch - 1 then return 'moved' end

redis.call('HSET', run_key, 'batch', batch, 'place', ARGV[4])
if ARGV[5] ~= '' then redis.call('HSET', run_key, 'progress', ARGV[5]) end
local at = 10
for _ = 1, count do
  emit(run_key, events_key, run_id, tonumber(ARGV[at]), ARGV[at + 1])
  at = at + 2
end
trim(run_key, events_key, tonumber(ARGV[6]), tonumber(ARGV[7]))
while at < #ARGV do
  redis.call('HSET', tasks_key, ARGV[at], ARGV[at + 1])
  if tonumber(ARGV[at]) > max_tasks then redis.call('HDEL', tasks_key, tonumber(ARGV[at]) - max_tasks) end
  at = at + 2
end
return 'ok'
