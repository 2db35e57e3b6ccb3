-- Move a run: its record is replaced and the events of the move are kept, if nobody moved it first.
-- KEYS: run events active queue tasks totals ended latest
-- ARGV: run_id version fence ('' when the mover is no supervisor) status record
--       slot (keep, take or release) seconds_to_live max_cost max_bytes progress ('' when unchanged) now (ms) body...
-- Returns one of: ok stale fenced missing busy.
local run_key, events_key, active_key, queue_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local run_id, slot = ARGV[1], ARGV[6]

local have = redis.call('HMGET', run_key, 'version', 'fence')
if not have[1] then return 'missing' end
if ARGV[3] ~= '' and have[2] ~= ARGV[3] then return 'fenced' end
if have[1] ~= ARGV[2] then return 'stale' end

if slot == 'take' then
  if redis.call('EXISTS', active_key) == 1 then return 'busy' end
  if redis.call('LINDEX', queue_key, 0) ~= run_id then return 'stale' end
  redis.call('LPOP', queue_key)
  redis.call('SET', active_key, run_id)
  redis.call('SET', KEYS[8], run_id)
end

redis.call('HSET', run_key, 'status', ARGV[4], 'record', ARGV[5])
redis.call('HINCRBY', run_key, 'version', 1)
if ARGV[10] ~= '' then redis.call('HSET', run_key, 'progress', ARGV[10]) end
local told = {}
for i = 12, #ARGV do
  told[#told + 1] = 1
  told[#told + 1] = ARGV[i]
end
emit(run_key, events_key, run_id, told, tonumber(ARGV[8]), tonumber(ARGV[9]))

if slot == 'release' then
  if redis.call('GET', active_key) == run_id then redis.call('DEL', active_key) end
  redis.call('LREM', queue_key, 0, run_id)
  redis.call('HINCRBY', KEYS[6], ARGV[4], 1)
  redis.call('ZADD', KEYS[7], after_all(KEYS[7], ARGV[11]), run_id)
  for _, key in ipairs({run_key, events_key, KEYS[5]}) do redis.call('EXPIRE', key, ARGV[7]) end
end
return 'ok'
