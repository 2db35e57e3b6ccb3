-- Who supervises a run. Each acquisition raises the fence, so a forgotten holder can no longer write.
-- KEYS: lease run
-- ARGV: operation (acquire, renew, release, bury) fence milliseconds holder (a name of the process; bury: the dead one's)
-- Returns {'ok', fence, status}, {'held'}, {'fenced'} or {'missing'}.
local lease_key, run_key = KEYS[1], KEYS[2]
local operation, fence = ARGV[1], ARGV[2]
local have = redis.call('HMGET', run_key, 'fence', 'status')
if not have[1] then return {'missing'} end

if operation == 'acquire' then
  if redis.call('EXISTS', lease_key) == 1 then return {'held'} end
  fence = tostring(redis.call('HINCRBY', run_key, 'fence', 1))
elseif operation == 'bury' then
  if redis.call('GET', lease_key) == ARGV[4] then redis.call('DEL', lease_key) end
  return {'ok', have[1], have[2]}
elseif have[1] ~= fence then
  return {'fenced'}
end
if operation == 'release' then
  redis.call('DEL', lease_key)
else
  redis.call('SET', lease_key, ARGV[4], 'PX', ARGV[3])
end
return {'ok', fence, have[2]}
