-- Shared by every script: events are numbered, kept and published in one step, and the oldest are dropped.
local CHANNEL = 'nfc:events'

-- Drop the oldest events until the rest is within both bounds. The newest one always stays. Returns what is left.
-- It looks at `look` events first, which are read whole, and at more if that was not enough.
local function trimmed(events_key, newest, cost, bytes, max_cost, max_bytes, look)
  look = math.min(look, 50)
  local done = cost <= max_cost and bytes <= max_bytes
  while not done do
    local gone = {}
    for _, entry in ipairs(redis.call('XRANGE', events_key, '-', '+', 'COUNT', look)) do
      done = (cost <= max_cost and bytes <= max_bytes) or entry[1] == newest
      if done then break end
      cost = cost - tonumber(entry[2][2])
      bytes = bytes - #entry[2][4]
      gone[#gone + 1] = entry[1]
    end
    if #gone > 0 then redis.call('XDEL', events_key, unpack(gone)) else done = true end
    look = math.min(2 * look, 50)
  end
  return cost, bytes
end

-- `told` is a list of cost and body in turns.
local function emit(run_key, events_key, run_id, told, max_cost, max_bytes)
  local have = redis.call('HMGET', run_key, 'seq', 'kept_cost', 'kept_bytes')
  local seq, cost, bytes = tonumber(have[1] or 0), tonumber(have[2] or 0), tonumber(have[3] or 0)
  for i = 1, #told, 2 do
    local body = told[i + 1]
    seq = seq + 1
    redis.call('XADD', events_key, seq .. '-0', 'cost', told[i], 'body', body)
    redis.call('PUBLISH', CHANNEL, run_id .. ' ' .. seq .. ' ' .. body)
    cost, bytes = cost + tonumber(told[i]), bytes + #body
  end
  -- About as many go as come; one more tells that they were enough.
  cost, bytes = trimmed(events_key, seq .. '-0', cost, bytes, max_cost, max_bytes, #told / 2 + 1)
  redis.call('HSET', run_key, 'seq', seq, 'kept_cost', cost, 'kept_bytes', bytes)
end

-- The score of a new member: its time in milliseconds, but later than all that are there, whatever the clock does.
local function after_all(key, milliseconds)
  local newest = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]
  if not newest then return milliseconds end
  return string.format('%.0f', math.max(tonumber(milliseconds), tonumber(newest) + 1))
end
