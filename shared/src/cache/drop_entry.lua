-- Deletes content of a key that a reader rejected, unless it has changed since.
--   KEYS[1] the entry
--   ARGV[1] the first 64 bytes of version
--   ARGV[2] the length of json
--   ARGV[3] the first 64 bytes of mac; absent if the reader did not read it
-- Returns 1 deleted, 0 not.
local held = redis.pcall('HMGET', KEYS[1], 'version', 'mac')
if not held.err then
    if string.sub(held[1] or '', 1, 64) ~= ARGV[1] then return 0 end
    if ARGV[3] and string.sub(held[2] or '', 1, 64) ~= ARGV[3] then return 0 end
    if redis.call('HSTRLEN', KEYS[1], 'json') ~= tonumber(ARGV[2]) then return 0 end
end
return redis.call('DEL', KEYS[1])
