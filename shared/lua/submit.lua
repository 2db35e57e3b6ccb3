-- Take a run in: it gets the free slot, a place in the queue, or nothing. First come, first served.
-- KEYS: active queue history run events idempotency latest
-- ARGV: run_id when_busy starting_record starting_body queued_record queued_body score queue_limit
--       idempotency_fingerprint ('' for none) idempotency_seconds run_key_prefix entry (how it is listed while it waits)
-- Returns {outcome, run_id, position, replayed}: started queued attached busy full reused.
local active_key, queue_key, history_key = KEYS[1], KEYS[2], KEYS[3]
local run_key, events_key, idempotency_key = KEYS[4], KEYS[5], KEYS[6]
local run_id, when_busy = ARGV[1], ARGV[2]
local fingerprint = ARGV[9]

if fingerprint ~= '' then
  local prior = redis.call('HMGET', idempotency_key, 'fingerprint', 'run_id', 'outcome')
  if prior[1] and redis.call('EXISTS', ARGV[11] .. prior[2]) == 1 then
    if prior[1] ~= fingerprint then return {'reused', prior[2], 0} end
    local place = redis.call('LPOS', queue_key, prior[2])
    return {prior[3], prior[2], place and place + 1 or 0, 1}
  end
end
if redis.call('EXISTS', run_key) == 1 then  -- this very call, sent again because its answer was lost
  local place = redis.call('LPOS', queue_key, run_id)
  return {place and 'queued' or 'started', run_id, place and place + 1 or 0}
end

local ahead = redis.call('GET', active_key) or redis.call('LINDEX', queue_key, 0)
local outcome, target, position, status, record, body = nil, run_id, 0, nil, nil, nil
if not ahead then
  redis.call('SET', active_key, run_id)
  redis.call('SET', KEYS[7], run_id)
  outcome, status, record, body = 'started', 'starting', ARGV[3], ARGV[4]
elseif when_busy == 'attach' then
  outcome, target = 'attached', ahead
elseif when_busy == 'reject' then
  return {'busy', ahead, 0}
else
  position = redis.call('LLEN', queue_key) + 1
  if position > tonumber(ARGV[8]) then return {'full', '', position - 1} end
  redis.call('RPUSH', queue_key, run_id)
  redis.call('HSET', run_key, 'entry', ARGV[12])
  outcome, status, record, body = 'queued', 'queued', ARGV[5], ARGV[6]
end

if record then
  redis.call('HSET', run_key, 'record', record, 'status', status, 'version', 1, 'fence', 0, 'batch', 0)
  redis.call('ZADD', history_key, after_all(history_key, ARGV[7]), run_id)
  emit(run_key, events_key, run_id, {1, body}, math.huge, math.huge)
end
if fingerprint ~= '' then
  redis.call('HSET', idempotency_key, 'fingerprint', fingerprint, 'run_id', target, 'outcome', outcome)
  redis.call('EXPIRE', idempotency_key, ARGV[10])
end
return {outcome, target, position, 0}
