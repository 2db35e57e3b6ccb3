-- Append one batch of a supervisor: events, tasks and its place in the log move together or not at all.
-- KEYS: run events tasks
-- ARGV: run_id fence batch place progress ('' when unchanged) max_cost max_bytes max_tasks nonce
--       event_count (cost body)... (task_index task_json)...
-- Returns one of: ok again (this very batch is kept already) moved (another batch was expected) fenced missing.
local run_key, events_key, tasks_key = KEYS[1], KEYS[2], KEYS[3]
local run_id, batch, max_tasks, count = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[8]), tonumber(ARGV[10])

local have = redis.call('HMGET', run_key, 'fence', 'batch', 'status', 'nonce')
if not have[1] then return 'missing' end
if have[1] ~= ARGV[2] then return 'fenced' end
-- One of the same number may come late, from an earlier try of this supervisor that it has given up: it is not this one.
if tonumber(have[2]) == batch then return have[4] == ARGV[9] and 'again' or 'moved' end
-- Nothing comes after the end of a run, whoever took the lease just then.
if have[3] == 'succeeded' or have[3] == 'failed' or have[3] == 'cancelled' then return 'fenced' end
if tonumber(have[2]) ~= batch - 1 then return 'moved' end

redis.call('HSET', run_key, 'batch', batch, 'place', ARGV[4], 'nonce', ARGV[9])
if ARGV[5] ~= '' then redis.call('HSET', run_key, 'progress', ARGV[5]) end
local told = {}
for at = 11, 10 + 2 * count do told[#told + 1] = ARGV[at] end
if count > 0 then emit(run_key, events_key, run_id, told, tonumber(ARGV[6]), tonumber(ARGV[7])) end
local at = 11 + 2 * count
while at < #ARGV do
  redis.call('HSET', tasks_key, ARGV[at], ARGV[at + 1])
  if tonumber(ARGV[at]) > max_tasks then redis.call('HDEL', tasks_key, tonumber(ARGV[at]) - max_tasks) end
  at = at + 2
end
return 'ok'
