-- How things stand, all of it at one moment. Nothing is changed.
-- KEYS: active latest ended queue viewers
-- ARGV: which (run, active, latest or none) run_id run_key_prefix
--       most_waiting (0: the id is all that is wanted) preview_lines
-- Returns {run_id ('' for none), {record, version, seq, progress}, the first kept event's id or '',
--          {entry, or record, of one that waits, in order}, {body of a log event, the newest first: as many as have so
--          many lines, among the newest forty events}, {a process's viewers}}.
local which, run_id, prefix = ARGV[1], ARGV[2], ARGV[3]
local function is_kept(id) return id and redis.call('EXISTS', prefix .. id) == 1 end

if which == 'active' or which == 'latest' then
  local active = redis.call('GET', KEYS[1])
  run_id = is_kept(active) and active or ''
end
if which == 'latest' and run_id == '' then
  local began = redis.call('GET', KEYS[2])
  local ended = redis.call('ZREVRANGE', KEYS[3], 0, 0)[1]  -- none is kept for longer than the last one
  run_id = is_kept(began) and began or is_kept(ended) and ended or ''
end

if ARGV[4] == '0' then return {run_id} end

local waiting = {}
for _, id in ipairs(redis.call('LRANGE', KEYS[4], 0, ARGV[4] - 1)) do
  local kept = redis.call('HMGET', prefix .. id, 'entry', 'version')
  -- One that an older service took in has none.
  if kept[2] then waiting[#waiting + 1] = kept[1] or redis.call('HGET', prefix .. id, 'record') end
end
local viewers = redis.call('HVALS', KEYS[5])
if run_id == '' then return {'', {}, '', waiting, {}, viewers} end

local events_key = prefix .. run_id .. ':events'
local first = redis.call('XRANGE', events_key, '-', '+', 'COUNT', 1)[1]
local newest, lines, from, looks = {}, 0, '+', 40
-- One at a time: an event of a run that says much has them all, and may be large.
while lines < tonumber(ARGV[5]) and looks > 0 do
  local entry = redis.call('XREVRANGE', events_key, from, '-', 'COUNT', 1)[1]
  if not entry then break end
  local body = entry[2][4]
  if string.find(body, '{"type":"log",', 1, true) == 1 then
    newest[#newest + 1], lines = body, lines + tonumber(entry[2][2])
  end
  from, looks = '(' .. entry[1], looks - 1
end
local fields = redis.call('HMGET', prefix .. run_id, 'record', 'version', 'seq', 'progress')
return {run_id, fields, first and first[1] or '', waiting, newest, viewers}
