-- Shared by every script: an event is numbered, kept and published in one step.
local CHANNEL = 'nfc:events'

local function emit(run_key, events_key, run_id, cost, body)
  local id = redis.call('HINCRBY', run_key, 'seq', 1)
  redis.call('XADD', events_key, id .. '-0', 'cost', cost, 'body', body)
  redis.call('HINCRBY', run_key, 'kept_cost', cost)
  redis.call('HINCRBY', run_key, 'kept_bytes', #body)
  redis.call('PUBLISH', CHANNEL, run_id .. ' ' .. id .. ' ' .. body)
  return id
end

-- Drop the oldest events until the rest is within both bounds. The newest one always stays.
local function trim(run_key, events_key, max_cost, max_bytes)
  local kept = redis.call('HMGET', run_key, 'kept_cost', 'kept_bytes', 'seq')
  local cost, bytes, newest = tonumber(kept[1] or 0), tonumber(kept[2] or 0), (kept[3] or 0) .. '-0'
  if cost <= max_cost and bytes <= max_bytes then return end
  local done = false
  while not done do
    local gone = {}
    for _, entry in ipairs(redis.call('XRANGE', events_key, '-', '+', 'COUNT', 50)) do
      done = (cost <= max_cost and bytes <= max_bytes) or entry[1] == newest
      if done then break end
      cost = cost - tonumber(entry[2][2])
      bytes = bytes - #entry[2][4]
      gone[#gone + 1] = entry[1]
    end
    if #gone > 0 then redis.call('XDEL', events_key, unpack(gone)) else done = true end
  end
  redis.call('HSET', run_key, 'kept_cost', cost, 'kept_bytes', bytes)
end

