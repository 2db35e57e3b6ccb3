-- Tell how many sockets this process has, unless that makes too many. The field of a process that has not
-- been heard of for a while goes.
-- KEYS: viewers
-- ARGV: process count now stale_seconds limit (0 for none)
-- Returns {admitted, total}.
local total, now = tonumber(ARGV[2]), tonumber(ARGV[3])
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local count, at = string.match(fields[i + 1], '^(%d+) (%d+)$')
  if tonumber(at) < now - tonumber(ARGV[4]) then
    redis.call('HDEL', KEYS[1], fields[i])
  elseif fields[i] ~= ARGV[1] then
    total = total + tonumber(count)
  end
end
if tonumber(ARGV[5]) > 0 and total > tonumber(ARGV[5]) then return {0, total} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. now)
redis.call('EXPIRE', KEYS[1], 60)
return {1, total}
